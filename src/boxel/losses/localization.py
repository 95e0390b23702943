"""The loss of FCRN's localization network: each pixel of an instance predicts the box of the instance.

A pixel's box is four numbers along dimension 1: the vertical and horizontal offsets from the pixel to the center of its
instance's box, then the box's height and width. All four have one unit, pixels divided by a scale of the caller's
choice.

References:
    Wu, Shen, van den Hengel, Bridging Category-level and Instance-level Semantic Image Segmentation, 2016, Sections
    2.1 and 2.2.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from boxel.losses.bootstrap import select_hard_pixels
from boxel.losses.dice import full_precision
from boxel.losses.processes import mean_over_processes


def bootstrapped_box_loss(
    pred_boxes: Tensor,
    gt_boxes: Tensor,
    valid: Tensor,
    min_kept: int | None,
    threshold: float | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """Mean smooth L1 loss of the pixels whose predicted boxes overlap the true ones the least.

    Instances are found by NMS of the pixels' boxes, so a pixel's ease is its IoU and not its loss (Section 2.2).

    Args:
        pred_boxes: (B, 4, h, w) or (N, 4) boxes of the pixels, predicted for their true class.
        gt_boxes: As `pred_boxes`; any finite value if a pixel is not valid.
        valid: (B, h, w) or (N,) bool, pixels of an instance.
        min_kept: As in :func:`~boxel.losses.select_hard_pixels`; None keeps all valid pixels, whatever the threshold.
        threshold: As there, of the IoU.
        weights: (B, h, w) or (N,) weights of the pixels, see :func:`size_weights`; they are scaled to a mean of 1 over
            the valid pixels, kept or not.

    Returns:
        () float32 or float64, the loss: summed over the four numbers, mean over the kept pixels; 0 if none is valid. In
        a distributed training the means are those of all processes.

    Examples:
        >>> pred, gt = torch.tensor([[0.0, 0, 4, 4], [3, 0, 4, 4]]), torch.tensor([[0.0, 0, 4, 4]] * 2)
        >>> bootstrapped_box_loss(pred, gt, torch.tensor([True, True]), min_kept=1)
        tensor(2.5000)
    """
    pred_boxes = full_precision(pred_boxes)
    kept = valid
    if min_kept is not None:
        kept = select_hard_pixels(pixel_box_iou(pred_boxes.detach(), gt_boxes), valid, min_kept, threshold)
    losses = F.smooth_l1_loss(pred_boxes, gt_boxes.to(pred_boxes.dtype), reduction="none").sum(1)
    if weights is not None:
        weights = full_precision(weights).masked_fill(~valid, 0)
        tiny = torch.finfo(weights.dtype).tiny
        mean = mean_over_processes(weights.sum(), tiny) / mean_over_processes(valid.sum())
        losses = losses * (weights / _clamp_positive(mean))
    return losses.masked_fill(~kept, 0).sum() / mean_over_processes(kept.sum())


def pixel_box_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the (B, h, w) or (N,) IoU of two boxes of each pixel, (B, 4, h, w) or (N, 4); 0 if either is empty.

    The pixel's own position is in both and cancels out. A box of negative height or width is empty.
    """
    (center_a, size_a), (center_b, size_b) = (full_precision(boxes).split(2, 1) for boxes in (a, b))
    start = torch.maximum(center_a - size_a / 2, center_b - size_b / 2)
    end = torch.minimum(center_a + size_a / 2, center_b + size_b / 2)
    # A box of negative size ends before it starts, so the intersection is empty.
    intersection = (end - start).clamp(min=0).prod(1)
    return intersection / _clamp_positive(size_a.prod(1) + size_b.prod(1) - intersection)


def size_weights(gt_boxes: Tensor, power: float = 1.0) -> Tensor:
    """Compute weights of pixels from the size of their instance, the same for all of its pixels (Section 2.1).

    The paper gives no formula.

    Args:
        gt_boxes: (B, 4, h, w) or (N, 4) true boxes.
        power: 1 is one over the area of the box, so that instances which fill their boxes alike count the same; 0.5 is
            one over its square root; 0 gives all pixels the same weight.

    Returns:
        (B, h, w) or (N,) float above 0; meaningless if a pixel has no box.

    Examples:
        >>> size_weights(torch.tensor([[0.0, 0, 2, 2], [0.0, 0, 4, 4]]), power=0.5)
        tensor([0.5000, 0.2500])
    """
    return _clamp_positive(full_precision(gt_boxes)[:, 2:].prod(1)) ** -power


def _clamp_positive(x: Tensor) -> Tensor:
    """Clamp to the smallest number whose inverse is finite, to make division safe."""
    return x.clamp(min=torch.finfo(x.dtype).tiny)
