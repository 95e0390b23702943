"""Winograd's convolutions equal the plain ones, and only large maps on a CPU get them."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from boxel.layers.winograd import WinogradConv2d, use_winograd

pytestmark = pytest.mark.skipif(not torch.backends.nnpack.is_available(), reason="no NNPACK")


def convolution(**options):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(8, 12, 3, padding=1, **options))


def assert_close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * float(theirs.detach().abs().max()))


def operators(call):
    with torch.profiler.profile() as profiler:
        call()
    return {event.name for event in profiler.events()}


@pytest.mark.parametrize(("batch", "bias"), [(1, True), (1, False), (3, True)])
def test_values_and_gradients_are_those_of_the_plain_convolution(batch, bias):
    layer = convolution(bias=bias)
    weights = [p.detach().clone().requires_grad_() for p in layer.parameters()]
    use_winograd(layer)
    x = torch.randn(batch, 8, 40, 37, requires_grad=True)
    target = torch.randn(batch, 12, 40, 37)
    fast, plain = layer(x), F.conv2d(x, *weights, padding=1)
    assert_close(fast, plain)
    expected = torch.autograd.grad((plain * target).sum(), [x, *weights])
    for ours, theirs in zip(
        torch.autograd.grad((fast * target).sum(), [x, *layer.parameters()]), expected, strict=True
    ):
        assert_close(ours, theirs)


def test_large_maps_use_winograd_and_all_others_do_not():
    layer = convolution()
    use_winograd(layer)
    x = torch.randn(1, 8, 40, 37)
    name = "aten::_nnpack_spatial_convolution"
    assert name in operators(lambda: layer(x))
    assert name not in operators(lambda: layer(x[..., :12]))  # small
    assert name not in operators(lambda: layer.double()(x.double()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert name not in operators(lambda: layer.float()(x))
    with torch.no_grad():
        traced = torch.jit.trace(layer, x, check_trace=False)
    assert "nnpack" not in str(traced.inlined_graph)


@pytest.mark.parametrize("options", [{"stride": 2}, {"groups": 2}, {"padding_mode": "reflect"}])
def test_other_convolutions_stay_as_they_are(options):
    layer = convolution(**options)
    use_winograd(layer)
    assert type(layer[0]) is nn.Conv2d
    use_winograd(plain := convolution())
    assert type(plain[0]) is WinogradConv2d
