"""A dilated network computes, at every second cell, the same as the strided one."""

import copy

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from boxel.layers.dilate import dilate

NARROW = [2, "M", 3, "M", 4, 4, "M", 5, 5, "M", 6, 6, "M"]  # vgg11 with fewer channels


@pytest.fixture(params=["vgg11", "vgg11_bn"])
def vgg(request, monkeypatch):
    monkeypatch.setitem(timm.models.vgg.cfgs, "vgg11", NARROW)
    monkeypatch.setattr(
        timm.models.vgg, "ConvMlp", lambda *options, **more: nn.Identity()
    )  # large, and unused
    torch.manual_seed(0)
    return timm.create_model(request.param, features_only=True).double().eval()


def dilated(network, output_stride):
    network = copy.deepcopy(network)
    dilate(network, output_stride)
    return network


def select_layers(network, kind):
    return [layer for layer in network.children() if isinstance(layer, kind)]


def after_pool4(network):
    """The layers of conv5 and those between them."""
    layers = list(network.children())
    pools = [i for i, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
    return nn.Sequential(*layers[pools[3] + 1 : pools[4]])


def test_dilated_convolutions_agree_on_shared_cells(vgg) -> None:
    """They agree exactly, at the border too: both maps are padded by zeros."""
    maps = torch.randn(2, 5, 12, 18, dtype=torch.double)
    coarse = after_pool4(vgg)(maps[..., ::2, ::2].clone())
    fine = after_pool4(dilated(vgg, 8))(maps.clone())
    assert fine.shape[-2:] == (12, 18) and (coarse > 0).any()
    torch.testing.assert_close(fine[..., ::2, ::2], coarse, rtol=1e-12, atol=1e-12)


def test_the_dilated_network_agrees_if_pooling_windows_do(vgg) -> None:
    """Non-negative weights keep an ascending image ascending, so the last cell of a window is its maximum."""
    for layer in select_layers(vgg, nn.Conv2d):
        layer.weight.data.abs_()
    image = torch.rand(1, 3, 256, 256, dtype=torch.double).cumsum(-1).cumsum(-2)
    coarse, fine = vgg(image), dilated(vgg, 8)(image)
    assert [feature.shape[-1] for feature in coarse] == [256, 128, 64, 32, 16, 8]
    assert [feature.shape[-1] for feature in fine] == [256, 128, 64, 32, 32, 32]
    # Conv5 after pool4's lost stride; the zeros beyond the right and the lower border make an image fall there.
    same = fine[4][..., :16:2, :16:2], coarse[4][..., :8, :8]
    torch.testing.assert_close(*same, rtol=1e-12, atol=0)
    assert (coarse[4][..., 1:8, 1:8] > coarse[4][..., :7, :7]).all()
    # The last map: DeepLab's pool5, centerd on its cell.
    assert torch.equal(fine[5], F.max_pool2d(fine[4], 3, stride=1, padding=1))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("output_stride", "dilations", "strides", "reductions"),
    [
        (8, [1] * 6 + [2, 2], [2, 2, 2, 1, 1], [1, 2, 4, 8, 8, 8]),
        (16, [1] * 8, [2, 2, 2, 2, 1], [1, 2, 4, 8, 16, 16]),
        (32, [1] * 8, [2] * 5, [1, 2, 4, 8, 16, 32]),
    ],
)
def test_dilation_changes_convolutions_and_poolings(
    vgg, output_stride, dilations, strides, reductions
) -> None:
    network = dilated(vgg, output_stride)
    assert [layer.dilation for layer in select_layers(network, nn.Conv2d)] == [(d, d) for d in dilations]
    assert [layer.stride for layer in select_layers(network, nn.MaxPool2d)] == strides
    assert network.feature_info.reduction() == reductions
    sides = [feature.shape[-2:] for feature in network(torch.rand(1, 3, 64, 96, dtype=torch.double))]
    assert sides == [(64 // reduction, 96 // reduction) for reduction in reductions]
    state = vgg.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
