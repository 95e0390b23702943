"""Convert COCO segmentations (polygons and run-length codes) to and from binary masks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from numbers import Integral
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

Rle: TypeAlias = dict[str, Any]
"""A compressed COCO run-length code: ``{"size": [height, width], "counts": str}``."""

Segmentation: TypeAlias = Sequence[Sequence[float]] | Mapping[str, Any]
"""A COCO segmentation: polygons ``[[x0, y0, x1, y1, ...], ...]`` or a run-length code in either form."""

_STRIP = 1 << 22  # pixels that are encoded at once

MAX_COORDINATE = 1_000_000  # pixels from the origin; a vertex beyond is an error
MAX_PERIMETER = 20_000_000  # pixels, each of which takes about 40 bytes while a polygon is filled


def encode(mask: NDArray[np.generic]) -> Rle:
    """Encode a binary mask as a compressed run-length code.

    Args:
        mask: (H, W), any dtype; non-zero is foreground.

    Returns:
        The code with its counts as ``str``, ready for JSON.

    Examples:
        >>> encode(np.eye(2))
        {'size': [2, 2], 'counts': '0120'}
    """
    return _as_text(coco_mask.encode(np.asfortranarray(mask != 0, dtype=np.uint8)))


def decode(rle: Rle) -> NDArray[np.uint8]:
    """Decode a compressed run-length code to an (H, W) uint8 mask of zeros and ones.

    Examples:
        >>> decode({"size": [2, 2], "counts": "0120"}).tolist()
        [[1, 0], [0, 1]]
    """
    return coco_mask.decode(rle)


def decode_in_box(rle: Rle) -> tuple[NDArray[np.uint8], int, int]:
    """Decode a mask as :func:`encode_in_box` takes it: its tight box (h, w) of zeros and ones, left column and top row.

    Examples:
        >>> decode_in_box(encode_in_box(np.ones((1, 2)), x0=1, y0=1, height=3, width=4))
        (array([[1, 1]], dtype=uint8), 1, 1)
    """
    height, width = rle["size"]
    columns, x, y = draw_runs(parse_runs(rle["counts"], height * width), height)
    return np.ascontiguousarray(columns.T), x, y


def draw_runs(runs: NDArray[np.int64], height: int) -> tuple[NDArray[np.uint8], int, int]:
    """Draw the runs of a code within its tight box: (w, h) zeros and ones, column by column, left column and top row.

    Examples:
        >>> draw_runs(np.array([4, 2, 1, 1, 1]), height=3)
        (array([[1, 1],
               [1, 0]], dtype=uint8), 1, 1)
    """
    ends = runs.cumsum()
    starts, stops = ends[:-1:2], ends[1::2]
    drawn = starts < stops
    starts, stops = starts[drawn], stops[drawn]
    if not len(starts):
        return np.zeros((0, 0), dtype=np.uint8), 0, 0
    column, top = np.divmod(starts, height)
    x, w = int(column[0]), int((stops[-1] - 1) // height - column[0]) + 1
    bottom = int((top + stops - starts).max())
    # A run that reaches the bottom of a column may continue at the top of the next.
    y, h = (0, height) if bottom > height else (int(top.min()), bottom - int(top.min()))
    edges = np.empty(2 * len(starts) + 1, dtype=np.int64)
    edges[:-1:2] = (column - x) * h + top - y
    edges[1::2] = edges[:-1:2] + stops - starts
    edges[-1] = w * h
    lengths = edges.copy()
    lengths[1:] -= edges[:-1]
    values = np.arange(len(lengths), dtype=np.uint8) & np.uint8(1)
    return np.repeat(values, lengths).reshape(w, h), x, y


def mask_iou(rle: Rle, other: Rle) -> float:
    """Compute the IoU of two masks of the same size; 0 if both are empty.

    Examples:
        >>> mask_iou(encode(np.eye(2)), encode(np.ones((2, 2))))
        0.5
    """
    shared = float(coco_mask.area(coco_mask.merge([rle, other], intersect=True)))
    union = float(coco_mask.area(rle)) + float(coco_mask.area(other)) - shared
    return shared / union if union else 0.0


def decode_all(rles: Sequence[Rle], height: int, width: int) -> NDArray[np.bool_]:
    """Decode the codes of one image to (N, height, width) bool masks."""
    masks = np.zeros((len(rles), height, width), dtype=bool)
    for mask, rle in zip(masks, rles, strict=True):
        mask[:] = decode(rle)
    return masks


def to_rle(segmentation: Segmentation, height: int, width: int) -> Rle:
    """Convert any COCO segmentation to one compressed run-length code.

    Args:
        segmentation: Polygons, or a compressed or uncompressed run-length code.
        height: Height of the image in pixels.
        width: Width of the image in pixels.

    Raises:
        ValueError: The segmentation is empty or malformed, or a code has another size than the image.

    Examples:
        >>> int(decode(to_rle([[0, 0, 4, 0, 4, 2, 0, 2]], height=3, width=5)).sum())
        8
    """
    if min(height, width) < 0:
        raise ValueError(f"an image of {height} x {width}")
    if isinstance(segmentation, Mapping):
        if list(segmentation["size"]) != [height, width]:
            raise ValueError(
                f"a run-length code of size {segmentation['size']} in an image of [{height}, {width}], height first"
            )
        if isinstance(segmentation["counts"], list):
            _check_counts(segmentation["counts"], height, width)
            return _as_text(coco_mask.frPyObjects(dict(segmentation), height, width))
        parse_runs(segmentation["counts"], height * width)
        return _as_text(dict(segmentation))
    if any(len(polygon) % 2 for polygon in segmentation):
        raise ValueError("a polygon has an odd number of coordinates")
    polygons = [polygon for polygon in segmentation if len(polygon) >= 6]
    if not polygons:
        raise ValueError("no polygon of three or more vertices")
    _check_polygons(polygons)
    parts = coco_mask.frPyObjects([list(map(float, p)) for p in polygons], height, width)
    return _as_text(parts[0] if len(parts) == 1 else coco_mask.merge(parts))


def _check_polygons(polygons: Sequence[Sequence[float]]) -> None:
    """Refuse vertices that would crash pycocotools, which walks along every edge in memory."""
    for polygon in polygons:
        farthest = max(map(abs, polygon))
        if not farthest <= MAX_COORDINATE or not all(map(math.isfinite, polygon)):
            raise ValueError(f"a vertex at {farthest:g} pixels")
        if len(polygon) * farthest > MAX_PERIMETER:  # which the perimeter may exceed only then
            points = np.array(polygon, dtype=np.float64).reshape(-1, 2)
            perimeter = np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum()
            if perimeter > MAX_PERIMETER:
                raise ValueError(f"a polygon whose edges have {perimeter:g} pixels")


def _check_counts(counts: Sequence[Any], height: int, width: int) -> None:
    """Refuse runs that do not fill their image; pycocotools never returns from runs that are not whole numbers."""
    if set(map(type, counts)) != {int} or min(counts) < 0:
        for run in counts:
            if not isinstance(run, Integral) or isinstance(run, bool) or run < 0:
                raise ValueError(f"a run of {run!r:.20} pixels")
    if sum(counts) != height * width:
        raise ValueError(f"runs of {sum(counts)} pixels in an image of {height} x {width} = {height * width}")


@lru_cache(maxsize=16)  # a code is checked first, and then decoded
def parse_runs(counts: str | bytes, pixels: int) -> NDArray[np.int64]:
    """Return the runs of a compressed code; refuse one that does not fill its image, as pycocotools reads past its end.

    Each character holds 5 bits of a number, lowest first, and above them a bit that is set if more follow; the fifth
    bit of the last character is the sign. From the fourth run on, a number is the difference to the run two before.
    """
    text = counts.encode("ascii") if isinstance(counts, str) else counts
    chars = np.frombuffer(text, dtype=np.uint8) - np.uint8(48)  # wraps below 48
    if not len(chars) or chars.max() > 63 or chars[-1] & 32:
        raise ValueError("a run-length code with characters that are not numbers")
    ends = (chars < 32).nonzero()[0]
    lengths = ends.copy()
    lengths[0] += 1
    lengths[1:] -= ends[:-1]
    longest = int(lengths.max())
    if longest > 8:
        raise ValueError("a run-length code with numbers that are too large")
    last = chars[ends].view(np.int8)
    runs = ((last & 15) - (last & 16)).astype(np.int64)
    for place in range(1, longest):
        more = (lengths > place).nonzero()[0]
        runs[more] = (runs[more] << 5) | (chars[ends[more] - place] & 31)
    runs[1::2].cumsum(out=runs[1::2])
    runs[2::2].cumsum(out=runs[2::2])
    if runs.min() < 0 or runs.sum() != pixels:
        raise ValueError(f"runs of {runs.sum()} pixels in an image of {pixels}")
    runs.flags.writeable = False
    return runs


def encode_in_box(mask: NDArray[np.generic], x0: int, y0: int, height: int, width: int) -> Rle:
    """Encode an image that is zero except for a mask at (x0, y0).

    The image itself is never made, so a small mask in a huge image costs only its own size.

    Args:
        mask: (h, w), any dtype; non-zero is foreground. What lies outside the image is cut off.
        x0: Column of the mask's left edge.
        y0: Row of the mask's top edge.
        height: Height of the image in pixels.
        width: Width of the image in pixels.

    Examples:
        >>> encode_in_box(np.ones((1, 2)), x0=1, y0=1, height=3, width=4) == to_rle(
        ...     {"size": [3, 4], "counts": [4, 1, 2, 1, 4]}, 3, 4
        ... )
        True
    """
    mask = mask[max(-y0, 0) : max(height - y0, 0), max(-x0, 0) : max(width - x0, 0)]
    x0, y0 = max(x0, 0), max(y0, 0)
    h, w = mask.shape
    # Codes run down the columns. A zero below each column keeps its last run apart from the next one's
    # first, and one more in front lets the first run begin with an edge.
    found = [np.zeros(0, dtype=np.int64)]
    step = max(1, _STRIP // (h + 1))
    for start in range(0, w if h else 0, step):
        part = cv2.transpose((mask[:, start : start + step] != 0).view(np.uint8))
        padded = np.zeros(1 + len(part) * (h + 1), dtype=np.uint8)
        padded[1:].reshape(-1, h + 1)[:, :h] = part.reshape(-1, h)
        found.append(np.flatnonzero(padded[1:] != padded[:-1]) + start * (h + 1))
    edges = np.concatenate(found)
    edges = x0 * height + y0 + edges // (h + 1) * height + edges % (h + 1)
    # If the mask is as tall as the image, a run continues in the next column: join the two.
    touching = np.flatnonzero(edges[1:] == edges[:-1])
    if len(touching):
        edges = np.delete(edges, np.concatenate([touching, touching + 1]))
    bounds = np.concatenate([[0], edges, [height * width]])
    counts = (bounds[1:] - bounds[:-1]).tolist()
    if counts[-1] == 0:  # a code ends with its last run
        counts.pop()
    return _as_text(coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width))


def _as_text(rle: Rle) -> Rle:
    counts = rle["counts"]
    return {
        "size": [int(n) for n in rle["size"]],
        "counts": counts.decode("ascii") if isinstance(counts, bytes) else counts,
    }


def polygon_area(points: NDArray[Any]) -> float:
    """Compute the area in square pixels that a polygon of (V, 2) vertices encloses (shoelace formula).

    Examples:
        >>> polygon_area(np.array([[0, 0], [4, 0], [4, 3]]))
        6.0
    """
    x, y = np.concatenate([points, points[:1]]).T
    return abs(float(x[:-1] @ y[1:] - y[:-1] @ x[1:])) / 2
