"""Windows of an image as square crops, whatever their aspect, and boxes on the grid of a crop."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

LEAST_WINDOW = 4.0
"""Pixels a window measures at least, so that a crop of a tiny box shows something."""


def window_about(box: ArrayLike, margin: float = 0.0) -> NDArray[np.float64]:
    """The window round a box and a margin on each side.

    Args:
        box: (4,) xyxy pixels.
        margin: as a share of the box's width and height.

    Returns:
        (4,) xyxy pixels, partly outside the image where the box is near its border, `LEAST_WINDOW` a side at least.
    """
    corners = np.asarray(box, dtype=np.float64)
    center, extent = (corners[:2] + corners[2:]) / 2, corners[2:] - corners[:2]
    half = np.maximum(extent * (1 + 2 * margin), LEAST_WINDOW) / 2
    return np.concatenate([center - half, center + half])


def crop(image: NDArray, window: ArrayLike, side: int, fill: Sequence[float] = (0, 0, 0)) -> NDArray:
    """A window of an image, resized to a square whatever its aspect.

    Where it shrinks, pixels are averaged first, so that nothing flickers; where it grows, they are interpolated.

    Args:
        image: (H, W, 3) or (H, W), uint8 or float32.
        window: (4,) xyxy pixels, of some area, and partly inside the image.
        side: of the square.
        fill: what lies outside the image, a number a channel.

    Returns:
        (side, side, 3) or (side, side) of the image's dtype.
    """
    height, width = image.shape[:2]
    x0, y0, x1, y1 = np.asarray(window, dtype=np.float64)
    across, down = (x1 - x0) / side, (y1 - y0) / side  # pixels of the image to one of the crop
    # One pixel more on each side, for the interpolation.
    left, top = (int(np.clip(np.floor(v) - 1, 0, size - 1)) for v, size in ((x0, width), (y0, height)))
    right = int(np.clip(np.ceil(x1) + 1, left + 1, width))
    bottom = int(np.clip(np.ceil(y1) + 1, top + 1, height))
    part = image[top:bottom, left:right]
    columns = max(round((right - left) / max(across, 1)), 1)
    rows = max(round((bottom - top) / max(down, 1)), 1)
    if (rows, columns) != part.shape[:2]:
        part = cv2.resize(part, (columns, rows), interpolation=cv2.INTER_AREA)
    x, y = columns / (right - left), rows / (bottom - top)
    to_part = np.array(
        [
            [across * x, 0, (x0 + 0.5 * across - left) * x - 0.5],
            [0, down * y, (y0 + 0.5 * down - top) * y - 0.5],
        ]
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    shown = cv2.warpAffine(part, to_part, (side, side), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    # Not the border's own color, which would fade the image's outermost pixels where it grows.
    inside_rows, inside_columns = spans_in((0, 0, width, height), window, side)
    shown[~inside_rows] = shown[:, ~inside_columns] = fill if image.ndim == 3 else fill[0]
    return shown


def spans_in(box: ArrayLike, window: ArrayLike, side: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Rows and columns of a crop that lie in a box.

    Args:
        box: (4,) xyxy pixels of the image.
        window: (4,) xyxy pixels of the image, what the crop shows.
        side: of the crop.

    Returns:
        rows (side,) and columns (side,) bool; none where the box is outside the window, and the nearest one where it
        lies between the middles of two.
    """
    x0, y0, x1, y1 = np.asarray(box, dtype=np.float64)
    u0, v0, u1, v1 = np.asarray(window, dtype=np.float64)
    return _span(y0, y1, v0, v1, side), _span(x0, x1, u0, u1, side)


def _span(start: float, end: float, low: float, high: float, side: int) -> NDArray[np.bool_]:
    middles = low + (np.arange(side) + 0.5) * (high - low) / side
    inside = (middles >= start) & (middles < end)
    if not inside.any() and start < high and end > low:
        inside[int(np.clip(((start + end) / 2 - low) / (high - low) * side, 0, side - 1))] = True
    return inside


def resample(grid: NDArray[np.float32], window: ArrayLike, area: Sequence[int]) -> NDArray[np.float32]:
    """A grid over a window of an image, seen at the image's own pixels.

    Values are bilinear between the middles of the cells; beyond the outermost ones the edge goes on. (OpenCV's
    warpAffine would round the weights to 1/32.)

    Args:
        grid: (h, w) float32.
        window: (4,) xyxy pixels of the image, which the grid covers from edge to edge.
        area: (4,) whole numbers, left, top, right, bottom of the pixels wanted, the latter two not included.

    Returns:
        (bottom - top, right - left) float32.
    """
    left, top, right, bottom = area
    return resample_at(grid, window, np.arange(top, bottom), np.arange(left, right))


def resample_at(
    grid: NDArray[np.float32], window: ArrayLike, rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[np.float32]:
    """:func:`resample` at some rows and columns of the image's pixels: (len(rows), len(columns)) float32."""
    x0, y0, x1, y1 = np.asarray(window, dtype=np.float64)
    above, below, down = _cells(rows, y0, y1, grid.shape[0])
    before, after, across = _cells(columns, x0, x1, grid.shape[1])
    # Rows first: the grid is small, and what comes of it is not yet wide.
    tall = _between(grid[above], grid[below], down[:, None])
    return _between(tall[:, before], tall[:, after], across)


def _cells(
    pixels: NDArray[np.int64], start: float, end: float, count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """For the middle of each pixel the cell before it, the one after it, and the latter's weight."""
    place = ((pixels + 0.5 - start) * count / (end - start) - 0.5).clip(0, count - 1)
    before = place.astype(np.int64)
    return before, np.minimum(before + 1, count - 1), (place - before).astype(np.float32)


def _between(
    a: NDArray[np.float32], b: NDArray[np.float32], weight: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Linear between two values; the first alone, whatever the second, where that has no weight."""
    return np.where(weight > 0, a + weight * (b - a), a)
