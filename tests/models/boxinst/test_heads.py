"""The detection head: what it gives, how it starts, and the controller computed only where it is needed."""

import pytest
import torch
from torch import nn

from boxel.models.boxinst.heads import Head, MaskBranch

STRIDES = (8, 16, 32, 64, 128)
SIZES = [(4, 6), (2, 3), (1, 2), (1, 1), (1, 1)]
PLACES = sum(h * w for h, w in SIZES)


@pytest.fixture
def head():
    torch.manual_seed(0)
    return Head(8, num_classes=3, num_params=10, convs=1)


def maps(channels=8, batch=2):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(batch, channels, *size, generator=generator) for size in SIZES]


def test_shapes_and_order(head):
    pyramid = maps()
    output = head(pyramid)
    assert output.logits.shape == (2, PLACES, 3)
    assert output.distances.shape == (2, PLACES, 4)
    assert output.centerness.shape == (2, PLACES)
    p4 = head.classify(head.class_tower(pyramid[1]))
    torch.testing.assert_close(output.logits[1, 24 + 4], p4[1, :, 1, 1])  # after the 24 of P3, row by row
    torch.testing.assert_close(
        output.centerness[1, 24 + 4], head.center(head.box_tower(pyramid[1]))[1, 0, 1, 1]
    )


def test_a_new_head_expects_hardly_anything_anywhere(head):
    probability = head(maps()).logits.sigmoid()
    assert probability.mean().item() == pytest.approx(0.01, rel=0.1)
    for conv in (head.classify, head.regress, head.center, head.controller):
        assert conv.weight.std().item() == pytest.approx(0.01, rel=0.3)


def test_boxes_of_a_new_head_reach_two_strides_in_each_direction(head):
    for level, stride in zip(
        head(maps()).distances.split([h * w for h, w in SIZES], 1), STRIDES, strict=True
    ):
        torch.testing.assert_close(level, torch.full_like(level, 2.0 * stride), rtol=0.2, atol=0)


def test_distances_are_pixels_of_the_level_and_never_negative(head):
    nn.init.zeros_(head.regress.weight)
    head.regress.bias.data = torch.tensor([1.0, 2.0, -1.0, 0.5])
    head.scales.data = torch.tensor([1.0, 1.0, 3.0, 1.0, 1.0])
    levels = head(maps()).distances.split([h * w for h, w in SIZES], 1)
    expected = [[8, 16, 0, 4], [16, 32, 0, 8], [96, 192, 0, 48], [64, 128, 0, 32], [128, 256, 0, 64]]
    for level, distances in zip(levels, expected, strict=True):
        assert (level == torch.tensor(distances)).all()


def test_distances_are_computed_in_full_precision(head):
    """Under autocast a bfloat16 convolution would round 100.3 strides to 100.5."""
    nn.init.zeros_(head.regress.weight)
    nn.init.constant_(head.regress.bias, 100.3)
    with torch.autocast("cpu", torch.bfloat16):
        distances = head(maps()).distances
    assert distances.dtype == torch.float32
    torch.testing.assert_close(distances[0, 0], torch.full((4,), 802.4))


@pytest.mark.parametrize("location", [[0, 5, 23, 24, 29, 30, 31, 32, 33], [33, 7, 7, 0], []])
def test_control_is_the_convolution_where_it_is_asked_for(head, location):
    """Corners of a map, several levels and the same place twice; values and gradients."""
    nn.init.normal_(head.controller.bias)
    location = torch.tensor(location, dtype=torch.long)
    image = torch.arange(len(location)) % 2
    sparse_towers = [tower.requires_grad_() for tower in maps()]
    dense_towers = [tower.requires_grad_() for tower in maps()]
    sparse = head.predict_mask_params(sparse_towers, image, location)
    dense = torch.cat([head.controller(tower).flatten(2) for tower in dense_towers], 2)[image, :, location]
    torch.testing.assert_close(sparse, dense)
    assert sparse.shape == (len(location), 10)

    upstream = torch.randn_like(dense)
    own = [head.controller.weight, head.controller.bias]
    for ours, theirs in zip(
        torch.autograd.grad(sparse, sparse_towers + own, upstream),
        torch.autograd.grad(dense, dense_towers + own, upstream),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_mask_branch_sums_three_levels_at_stride_8():
    branch = MaskBranch(8, channels=6, features=5, convs=2).eval()
    pyramid = maps()
    assert branch(pyramid).shape == (2, 5, 4, 6)
    plain = branch(pyramid)
    for level, matters in enumerate([True, True, True, False, False]):
        changed = list(pyramid)
        changed[level] = pyramid[level] + torch.randn_like(pyramid[level])
        assert torch.equal(branch(changed), plain) != matters
