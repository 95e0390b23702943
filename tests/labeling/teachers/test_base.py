"""Soft masks on the pixels of an image, against interpolation worked out cell by cell."""

import numpy as np
import pytest

from boxel.labeling.teachers.base import SoftMask
from boxel.masks.boxes import Region


def by_hand(soft, region):
    """Bilinear between the centers of the cells and constant beyond them, pixel by pixel."""
    (h, w), (x0, y0, x1, y1) = soft.logits.shape, soft.window
    found = np.empty(region.shape)
    for row in range(region.top, region.bottom):
        for column in range(region.left, region.right):
            u = np.clip((column + 0.5 - x0) / (x1 - x0) * w - 0.5, 0, w - 1)
            v = np.clip((row + 0.5 - y0) / (y1 - y0) * h - 0.5, 0, h - 1)
            left, top = min(int(u), max(w - 2, 0)), min(int(v), max(h - 2, 0))
            right, bottom = min(left + 1, w - 1), min(top + 1, h - 1)
            a, b = u - left, v - top
            above = soft.logits[top, left] * (1 - a) + soft.logits[top, right] * a
            below = soft.logits[bottom, left] * (1 - a) + soft.logits[bottom, right] * a
            found[row - region.top, column - region.left] = above * (1 - b) + below * b
    return found


@pytest.mark.parametrize("shape", [(5, 7), (1, 4), (3, 1), (1, 1), (40, 30)])
@pytest.mark.parametrize("window", [(3.3, 2.1, 20.7, 15.9), (-4.5, -2, 9, 8.25), (2, 1, 9, 6)])
def test_logits_are_bilinear_between_the_centers_of_cells(shape, window):
    logits = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    soft, region = SoftMask(logits, window), Region(0, 0, 24, 18)
    found = soft.resample(region)
    assert found.dtype == np.float32
    # OpenCV before 5 knows 32 places between two cells; values here differ by 1 or so from cell to cell.
    np.testing.assert_allclose(found, by_hand(soft, region), atol=0.1)


def test_pixel_cells_are_copied_and_the_edge_is_extended():
    logits = np.arange(6, dtype=np.float32).reshape(2, 3)
    found = SoftMask(logits, (1, 2, 4, 4)).resample(Region(0, 1, 5, 5))
    assert found.tolist() == [[0, 0, 1, 2, 2], [0, 0, 1, 2, 2], [3, 3, 4, 5, 5], [3, 3, 4, 5, 5]]


def test_a_region_may_lie_beside_the_window():
    logits = np.array([[1, 2], [3, 4]], dtype=np.float32)
    assert SoftMask(logits, (0, 0, 2, 2)).resample(Region(5, 7, 7, 8)).tolist() == [[4, 4]]


def test_nan_cells_spread_to_the_pixels_that_depend_on_them():
    logits = np.array([[0, np.nan, 8, 8]], dtype=np.float32)
    found = SoftMask(logits, (0, 0, 16, 4)).resample(Region(0, 0, 16, 4))
    # The centers of the cells are at 2, 6, 10, 14: between 2 and 10 all pixels depend on the second cell.
    assert (found[:, :2] == 0).all() and np.isnan(found[:, 2:10]).all() and (found[:, 10:] == 8).all()
    exact = SoftMask(logits, (0, 0, 4, 1)).resample(Region(0, 0, 4, 1))
    np.testing.assert_array_equal(exact, logits)
