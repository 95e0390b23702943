"""Masks as rings of vertices, for formats that hold nothing else."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from scipy.ndimage import binary_fill_holes
from skimage.measure import approximate_polygon, find_contours

from boxel.masks.rle import Rle, Segmentation, decode, to_rle

_TOLERANCE = 0.25  # pixels that a simplified outline may be off


def outlines(rle: Rle) -> list[list[float]]:
    """The outer outline of each connected part of a mask; holes are filled.

    Args:
        rle: run-length code of the mask.

    Returns:
        A ring ``[x0, y0, x1, y1, ...]`` in pixels for each part, the largest extent first.
    """
    x, y, w, h = (int(v) for v in coco_mask.toBbox(rle))
    if not w or not h:
        return []
    inside = binary_fill_holes(decode(rle)[y : y + h, x : x + w])
    rings = []
    for contour in find_contours(np.pad(inside, 1).astype(float), 0.5, fully_connected="high"):
        # A padded pixel's center is at its index - 1 + 0.5 in the crop; contours come as (row, column).
        ring = approximate_polygon(contour, _TOLERANCE)[:-1, ::-1] + (x - 0.5, y - 0.5)
        if len(ring) >= 3:
            rings.append(ring)
    rings.sort(key=lambda ring: -float(np.ptp(ring, axis=0).prod()))
    return [np.round(ring, 2).ravel().tolist() for ring in rings]


def joined(rings: list[list[float]]) -> list[float]:
    """One ring that goes round all of them, from one to the next and back along a line of no width.

    Args:
        rings: each ``[x0, y0, x1, y1, ...]``; at least one.
    """
    first, *rest = (np.asarray(ring, dtype=float).reshape(-1, 2) for ring in rings)
    for ring in rest:
        here, there = _closest(first, ring)
        loop = np.concatenate([ring[there:], ring[: there + 1]])
        first = np.concatenate([first[: here + 1], loop, first[here:]])
    return first.ravel().tolist()


def _closest(a: NDArray[np.float64], b: NDArray[np.float64]) -> tuple[int, int]:
    distances = ((a[:, None] - b[None]) ** 2).sum(axis=-1)
    here, there = np.unravel_index(int(distances.argmin()), distances.shape)
    return int(here), int(there)


def iou_with(segmentation: Segmentation, rle: Rle) -> float:
    """Mask IoU in [0, 1] of a segmentation with a run-length code; 0 where the segmentation is empty."""
    try:
        written = to_rle(segmentation, *rle["size"])
    except ValueError:
        return 0.0
    return float(coco_mask.iou([written], [rle], [False])[0, 0])
