"""The localization network's loss: each pixel of an instance tells where the instance's box is.

A pixel's box is four numbers along dimension 1: the vertical and the horizontal offset from the pixel to the center of
its instance's box, then the box's height and width. All four are in one unit, pixels divided by a scale of the caller's
choice: IoU and weights do not depend on it, `beta` does.

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


def bootstrapped_box_loss(
    predicted: Tensor,
    target: Tensor,
    valid: Tensor,
    min_kept: int | None,
    threshold: float | None = None,
    weights: Tensor | None = None,
    beta: float = 1.0,
) -> Tensor:
    """Mean smooth L1 loss of the pixels whose boxes overlap the true ones least.

    Instances are found by NMS of the pixels' boxes, so what makes a pixel easy is its IoU, not its loss (Section 2.2).

    Args:
        predicted: (B, 4, h, w) boxes of the pixels, each of its true class; or (N, 4).
        target: as `predicted`; any finite value where a pixel is not valid.
        valid: (B, h, w) or (N,) bool, pixels of an instance.
        min_kept: see `select_hard_pixels`; None keeps all valid pixels, whatever the threshold.
        threshold: see there, of the IoU.
        weights: (B, h, w) or (N,) of the pixels, see :func:`size_weights`; scaled here to a mean of 1 over the valid
            ones, kept or not.
        beta: where smooth L1 turns from quadratic to linear, in the unit of the boxes; above 0.

    Returns:
        () the loss, float32 at least: summed over the four numbers, mean over the pixels kept; 0 where none is valid.
    """
    predicted = full_precision(predicted)
    kept = valid
    if min_kept is not None:
        kept = select_hard_pixels(pixel_box_iou(predicted.detach(), target), valid, min_kept, threshold)
    losses = F.smooth_l1_loss(predicted, target.to(predicted.dtype), reduction="none", beta=beta).sum(1)
    if weights is not None:
        weights = full_precision(weights).masked_fill(~valid, 0)
        losses = losses * (weights / _positive(weights.sum() / valid.sum().clamp(min=1)))
    return losses.masked_fill(~kept, 0).sum() / kept.sum().clamp(min=1)


def pixel_box_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of two boxes of each pixel. The pixel's own position is in both, and cancels out.

    Args:
        a: (B, 4, h, w) or (N, 4) boxes; one of a negative height or width is empty.
        b: as `a`.

    Returns:
        (B, h, w) or (N,) in [0, 1]; 0 where either box is empty.
    """
    (center_a, size_a), (center_b, size_b) = (full_precision(boxes).split(2, 1) for boxes in (a, b))
    start = torch.maximum(center_a - size_a / 2, center_b - size_b / 2)
    end = torch.minimum(center_a + size_a / 2, center_b + size_b / 2)
    # A box of negative size ends before it starts, and so shares nothing.
    shared = (end - start).clamp(min=0).prod(1)
    return shared / _positive(size_a.prod(1) + size_b.prod(1) - shared)


def size_weights(target: Tensor, power: float = 1.0) -> Tensor:
    """Weights of pixels by the size of their instance, the same for all pixels of one (Section 2.1).

    The paper gives no formula.

    Args:
        target: (B, 4, h, w) or (N, 4) true boxes.
        power: 1 gives one over the box's area, so that all instances whose masks fill their boxes alike count the same;
            0.5 one over its square root; 0 the same weight for all.

    Returns:
        (B, h, w) or (N,) float, above 0; of no meaning where a pixel has no box.
    """
    return _positive(full_precision(target)[:, 2:].prod(1)) ** -power


def _positive(x: Tensor) -> Tensor:
    """Safe to divide by: at least the smallest number whose inverse is finite."""
    return x.clamp(min=torch.finfo(x.dtype).tiny)
