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

_EXPECTED_LOSS = 0.15
"""Area between an outline and its simplification, per pixel of tolerance and of length, on average."""


class Outline(NamedTuple):
    """Rings of a mask, one per part, the largest first, and their mask IoU with it."""

    rings: list[list[float]]
    iou: float


class _Contour(NamedTuple):
    """The border of a part or of a hole, along the edges of pixels and through the middles of these edges."""

    cracks: NDArray[np.float32]  # (n, 2) corners where it turns: exact
    middles: NDArray[np.float32]  # (m, 2) middles of its edges: slopes are smooth
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
    contours = _find_contours(mask)
    target = coco_mask.encode(np.asfortranarray(mask))
    simple, iou = _search(contours, target) if tolerance is None else (_simplify(contours, tolerance), None)
    if tolerance is None or tolerance > 0:
        cracks = [contour.cracks for contour in contours]
        if sum(map(len, cracks)) <= sum(map(len, simple)):
            simple, iou = cracks, None
    rings = _join_holes(simple, [contour.part for contour in contours])
    rings.sort(key=lambda ring: -float(np.ptp(ring, axis=0).prod()))
    if joined and len(rings) > 1:
        rings = [_join(rings)]
    if iou is None or len(contours) > 1:  # where the parts overlap, their union is more than their parity
        codes = coco_mask.frPyObjects([ring.ravel().tolist() for ring in rings], *mask.shape)
        iou = mask_iou(coco_mask.merge(codes), target)
    return Outline([np.add(ring, (x, y)).ravel().tolist() for ring in rings], iou)


def _find_contours(mask: NDArray[np.uint8]) -> list[_Contour]:
    """Follow the borders of a mask along the edges of its pixels."""
    # With two points per pixel and side, each border point is next to one edge or corner of the pixels.
    doubled = np.repeat(mask.astype(np.uint16) * 0x0101, 2, axis=0).view(np.uint8)
    found, hierarchy = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    order = np.argsort(hierarchy[0, :, 3] >= 0, kind="stable")  # parts before holes
    place = {int(k): i for i, k in enumerate(order)}
    contours = []
    for k in order.tolist():
        points = (found[k][:, 0] + 1) >> 1  # (n, 2) int32
        pairs = points.view(np.int64)[:, 0]  # of x and y, as one number
        moves = pairs != _shift(pairs)
        points, pairs = points[moves], pairs[moves]
        steps = pairs - _shift(pairs)  # different for each direction
        turns = steps != np.concatenate([steps[-1:], steps[:-1]])
        part = place.get(int(hierarchy[0, k, 3]), -1)
        middles = (points + _shift(points)).astype(np.float32) / 2
        contours.append(_Contour(points[turns].astype(np.float32), middles, part))
    return contours


def _shift(values: NDArray[Any]) -> NDArray[Any]:
    """Return the value that follows each value of a cycle."""
    return np.concatenate([values[1:], values[:1]])


def _search(contours: Sequence[_Contour], target: Rle) -> tuple[list[NDArray[np.float32]], float | None]:
    """Simplify by the largest tolerance that keeps `MIN_IOU`, from the expected one on.

    Returns:
        The rings, and their IoU by the even-odd rule; None if they are exact.
    """
    length = sum(len(contour.middles) for contour in contours)
    expected = (1 - MIN_IOU) * float(coco_mask.area(target)) / (_EXPECTED_LOSS * length)
    level = min(int(np.searchsorted(_TOLERANCES, expected)), len(_TOLERANCES) - 1)
    best, best_iou, step = None, 0.0, 0
    while 0 <= level < len(_TOLERANCES):
        simple = _simplify(contours, _TOLERANCES[level])
        iou = _parity_iou(simple, target)
        keeps = iou >= MIN_IOU
        if keeps:
            if best is not None and sum(map(len, simple)) >= sum(map(len, best)):
                break  # parts that would vanish have become exact
            best, best_iou = simple, iou
        if step and keeps == (step < 0):
            break
        step = 1 if keeps else -1
        level += step
    return ([contour.cracks for contour in contours], None) if best is None else (best, best_iou)


def _simplify(contours: Sequence[_Contour], tolerance: float) -> list[NDArray[np.float32]]:
    """Simplify each contour; a part that would vanish stays exact, and a hole becomes an empty ring."""
    rings: list[NDArray[np.float32]] = []
    for contour in contours:
        ring: NDArray[Any] = contour.cracks
        if tolerance > 0:
            ring = cv2.approxPolyDP(contour.middles[:, None], tolerance, closed=True)[:, 0]
            if len(ring) < 3:
                ring = contour.cracks if contour.part < 0 else ring[:0]
        rings.append(ring)
    return rings


def _parity_iou(rings: Sequence[NDArray[np.float32]], target: Rle) -> float:
    """Compute the mask IoU of rings that are filled by the even-odd rule, as one path through all of them."""
    first, *others = (ring for ring in rings if len(ring))
    closed = [part for ring in others for part in (first[:1], ring, ring[:1])]
    path = np.concatenate([first, *closed]).ravel().tolist()
    (code,) = coco_mask.frPyObjects([path], *target["size"])
    return mask_iou(code, target)


def _join_holes(rings: Sequence[NDArray[np.float32]], parts: Sequence[int]) -> list[NDArray[np.float32]]:
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
