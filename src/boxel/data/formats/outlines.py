"""Masks as rings of vertices, for formats that hold nothing else."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from boxel.masks.rle import Rle, Segmentation, decode, to_rle

_TOLERANCE = 0.25
"""Maximum distance in pixels between an outline and its simplified ring."""


def outlines(rle: Rle) -> list[list[float]]:
    """Trace the outer outline of each connected component of a mask; holes are filled.

    An outline passes halfway between the centers of pixels inside and outside, so that a ring ``[x0, y0, x1, y1, ...]``
    neither grows nor shrinks its mask. The largest extent comes first.

    Examples:
        >>> from boxel.masks.rle import encode
        >>> mask = np.zeros((6, 6))
        >>> mask[1:4, 1:5] = 1
        >>> rings = outlines(encode(mask))
        >>> overlap(rings, encode(mask))
        1.0
    """
    x, y, w, h = (int(v) for v in coco_mask.toBbox(rle))
    if not w or not h:
        return []
    grid = _half_pixel_grid(decode(rle)[y : y + h, x : x + w])
    contours, _ = cv2.findContours(grid, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    simplified = [cv2.approxPolyDP(contour, 2 * _TOLERANCE, closed=True)[:, 0] for contour in contours]
    rings = [ring / 2 + (x, y) for ring in simplified if len(ring) >= 3]
    rings.sort(key=lambda ring: -float(np.ptp(ring, axis=0).prod()))
    return [ring.ravel().tolist() for ring in rings]


def _half_pixel_grid(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Draw a mask on a grid of half pixels, so that its border points are those of marching squares.

    Pixel centers have odd coordinates. Between two pixels the grid is set if either is; at the corner of four pixels it
    is set if two of them are. OpenCV's contours, which run through border points, then cut corners as marching squares
    do at level 0.5.
    """
    padded = np.pad(mask, 1)
    grid = np.zeros((2 * mask.shape[0] + 1, 2 * mask.shape[1] + 1), dtype=np.uint8)
    grid[1::2, 1::2] = mask
    grid[0::2, 1::2] = padded[:-1, 1:-1] | padded[1:, 1:-1]
    grid[1::2, 0::2] = padded[1:-1, :-1] | padded[1:-1, 1:]
    grid[0::2, 0::2] = padded[:-1, :-1] + padded[:-1, 1:] + padded[1:, :-1] + padded[1:, 1:] >= 2
    return grid


def join_rings(rings: list[list[float]]) -> list[float]:
    """Join rings into one, which passes from each to the next and back along a line of no width.

    Examples:
        >>> join_rings([[0, 0, 2, 0, 2, 2], [5, 2, 9, 2, 9, 9]])
        [0.0, 0.0, 2.0, 0.0, 2.0, 2.0, 5.0, 2.0, 9.0, 2.0, 9.0, 9.0, 5.0, 2.0, 2.0, 2.0]
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


def overlap(segmentation: Segmentation, rle: Rle) -> float:
    """Compute the mask IoU in [0, 1] of a segmentation and a run-length code; 0 if the segmentation is empty."""
    try:
        written = to_rle(segmentation, *rle["size"])
    except ValueError:
        return 0.0
    return float(coco_mask.iou([written], [rle], [False])[0, 0])
