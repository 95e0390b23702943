"""Losses of the mask head: cross-entropy of masks, and the loss of rows and columns of boxes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from boxel.losses.mil import mil_loss, smoothness_loss
from boxel.losses.processes import mean_over_processes
from boxel.models.mask_rcnn.heads import MaskTargets, grid_windows, spans_in


def mask_losses(logits: Tensor, targets: MaskTargets, learns_from_boxes: bool) -> dict[str, Tensor]:
    """Compute the cross-entropy of proposals with a mask, and the loss of rows and columns of the others.

    The logits, (R, GRID, GRID), are those of the class of each proposal. All losses are means over the R proposals (of
    all processes), so that in a mixed batch each kind weighs as much as its share; a mask that a teacher has made
    counts by its quality. If all have masks of unknown quality, e.g. true ones, `mask` is torchvision's
    `maskrcnn_loss`.
    """
    with torch.autocast(logits.device.type, enabled=False):
        logits = logits.float()
        total = mean_over_processes(logits.new_tensor(len(logits)))
        masked, boxed = targets.has_mask, ~targets.has_mask
        entropy = F.binary_cross_entropy_with_logits(
            logits[masked], targets.gt_masks[masked], reduction="none"
        )
        losses = {"mask": (targets.weights[masked] * entropy.mean((1, 2))).sum() / total}
        if learns_from_boxes:
            rows, columns = spans_in(grid_windows(targets.rois[boxed]), targets.gt_boxes[boxed])
            logits = logits[boxed]
            losses["mil"] = mil_loss(logits, rows, columns).sum() / total
            losses["smoothness"] = smoothness_loss(logits).sum() / total
        return losses
