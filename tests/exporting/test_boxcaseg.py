"""The graph of BoxCaseg against the model, at other sizes than it was traced at."""

from pathlib import Path

import numpy as np
import pytest
import torch

from boxel.exporting.boxcaseg import BoxCasegGraph
from boxel.exporting.onnx import trace
from boxel.models.onnx import OnnxBoxCaseg

PAPER = {"neck": "concat", "heads": ["weak", "salient", "transferred"], "box_channel": False}
OPTIONS = [
    {"backbone": "tf_efficientnet_lite0", **PAPER},
    {"backbone": "tf_efficientnet_lite0", "mix": "probabilities", "alpha": 0.6, **PAPER},
    {"margin": 0.15},
    {"fine_channels": 8},
    {"neighbor_channel": True},
]


@pytest.mark.slow
@pytest.mark.usefixtures("onnx_installed")
@pytest.mark.parametrize("options", OPTIONS, ids=["paper", "probabilities", "shared", "fine", "neighbors"])
def test_any_batch_and_size(boxcaseg, tmp_path: Path, options):
    model = boxcaseg(**options)
    if model.fine is not None:
        torch.nn.init.normal_(model.fine.correction.weight)
    if model.config.neighbor_channel:
        first = next(module for module in model.backbone.modules() if isinstance(module, torch.nn.Conv2d))
        torch.nn.init.normal_(first.weight)
    graph = BoxCasegGraph(model).eval()
    trace(graph, tmp_path / "model.onnx")
    assert not model.training
    exported = OnnxBoxCaseg(model, tmp_path / "model.onnx")
    for batch, side in ((1, 64), (5, 96), (2, 160)):
        inside = torch.rand(batch, side) > 0.3
        given = torch.rand(batch, 3, side, side), inside, inside.flip(1), torch.rand(batch, side, side)
        with torch.no_grad():
            expected = model.predict_logits(*given)
        found = exported.predict_logits(*given)
        stride = graph.metadata()["mask_stride"]
        assert found.shape == (batch, side // stride, side // stride)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3 * float(expected.std()))


@pytest.mark.slow
@pytest.mark.usefixtures("onnx_installed")
def test_it_takes_the_place_of_the_network(boxcaseg, pixels, tmp_path: Path):
    model = boxcaseg()
    trace(BoxCasegGraph(model).eval(), tmp_path / "model.onnx")
    boxes = np.array([[-5.0, 3.5, 40, 60], [30, 20, 120, 90]])
    expected = model.soft_masks(pixels, boxes)
    found = OnnxBoxCaseg(model, tmp_path / "model.onnx", threads=1).soft_masks(pixels, boxes)
    for theirs, ours in zip(expected, found, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_what_the_file_takes_and_tells(boxcaseg):
    graph = BoxCasegGraph(boxcaseg(margin=0.25))
    assert list(graph.inputs) == ["crops", "rows", "columns"]
    assert list(BoxCasegGraph(boxcaseg(box_channel=False)).inputs) == ["crops"]
    assert list(BoxCasegGraph(boxcaseg(neighbor_channel=True)).inputs)[-1] == "neighbors"
    about = graph.metadata()
    assert about == {
        "mean": pytest.approx([0.485, 0.456, 0.406]),
        "side": 64,
        "margin": 0.25,
        "threshold": 0.5,
        "mask_stride": 4,
    }
