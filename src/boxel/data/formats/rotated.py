"""Rotated boxes: they are read as the boxes around them, and their corners stay in the extras of the instance.

They are never masks: the corners show where the box is, not which of its pixels are the object.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

CORNERS = "corners"
"""Key of the corners ``[[x, y], ...]`` in the extras of an instance: top left first, then clockwise as drawn."""

_SAME = 0.02
"""Maximum distance in pixels of a box from its corners' box; otherwise the box has been edited since."""

_SKEW = 0.5
"""Maximum distance in pixels of a corner from that of a rectangle."""


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


def enclose(points: Sequence[Sequence[float]]) -> list[float]:
    """Return the xyxy box around points."""
    xs, ys = [point[0] for point in points], [point[1] for point in points]
    return [min(xs), min(ys), max(xs), max(ys)]


def find_rotated(
    extras: dict[str, Any], box: NDArray[np.float64]
) -> tuple[tuple[float, float], float, float, float] | None:
    """Return center, width, height and clockwise rotation in degrees of the rotated box that an instance was read from.

    Returns:
        None if there is none, if its corners are not those of a rectangle, or if the box has been changed since.
    """
    try:
        corners = np.array(extras[CORNERS], dtype=float).reshape(4, 2)
    except (KeyError, TypeError, ValueError):
        return None
    if not np.abs(np.array(enclose(corners.tolist())) - box).max() <= _SAME:
        return None
    x, y = corners.mean(axis=0).tolist()
    for clockwise in (corners, corners[[0, 3, 2, 1]]):
        (x0, y0), (x1, y1), (_, _), (x3, y3) = clockwise.tolist()
        width, height = math.hypot(x1 - x0, y1 - y0), math.hypot(x3 - x0, y3 - y0)
        degrees = math.degrees(math.atan2(y1 - y0, x1 - x0)) % 360
        sides = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
        if np.abs(np.array(rotate_box(sides, degrees, (x, y))) - clockwise).max() <= _SKEW:
            return (x, y), width, height, degrees
    return None


_ELLIPSE_VERTICES = 64


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
