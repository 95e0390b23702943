"""Decoders from maps of several strides to one at the finest stride."""

import pytest
import torch
from torch import nn

from boxel.layers.decoder import Concatenate, TopDown, upsample

SIZES = [(8, 12), (4, 6), (2, 3), (1, 2)]
CHANNELS = [3, 5, 2, 4]


def maps(sizes=SIZES):
    return [torch.randn(2, c, *size) for c, size in zip(CHANNELS, sizes, strict=True)]


def test_upsampling_treats_pixels_as_areas():
    x = torch.tensor([0.0, 4.0]).view(1, 1, 1, 2)
    assert upsample(x, (1, 4)).flatten().tolist() == [0, 1, 3, 4]
    assert upsample(x, (2, 4))[0, 0].tolist() == [[0, 1, 3, 4]] * 2


def test_maps_are_concatenated_at_the_finest_stride():
    given = maps()
    neck = Concatenate(CHANNELS)
    together = neck(given)
    assert neck.channels == 14 and together.shape == (2, 14, 8, 12)
    for part, own in zip(together.split(CHANNELS, dim=1), given, strict=True):
        torch.testing.assert_close(part, upsample(own, (8, 12)))
    assert torch.equal(together[:, :3], given[0])


def test_hrnet_w48_gives_720_channels():
    assert Concatenate([48, 96, 192, 384]).channels == 720


def test_top_down_starts_at_the_coarsest_map():
    """With identity layers each step adds the finer map to the upsampled one."""
    neck = TopDown([1, 1, 1], channels=1)
    neck.lateral = nn.ModuleList(nn.Identity() for _ in range(3))
    neck.smooth = nn.ModuleList(nn.Identity() for _ in range(3))
    fine, middle, coarse = (
        torch.full((1, 1, 4, 8), 100.0),
        torch.full((1, 1, 2, 4), 10.0),
        torch.zeros(1, 1, 1, 2),
    )
    coarse[..., 1] = 4
    assert (
        neck([fine, middle, coarse])[0, 0].tolist()
        == [pytest.approx([110, 110.25, 110.75, 111.5, 112.5, 113.25, 113.75, 114])] * 4
    )


@pytest.mark.parametrize("sizes", [SIZES, [(7, 11), (4, 6), (2, 3), (1, 2)]], ids=["even", "odd"])
def test_every_map_reaches_the_result(sizes):
    torch.manual_seed(0)
    given = [m.requires_grad_() for m in maps(sizes)]
    neck = TopDown(CHANNELS, channels=8)
    found = neck(given)
    assert neck.channels == 8 and found.shape == (2, 8, *sizes[0])
    found.square().mean().backward()
    assert all(m.grad.abs().sum() > 0 for m in given)
    assert all(p.grad.abs().sum() > 0 for p in neck.parameters())


def test_a_missing_map_is_an_error():
    with pytest.raises(ValueError, match="argument"):
        TopDown(CHANNELS, channels=8)(maps()[1:])
