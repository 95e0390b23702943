"""Rotated boxes: they are read as the boxes around them, and their corners stay in the extras of the instance.

They are never masks: the corners show where the box is, not which of its pixels are the object. The corners of an
instance with a mask may be those of the smallest rectangle around it, which reaches past the box of the instance.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from boxel.data.annotations import Annotations
from boxel.data.formats.extras import decode_extras, set_field
from boxel.data.formats.geometry import enclose, rotate_box
from boxel.data.tightening import original_box
from boxel.masks.rle import Rle, Segmentation, decode_in_box
from boxel.utils.errors import BoxelError

CORNERS = "corners"
"""Key of the corners ``[[x, y], ...]`` in the extras of an instance: top left first, then clockwise as drawn."""

_SAME = 0.02
"""Maximum distance in pixels of a box from its corners' box; otherwise the box has been edited since."""

_SKEW = 0.5
"""Maximum distance in pixels of a corner from that of a rectangle."""


def find_rotated(
    extras: dict[str, Any], box: NDArray[np.float64]
) -> tuple[tuple[float, float], float, float, float] | None:
    """Return center, width, height and clockwise rotation in degrees of the rotated box that an instance was read from.

    Returns:
        None if there is none, if its corners are not those of a rectangle, or if the box has been changed since.
    """
    corners = _read_corners(extras, box)
    if corners is None:
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


def _read_corners(extras: dict[str, Any], box: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Return the (4, 2) corners of an instance if they are those of its box, which it was read from."""
    try:
        corners = np.array(extras[CORNERS], dtype=float).reshape(4, 2)
    except (KeyError, TypeError, ValueError):
        return None
    return corners if np.abs(np.array(enclose(corners.tolist())) - box).max() <= _SAME else None


def is_rotated(extras: dict[str, Any], box: NDArray[np.float64]) -> bool:
    """Return whether an instance was read from a box that is turned, so that its corners are not those of a mask."""
    corners = _read_corners(extras, box)
    if corners is None:
        return False
    sides = np.abs(corners - np.roll(corners, 1, axis=0))
    return bool(sides.min(axis=1).max() > _SAME)


def find_mask_corners(segmentation: Segmentation | None, rle: Rle | None) -> list[list[float]] | None:
    """Return the corners of the smallest rectangle of any rotation around a mask, in the order of `CORNERS`.

    Args:
        segmentation: The mask as it is written; the vertices of polygons are taken as they are.
        rle: The mask.

    Returns:
        None without a mask, or if it has no pixel.

    Examples:
        >>> from boxel.masks.rle import encode
        >>> code = encode(np.array([[0, 0, 1, 0], [0, 1, 1, 1], [0, 0, 1, 0]]))
        >>> find_mask_corners(code, code)
        [[0.5, 1.5], [2.5, -0.5], [4.5, 1.5], [2.5, 3.5]]
    """
    if segmentation is None or rle is None:
        return None
    if isinstance(segmentation, Mapping):
        mask, left, top = decode_in_box(rle)
        if not mask.size:
            return None
        outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        pixels = np.concatenate(outlines) + np.array([left, top])  # (P, 1, 2)
        points = (pixels + np.array([[0, 0], [1, 0], [1, 1], [0, 1]])).reshape(-1, 2)
    else:
        points = np.concatenate([np.reshape(ring, (-1, 2)) for ring in segmentation if len(ring) >= 6])
    corners = cv2.boxPoints(cv2.minAreaRect(points.astype(np.float32))).round(3) + 0.0  # clockwise
    return np.roll(corners, -int(corners.sum(axis=1).argmin()), axis=0).astype(float).round(3).tolist()


def add_rotated_boxes(data: Annotations) -> Annotations:
    """Add the corners of the smallest rotated rectangle around each mask to the extras of its instance.

    An instance that was read from a rotated box keeps the corners of that.

    Examples:
        >>> from boxel.data import example_scenes
        >>> len(decode_extras(add_rotated_boxes(example_scenes()).extras[0])[CORNERS])
        4
    """
    extras = data.extras.copy()
    for row in np.flatnonzero(data.has_segmentation).tolist():
        if is_rotated(decode_extras(extras[row]), original_box(data, row)):
            continue
        with contextlib.suppress(BoxelError):  # a mask that cannot be read
            corners = find_mask_corners(data.segmentation(row), data.rle(row))
            extras[row] = set_field(extras[row], CORNERS, corners)
    return replace(data, extras=extras)
