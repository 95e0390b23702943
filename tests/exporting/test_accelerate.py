"""What runs a model where there is a choice."""

import numpy as np
import pytest
import torch
from timm.layers import Conv2dSame
from torch import nn

from boxel.exporting import accelerate as module
from boxel.exporting.accelerate import accelerate
from boxel.exporting.boxcaseg import BoxCasegGraph, SameConv
from boxel.exporting.onnx import trace
from boxel.models.boxcaseg import BoxCaseg
from boxel.models.boxcaseg.inference import soft_masks
from boxel.models.inference import InferenceConfig, predict_batch
from boxel.models.onnx import OnnxBoxCaseg, OnnxBoxInst


@pytest.mark.slow
@pytest.mark.usefixtures("onnx_installed")
def test_onnxruntime_where_it_is_installed_and_it_says_the_same(boxcaseg, pixels):
    model = boxcaseg()
    found = accelerate(model)
    assert isinstance(found, OnnxBoxCaseg)
    boxes = np.array([[-5.0, 3.5, 40, 60], [30, 20, 120, 90]])
    for ours, theirs in zip(soft_masks(found, pixels, boxes), soft_masks(model, pixels, boxes), strict=True):
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


@pytest.fixture
def onnx_missing(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)


@pytest.mark.slow
@pytest.mark.usefixtures("onnx_missing")
@pytest.mark.parametrize("backbone", ["tf_efficientnet_lite0", "resnet18", "mobilenetv3_small_050"])
def test_torch_without_batch_norms_where_it_is_not(boxcaseg, pixels, backbone):
    model = boxcaseg(backbone=backbone, backbone_norm="bn")
    shake_norms(model)
    norms = {name for name, part in model.named_modules() if isinstance(part, nn.BatchNorm2d)}
    found = accelerate(model)
    assert isinstance(found, BoxCaseg) and found is not model
    assert not any(isinstance(part, nn.BatchNorm2d) for part in found.modules())
    assert (
        norms == {name for name, part in model.named_modules() if isinstance(part, nn.BatchNorm2d)} != set()
    )
    boxes = np.array([[-5.0, 3.5, 40, 60], [30, 20, 120, 90]])
    for ours, theirs in zip(soft_masks(found, pixels, boxes), soft_masks(model, pixels, boxes), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.usefixtures("onnx_missing")
def test_other_norms_stay(boxcaseg):
    model = boxcaseg(backbone_norm="gn")
    before, after = (
        sum(isinstance(part, nn.GroupNorm) for part in network.modules())
        for network in (model, accelerate(model))
    )
    assert after == before > 0


@pytest.mark.usefixtures("onnx_missing")
def test_a_detector_where_it_is_not(boxinst):
    model = boxinst()
    assert accelerate(model) is model


@torch.no_grad()
def shake_norms(model):
    """Norms as training leaves them: none is the identity."""
    torch.manual_seed(1)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 2)
            part.weight.uniform_(0.5, 1.5)
            part.bias.normal_(0, 0.1)


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
