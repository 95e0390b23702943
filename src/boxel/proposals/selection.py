"""Selection of some thousands of segments among a hundred thousand."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from boxel.masks.boxes import box_iou, box_to_pixels
from boxel.proposals.candidates import enclosing_boxes
from boxel.proposals.superpixels import Regions

Indices = NDArray[np.integer]


class Pool(NamedTuple):
    """Segments that may become candidates."""

    boxes: NDArray[np.int64]  # (N, 4) xyxy, the tight box of each
    sizes: NDArray[np.float64]  # (N,), the number of pixels of each
    order: NDArray[np.floating | np.integer]  # (N,), the lowest is the most promising
    sets: Callable[[Indices], NDArray[np.bool_]]  # (n, S), the superpixels of the segments of (n,) indices


def select_best(pool: Pool, count: int) -> NDArray[np.bool_]:
    """Return (N, S) the sets of the most promising segments, without near duplicates."""
    ranked = np.argsort(pool.order, kind="stable")
    return pool.sets(_distinct(pool, ranked, 0.2, 1.3)[:count])


def select_fitting(pool: Pool, regions: Regions, boxes: NDArray[np.float64], count: int) -> NDArray[np.bool_]:
    """Return (N, S) sets of segments that fit given boxes, an equal share per box: all best ones, then all second best.

    The segments whose tight boxes overlap one of the (M, 4) boxes the most are clipped to it, because the object does
    not extend beyond its box.
    """
    if not len(pool.sizes):
        return np.zeros((0, len(regions.sizes)), dtype=bool)
    share = -(-count // max(len(boxes), 1))
    limit = min(20 * share, len(pool.sizes))
    chosen, turns = [np.zeros((0, len(regions.sizes)), dtype=bool)], [np.zeros(0, dtype=np.int64)]
    for box in boxes:
        overlap = box_iou(pool.boxes, box[None])[:, 0]
        near = np.flatnonzero(overlap >= np.partition(overlap, -limit)[-limit])
        near = near[np.argsort(-overlap[near], kind="stable")]
        cut = pool.sets(_distinct(pool, near, 0.1, 1.15)[: 2 * share]) & _inside(regions, box)
        cut = _unique_sets(cut[cut.any(1)])
        fit = box_iou(enclosing_boxes(regions.boxes, cut), box[None])[:, 0]
        chosen.append(cut[np.argsort(-fit, kind="stable")[:share]])
        turns.append(np.arange(len(chosen[-1])))
    in_turn = np.argsort(np.concatenate(turns), kind="stable")
    return _unique_sets(np.concatenate(chosen)[in_turn])[:count]


def fill_holes(regions: Regions, sets: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return (N, S) the sets, each with the superpixels that it encloses."""
    filled = sets.copy()
    for own, (x0, y0, x1, y1) in zip(filled, enclosing_boxes(regions.boxes, sets), strict=True):
        labels = regions.labels[y0:y1, x0:x1]
        outside = (~own[labels]).view(np.uint8)
        _, parts, stats, _ = cv2.connectedComponentsWithStats(outside, connectivity=4)
        left, top, width, height = stats[:, :4].T
        enclosed = (left > 0) & (top > 0) & (left + width < x1 - x0) & (top + height < y1 - y0)
        enclosed[0] = False  # the set itself
        if enclosed.any():
            own[labels[enclosed[parts]]] = True
    return filled


def _distinct(pool: Pool, indices: Indices, slack: float, ratio: float) -> Indices:
    """Return the first segment of each cluster with boxes within `slack` of the side and sizes within `ratio`."""
    level = np.round(np.log(np.maximum(pool.sizes[indices], 1)) / np.log(ratio))
    step = slack * ratio ** (level / 2) + 1
    cluster = np.concatenate([np.round(pool.boxes[indices] / step[:, None]), level[:, None]], axis=1)
    return indices[np.sort(np.unique(cluster, axis=0, return_index=True)[1])]


def _unique_sets(sets: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return each set once, in order."""
    return sets[np.sort(np.unique(np.packbits(sets, axis=1), axis=0, return_index=True)[1])]


def _inside(regions: Regions, box: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return (S,) bool, the superpixels of which more than half lies in a box."""
    height, width = regions.labels.shape
    x0, y0, x1, y1 = box_to_pixels(box, height, width)
    return np.bincount(regions.labels[y0:y1, x0:x1].ravel(), minlength=len(regions.sizes)) > regions.sizes / 2
