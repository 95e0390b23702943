"""What BoxInst learns from: FCOS's detection losses and the mask losses, chosen instance by instance."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from boxel.losses.affinity import affinity_loss, color_similarity, supervised_affinity_loss
from boxel.losses.area import area_loss
from boxel.losses.dice import dice_loss
from boxel.losses.projection import projection_loss
from boxel.masks.spans import box_spans
from boxel.models.boxinst.config import BoxInstConfig
from boxel.models.boxinst.head import HeadOutput
from boxel.models.boxinst.targets import centerness, side_distances

MASK_STRIDE = 4


def detection_losses(
    output: HeadOutput, points: Tensor, boxes: Tensor, labels: Tensor, positive: Tensor, ignored: Tensor
) -> dict[str, Tensor]:
    """Focal, GIoU and center-ness losses (FCOS, section 3.1; normalizers averaged over all processes).

    Args:
        output: the head's predictions.
        points: (L, 2) locations.
        boxes: (P, 4) the box of each positive location, in the order of ``positive.nonzero()``.
        labels: (P,) its class.
        positive: (B, L) bool.
        ignored: (B, L) bool, locations that are neither object nor background.

    Returns:
        `classification`, `box` and `centerness`.
    """
    logits = output.logits.float()
    truth = torch.zeros_like(logits)
    image, location = positive.nonzero(as_tuple=True)
    truth[image, location, labels] = 1.0
    focal = (
        sigmoid_focal_loss(logits, truth, alpha=0.25, gamma=2.0).masked_fill(ignored[..., None], 0.0).sum()
    )

    here = points[location]
    target = centerness(side_distances(here, boxes))
    num_positive, target_sum = _mean_over_processes(target.new_tensor([len(location)]), target.sum()[None])
    sides = output.distances[image, location]
    predicted = torch.cat([here - sides[:, :2], here + sides[:, 2:]], dim=1)
    giou = (generalized_box_iou_loss(predicted, boxes) * target).sum()
    center = F.binary_cross_entropy_with_logits(
        output.centerness[image, location].float(), target, reduction="sum"
    )
    return {
        "classification": focal / num_positive.clamp(min=1),
        "box": giou / target_sum.clamp(min=1e-6),
        "centerness": center / num_positive.clamp(min=1),
    }


def mask_losses(
    logits: Tensor,
    boxes: Tensor,
    has_mask: Tensor,
    masks: Tensor,
    image_index: Tensor,
    images: Tensor,
    valid: Tensor,
    config: BoxInstConfig,
) -> dict[str, Tensor]:
    """Losses of the masks: projection and color affinity where there is a box, Dice or Eq. 6 where there is a mask.

    All are means over the N instances, so that in a mixed batch each weighs as much as its share.

    Args:
        logits: (N, h, w) at stride 4.
        boxes: (N, 4) true boxes, xyxy pixels.
        has_mask: (N,) bool.
        masks: (N, h, w) bool, the true mask where there is one, else a hint, else empty.
        image_index: (N,) index into the images.
        images: (B, 3, H, W) RGB in [0, 1].
        valid: (B, H, W) bool, False in padding and where no edge is wanted.
        config: settings; a loss whose weight is 0 is left out.

    Returns:
        `projection`, `affinity`, `area` and `hint` of instances with a box only, `mask` of those with a mask; raw,
        not weighted.
    """
    with torch.autocast(logits.device.type, enabled=False):
        logits = logits.float()
        rows, columns = box_spans(boxes, logits.shape[-2], logits.shape[-1], MASK_STRIDE)
        total = max(len(logits), 1)
        size, dilation = config.patch_size, config.dilation
        losses = {}

        boxed = ~has_mask
        share = boxed.sum() / total
        if config.projection_weight > 0:
            per_instance = projection_loss(
                logits[boxed], rows[boxed], columns[boxed], config.projection_slack
            )
            losses["projection"] = per_instance.sum() / total
        if config.affinity_weight > 0 or config.supervised_loss == "affinity":
            similarity = color_similarity(images, valid, MASK_STRIDE, size, dilation, config.theta)
            existing = similarity >= 0
        if config.affinity_weight > 0:
            losses["affinity"] = share * affinity_loss(
                logits[boxed],
                similarity >= config.tau,
                image_index[boxed],
                rows[boxed],
                columns[boxed],
                size,
                dilation,
                config.affinity_normalizer,
                config.affinity_inside,
                existing,
            )

        if config.area_weight > 0:
            losses["area"] = area_loss(logits[boxed], rows[boxed], columns[boxed]).sum() / total

        if config.hint_weight > 0:
            hinted = boxed & masks.flatten(1).any(1)
            losses["hint"] = dice_loss(logits[hinted].sigmoid(), masks[hinted]).sum() / total

        known, truth = logits[has_mask], masks[has_mask]
        if config.supervised_loss == "dice":
            losses["mask"] = dice_loss(known.sigmoid(), truth).sum() / total
        else:
            r, c = rows[has_mask], columns[has_mask]
            pairwise = supervised_affinity_loss(
                known, truth, r, c, size, dilation, existing=existing, image_index=image_index[has_mask]
            )
            losses["mask"] = (projection_loss(known, r, c).sum() + pairwise * len(known)) / total
        return losses


def _mean_over_processes(*values: Tensor) -> list[Tensor]:
    together = torch.cat(values).detach()
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(together)
        together = together / dist.get_world_size()
    return list(together)
