"""Boxes and areas of many written segmentations at once; none is rasterized."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from boxel.masks.rle import parse_runs

MIN_OBB_FILL = 0.8
"""A quadrilateral is an oriented box if it fills this share of the smallest rectangle around it: corners that people
click, or that a tool scales with the image, are rarely at right angles."""

_MIN_COORDINATES = 6
"""A polygon of fewer has no area."""

# Numbers in lists are slow to keep and to convert; as MessagePack, a float is a byte and its 8 bytes.
_pack = msgspec.msgpack.Encoder().encode
_PACKED, _FLOAT = np.dtype([("type", "u1"), ("number", ">f8")]), 0xCB

_MAX_CODE_PIXELS = 2**31
"""pycocotools counts pixels in 32 bits."""

_CHARS = 1 << 15
"""Characters of codes that are decoded at once: all arrays stay in the cache of a processor."""


@dataclass(frozen=True)
class CodeShapes:
    """Measures of n compressed run-length codes.

    Attributes:
        sound: (n,) bool, `parse_runs` accepts the code.
        boxes: (n, 4) float64, tight xyxy box of a sound code; NaN without a pixel.
        areas: (n,) int64 pixels.
    """

    sound: NDArray[np.bool_]
    boxes: NDArray[np.float64]
    areas: NDArray[np.int64]


def measure_codes(
    texts: Sequence[str], sizes: Sequence[Sequence[int]], with_boxes: bool = True
) -> CodeShapes:
    """Find which compressed run-length codes are sound, and measure these.

    Args:
        texts: n codes.
        sizes: (height, width) of each.
        with_boxes: Whether to find the boxes, which takes as long as all else.

    Examples:
        >>> shapes = measure_codes(["0120", "01"], [(2, 2), (2, 2)])
        >>> shapes.sound.tolist(), shapes.boxes[0].tolist(), shapes.areas.tolist()
        ([True, False], [0.0, 0.0, 2.0, 2.0], [2, 0])
    """
    n = len(texts)
    shapes = CodeShapes(np.zeros(n, dtype=bool), np.full((n, 4), np.nan), np.zeros(n, dtype=np.int64))
    rows = np.array([i for i, text in enumerate(texts) if text and text.isascii()], dtype=np.int64)
    for part in _split_codes(np.array([len(texts[i]) for i in rows], dtype=np.int64)):
        _measure_some(rows[part], texts, sizes, shapes, with_boxes)
    return shapes


def _measure_some(
    rows: NDArray[np.int64],
    texts: Sequence[str],
    sizes: Sequence[Sequence[int]],
    shapes: CodeShapes,
    with_boxes: bool,
) -> None:
    """Fill in the measures of some codes."""
    chars, first = _join_codes([texts[i] for i in rows])
    last = np.append(first[1:], len(chars)) - 1
    ended = (np.maximum.reduceat(chars, first) <= 63) & (chars[last] < 32)
    if not ended.all():  # without these, as their last number would run into the next code
        rows = rows[ended]
        if not len(rows):
            return
        chars, first = _join_codes([texts[i] for i in rows])
    runs, starts, too_large = _decode_runs(chars, first)
    totals, areas = _undo_differences(runs, starts)
    pixels = np.array([sizes[i][0] * sizes[i][1] for i in rows], dtype=np.float64)
    sound = (totals == pixels) & ~too_large
    if runs.min() < 0:
        sound &= np.minimum.reduceat(runs, starts) >= 0
    shapes.sound[rows] = sound
    shapes.areas[rows] = np.where(sound, areas, 0)
    if not with_boxes:
        return
    gaps = pixels >= _MAX_CODE_PIXELS
    empty = np.flatnonzero(runs == 0)
    code = np.searchsorted(starts, empty, side="right") - 1
    gaps[code[empty > starts[code]]] = True
    measured = shapes.areas[rows] > 0
    fast = rows[measured & ~gaps]
    if len(fast):
        boxes = coco_mask.toBbox([{"size": sizes[i], "counts": texts[i]} for i in fast])
        boxes[:, 2:] += boxes[:, :2]
        shapes.boxes[fast] = boxes
    for i in rows[measured & gaps]:  # pycocotools takes a run of no pixels for some
        height, width = sizes[i]
        shapes.boxes[i] = _find_box(parse_runs(texts[i], height * width), height)


def iter_runs(texts: Sequence[str]) -> Iterator[NDArray[np.int64]]:
    """Yield the runs of sound compressed codes, which are decoded many at once.

    Examples:
        >>> [runs.tolist() for runs in iter_runs(["0120", "13"])]
        [[0, 1, 2, 1], [1, 3]]
    """
    for part in _split_codes(np.array([len(text) for text in texts], dtype=np.int64)):
        runs, starts, _ = _decode_runs(*_join_codes(texts[part]))
        _undo_differences(runs, starts)
        yield from np.split(runs, starts[1:])


def _split_codes(lengths: NDArray[np.int64]) -> Iterator[slice]:
    """Yield slices of codes with some numbers of characters that are best decoded together."""
    totals = np.cumsum(lengths)
    start = 0
    while start < len(totals):
        limit = totals[start] - lengths[start] + _CHARS
        stop = max(int(np.searchsorted(totals, limit, side="right")), start + 1)
        yield slice(start, stop)
        start = stop


def _join_codes(texts: Sequence[str]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the numbers that the characters of texts stand for, and where each text starts."""
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    chars = np.frombuffer("".join(texts).encode("ascii"), dtype=np.uint8) - np.uint8(48)  # wraps below 48
    return chars, np.cumsum(lengths) - lengths


def _decode_runs(
    chars: NDArray[np.uint8], first: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Return the numbers of all codes, where each code starts, and whether it has one of too many characters."""
    ends = np.flatnonzero(chars < 32)
    lengths = np.append(ends[0] + 1, ends[1:] - ends[:-1])
    starts = np.searchsorted(ends, first)
    last = chars[ends].view(np.int8)
    runs = ((last & 15) - (last & 16)).astype(np.int64)  # the fifth bit is the sign
    longest = int(lengths.max())
    more = np.flatnonzero(lengths > 1)
    for place in range(1, min(longest, 8)):
        more = more[lengths[more] > place]
        runs[more] = (runs[more] << 5) | (chars[ends[more] - place] & 31)
    too_large = np.maximum.reduceat(lengths, starts) > 8 if longest > 8 else np.zeros(len(starts), dtype=bool)
    return runs, starts, too_large


def _undo_differences(
    runs: NDArray[np.int64], starts: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Turn the numbers of codes into runs, in place, and return the pixels and the area of each code.

    From the fourth on, a number is the difference to the one before the last, so that those at even places and those at
    odd places of all codes are two chains, of which a code is a piece each.
    """
    stops = np.append(starts[1:], len(runs))
    firsts = runs[starts]
    runs[starts] = 0  # it belongs to no chain
    totals, areas = firsts.copy(), np.zeros_like(firsts)
    for place in (0, 1):
        low, high = (starts - place + 1) // 2, (stops - place + 1) // 2
        sums = np.concatenate([[0], np.cumsum(runs[place::2])])
        chain = sums[1:] - np.repeat(sums[low], high - low)
        runs[place::2] = chain
        sums = np.concatenate([[0], np.cumsum(chain)])
        part = sums[high] - sums[low]
        totals += part
        areas += np.where(starts % 2 == place, 0, part)
    runs[starts] = firsts
    return totals, areas


def _find_box(runs: NDArray[np.int64], height: int) -> Sequence[float]:
    ends = np.cumsum(runs)
    starts, ends = ends[:-1:2], ends[1::2]
    starts, ends = starts[starts < ends], ends[starts < ends]
    x0, x1 = starts // height, (ends - 1) // height + 1
    wraps = x1 - x0 > 1  # a run that continues in the next column touches the lower and the upper edge
    y0, y1 = np.where(wraps, 0, starts % height), np.where(wraps, height, (ends - 1) % height + 1)
    return [x0.min(), y0.min(), x1.max(), y1.max()]


@dataclass(frozen=True)
class PolygonShapes:
    """Measures of the polygons of n masks.

    Attributes:
        boxes: (n, 4) float64, tight xyxy box of the polygons with area; NaN if there is none.
        farthest: (n,) float64, maximum absolute coordinate.
        empty: (n,) int64, polygons of fewer than three vertices or without area.
        rectangle: (n,) bool, one polygon is the tight box itself.
        oriented: (n,) bool, there is one polygon, and it is an oriented box.
    """

    boxes: NDArray[np.float64]
    farthest: NDArray[np.float64]
    empty: NDArray[np.int64]
    rectangle: NDArray[np.bool_]
    oriented: NDArray[np.bool_]


def measure_polygons(masks: Iterable[Sequence[Sequence[float]]]) -> PolygonShapes:
    """Measure the polygons of masks, each an even number of finite coordinates, all of them floats.

    Examples:
        >>> square, rhombus = [1.0, 1.0, 5.0, 1.0, 5.0, 4.0, 1.0, 4.0], [0.0, 2.0, 2.0, 0.0, 4.0, 2.0, 2.0, 4.0]
        >>> shapes = measure_polygons([[square], [rhombus, [7.0, 7.0]], []])
        >>> shapes.boxes[0].tolist(), shapes.rectangle.tolist(), shapes.oriented.tolist()
        ([1.0, 1.0, 5.0, 4.0], [True, False, False], [True, True, False])
        >>> shapes.empty.tolist()
        [0, 1, 0]
    """
    owners: list[int] = []
    lengths: list[int] = []
    packed: list[bytes] = []
    n = 0
    for mask in masks:
        for ring in mask:
            owners.append(n)
            lengths.append(len(ring))
            if len(ring) >= _MIN_COORDINATES:
                packed.append(_pack(ring)[-9 * len(ring) :])
        n += 1
    shapes = PolygonShapes(
        np.full((n, 4), np.nan), np.zeros(n), np.zeros(n, dtype=np.int64), *np.zeros((2, n), dtype=bool)
    )
    owner, length = np.array(owners, dtype=np.int64), np.array(lengths, dtype=np.int64)
    drawn = length >= _MIN_COORDINATES
    np.add.at(shapes.empty, owner[~drawn], 1)
    if packed:
        points = np.frombuffer(b"".join(packed), dtype=_PACKED)
        assert (points["type"] == _FLOAT).all(), "the coordinates of polygons must be floats"
        points = points["number"].astype(np.float64)
        _measure_rings(points[0::2].copy(), points[1::2].copy(), length[drawn] // 2, owner[drawn], shapes)
    return shapes


def _measure_rings(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    sizes: NDArray[np.int64],
    owner: NDArray[np.int64],
    shapes: PolygonShapes,
) -> None:
    """Fill in the measures of rings of some sizes, each of the mask that owns it."""
    starts = np.cumsum(sizes) - sizes
    low = np.stack([np.minimum.reduceat(column, starts) for column in (x, y)], axis=1)
    high = np.stack([np.maximum.reduceat(column, starts) for column in (x, y)], axis=1)
    np.maximum.at(shapes.farthest, owner, np.maximum(np.abs(low), np.abs(high)).max(axis=1))
    solid = (low < high).all(axis=1)
    np.add.at(shapes.empty, owner[~solid], 1)
    first = np.flatnonzero(np.diff(owner[solid], prepend=-1))
    if not len(first):
        return
    masks = owner[solid][first]
    shapes.boxes[masks, :2] = np.minimum.reduceat(low[solid], first)
    shapes.boxes[masks, 2:] = np.maximum.reduceat(high[solid], first)

    x, y = x - np.repeat(low[:, 0], sizes), y - np.repeat(low[:, 1], sizes)
    next_x, next_y = _follow(x, starts, sizes), _follow(y, starts, sizes)
    area = np.abs(np.add.reduceat(x * next_y - next_x * y, starts)) / 2
    moves = (x != next_x) | (y != next_y)  # False where a vertex is repeated
    quad = (np.add.reduceat(moves, starts, dtype=np.int64) == 4) & solid
    quads = np.flatnonzero(quad)

    sides = high - low
    slack = np.where(quad, np.minimum(1, sides.min(axis=1) / 20), 1e-6 * sides.max(axis=1))
    fills = solid & (area >= sides.prod(axis=1) - slack * sides.sum(axis=1))
    whole = (low == shapes.boxes[owner, :2]).all(axis=1) & (high == shapes.boxes[owner, 2:]).all(axis=1)
    shapes.rectangle[owner[fills & whole]] = True
    if len(quads):
        corners = np.flatnonzero(moves & np.repeat(quad, sizes))
        four = np.stack([x[corners], y[corners]], axis=1).reshape(-1, 4, 2)
        oriented = area[quads] >= MIN_OBB_FILL * _smallest_rectangles(four)
        alone = np.bincount(owner[solid], minlength=len(shapes.oriented)) == 1
        shapes.oriented[owner[quads[oriented]]] = True
        shapes.oriented[~alone] = False


def _follow(
    column: NDArray[np.float64], starts: NDArray[np.int64], sizes: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the coordinate of the vertex after each one in its ring."""
    following = np.append(column[1:], 0.0)
    following[starts + sizes - 1] = column[starts]
    return following


def _smallest_rectangles(four: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) area of the smallest rectangle around (n, 4, 2) corners; one of its sides is along an edge or a diagonal."""
    edges = np.roll(four, -1, axis=1) - four
    edges = np.concatenate([edges, four[:, 2:] - four[:, :2]], axis=1)  # (n, 6, 2)
    edges /= np.maximum(np.linalg.norm(edges, axis=2, keepdims=True), 1e-12)
    along = np.einsum("nec,nvc->nev", edges, four)
    across = np.einsum("nec,nvc->nev", edges[..., ::-1] * [1, -1], four)
    return (np.ptp(along, axis=2) * np.ptp(across, axis=2)).min(axis=1)
