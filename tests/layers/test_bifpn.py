import pytest
import torch
from torch import nn

from boxel.layers.bifpn import BiFPN, BiFPNLayer, Fusion, weighted_fusion

SIZES = [(8, 12), (4, 6), (2, 3), (1, 2), (1, 1)]


def features(channels):
    return [torch.randn(2, c, *size) for c, size in zip(channels, SIZES, strict=False)]


def test_returns_p3_to_p7():
    levels = BiFPN([40, 112, 320], channels=16)(features([40, 112, 320]))
    assert [tuple(level.shape) for level in levels] == [(2, 16, *size) for size in SIZES]


def test_fusion_is_a_weighted_mean_without_negative_weights():
    maps = (torch.tensor([1.0]), torch.tensor([5.0]), torch.tensor([100.0]))
    fused = weighted_fusion(maps, torch.tensor([3.0, 1.0, -2.0]))
    assert fused.item() == pytest.approx((3 * 1 + 1 * 5) / (4 + 1e-4))
    assert weighted_fusion(maps, torch.zeros(3)).item() == 0


def test_fusion_weights_are_learned():
    fusion = Fusion(2, 4)
    fusion(torch.rand(2, 4, 3, 3), torch.rand(2, 4, 3, 3)).square().sum().backward()
    assert fusion.weights.grad.abs().min() > 0


def test_layer_connects_the_levels_as_in_the_paper():
    layer = BiFPNLayer(1)
    for fusion in (*layer.down, *layer.up):
        fusion.conv = nn.Identity()
    sizes = [16, 8, 4, 2, 1]
    levels = [
        torch.full((1, 1, size, size), float(value))
        for size, value in zip(sizes, (3, 4, 5, 6, 7), strict=True)
    ]
    down6 = (6 + 7) / 2
    down5 = (5 + down6) / 2
    down4 = (4 + down5) / 2
    out3 = (3 + down4) / 2
    out4 = (4 + down4 + out3) / 3
    out5 = (5 + down5 + out4) / 3
    out6 = (6 + down6 + out5) / 3
    out7 = (7 + out6) / 2
    with torch.no_grad():
        outs = layer(levels)
    for out, size, value in zip(outs, sizes, (out3, out4, out5, out6, out7), strict=True):
        torch.testing.assert_close(out, torch.full((1, 1, size, size), value), rtol=1e-3, atol=0)


def test_three_layers_do_not_share_weights_and_have_group_norms():
    neck = BiFPN([1, 1, 1], channels=4)
    assert len({id(p) for layer in neck.layers for p in layer.parameters()}) == 3 * len(
        list(neck.layers[0].parameters())
    )
    norms = [m for m in neck.modules() if "Norm" in type(m).__name__]
    assert len(norms) == 4 + 3 * 8 and all(type(m) is nn.GroupNorm for m in norms)
