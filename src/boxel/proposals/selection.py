"""Choosing some thousands of segments among a hundred thousand."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from boxel.masks.boxes import box_iou, box_to_pixels
from boxel.proposals.candidates import tight_boxes
from boxel.proposals.superpixels import Regions

Indices = NDArray[np.integer]


class Pool(NamedTuple):
    """Segments that may become candidates.

    Attributes:
        boxes: (N, 4) xyxy, the tight box of each.
        sizes: (N,) float, pixels.
        order: (N,) float, the lowest is the most promising.
        sets: from (n,) indices to (n, S) bool, which superpixels these have.
    """

    boxes: NDArray[np.int64]
    sizes: NDArray[np.float64]
    order: NDArray[np.floating | np.integer]
    sets: Callable[[Indices], NDArray[np.bool_]]


def best(pool: Pool, count: int) -> NDArray[np.bool_]:
    """(N, S) sets of the most promising segments that are not nearly the same."""
    ranked = np.argsort(pool.order, kind="stable")
    return pool.sets(_distinct(pool, ranked, 0.2, 1.3)[:count])


def fitting(pool: Pool, regions: Regions, boxes: ArrayLike, count: int) -> NDArray[np.bool_]:
    """(N, S) sets of segments that fit given boxes, each box an equal share: its best, then every box's second best.

    Of the segments whose tight box overlaps a given one the most, what lies outside the given box is cut off: no pixel
    of the object is there.

    Args:
        pool: what to choose from.
        regions: the superpixels.
        boxes: (M, 4) xyxy pixels.
        count: how many at most.
    """
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    share = -(-count // max(len(boxes), 1))
    limit = min(20 * share, len(pool.sizes))
    chosen, turns = [np.zeros((0, len(regions.sizes)), dtype=bool)], [np.zeros(0, dtype=np.int64)]
    for box in boxes:
        overlap = box_iou(pool.boxes, box[None])[:, 0]
        near = np.flatnonzero(overlap >= np.partition(overlap, -limit)[-limit])
        near = near[np.argsort(-overlap[near], kind="stable")]
        cut = pool.sets(_distinct(pool, near, 0.1, 1.15)[: 2 * share]) & _inside(regions, box)
        cut = _unlike(cut[cut.any(1)])
        fit = box_iou(tight_boxes(regions.boxes, cut), box[None])[:, 0]
        chosen.append(cut[np.argsort(-fit, kind="stable")[:share]])
        turns.append(np.arange(len(chosen[-1])))
    in_turn = np.argsort(np.concatenate(turns), kind="stable")
    return _unlike(np.concatenate(chosen)[in_turn])[:count]


def fill_holes(regions: Regions, sets: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(N, S) the sets, with the superpixels that each encloses."""
    filled = sets.copy()
    for own, (x0, y0, x1, y1) in zip(filled, tight_boxes(regions.boxes, sets), strict=True):
        labels = regions.labels[y0:y1, x0:x1]
        count, parts, stats, _ = cv2.connectedComponentsWithStats(
            (~own[labels]).view(np.uint8), connectivity=4
        )
        if count == 1:
            continue
        left, top, width, height = stats[:, :4].T
        enclosed = (left > 0) & (top > 0) & (left + width < x1 - x0) & (top + height < y1 - y0)
        enclosed[0] = False  # the set itself
        if enclosed.any():
            own[labels[enclosed[parts]]] = True
    return filled


def _distinct(pool: Pool, indices: Indices, slack: float, ratio: float) -> Indices:
    """The first of each cluster of segments with nearly one box and nearly one size.

    Args:
        pool: the segments.
        indices: of those to look at.
        slack: by how much of a segment's side its box may be off.
        ratio: of the sizes of segments that count as one.
    """
    level = np.round(np.log(np.maximum(pool.sizes[indices], 1)) / np.log(ratio))
    step = slack * ratio ** (level / 2) + 1
    cluster = np.concatenate([np.round(pool.boxes[indices] / step[:, None]), level[:, None]], axis=1)
    return indices[np.sort(np.unique(cluster, axis=0, return_index=True)[1])]


def _unlike(sets: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Each set once, in order."""
    return sets[np.sort(np.unique(np.packbits(sets, axis=1), axis=0, return_index=True)[1])]


def _inside(regions: Regions, box: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(S,) superpixels of which more than half lies in a box."""
    height, width = regions.labels.shape
    x0, y0, x1, y1 = box_to_pixels(box, height, width)
    return np.bincount(regions.labels[y0:y1, x0:x1].ravel(), minlength=len(regions.sizes)) > regions.sizes / 2
