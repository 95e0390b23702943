import torch
import torch.nn.functional as F

from boxel.layers.pyramid import FPN

SIZES = [(8, 12), (4, 6), (2, 3), (1, 2), (1, 1)]


def features(channels):
    return [torch.randn(2, c, *size) for c, size in zip(channels, SIZES, strict=False)]


def test_returns_p3_to_p7():
    levels = FPN([40, 112, 320], channels=64)(features([40, 112, 320]))
    assert [tuple(level.shape) for level in levels] == [(2, 64, *size) for size in SIZES]


def test_coarse_levels_come_from_p5():
    fpn = FPN([3, 5, 8], channels=4)
    c3, c4, c5 = features([3, 5, 8])
    _, _, p5, p6, p7 = fpn([c3, c4, c5])
    top = fpn.pyramid.extra_blocks
    torch.testing.assert_close(p6, F.conv2d(p5, top.p6.weight, top.p6.bias, stride=2, padding=1))
    torch.testing.assert_close(p7, F.conv2d(p6.relu(), top.p7.weight, top.p7.bias, stride=2, padding=1))


def test_top_down_path_upsamples_by_nearest_neighbor():
    fpn = FPN([1, 1, 1], channels=1)
    for inner, layer in zip(fpn.pyramid.inner_blocks, fpn.pyramid.layer_blocks, strict=True):
        torch.nn.init.ones_(inner[0].weight)
        torch.nn.init.dirac_(layer[0].weight)  # so that every level is its lateral plus the coarser level
    c3, c4 = torch.full((1, 1, 4, 4), 100.0), torch.full((1, 1, 2, 2), 10.0)
    p3, p4, p5, _, _ = fpn([c3, c4, torch.full((1, 1, 1, 1), 1.0)])
    assert [level.unique().tolist() for level in (p3, p4, p5)] == [[111], [11], [1]]
    c4[0, 0, 0, 1] = 20
    p3 = fpn([c3, c4, torch.full((1, 1, 1, 1), 1.0)])[0]
    assert p3[0, 0].tolist() == [[111, 111, 121, 121]] * 2 + [[111] * 4] * 2
