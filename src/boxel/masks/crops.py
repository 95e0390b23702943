"""Square crops of an image around boxes, and the way back from a crop to the image's pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

MAX_COVERED = 0.9
"""A box that covers this share of another one is not drawn as its neighbor."""

MIN_WINDOW_SIDE = 4.0
"""Minimum side of a window in pixels, so that the crop of a tiny box shows something."""

CHUNK = 8
"""Crops per call of a network. More do not go faster on a CPU, whose caches they exceed."""

SoftMasks: TypeAlias = tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float32]]
"""Logits (N, h, w), the windows (N, 4) they cover, xyxy pixels of the image, and scores (N,) in [0, 1]."""


class Crops(NamedTuple):
    """Crops of the boxes of an image, as a class-agnostic network sees them.

    Attributes:
        pixels: (N, S, S, 3) uint8 RGB.
        rows: (N, S) bool, rows of each crop that lie in its box.
        columns: (N, S) bool, columns of each crop that lie in its box.
        windows: (N, 4) float64 xyxy pixels of the image, which the crops show from edge to edge.
        neighbors: (N, S, S) float32, see :func:`draw_neighbors`.
    """

    pixels: NDArray[np.uint8]
    rows: NDArray[np.bool_]
    columns: NDArray[np.bool_]
    windows: NDArray[np.float64]
    neighbors: NDArray[np.float32]


def extract_crops(
    image: NDArray[np.uint8],
    boxes: NDArray[np.float64],
    side: int,
    margin: float,
    padding_color: Sequence[float],
    others: NDArray[np.float64] | None = None,
) -> Crops:
    """Crop an image around each box.

    Args:
        image: (H, W, 3) RGB.
        boxes: (N, 4) xyxy pixels.
        side: Side of the crops in pixels.
        margin: Background shown on each side of a box, as a share of its width and height.
        padding_color: RGB of what lies outside the image.
        others: (M, 4) boxes of all objects of the image; if None, the neighbors of each box are the other `boxes`.

    Examples:
        >>> crops = extract_crops(np.zeros((6, 8, 3), np.uint8), np.array([[2.0, 1, 6, 5]]), 32, 0.25, (0, 0, 0))
        >>> crops.pixels.shape, crops.windows
        ((1, 32, 32, 3), array([[1., 0., 7., 6.]]))
    """
    windows = np.array([crop_window(box, margin) for box in boxes]).reshape(-1, 4)
    pixels = np.empty((len(boxes), side, side, 3), dtype=np.uint8)
    rows, columns = np.empty((2, len(boxes), side), dtype=bool)
    neighbors = np.empty((len(boxes), side, side), dtype=np.float32)
    for index, (box, window) in enumerate(zip(boxes, windows, strict=True)):
        pixels[index] = crop(image, window, side, padding_color)
        rows[index], columns[index] = crop_spans(box, window, side)
        neighbors[index] = draw_neighbors(boxes if others is None else others, box, window, side)
    return Crops(pixels, rows, columns, windows, neighbors)


def draw_neighbors(
    others: NDArray[np.float64], box: ArrayLike, window: ArrayLike, side: int
) -> NDArray[np.float32]:
    """Draw the boxes of other objects in a crop: 0.5 in one of them, 1 where several overlap.

    Left out are the box itself, and boxes that hold nearly all of it, which say nothing of where its object ends.

    Args:
        others: (M, 4) xyxy pixels of the image.
        box: (4,) xyxy pixels of the crop's object.
        window: (4,) xyxy pixels of the image, shown by the crop.
        side: Side of the crop.

    Examples:
        >>> boxes = np.array([[0.0, 0, 4, 4], [2, 0, 6, 4], [3, 0, 9, 4]])
        >>> draw_neighbors(boxes, boxes[0], (0, 0, 4, 4), side=4)[0].tolist()
        [0.0, 0.0, 0.5, 1.0]
    """
    own, shown = np.asarray(box, dtype=np.float64), np.asarray(window, dtype=np.float64)
    shared = (np.minimum(others[:, 2:], own[2:]) - np.maximum(others[:, :2], own[:2])).clip(0).prod(axis=1)
    shows = ((others[:, 2:] > shown[:2]) & (others[:, :2] < shown[2:])).all(axis=1)
    others = others[shows & (shared < MAX_COVERED * (own[2:] - own[:2]).prod())]
    cells = (others - np.tile(shown[:2], 2)) * side / np.tile(shown[2:] - shown[:2], 2)
    drawn = np.zeros((side, side), dtype=np.float32)
    for left, top, right, bottom in np.round(cells).astype(int).clip(0, side).tolist():
        drawn[top:bottom, left:right] += 0.5
    return drawn.clip(max=1)


def predict_soft_masks(
    predict: Callable[[NDArray[np.float64]], tuple[NDArray[np.float32], NDArray[np.float64]]],
    boxes: NDArray[np.float64],
) -> SoftMasks:
    """Predict the logits of the object in each of (N, 4) boxes by a function that takes a few and returns windows too.

    The score of a mask is the mean distance of its probabilities from 0.5, times 2.
    """
    parts = [predict(boxes[start : start + CHUNK]) for start in range(0, len(boxes), CHUNK)]
    if not parts:
        return np.zeros((0, 1, 1), np.float32), np.zeros((0, 4)), np.zeros(0, np.float32)
    logits, windows = map(np.concatenate, zip(*parts, strict=True))
    scores = np.abs(np.tanh(logits / 2)).mean(axis=(1, 2))  # |2 sigmoid(x) - 1| is |tanh(x / 2)|
    return logits, windows, scores


def crop_window(box: ArrayLike, margin: float = 0.0) -> NDArray[np.float64]:
    """Enlarge a box by a margin on each side.

    Args:
        box: (4,) xyxy pixels.
        margin: Share of the box's width and height.

    Returns:
        (4,) xyxy pixels, each side at least `MIN_WINDOW_SIDE` long; it may reach past the image.

    Examples:
        >>> crop_window([10, 20, 30, 30], margin=0.25)
        array([ 5. , 17.5, 35. , 32.5])
    """
    corners = np.asarray(box, dtype=np.float64)
    center, extent = (corners[:2] + corners[2:]) / 2, corners[2:] - corners[:2]
    half = np.maximum(extent * (1 + 2 * margin), MIN_WINDOW_SIDE) / 2
    return np.concatenate([center - half, center + half])


def crop(image: NDArray, window: ArrayLike, side: int, padding_color: Sequence[float] = (0, 0, 0)) -> NDArray:
    """Resize a window of an image to a square, whatever its aspect ratio.

    An axis that shrinks is averaged first, so that nothing aliases; one that grows is interpolated.

    Args:
        image: (H, W, 3) or (H, W), uint8 or float32.
        window: (4,) xyxy pixels with an area.
        side: Side of the square in pixels.
        padding_color: Value of what lies outside the image, one number per channel.

    Returns:
        (side, side, 3) or (side, side) of the image's dtype.

    Examples:
        >>> crop(np.eye(4, dtype=np.float32), (0, 0, 4, 4), side=2)
        array([[0.5, 0. ],
               [0. , 0.5]], dtype=float32)
    """
    height, width = image.shape[:2]
    x0, y0, x1, y1 = np.asarray(window, dtype=np.float64)
    step_x, step_y = (x1 - x0) / side, (y1 - y0) / side  # image pixels per crop pixel
    # One more pixel on each side, for the interpolation.
    left, top = (int(np.clip(np.floor(v) - 1, 0, size - 1)) for v, size in ((x0, width), (y0, height)))
    right = int(np.clip(np.ceil(x1) + 1, left + 1, width))
    bottom = int(np.clip(np.ceil(y1) + 1, top + 1, height))
    part = image[top:bottom, left:right]
    columns = max(round((right - left) / max(step_x, 1)), 1)
    rows = max(round((bottom - top) / max(step_y, 1)), 1)
    if (rows, columns) != part.shape[:2]:
        part = cv2.resize(part, (columns, rows), interpolation=cv2.INTER_AREA)
    x, y = columns / (right - left), rows / (bottom - top)
    to_part = np.array(
        [
            [step_x * x, 0, (x0 + 0.5 * step_x - left) * x - 0.5],
            [0, step_y * y, (y0 + 0.5 * step_y - top) * y - 0.5],
        ]
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    resized = cv2.warpAffine(part, to_part, (side, side), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    # Padding is painted afterwards: as OpenCV's border it would fade the image's outermost pixels.
    inside_rows, inside_columns = crop_spans((0, 0, width, height), window, side)
    color = padding_color if image.ndim == 3 else padding_color[0]
    resized[~inside_rows] = resized[:, ~inside_columns] = color
    return resized


def crop_spans(box: ArrayLike, window: ArrayLike, side: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Find the rows and columns of a crop whose centers lie in a box.

    Args:
        box: (4,) xyxy pixels of the image.
        window: (4,) xyxy pixels of the image, shown by the crop.
        side: Side of the crop.

    Returns:
        rows (side,) and columns (side,) bool: none if the box lies outside the window, the nearest one if it lies
        between two centers.

    Examples:
        >>> rows, columns = crop_spans((2, 1, 4, 3), (0, 0, 4, 4), side=4)
        >>> rows.tolist(), columns.tolist()
        ([False, True, True, False], [False, False, True, True])
    """
    x0, y0, x1, y1 = np.asarray(box, dtype=np.float64)
    u0, v0, u1, v1 = np.asarray(window, dtype=np.float64)
    return _span(y0, y1, v0, v1, side), _span(x0, x1, u0, u1, side)


def _span(start: float, end: float, low: float, high: float, side: int) -> NDArray[np.bool_]:
    centers = low + (np.arange(side) + 0.5) * (high - low) / side
    inside = (centers >= start) & (centers < end)
    if not inside.any() and start < high and end > low:
        inside[int(np.clip(((start + end) / 2 - low) / (high - low) * side, 0, side - 1))] = True
    return inside


def resample(grid: NDArray[np.float32], window: ArrayLike, region: Sequence[int]) -> NDArray[np.float32]:
    """Interpolate a grid over a window of an image at the image's own pixels.

    Values are bilinear between the centers of the cells and constant beyond the outermost ones. (OpenCV's `warpAffine`
    would round the weights to 1/32.)

    Args:
        grid: (h, w) float32.
        window: (4,) xyxy pixels of the image, which the grid covers from edge to edge.
        region: Left, top, right and bottom of the pixels wanted, the latter two not included.

    Returns:
        (bottom - top, right - left) float32.

    Examples:
        >>> resample(np.array([[0, 1]], dtype=np.float32), (0, 0, 4, 1), (0, 0, 4, 1))
        array([[0.  , 0.25, 0.75, 1.  ]], dtype=float32)
    """
    left, top, right, bottom = region
    return resample_at(grid, window, np.arange(top, bottom), np.arange(left, right))


def resample_at(
    grid: NDArray[np.float32], window: ArrayLike, rows: NDArray[np.number], columns: NDArray[np.number]
) -> NDArray[np.float32]:
    """Interpolate as :func:`resample` does, at any rows and columns: (len(rows), len(columns)) float32."""
    x0, y0, x1, y1 = np.asarray(window, dtype=np.float64)
    above, below, weight_y = neighbor_cells(rows, y0, y1, grid.shape[0])
    before, after, weight_x = neighbor_cells(columns, x0, x1, grid.shape[1])
    # Rows first: the grid is small, and the intermediate result is not wide yet.
    tall = _lerp(grid, above, below, weight_y, axis=0)
    return _lerp(tall, before, after, weight_x, axis=1)


def bound_tiles(
    grid: NDArray[np.float32],
    window: ArrayLike,
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    side: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Bound the values of :func:`resample_at` in tiles of `side` rows and columns, from the cells that they depend on.

    Returns:
        Minima and maxima (tiles down, tiles across); NaN if a tile may depend on a cell of NaN.

    Examples:
        >>> grid = np.array([[0, 1, 5]], dtype=np.float32)
        >>> bound_tiles(grid, (0, 0, 12, 1), np.arange(1), np.arange(12), side=6)[1]
        array([[1., 5.]], dtype=float32)
    """
    x0, y0, x1, y1 = np.asarray(window, dtype=np.float64)
    low = high = grid
    for axis, pixels, start, end in ((0, rows, y0, y1), (1, columns, x0, x1)):
        before, after, _ = neighbor_cells(pixels, start, end, grid.shape[axis])
        last = np.minimum(np.arange(side, len(pixels) + side, side), len(pixels)) - 1
        spans = np.stack([before[::side], after[last] + 1], axis=1).ravel()
        low, high = (
            reduce.reduceat(np.concatenate([values, values.take([-1], axis)], axis), spans, axis)
            for reduce, values in ((np.minimum, low), (np.maximum, high))
        )
        every_other = np.arange(0, len(spans), 2)  # what lies between two spans is of no use
        low, high = low.take(every_other, axis), high.take(every_other, axis)
    return low, high


def neighbor_cells(
    pixels: NDArray[np.number], start: float, end: float, count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Return the cell before the center of each pixel, the one after it, and the weight of the latter."""
    place = ((pixels + 0.5 - start) * count / (end - start) - 0.5).clip(0, count - 1)
    before = place.astype(np.int64)
    return before, np.minimum(before + 1, count - 1), (place - before).astype(np.float32)


def _lerp(
    values: NDArray[np.float32],
    before: NDArray[np.int64],
    after: NDArray[np.int64],
    weight: NDArray[np.float32],
    axis: int,
) -> NDArray[np.float32]:
    """Interpolate linearly along an axis; a weight of 0 returns the first value even if the second is NaN."""
    second = np.where(weight > 0, after, before)
    first, result = values.take(before, axis), values.take(second, axis)
    result -= first
    result *= weight[:, None] if axis == 0 else weight
    result += first
    return result
