"""Region NMS: of masks of one class that overlap, the best is kept."""

from __future__ import annotations

import torch
from torch import Tensor


def region_nms(masks: Tensor, scores: Tensor, labels: Tensor, threshold: float) -> Tensor:
    """Greedy non-maximum suppression by the IoU of masks.

    The best mask is kept, those of its class that overlap it by more than the threshold are dropped, and so on with the
    best that is left. Time and memory follow the pairs of masks in each cell: thousands that lie few deep cost little.

    Args:
        masks: (N, h, w) bool.
        scores: (N,) float. Of equal ones the first is the better.
        labels: (N,) int, classes.
        threshold: IoU in [0, 1] above which the lower of two masks is dropped; 0 leaves no overlap in a class.

    Returns:
        Indices of the masks kept, int64, best first.

    References:
        Hariharan et al., Simultaneous Detection and Segmentation, ECCV 2014.
    """
    order = scores.argsort(descending=True, stable=True)
    better, worse = _rivals(masks[order].flatten(1), labels[order], threshold)
    kept = torch.ones_like(order, dtype=torch.bool)
    while True:
        # Only better masks decide about one, so each pass settles at least the best that is still open.
        before, kept = kept, torch.ones_like(kept)
        kept[worse[before[better]]] = False
        if torch.equal(before, kept):
            return order[kept]


def _rivals(masks: Tensor, labels: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Pairs of masks (N, cells) of a class that overlap by more than the threshold: indices, the lower first."""
    mask, cell = masks.nonzero(as_tuple=True)
    areas = mask.bincount(minlength=len(masks))
    order = cell.argsort(stable=True)  # masks that share a cell are neighbors, the better first
    mask, cell, label = mask[order], cell[order], labels[mask[order]]
    deepest = int(cell.bincount().max()) if len(cell) else 0
    pairs = [mask.new_zeros(0)]
    for step in range(1, deepest):
        shared = (cell[:-step] == cell[step:]) & (label[:-step] == label[step:])
        pairs.append(mask[:-step][shared] * len(masks) + mask[step:][shared])
    pair, common = torch.cat(pairs).unique(return_counts=True)
    first, second = pair // len(masks), pair % len(masks)
    iou = common.double() / (areas[first] + areas[second] - common)
    return first[iou > threshold], second[iou > threshold]
