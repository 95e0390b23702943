"""Losses of BoxInst: FCOS's detection losses, and mask losses chosen per instance."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torchvision.ops import generalized_box_iou_loss

from boxel.losses.affinity import affinity_loss, color_similarity, supervised_affinity_loss
from boxel.losses.area import area_loss
from boxel.losses.dice import dice_loss
from boxel.losses.processes import mean_over_processes
from boxel.losses.projection import projection_loss
from boxel.masks.spans import box_spans
from boxel.models.boxinst.config import BoxInstConfig
from boxel.models.boxinst.heads import HeadOutput
from boxel.models.boxinst.matching import boxes_around, centerness, side_distances

MASK_STRIDE = 4
"""Pixels per cell of the masks that the losses compare."""


def detection_losses(
    output: HeadOutput, points: Tensor, gt_boxes: Tensor, gt_labels: Tensor, positive: Tensor, ignored: Tensor
) -> dict[str, Tensor]:
    """Compute the focal, GIoU and center-ness losses (FCOS, section 3.1; normalizers averaged over all processes).

    The boxes (P, 4) and labels (P,) are those of the positive ones, (B, L) bool, of L points, in the order of
    ``positive.nonzero()``. Ignored locations, (B, L) bool, are neither foreground nor background.
    """
    logits = output.logits.float()
    target = torch.zeros_like(logits)
    image_index, location = positive.nonzero(as_tuple=True)
    target[image_index, location, gt_labels] = 1.0
    focal = _FocalLoss.apply(logits, target).masked_fill(ignored[..., None], 0.0)

    points = points[location]
    gt_centerness = centerness(side_distances(points, gt_boxes))
    num_positive = mean_over_processes(gt_centerness.new_tensor(len(location)))
    centerness_sum = mean_over_processes(gt_centerness.sum(), minimum=1e-6)
    distances = output.distances[image_index, location]
    giou = generalized_box_iou_loss(boxes_around(points, distances), gt_boxes) * gt_centerness
    entropy = F.binary_cross_entropy_with_logits(
        output.centerness[image_index, location].float(), gt_centerness, reduction="sum"
    )
    return {
        "classification": focal.sum() / num_positive,
        "box": giou.sum() / centerness_sum,
        "centerness": entropy / num_positive,
    }


def mask_losses(
    logits: Tensor,
    gt_boxes: Tensor,
    has_mask: Tensor,
    masks: Tensor,
    weights: Tensor,
    image_index: Tensor,
    images: Tensor,
    valid: Tensor,
    config: BoxInstConfig,
) -> dict[str, Tensor]:
    """Compute projection and color affinity of instances with a box only, Dice or Eq. 6 of those with a mask.

    All are means over the N instances (of all processes), so that in a mixed batch each kind weighs as much as its
    share. They are not weighted, and a loss of weight 0 is left out.

    Args:
        logits: (N, h, w) at stride 4.
        gt_boxes: (N, 4) xyxy pixels.
        has_mask: (N,) bool.
        masks: (N, h, w) bool, the true mask if there is one, else a hint, else empty.
        weights: (N,) how much the Dice loss of a mask or a hint counts, in [0, 1].
        image_index: (N,) index into the images.
        images: (B, 3, H, W) RGB in [0, 1].
        valid: (B, H, W) bool, False in padding and wherever edges are excluded.
        config: Settings.
    """
    with torch.autocast(logits.device.type, enabled=False):
        logits = logits.float()
        rows, columns = box_spans(gt_boxes, logits.shape[-2], logits.shape[-1], MASK_STRIDE)
        total = mean_over_processes(logits.new_tensor(len(logits)))
        size, dilation = config.patch_size, config.dilation
        losses = {}

        boxed = ~has_mask
        if config.projection_weight > 0:
            projection = projection_loss(logits[boxed], rows[boxed], columns[boxed], config.projection_loss)
            losses["projection"] = projection.sum() / total
        if config.affinity_weight > 0 or config.supervised_loss == "affinity":
            similarity = color_similarity(images, valid, MASK_STRIDE, size, dilation)
            existing = similarity >= 0
        if config.affinity_weight > 0:
            share = mean_over_processes(boxed.sum(), minimum=0.0) / total
            losses["affinity"] = share * affinity_loss(
                logits[boxed],
                similarity >= config.tau,
                image_index[boxed],
                rows[boxed],
                columns[boxed],
                dilation=dilation,
                normalizer=config.affinity_normalizer,
                inside=config.affinity_inside,
                existing=existing,
            )
        if config.area_weight > 0:
            losses["area"] = area_loss(logits[boxed], rows[boxed], columns[boxed]).sum() / total
        if config.hint_weight > 0:
            hinted = boxed & masks.flatten(1).any(1)
            hint = dice_loss(logits[hinted].sigmoid(), masks[hinted])
            losses["hint"] = (weights[hinted] * hint).sum() / total

        masked_logits, gt_masks = logits[has_mask], masks[has_mask]
        if config.supervised_loss == "dice":
            losses["mask"] = (weights[has_mask] * dice_loss(masked_logits.sigmoid(), gt_masks)).sum() / total
        else:
            spans, index = (rows[has_mask], columns[has_mask]), image_index[has_mask]
            grid = {"size": size, "dilation": dilation, "existing": existing, "image_index": index}
            pairwise = supervised_affinity_loss(masked_logits, gt_masks, *spans, **grid)
            projection = projection_loss(masked_logits, *spans, config.projection_loss)
            number = mean_over_processes(has_mask.sum(), minimum=0.0)
            losses["mask"] = (projection.sum() + pairwise * number) / total
        return losses


class _FocalLoss(torch.autograd.Function):
    """torchvision's `sigmoid_focal_loss` (alpha 0.25, gamma 2), of which only the gradient is kept.

    It is ``-alpha_t q^2 log(1 - q)`` with q = 1 - p_t, and the derivative follows from ``dq = q (1 - q)``.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> Tensor:
        sign = 1 - 2 * target
        wrong = (logits * sign).sigmoid()
        entropy = F.softplus(logits * sign)
        weight = (0.75 - 0.5 * target) * wrong.square()
        ctx.save_for_backward(sign * weight * torch.addcmul(wrong, 1 - wrong, entropy, value=2))
        return weight * entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.saved_tensors[0], None
