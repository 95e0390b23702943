"""Masks as rings of vertices, for formats that hold nothing else, and for people who edit them.

A ring is ``[x0, y0, x1, y1, ...]`` in pixels. Each part of a mask is one ring in keyhole form: it passes to each hole
and back along a line of no width, and runs around the hole in the other direction, so that filling it by the even-odd
or by the nonzero rule leaves the hole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from boxel.masks.rle import Rle, Segmentation, decode_in_box, mask_iou, to_rle

MIN_IOU = 0.99
"""Minimum mask IoU of an outline with its mask, unless a tolerance is given."""

_TOLERANCES = (0.35, 0.5, 0.71, 0.85, 1.0, 1.2, 1.4, 1.7, 2.0, 2.4, 2.8, 3.4, 4.0, 4.8, 5.7, 8.0, 11.0, 16.0)
"""Tolerances in pixels that are tried; from 0.35 on the steps of a slope become a line."""

_EXPECTED_LOSS = 0.17
"""Area between an outline and its simplification, per pixel of tolerance and of length, on average."""


class Outline(NamedTuple):
    """Rings of a mask, one per part, the largest first, and their mask IoU with it."""

    rings: list[list[float]]
    iou: float


class _Contour(NamedTuple):
    """The border of a part or of a hole, along the edges of pixels and through the middles of these edges."""

    cracks: NDArray[np.float32]  # (n, 2) corners where it turns: exact
    middles: NDArray[np.int32]  # (m, 2) middles of its edges, in half pixels: slopes are smooth
    part: int  # index of the part that a hole is in; -1 for a part


def find_outline(
    segmentation: Segmentation | None, rle: Rle, tolerance: float | None = None, joined: bool = False
) -> Outline:
    """Find the outline of a mask: its polygons, simplified if a tolerance is given, else `trace_outline`.

    Args:
        segmentation: The mask as it is written.
        rle: The mask.
        tolerance: See `trace_outline`.
        joined: Join the parts into one ring, unless they are polygons that overlap.
    """
    if isinstance(segmentation, list):
        rings = [list(map(float, ring)) for ring in segmentation if len(ring) >= 6]
        several = joined and len(rings) > 1
        if tolerance is None and not several:
            return Outline(rings, 1.0)
        if tolerance is not None:
            rings = simplify_rings(rings, tolerance)
        rings = [join_rings(rings)] if several else rings
        iou = overlap(rings, rle)
        if iou >= MIN_IOU or not several:  # else the parts overlap
            return Outline(rings, iou)
    return trace_outline(rle, tolerance, joined)


def trace_outline(rle: Rle, tolerance: float | None = None, joined: bool = False) -> Outline:
    """Trace the outline of a mask.

    Args:
        rle: The mask.
        tolerance: Maximum distance in pixels between the border of the mask and its ring. 0 is exact; if None, it is
            the largest that keeps `MIN_IOU`.
        joined: Join the parts into one ring, which passes from part to part and back along a line of no width.

    Examples:
        >>> from boxel.masks.rle import encode
        >>> mask = np.zeros((6, 6))
        >>> mask[1:4, 1:5] = 1
        >>> trace_outline(encode(mask))
        Outline(rings=[[1.0, 1.0, 1.0, 4.0, 5.0, 4.0, 5.0, 1.0]], iou=1.0)
    """
    mask, x, y = decode_in_box(rle)
    if not mask.size:
        return Outline([], 0.0)
    contours = _find_contours(mask, (x, y))
    simple, iou = _search(contours, rle) if tolerance is None else (_simplify(contours, tolerance), None)
    if tolerance is None or tolerance > 0:
        cracks = [contour.cracks for contour in contours]
        if sum(map(len, cracks)) <= sum(map(len, simple)):
            simple, iou = cracks, None
    rings = _join_holes(simple, [contour.part for contour in contours])
    rings.sort(key=lambda ring: -float(np.ptp(ring, axis=0).prod()))
    if joined and len(rings) > 1:
        rings = [_join(rings)]
    if iou is None or len(contours) > 1:  # where the parts overlap, their union is more than their parity
        codes = coco_mask.frPyObjects([ring.ravel().tolist() for ring in rings], *rle["size"])
        iou = mask_iou(coco_mask.merge(codes), rle)
    return Outline([ring.ravel().tolist() for ring in rings], iou)


def _tabulate_edges() -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """List the edges that a border follows at a pixel, by the steps back to the last pixel and ahead to the next one.

    A step is a number, dx + 3 dy + 4. An edge is the corner (x, y) of the pixel in which it starts.

    Returns:
        (9, 9, 4) corners, two int32 as one int64, and whether there is such an edge.
    """
    # In the order in which OpenCV looks for the next pixel, from the last one on.
    around = [5, 2, 1, 0, 3, 6, 7, 8]
    starts = {5: (1, 1), 1: (1, 0), 3: (0, 0), 7: (0, 1)}  # of the edges on the right, at the top, ...
    corners, exist = np.zeros((9, 9, 4, 2), dtype=np.int32), np.zeros((9, 9, 4), dtype=bool)
    for k, back in enumerate(around):
        others = around[k + 1 :] + around[:k]
        for ahead in around:
            passed = others if ahead == back else others[: others.index(ahead)]
            edges = [starts[step] for step in passed if step in starts]
            corners[back, ahead, : len(edges)] = np.reshape(edges, (-1, 2))
            exist[back, ahead, : len(edges)] = True
    corners[4, 4], exist[4, 4] = list(starts.values()), True  # a single pixel
    return corners.view(np.int64)[..., 0], exist


_CORNERS, _EXIST = _tabulate_edges()


def _find_contours(mask: NDArray[np.uint8], offset: tuple[int, int]) -> list[_Contour]:
    """Follow the borders of a mask, whose upper left corner is at an offset, along the edges of its pixels."""
    found, hierarchy = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=offset)
    order = np.argsort(hierarchy[0, :, 3] >= 0, kind="stable")  # parts before holes
    place = {k: i for i, k in enumerate(order.tolist())}
    contours = []
    for k in order.tolist():
        pixels = found[k][:, 0]  # (n, 2) int32
        numbers = pixels[:, 0] + 3 * pixels[:, 1]
        ahead = _shift(numbers) - numbers + 4
        back = 8 - np.concatenate([ahead[-1:], ahead[:-1]])
        # Of x and y, as one number.
        pairs = (pixels.view(np.int64) + _CORNERS[back, ahead])[_EXIST[back, ahead]]
        points = pairs.view(np.int32).reshape(-1, 2)
        steps = pairs - _shift(pairs)  # different for each direction
        turns = steps != np.concatenate([steps[-1:], steps[:-1]])
        part = place.get(int(hierarchy[0, k, 3]), -1)
        contours.append(_Contour(points[turns].astype(np.float32), points + _shift(points), part))
    return contours


def _shift(values: NDArray[Any]) -> NDArray[Any]:
    """Return the value that follows each value of a cycle."""
    return np.concatenate([values[1:], values[:1]])


def _search(contours: Sequence[_Contour], target: Rle) -> tuple[list[NDArray[np.floating]], float | None]:
    """Simplify by the largest tolerance that keeps `MIN_IOU`, from the expected one on.

    Returns:
        The rings, and their IoU by the even-odd rule; None if they are exact.
    """
    length = sum(len(contour.middles) for contour in contours)
    expected = (1 - MIN_IOU) * float(coco_mask.area(target)) / (_EXPECTED_LOSS * length)
    level = min(int(np.searchsorted(_TOLERANCES, expected)), len(_TOLERANCES) - 1)
    # Without the steps of slopes there are far fewer points to simplify.
    contours = [c._replace(middles=_drop_points(c.middles, _TOLERANCES[0])) for c in contours]
    best, best_iou, step = None, 0.0, 0
    while 0 <= level < len(_TOLERANCES):
        simple = _simplify(contours, _TOLERANCES[level])
        iou = _parity_iou(simple, target)
        keeps = iou >= MIN_IOU
        if keeps:
            if best is not None and sum(map(len, simple)) >= sum(map(len, best)):
                break  # parts that would vanish have become exact
            best, best_iou = simple, iou
            following = _TOLERANCES[level + 1 : level + 2]
            if following and (1 - iou) / _TOLERANCES[level] * following[0] > 1 - MIN_IOU:
                break  # the loss grows with the tolerance
        if step and keeps == (step < 0):
            break
        step = 1 if keeps else -1
        level += step
    return ([contour.cracks for contour in contours], None) if best is None else (best, best_iou)


def _simplify(contours: Sequence[_Contour], tolerance: float) -> list[NDArray[np.floating]]:
    """Simplify each contour; a part that would vanish stays exact, and a hole becomes an empty ring."""
    rings: list[NDArray[np.floating]] = []
    for contour in contours:
        ring: NDArray[Any] = contour.cracks
        if tolerance > 0:
            ring = _drop_points(contour.middles, tolerance) / 2
            if len(ring) < 3:
                ring = contour.cracks if contour.part < 0 else ring[:0]
        rings.append(ring)
    return rings


def _drop_points(middles: NDArray[np.int32], tolerance: float) -> NDArray[Any]:
    return cv2.approxPolyDP(middles[:, None], 2 * tolerance, closed=True)[:, 0]


def _parity_iou(rings: Sequence[NDArray[np.floating]], target: Rle) -> float:
    """Compute the mask IoU of rings that are filled by the even-odd rule, as one path through all of them."""
    path, *others = (ring for ring in rings if len(ring))
    if others:
        closed = [part for ring in others for part in (path[:1], ring, ring[:1])]
        path = np.concatenate([path, *closed])
    (code,) = coco_mask.frPyObjects([path.ravel().tolist()], *target["size"])
    return mask_iou(code, target)


def _join_holes(rings: Sequence[NDArray[np.floating]], parts: Sequence[int]) -> list[NDArray[np.floating]]:
    """Return the ring of each part with its holes joined to it."""
    joined = [ring for ring, part in zip(rings, parts, strict=True) if part < 0]
    for ring, part in zip(rings, parts, strict=True):
        if part >= 0 and len(ring):
            joined[part] = _join([joined[part], ring])
    return joined


def join_rings(rings: Sequence[Sequence[float]]) -> list[float]:
    """Join rings into one, which passes from each to the next and back along a line of no width.

    Examples:
        >>> join_rings([[0, 0, 2, 0, 2, 2], [5, 2, 9, 2, 9, 9]])
        [0.0, 0.0, 2.0, 0.0, 2.0, 2.0, 5.0, 2.0, 9.0, 2.0, 9.0, 9.0, 5.0, 2.0, 2.0, 2.0]
    """
    joined: list[float] = _join([np.reshape(ring, (-1, 2)).astype(float) for ring in rings]).ravel().tolist()
    return joined


def _join(rings: Sequence[NDArray[np.floating]]) -> NDArray[np.floating]:
    first, *rest = rings
    for ring in rest:
        here, there = _closest(first, ring)
        loop = np.concatenate([ring[there:], ring[: there + 1]])
        first = np.concatenate([first[: here + 1], loop, first[here:]])
    return first


def _closest(a: NDArray[np.floating], b: NDArray[np.floating]) -> tuple[int, int]:
    distances = ((a[:, None] - b[None]) ** 2).sum(axis=-1)
    here, there = np.unravel_index(int(distances.argmin()), distances.shape)
    return int(here), int(there)


def simplify_rings(rings: Sequence[Sequence[float]], tolerance: float) -> list[list[float]]:
    """Drop vertices of polygons that are up to a tolerance in pixels from the line between others.

    Examples:
        >>> simplify_rings([[0, 0, 4, 0.1, 8, 0, 8, 8]], 0.5)
        [[0.0, 0.0, 8.0, 0.0, 8.0, 8.0]]
    """
    simple = []
    for ring in rings:
        points = np.reshape(ring, (-1, 1, 2)).astype(np.float32)
        kept = cv2.approxPolyDP(points, tolerance, closed=True) if tolerance > 0 else points
        simple.append((kept if len(kept) >= 3 else points).astype(np.float64).round(3).ravel().tolist())
    return simple


def overlap(segmentation: Segmentation, rle: Rle) -> float:
    """Compute the mask IoU in [0, 1] of a segmentation and a run-length code; 0 if the segmentation is empty."""
    try:
        written = to_rle(segmentation, *rle["size"])
    except ValueError:
        return 0.0
    return mask_iou(written, rle)
