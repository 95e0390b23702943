"""Region NMS: keep the best of overlapping masks of one class."""

from __future__ import annotations

import torch
from torch import Tensor


def region_nms(masks: Tensor, scores: Tensor, labels: Tensor, threshold: float) -> Tensor:
    """Suppress masks greedily by their IoU.

    The best mask is kept, masks of its class that overlap it by more than the threshold are dropped, and so on with the
    best remaining mask. Time and memory grow with the pairs of masks per pixel, so thousands of masks cost little if
    few of them overlap.

    Args:
        masks: (N, h, w) bool.
        scores: (N,) float; of equal scores the first ranks higher.
        labels: (N,) int classes.
        threshold: IoU in [0, 1] above which the lower of two masks is dropped; 0 allows no overlap within a class.

    Returns:
        int64 indices of the masks kept, best first.

    Examples:
        >>> masks = torch.tensor([[[1, 1, 0]], [[0, 1, 1]]]).bool()
        >>> region_nms(masks, torch.tensor([0.6, 0.9]), torch.tensor([0, 0]), threshold=0.3)
        tensor([1])

    References:
        Hariharan et al., "Simultaneous Detection and Segmentation", ECCV 2014.
    """
    order = scores.argsort(descending=True, stable=True)
    better, worse = _overlapping_pairs(masks[order].flatten(1), labels[order], threshold)
    return order[_suppress(better, worse, len(order))]


def _suppress(better: Tensor, worse: Tensor, count: int) -> Tensor:
    """Return (count,) bool, which ranks are kept if of each pair that clashes the better one drops the worse."""
    kept = torch.ones(count, dtype=torch.bool, device=better.device)
    while True:
        # Only better masks decide about a mask, so each pass settles at least the best open one.
        before, kept = kept, torch.ones_like(kept)
        kept[worse[before[better]]] = False
        if torch.equal(before, kept):
            return kept


def _overlapping_pairs(masks: Tensor, labels: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Find pairs of masks (N, cells) of one class whose IoU is above the threshold: indices, the lower first."""
    mask, cell = masks.nonzero(as_tuple=True)
    areas = mask.bincount(minlength=len(masks))
    order = cell.argsort(stable=True)  # masks that share a cell become neighbors, the better first
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
