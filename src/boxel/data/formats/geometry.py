"""Shapes that annotators draw, as the boxes and the segmentations that stand for them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from boxel.masks.rle import Rle, encode_in_box

_ELLIPSE_VERTICES = 64


def enclose(points: Sequence[Sequence[float]]) -> list[float]:
    """Return the xyxy box around points."""
    xs, ys = [point[0] for point in points], [point[1] for point in points]
    return [min(xs), min(ys), max(xs), max(ys)]


def to_polygons(rings: Sequence[Sequence[Sequence[float]]]) -> tuple[list[float], list[list[float]]]:
    """Return the xyxy box around rings of points, and the rings as polygons of COCO.

    Raises:
        ValueError: A ring has fewer than three points, or there is none.
    """
    if min(map(len, rings), default=0) < 3:
        raise ValueError("a polygon of fewer than three points")
    box = enclose([point for ring in rings for point in ring])
    return box, [[v for point in ring for v in point] for ring in rings]


def encode_visible(mask: NDArray[Any], x0: int, y0: int, size: tuple[int, int]) -> Rle:
    """Encode the part of a mask at (x0, y0) that is inside an image of (width, height).

    Raises:
        ValueError: No pixel of it is.
    """
    rle = encode_in_box(mask, x0, y0, size[1], size[0])
    if not coco_mask.area(rle):
        raise ValueError("its mask is empty, or outside the image")
    return rle


def find_code_box(rle: Rle) -> list[float]:
    """Return the tight xyxy box of a run-length code."""
    x, y, w, h = coco_mask.toBbox(rle).tolist()
    return [x, y, x + w, y + h]


def rotate_box(box: Sequence[float], degrees: float, pivot: tuple[float, float]) -> list[list[float]]:
    """Rotate an xyxy box clockwise about a point, and return its corners.

    Examples:
        >>> rotate_box([2, 2, 4, 3], 90, pivot=(2, 2))
        [[2.0, 2.0], [2.0, 4.0], [1.0, 4.0], [1.0, 2.0]]
    """
    x0, y0, x1, y1 = box
    px, py = pivot
    sin, cos = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    return [
        [round(px + (x - px) * cos - (y - py) * sin, 6), round(py + (x - px) * sin + (y - py) * cos, 6)]
        for x, y in ((x0, y0), (x1, y0), (x1, y1), (x0, y1))
    ]


def ellipse_points(x: float, y: float, rx: float, ry: float, degrees: float = 0) -> list[list[float]]:
    """Return the vertices of an ellipse about (x, y) with the radii rx and ry, rotated clockwise.

    Examples:
        >>> ellipse_points(5, 5, 2, 1, degrees=90)[0]
        [5.0, 7.0]
    """
    sin, cos = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    turns = [2 * math.pi * k / _ELLIPSE_VERTICES for k in range(_ELLIPSE_VERTICES)]
    corners = [(rx * math.cos(turn), ry * math.sin(turn)) for turn in turns]
    return [[round(x + u * cos - v * sin, 3), round(y + u * sin + v * cos, 3)] for u, v in corners]
