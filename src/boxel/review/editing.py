"""Changes of a mask: predicted in another box, a stroke of a brush, a moved vertex."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from boxel.data.formats.outlines import trace_outline
from boxel.labeling.box_segmenter import BoxSegmenter
from boxel.masks.boxes import Region
from boxel.masks.clicks import correct_by_click
from boxel.masks.crops import crop_window
from boxel.masks.rle import Rle, decode, decode_in_box, encode_in_box, to_rle
from boxel.utils.errors import BoxelError

Points = Sequence[tuple[float, float]]
"""Vertices (x, y) in pixels of the image, whose first pixel reaches from 0 to 1."""

_MAX_NEIGHBORS = 3  # boxes that the teacher sees besides the one that it predicts in
_CLICK_MARGIN = 0.25  # around a box and clicks that decides about a click, as a share of their longer side
_MARGIN = 0.3  # around a box in which others are its neighbors, as a share of its sides
_MAX_STROKE = 500_000_000  # pixels around the lines between points, about 10 seconds
_TOLERANCE = 0.02  # distance of few vertices from the border, as a share of the diagonal of the mask


class Predicted(NamedTuple):
    """A mask that a teacher predicted: its code, and its quality, None if unknown."""

    rle: Rle
    quality: float | None


def predict_in_box(
    segmenter: BoxSegmenter,
    image: NDArray[np.uint8],
    box: tuple[float, float, float, float],
    others: NDArray[np.float64],
    label: int,
) -> Predicted | None:
    """Predict the mask of a box; of the other objects, the teacher sees the boxes that reach into its surroundings.

    Args:
        segmenter: Predicts it.
        image: (H, W, 3) uint8 RGB.
        box: xyxy pixels.
        others: (M, 4) boxes of the other objects of the image.
        label: Index of the class of the object.

    Returns:
        The mask; None if the teacher sees no object.
    """
    window = crop_window(box, _MARGIN)
    shared = (
        (np.minimum(others[:, 2:], window[2:]) - np.maximum(others[:, :2], window[:2]))
        .clip(min=0)
        .prod(axis=1)
    )
    nearest = np.argsort(-shared, kind="stable")[:_MAX_NEIGHBORS]
    boxes = np.concatenate([[box], others[nearest[shared[nearest] > 0]]])
    result = segmenter(image, boxes, [label] * len(boxes))
    quality = float(result.quality[0])
    if np.isnan(quality) and not result.scores[0]:
        return None
    return Predicted(result.rles[0], None if np.isnan(quality) else quality)


def correct(
    rle: Rle | None,
    image: NDArray[np.uint8],
    box: tuple[float, float, float, float],
    clicks: Sequence[tuple[int, int, bool]],
) -> Rle:
    """Correct a mask by the last of some clicks; the earlier ones hold.

    Args:
        rle: The mask, or None.
        image: (H, W, 3) uint8 RGB.
        box: Of the object, xyxy pixels.
        clicks: At least one: column, row, and whether the pixel belongs to the object.

    Examples:
        >>> image = np.zeros((40, 40, 3), np.uint8)
        >>> image[10:30, 8:32] = 200
        >>> mask = encode_in_box(np.ones((20, 12)), 8, 10, 40, 40)
        >>> int(decode(correct(mask, image, (6, 8, 34, 32), [(26, 20, True)]))[20].sum()) > 20
        True
    """
    size = image.shape[0], image.shape[1]
    *earlier, (x, y, add) = clicks
    points = np.array(
        [box[:2], box[2:], *([a, b] for a, b, _ in clicks), *([a + 1, b + 1] for a, b, _ in clicks)]
    )
    low, high = points.min(axis=0), points.max(axis=0)
    margin = _CLICK_MARGIN * (high - low).max() + 4
    region = _clip(low - margin, high + margin, size)
    left, top = region.left, region.top
    before = _crop(rle, region)
    after = correct_by_click(
        image[region.slices],
        before,
        np.array(box) - [left, top, left, top],
        (x - left, y - top),
        add,
        [(a - left, b - top, inside) for a, b, inside in earlier],
    )
    return _change(rle, size, region, [(after & ~before, True), (before & ~after, False)])


def brush(rle: Rle | None, size: tuple[int, int], points: Points, radius: float, add: bool) -> Rle:
    """Add a stroke of a round brush to a mask, or remove it.

    Args:
        rle: The mask, or None.
        size: (height, width) of the image.
        points: Where the brush went, at least one point.
        radius: Of the brush in pixels; the pixels whose centers are at most this far from its way belong to the stroke.
        add: Add, or else remove.

    Raises:
        BoxelError: It would take a minute: thousands of points of a brush as wide as the image.

    Examples:
        >>> from boxel.masks.rle import decode
        >>> decode(brush(None, (3, 8), [(1.5, 1.5), (5.5, 1.5)], 0.5, add=True)).tolist()[1]
        [0, 1, 1, 1, 1, 1, 0, 0]
    """
    line = np.array(points, dtype=np.float64).reshape(-1, 2)
    region = _clip(line.min(axis=0) - radius, line.max(axis=0) + radius, size)
    ends = line[1:] if len(line) > 1 else line
    parts = [
        _clip(np.minimum(start, end) - radius, np.maximum(start, end) + radius, size)
        for start, end in zip(line, ends, strict=False)
    ]
    if sum(math.prod(part.shape) for part in parts) > _MAX_STROKE:
        raise BoxelError("this stroke is too long for so wide a brush; draw it in several strokes.")
    stroke = np.zeros(region.shape, dtype=bool)
    for part, start, end in zip(parts, line, ends, strict=False):
        stroke[_within(part, region)] |= _distances(part, start, end) <= radius
    return _change(rle, size, region, [(stroke, add)])


def move_outline(rle: Rle | None, size: tuple[int, int], before: Points, after: Points) -> Rle:
    """Change a mask by what a polygon gains and loses; the rest of the mask keeps all its detail.

    Args:
        rle: The mask, or None.
        size: (height, width) of the image.
        before: Vertices of the polygon, none for a new one.
        after: Its vertices now, none if it was removed.

    Examples:
        >>> from boxel.masks.rle import decode
        >>> square = [(0, 0), (4, 0), (4, 4), (0, 4)]
        >>> mask = move_outline(None, (6, 6), [], square)
        >>> int(decode(move_outline(mask, (6, 6), square, [(0, 0), (6, 0), (6, 4), (0, 4)])).sum())
        24
    """
    both = np.array([*before, *after], dtype=np.float64).reshape(-1, 2)
    region = _clip(both.min(axis=0), both.max(axis=0), size) if len(both) else Region(0, 0, 0, 0)
    old, new = _fill(before, region), _fill(after, region)
    return _change(rle, size, region, [(new & ~old, True), (old & ~new, False)])


def few_vertices(rle: Rle) -> list[list[tuple[float, float]]]:
    """Return polygons of few vertices around the parts of a mask, for a person to move.

    Examples:
        >>> few_vertices(encode_in_box(np.ones((20, 30)), 5, 5, 40, 50))
        [[(5.0, 5.0), (5.0, 25.0), (35.0, 25.0), (35.0, 5.0)]]
    """
    mask, _, _ = decode_in_box(rle)
    if not mask.size:
        return []
    tolerance = max(_TOLERANCE * float(np.hypot(*mask.shape)), 0.75)
    rings = trace_outline(rle, tolerance).rings
    return [list(zip(ring[::2], ring[1::2], strict=True)) for ring in rings if len(ring) >= 6]


def _change(
    rle: Rle | None, size: tuple[int, int], region: Region, changes: Sequence[tuple[NDArray[np.bool_], bool]]
) -> Rle:
    """Set pixels of a region of a mask to values."""
    old, left, top = (
        (np.zeros((0, 0), np.uint8), region.left, region.top) if rle is None else decode_in_box(rle)
    )
    if not old.size:
        left, top = region.left, region.top
    height, width = old.shape
    corner = min(left, region.left), min(top, region.top)
    canvas = np.zeros(
        (max(top + height, region.bottom) - corner[1], max(left + width, region.right) - corner[0]),
        dtype=bool,
    )
    canvas[top - corner[1] :, left - corner[0] :][:height, :width] = old
    inside = canvas[
        region.top - corner[1] : region.bottom - corner[1], region.left - corner[0] : region.right - corner[0]
    ]
    for pixels, value in changes:
        inside[pixels] = value
    return encode_in_box(canvas, *corner, *size)


def _crop(rle: Rle | None, region: Region) -> NDArray[np.bool_]:
    """Return a region of a mask."""
    cropped = np.zeros(region.shape, dtype=bool)
    if rle is None:
        return cropped
    mask, left, top = decode_in_box(rle)
    height, width = mask.shape
    x0, y0 = max(left, region.left), max(top, region.top)
    x1, y1 = min(left + width, region.right), min(top + height, region.bottom)
    if x0 < x1 and y0 < y1:
        inside = cropped[y0 - region.top : y1 - region.top, x0 - region.left : x1 - region.left]
        inside[:] = mask[y0 - top : y1 - top, x0 - left : x1 - left]
    return cropped


def _clip(low: NDArray[np.float64], high: NDArray[np.float64], size: tuple[int, int]) -> Region:
    """Return the pixels of an image between two corners."""
    height, width = size
    x0, y0 = np.floor(low).clip(0, [width, height]).astype(int).tolist()
    x1, y1 = np.ceil(high).clip([x0, y0], [max(width, x0), max(height, y0)]).astype(int).tolist()
    return Region(x0, y0, x1, y1)


def _within(part: Region, region: Region) -> tuple[slice, slice]:
    return (
        slice(part.top - region.top, part.bottom - region.top),
        slice(part.left - region.left, part.right - region.left),
    )


def _distances(part: Region, start: NDArray[np.float64], end: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the distances of the centers of pixels from a line between two points."""
    x = np.arange(part.left, part.right) + 0.5 - start[0]
    y = np.arange(part.top, part.bottom)[:, None] + 0.5 - start[1]
    dx, dy = end - start
    share = ((x * dx + y * dy) / max(dx * dx + dy * dy, 1e-9)).clip(0, 1)
    return np.hypot(x - share * dx, y - share * dy)


def _fill(vertices: Points, region: Region) -> NDArray[np.bool_]:
    """Return the pixels of a region that a polygon covers."""
    if len(vertices) < 3 or 0 in region.shape:
        return np.zeros(region.shape, dtype=bool)
    ring = (np.array(vertices, dtype=np.float64) - [region.left, region.top]).ravel().tolist()
    return decode(to_rle([ring], *region.shape)) > 0
