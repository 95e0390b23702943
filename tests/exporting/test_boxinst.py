"""The graph of BoxInst against the model's own code, in torch and in onnxruntime."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.ops import nms

from boxel.exporting import boxinst as graph
from boxel.exporting.batch import nms_per_label, pad_to_multiple
from boxel.exporting.boxinst import BoxInstGraph
from boxel.exporting.onnx import trace
from boxel.layers.padding import pad_batch
from boxel.models.boxinst import model as boxinst_model
from boxel.models.detector import full_image_detections
from boxel.models.onnx import OnnxBoxInst

SHAPES = [(1, 100, 75), (3, 64, 64), (1, 33, 250), (2, 160, 96)]
"""Batch, height and width; the graph is traced at 2 x 96 x 128."""


def make_batch(pixels, count, height, width):
    """Pieces of a photo."""
    image = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
    return [image[:, 40 * k : 40 * k + height, 60 * k : 60 * k + width] for k in range(count)]


def same(expected, found):
    assert len(expected.scores) == len(found.scores)
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_allclose(found.boxes, expected.boxes, rtol=0, atol=0.01)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.bounds, expected.bounds, rtol=0, atol=0.01)
    largest = float(expected.mask_logits.abs().amax()) if len(expected.scores) else 0.0
    np.testing.assert_allclose(found.mask_logits, expected.mask_logits, rtol=0, atol=1e-4 * largest)


@pytest.mark.slow
@pytest.mark.usefixtures("onnx_installed")
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"backbone": "tf_efficientnet_lite0", "neck": "bifpn", "max_detections": 7, "mask_margin": 0.1},
        {"mask_width": 16, "classes": 12, "fit_boxes": 8.0},
        {"backbone_norm": "gn", "nms_threshold": 0.3, "head_convs": 0, "classes": 1},
    ],
    ids=["fpn", "bifpn", "wide", "gn"],
)
def test_any_batch_and_size(boxinst, pixels, tmp_path: Path, options, monkeypatch):
    if "mask_width" in options:
        for module in (graph, boxinst_model):
            monkeypatch.setattr(module, "TOPK_CANDIDATES", 10)
    model = boxinst(**options)
    trace(BoxInstGraph(model).eval(), tmp_path / "model.onnx")
    exported = OnnxBoxInst(model, tmp_path / "model.onnx")
    for count, height, width in SHAPES:
        images = make_batch(pixels, count, height, width)
        expected = model.detect(images)
        assert all(len(one.scores) for one in expected)
        for pair in zip(expected, exported.detect(images), strict=True):
            same(*pair)


@pytest.mark.slow
@pytest.mark.usefixtures("onnx_installed")
def test_deformable_convolutions(boxinst, pixels, tmp_path: Path):
    import onnxruntime

    if tuple(map(int, onnxruntime.__version__.split(".")[:2])) < (1, 25):
        pytest.skip(f"onnxruntime {onnxruntime.__version__} has no DeformConv; 1.25 has")
    model = boxinst(deformable=True)
    for module in model.modules():
        if hasattr(module, "offset_and_mask"):
            torch.nn.init.normal_(module.offset_and_mask.weight, std=0.1)
    trace(BoxInstGraph(model).eval(), tmp_path / "model.onnx")
    images = make_batch(pixels, 2, 64, 100)
    found = OnnxBoxInst(model, tmp_path / "model.onnx").detect(images)
    for pair in zip(model.detect(images), found, strict=True):
        same(*pair)


@pytest.mark.slow
@pytest.mark.usefixtures("onnx_installed")
def test_images_without_detections(boxinst, pixels, tmp_path: Path):
    model = boxinst()
    images = make_batch(pixels, 3, 64, 100)
    # A threshold between the best scores of the images: some have instances, and some have none.
    best = sorted(float(found.scores[0]) for found in model.detect(images))
    model.config.score_threshold = ((best[-1] + best[-2]) / 2) ** 2
    trace(BoxInstGraph(model).eval(), tmp_path / "some.onnx")
    found = OnnxBoxInst(model, tmp_path / "some.onnx").detect(images)
    assert sorted(len(one.scores) > 0 for one in found) == [False, False, True]
    for pair in zip(model.detect(images), found, strict=True):
        same(*pair)

    model.config.score_threshold = 1.0
    trace(BoxInstGraph(model).eval(), tmp_path / "none.onnx")
    for one in OnnxBoxInst(model, tmp_path / "none.onnx").detect(images):
        assert one.boxes.shape == (0, 4) and one.mask_logits.shape == (0, 16, 32)


def test_in_torch_the_graph_is_the_model(boxinst, pixels):
    model = boxinst()
    images = make_batch(pixels, 2, 70, 100)
    with torch.no_grad():
        *found, image = BoxInstGraph(model).eval()(torch.stack(images))
    assert image.tolist() == sorted(image.tolist())
    for index, expected in enumerate(model.detect(images)):
        same(
            expected,
            full_image_detections(*(values[image == index] for values in found), stride=4, margin=None),
        )


def test_images_are_filled_up_as_the_model_does(boxinst, pixels):
    model = boxinst()
    images = make_batch(pixels, 2, 70, 97)
    expected, _ = pad_batch(images, model.backbone.mean)
    filled = pad_to_multiple(torch.stack(images), model.backbone.mean)
    assert filled.shape == (2, 3, 96, 128) and torch.equal(filled, expected)


def test_nms_keeps_images_and_labels_apart():
    classes, count = 80, 3000
    rng = np.random.default_rng(0)
    corners, sides = rng.uniform(0, 700, (count, 2)), rng.uniform(10, 300, (count, 2))
    boxes = torch.tensor(np.concatenate([corners, corners + sides], 1), dtype=torch.float32)
    scores = torch.tensor(rng.permutation(count) / count, dtype=torch.float32)
    labels, image = (torch.tensor(rng.integers(0, n, count)) for n in (classes, 2))
    labels[: count // 2] = 79  # a crowd of one label, far from the origin
    expected = []
    for group in range(2 * classes):
        own = (image * classes + labels == group).nonzero().squeeze(1)
        expected += own[nms(boxes[own], scores[own], 0.6)].tolist()
    expected = sorted(expected, key=lambda index: -scores[index])
    kept = nms_per_label(boxes, scores, labels, image, classes, (1000, 1000), 0.6)
    assert len(expected) < 0.95 * count and kept.tolist() == expected


def test_what_the_file_tells(boxinst):
    about = BoxInstGraph(boxinst(2)).metadata()
    assert about["categories"] == [{"id": 1, "name": "thing 0"}, {"id": 4, "name": "thing 1"}]
    assert about["mean"] == pytest.approx([0.485, 0.456, 0.406])
    assert (about["short_side"], about["max_size"], about["mask_stride"]) == (96, 160, 4)
    assert about["mask_margin"] is None
    assert BoxInstGraph(boxinst(mask_margin=0.1)).metadata()["mask_margin"] == 0.1


def test_metadata_have_the_score_thresholds_of_the_training(boxinst) -> None:
    model = boxinst(2)
    assert BoxInstGraph(model).metadata()["score_thresholds"] is None
    second = model.categories[1].name
    model.settings = {"score_thresholds": {"all": 0.5, "by_class": {second: 0.25}}}
    assert BoxInstGraph(model).metadata()["score_thresholds"] == [0.5, 0.25]
