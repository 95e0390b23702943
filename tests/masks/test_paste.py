"""Pasted masks against `torch.nn.functional.interpolate` and against small masks worked by hand."""

import tracemalloc

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from boxel.masks.paste import paste_masks
from boxel.masks.rle import decode, encode


def pixels_of(boxes: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """(N, H, W) bool: the pixels that each box touches."""
    x0, y0, x1, y1 = boxes.T[:, :, None, None]
    x, y = torch.arange(width), torch.arange(height)[:, None]
    return (x < x1) & (x + 1 > x0) & (y < y1) & (y + 1 > y0)


@pytest.mark.parametrize(
    ("size", "stride"),
    [((48, 64), 8), ((6, 8), 1), ((21, 44), (5.5, 3.5)), ((3, 4), 0.5), ((90, 40), (5, 15))],
)
@pytest.mark.parametrize("chunk", [1, 100, 2**20])
def test_equals_interpolate_inside_the_box(size, stride, chunk):
    generator = torch.Generator().manual_seed(size[0])
    logits = torch.randn(20, 6, 8, generator=generator)
    corners = torch.rand(20, 2, 2, generator=generator) * torch.tensor([size[1], size[0]]) * 1.4 - 1
    boxes = torch.cat([corners.amin(1), corners.amax(1)], dim=1)
    sampled = F.interpolate(logits[None], size=size, mode="bilinear", align_corners=False)[0]
    inside = pixels_of(boxes, *size)
    pasted = torch.from_numpy(
        np.stack([decode(rle) for rle in paste_masks(logits, boxes, stride, size, chunk=chunk)])
    ).bool()
    clear = sampled.abs() > 1e-5
    assert clear.float().mean() > 0.99
    assert inside.any()
    assert torch.equal(pasted & clear, (sampled > 0) & inside & clear)


def test_one_row_worked_by_hand():
    # Cells of 4 pixels, their centres between pixels 1 and 2 and between 5 and 6: from one to the other the
    # logit falls by 1 a pixel. Pixel 2 is at 0.5, pixel 3 at -0.5.
    logits = torch.tensor([[[1.0, -3.0]]])
    (rle,) = paste_masks(logits, torch.tensor([[0.0, 0.0, 8.0, 1.0]]), (4, 1), (1, 8))
    np.testing.assert_array_equal(decode(rle), [[1, 1, 1, 0, 0, 0, 0, 0]])


def test_threshold_is_a_probability():
    # A probability of 0.25 is a logit of -1.0986: pixel 3 (-0.5) is above it, pixel 4 (-1.5) isn't.
    logits = torch.tensor([[[1.0, -3.0]]])
    (rle,) = paste_masks(logits, torch.tensor([[0.0, 0.0, 8.0, 1.0]]), (4, 1), (1, 8), threshold=0.25)
    np.testing.assert_array_equal(decode(rle), [[1, 1, 1, 1, 0, 0, 0, 0]])


def test_box_is_rounded_outwards_and_clipped():
    boxes = torch.tensor([[1.5, 2.0, 3.1, 3.0], [-5.0, -5.0, 1.0, 99.0]])
    first, second = paste_masks(torch.ones(2, 2, 2), boxes, 2, (4, 4))
    np.testing.assert_array_equal(decode(first), [[0] * 4, [0] * 4, [0, 1, 1, 1], [0] * 4])
    np.testing.assert_array_equal(decode(second), [[1, 0, 0, 0]] * 4)


def test_an_image_cut_from_a_padded_grid():
    # The grid covers 8 x 8 pixels, the image only the first 5 x 6 of them.
    logits = torch.randn(1, 2, 2, generator=torch.Generator().manual_seed(0))
    padded = F.interpolate(logits[None], size=(8, 8), mode="bilinear", align_corners=False)[0, 0]
    (rle,) = paste_masks(logits, torch.tensor([[0.0, 0.0, 6.0, 5.0]]), 4, (5, 6))
    assert rle == encode((padded[:5, :6] > 0).numpy())


@pytest.mark.parametrize(
    "box", [[3.0, 1, 1, 3], [9, 0, 12, 4], [-4, 0, -1, 4], [2, 2, 2, 2], [float("nan")] * 4]
)
def test_a_box_without_pixels_gives_an_empty_mask(box):
    (rle,) = paste_masks(torch.ones(1, 2, 2), torch.tensor([box]), 2, (4, 4))
    assert rle == encode(np.zeros((4, 4)))


def test_no_instances():
    assert paste_masks(torch.zeros(0, 3, 3), torch.zeros(0, 4), 4, (12, 12)) == []


def test_half_precision_and_gradients():
    logits = torch.tensor([[[1.0, -3.0]]], dtype=torch.float16, requires_grad=True)
    (rle,) = paste_masks(logits, torch.tensor([[0.0, 0.0, 8.0, 1.0]]), (4, 1), (1, 8))
    np.testing.assert_array_equal(decode(rle), [[1, 1, 1, 0, 0, 0, 0, 0]])


def test_small_masks_in_a_huge_image_cost_their_own_size():
    logits = torch.ones(3, 50, 50)
    boxes = torch.tensor([[29_900.0, 39_950.0, 30_000.0, 40_000.0]]).repeat(3, 1)
    tracemalloc.start()
    codes = paste_masks(logits, boxes, (600, 800), (40_000, 30_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20  # bytes, of an image of 1.2e9 pixels
    assert len(codes) == 3
    assert codes[0] == codes[2]
