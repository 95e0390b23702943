"""What runs a model where there is a choice."""

import numpy as np
import pytest
import torch
from timm.layers import Conv2dSame
from torch import nn

from boxel.exporting import accelerate as module
from boxel.exporting.accelerate import accelerate
from boxel.exporting.boxcaseg import BoxCasegGraph
from boxel.exporting.onnx import trace
from boxel.exporting.same_conv import SameConv
from boxel.models.boxcaseg import BoxCaseg
from boxel.models.inference import predict_batch
from boxel.models.onnx import OnnxBoxCaseg, OnnxBoxInst
from boxel.models.settings import InferenceConfig


@pytest.mark.slow
@pytest.mark.usefixtures("onnx_installed")
def test_onnxruntime_where_it_is_installed_and_it_says_the_same(boxcaseg, pixels):
    model = boxcaseg()
    found = accelerate(model)
    assert isinstance(found, OnnxBoxCaseg)
    boxes = np.array([[-5.0, 3.5, 40, 60], [30, 20, 120, 90]])
    for ours, theirs in zip(found.soft_masks(pixels, boxes), model.soft_masks(pixels, boxes), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3 * np.std(theirs))


@pytest.mark.slow
@pytest.mark.usefixtures("onnx_installed")
def test_a_detector_too(boxinst, pixels):
    model = boxinst()
    found = accelerate(model)
    assert isinstance(found, OnnxBoxInst)
    config = InferenceConfig(short_side=64, max_size=128)
    (ours,), (theirs,) = (predict_batch(network, [pixels], config) for network in (found, model))
    assert len(theirs) > 0
    np.testing.assert_allclose(ours.boxes, theirs.boxes, atol=0.1)
    np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-3)


def test_what_cannot_be_exported_stays_as_it_is():
    model = nn.Linear(1, 1)
    assert accelerate(model) is model


@pytest.mark.slow
@pytest.mark.usefixtures("onnx_installed")
def test_torch_where_the_two_differ(boxcaseg, monkeypatch):
    model, other = boxcaseg(), boxcaseg()
    with torch.no_grad():
        other.heads["shared"][-1].bias += 1
    monkeypatch.setattr(module, "trace", lambda graph, path: trace(BoxCasegGraph(other).eval(), path))
    assert isinstance(accelerate(model), BoxCaseg)


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"), [(3, 2, 1), (5, 2, 1), (3, 1, 1), (3, 2, 2), ((3, 5), (2, 4), 1)]
)
def test_padding_that_is_known_beforehand_is_timms(kernel, stride, dilation):
    conv = Conv2dSame(4, 6, kernel, stride=stride, dilation=dilation, groups=2, bias=False)
    x = torch.rand(2, 4, 32, 64)
    torch.testing.assert_close(SameConv(conv)(x), conv(x))


@pytest.mark.usefixtures("onnx_installed")
def test_torch_where_the_network_cannot_be_traced(boxcaseg, monkeypatch):
    model = boxcaseg()

    def fail(graph, path):
        raise RuntimeError("no such operator")

    monkeypatch.setattr(module, "trace", fail)
    assert isinstance(accelerate(model), BoxCaseg)
