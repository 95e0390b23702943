"""Pasted masks against `torch.nn.functional.interpolate` and against small masks worked by hand."""

import tracemalloc

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from boxel.masks.paste import paste_windows
from boxel.masks.rle import decode, encode


def paste_masks(logits, boxes, stride, size, **options):
    """Grids over the whole image, with the given pixels per cell."""
    sx, sy = stride if isinstance(stride, tuple) else (stride, stride)
    window = torch.tensor([0, 0, logits.shape[2] * sx, logits.shape[1] * sy], dtype=torch.float64)
    return paste_windows(logits, boxes, window.expand(len(logits), 4), size, **options)


def touched_pixels(boxes: torch.Tensor, height: int, width: int) -> torch.Tensor:
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
    inside = touched_pixels(boxes, *size)
    pasted = torch.from_numpy(
        np.stack([decode(rle) for rle in paste_masks(logits, boxes, stride, size, chunk=chunk)])
    ).bool()
    clear = sampled.abs() > 1e-5
    assert clear.float().mean() > 0.99
    assert inside.any()
    assert torch.equal(pasted & clear, (sampled > 0) & inside & clear)


def test_one_row_worked_by_hand():
    # Cells of 4 pixels, their centers between pixels 1 and 2 and between 5 and 6: from one to the other the
    # logit falls by 1 a pixel. Pixel 2 is at 0.5, pixel 3 at -0.5.
    logits = torch.tensor([[[1.0, -3.0]]])
    (rle,) = paste_masks(logits, torch.tensor([[0.0, 0.0, 8.0, 1.0]]), (4, 1), (1, 8))
    np.testing.assert_array_equal(decode(rle), [[1, 1, 1, 0, 0, 0, 0, 0]])


def test_threshold_is_a_probability():
    # A probability of 0.25 is a logit of -1.0986: pixel 3 (-0.5) is above it, pixel 4 (-1.5) isn't.
    logits = torch.tensor([[[1.0, -3.0]]])
    (rle,) = paste_masks(logits, torch.tensor([[0.0, 0.0, 8.0, 1.0]]), (4, 1), (1, 8), threshold=0.25)
    np.testing.assert_array_equal(decode(rle), [[1, 1, 1, 1, 0, 0, 0, 0]])


def test_boxes_are_rounded_outwards_and_clipped():
    boxes = torch.tensor([[1.5, 2.0, 3.1, 3.0], [-5.0, -5.0, 1.0, 99.0]])
    first, second = paste_masks(torch.ones(2, 2, 2), boxes, 2, (4, 4))
    np.testing.assert_array_equal(decode(first), [[0] * 4, [0] * 4, [0, 1, 1, 1], [0] * 4])
    np.testing.assert_array_equal(decode(second), [[1, 0, 0, 0]] * 4)


@pytest.mark.parametrize("chunk", [1, 2**20])
def test_windows_match_interpolate(chunk):
    """Windows of whole pixels, partly outside the image, against `interpolate` placed at the window."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(3, 7, 5, generator=generator)
    windows = [[3, 4, 33, 25], [-6, -9, 24, 12], [30, 20, 50, 48]]
    rles = paste_windows(logits, torch.tensor(windows), torch.tensor(windows).float(), (30, 40), chunk=chunk)
    for grid, (x0, y0, x1, y1), rle in zip(logits, windows, rles, strict=True):
        sampled = F.interpolate(grid[None, None], size=(y1 - y0, x1 - x0), mode="bilinear")[0, 0]
        expected = np.zeros((30, 40), dtype=np.uint8)
        left, top = max(x0, 0), max(y0, 0)
        seen = (sampled > 0)[top - y0 : 30 - y0, left - x0 : 40 - x0].numpy()
        expected[top : top + seen.shape[0], left : left + seen.shape[1]] = seen
        np.testing.assert_array_equal(decode(rle), expected)


def test_a_window_worked_by_hand():
    # Two cells over [1.5, 5.5): their centers are at 2.5 and 4.5, between which the logit falls from 1 to
    # -1. It is 0 at 3.5, the center of pixel 3, and constant beyond the centers. Pixel 0 is not in the box.
    logits = torch.tensor([[[1.0, -1.0]]])
    box, window = torch.tensor([[1.2, 0.0, 8.0, 1.0]]), torch.tensor([[1.5, 0.0, 5.5, 1.0]])
    (rle,) = paste_windows(logits, box, window, (1, 8))
    np.testing.assert_array_equal(decode(rle), [[0, 1, 1, 0, 0, 0, 0, 0]])
    (rle,) = paste_windows(logits, box, window, (1, 8), threshold=0.4)
    np.testing.assert_array_equal(decode(rle), [[0, 1, 1, 1, 0, 0, 0, 0]])


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


@pytest.mark.parametrize("chunk", [1, 1000, 2**20])
def test_sparse_foreground_equals_interpolate(chunk):
    """Cells of foreground far apart, also at the borders, in a whole image."""
    generator = torch.Generator().manual_seed(2)
    logits = torch.where(torch.rand(8, 12, 16, generator=generator) < 0.03, 3.0, -1.0)
    sampled = F.interpolate(logits[None], size=(96, 128), mode="bilinear", align_corners=False)[0]
    rles = paste_masks(logits, torch.tensor([[0.0, 0, 128, 96]]).expand(8, 4), 8, (96, 128), chunk=chunk)
    assert rles == [encode(mask.numpy()) for mask in sampled > 0]


def test_background_is_not_sampled(monkeypatch):
    """Two cells in opposite corners of an image of 12 megapixels: each is seen in 2 x 2 cells of 16 pixels at most."""
    logits = torch.full((1, 188, 250), -1.0)
    logits[0, 0, 0] = logits[0, -1, -1] = 1.0
    sampled, lerp = [], torch.lerp
    monkeypatch.setattr(torch, "lerp", lambda *given: sampled.append(lerp(*given)) or sampled[-1])
    (rle,) = paste_masks(logits, torch.tensor([[0.0, 0, 4000, 3008]]), 16, (3008, 4000))
    # The strips of 348 columns reach their cells, by rows first.
    assert sum(part.numel() for part in sampled) < 3 * 32 * 400
    share = np.minimum(
        1 - (np.arange(-8, 16) + 0.5) / 16, 1
    )  # of the corner's cell along a side, from the border
    assert decode(rle).sum() == 2 * (np.outer(share, share) > 0.5).sum()


def test_no_instances():
    assert paste_masks(torch.zeros(0, 3, 3), torch.zeros(0, 4), 4, (12, 12)) == []


def test_half_precision_and_gradients():
    logits = torch.tensor([[[1.0, -3.0]]], dtype=torch.float16, requires_grad=True)
    (rle,) = paste_masks(logits, torch.tensor([[0.0, 0.0, 8.0, 1.0]]), (4, 1), (1, 8))
    np.testing.assert_array_equal(decode(rle), [[1, 1, 1, 0, 0, 0, 0, 0]])


def test_the_cost_does_not_grow_with_the_image():
    logits = torch.ones(3, 50, 50)
    boxes = torch.tensor([[29_900.0, 39_950.0, 30_000.0, 40_000.0]]).repeat(3, 1)
    tracemalloc.start()
    codes = paste_masks(logits, boxes, (600, 800), (40_000, 30_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20  # bytes, of an image of 1.2e9 pixels
    assert len(codes) == 3
    assert codes[0] == codes[2]
