"""Places for the labels of objects: beside them, off other objects, and never on another label."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

_CELLS = 400  # of the map of objects, along the longer side of the image
_SMALL = 0.02  # share of the image up to which an object must not be covered at all
_MIN_WEIGHT = 0.15  # of an object as large as the image: its label has to be on it
_STEPS = (0.0, 1.0, 0.5, 0.25, 0.75)  # places along a side of the box, from its left or upper end


class Coverage:
    """How much it would hide to cover each part of an image, from 0 for background to 1 for a small object."""

    def __init__(self, height: int, width: int) -> None:
        self._cell = max(1.0, max(height, width) / _CELLS)
        rows, columns = (math.ceil(side / self._cell) for side in (height, width))
        self._area = float(height * width)
        self._weights = np.zeros((rows, columns), dtype=np.float32)

    def add_box(self, box: NDArray[np.float64]) -> None:
        """Add an object that is known by its box (4,) xyxy alone."""
        rows, columns = self._weights.shape
        x0, y0, x1, y1 = np.round(box / self._cell).clip(0, [columns, rows] * 2).astype(int)
        self._add(self._weights[y0 : y1 + 1, x0 : x1 + 1], float(np.prod(box[2:] - box[:2])), None)

    def add_mask(self, mask: NDArray[np.uint8], x: int, y: int) -> None:
        """Add an object by its mask (h, w) of zeros and ones, whose left upper corner is at (x, y)."""
        h, w = mask.shape
        left, top = int(x / self._cell), int(y / self._cell)
        region = self._weights[top : int((y + h) / self._cell) + 1, left : int((x + w) / self._cell) + 1]
        small = cv2.resize(mask * np.uint8(255), region.shape[::-1], interpolation=cv2.INTER_AREA)
        self._add(region, float(np.count_nonzero(mask)), small > 0)

    def _add(self, region: NDArray[np.float32], area: float, inside: NDArray[np.bool_] | None) -> None:
        share = max(area, 1) / self._area
        weight = np.float32(np.clip(np.sqrt(_SMALL / share), _MIN_WEIGHT, 1))
        np.maximum(region, weight, out=region, where=True if inside is None else inside)

    def integrate(self) -> None:
        """Sum the weights up; :meth:`under` needs this after the last object."""
        self._sums = cv2.integral(self._weights, sdepth=cv2.CV_64F)

    def under(self, places: NDArray[np.float64], scale: float) -> NDArray[np.float64]:
        """Return the mean weight under (N, 4) xyxy rectangles of the image resized by ``scale``: (N,)."""
        rows, columns = self._weights.shape
        ends = places / (self._cell * scale)
        x0, y0 = np.floor(ends[:, 0]).clip(0, columns - 1), np.floor(ends[:, 1]).clip(0, rows - 1)
        x1, y1 = np.ceil(ends[:, 2]).clip(x0 + 1, columns), np.ceil(ends[:, 3]).clip(y0 + 1, rows)
        left, top, right, bottom = (value.astype(int) for value in (x0, y0, x1, y1))
        sums = self._sums
        total = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
        return np.asarray(total / ((right - left) * (bottom - top)))


@dataclass
class Placer:
    """Finds places for labels in an image, one after another."""

    coverage: Coverage  # the objects
    width: int  # of the image, in pixels
    height: int
    scale: float  # by which it is larger than the image of the coverage
    # xyxy rectangles of the labels so far
    taken: list[tuple[int, int, int, int]] = field(default_factory=list)

    def place(
        self, box: NDArray[np.float64], size: tuple[int, int], gap: int, limit: float
    ) -> tuple[int, int] | None:
        """Find and take the place where a label of (width, height) hides least: its left upper corner, or None.

        It is ``gap`` pixels off the xyxy box of its object, and the mean weight that it covers is up to a limit.
        """
        places = self._candidates(box, size, gap)
        cost = self.coverage.under(places, self.scale)
        # Earlier candidates are more usual; they are left for ones that hide less.
        order = cost + np.arange(len(places)) * 0.004
        order[(cost > limit) | self._is_taken(places)] = np.inf
        if not np.isfinite(order).any():
            return None
        x0, y0, x1, y1 = places[order.argmin()].astype(int).tolist()
        self.taken.append((x0, y0, x1, y1))
        return x0, y0

    def _candidates(self, box: NDArray[np.float64], size: tuple[int, int], gap: int) -> NDArray[np.float64]:
        """Return (M, 4) places around and inside a box that are within the image."""
        w, h = size
        x0, y0, x1, y1 = box.tolist()
        along = [x0 - gap + (x1 - x0 + 2 * gap - w) * step for step in _STEPS]
        down = [y0 - gap + (y1 - y0 + 2 * gap - h) * step for step in _STEPS]
        corners = [(x, y0 - gap - h) for x in along] + [(x, y1 + gap) for x in along]
        corners += [(x1 + gap, y) for y in down] + [(x0 - gap - w, y) for y in down]
        corners += [(x0 - gap - w, y0 - gap - h), (x1 + gap, y1 + gap)]
        corners += [(x1 + gap, y0 - gap - h), (x0 - gap - w, y1 + gap)]
        inside = [(x0, y0), (x1 - w, y0), (x0, y1 - h), (x1 - w, y1 - h), ((x0 + x1 - w) / 2, y0)]
        # A box that ends outside the image has its label at the border.
        room = np.array([self.width - w, self.height - h], dtype=np.float64)
        if room.min() < 0:
            return np.zeros((0, 4))
        outside = np.round(np.array(corners))
        slid = np.where(np.array([True, False]), outside.clip(0, room), outside)
        both = np.concatenate([slid, np.round(np.array(inside)).clip(0, room)])
        both = both[((both >= 0) & (both <= room)).all(axis=1)]
        return np.concatenate([both, both + np.array(size)], axis=1)

    def _is_taken(self, places: NDArray[np.float64]) -> NDArray[np.bool_]:
        taken = np.array(self.taken).reshape(1, -1, 4)  # (1, T, 4)
        ends = places[:, None]  # (M, 1, 4)
        overlap = (ends[..., :2] < taken[..., 2:]) & (ends[..., 2:] > taken[..., :2])
        return np.any(np.all(overlap, axis=2), axis=1)
