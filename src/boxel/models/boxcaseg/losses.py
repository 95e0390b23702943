"""Losses of BoxCaseg: bags of pixels of boxes, pixels of masks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from boxel.losses.affinity import affinity_loss, color_similarity
from boxel.losses.dice import dice_loss
from boxel.losses.mil import mil_loss, smoothness_loss
from boxel.losses.processes import mean_over_processes
from boxel.losses.projection import projection_loss
from boxel.models.boxcaseg.config import BoxCasegConfig

COLOR_STRIDE = 4


def box_losses(
    logits: Tensor,
    rows: Tensor,
    columns: Tensor,
    masks: Tensor,
    has_mask: Tensor,
    images: Tensor,
    config: BoxCasegConfig,
) -> dict[str, Tensor]:
    """Compute the losses of the logits that learn from boxes: MIL with its smooth term (Eq. 1, 2) and ours.

    All are means over the B crops of the batch; those of crops without a mask are 0 if there are none. They are not
    weighted, and a loss of weight 0 is omitted.

    Args:
        logits: (B, S, S).
        rows: (B, S) bool, rows of the crop in the box.
        columns: (B, S) bool.
        masks: (B, S, S) in [0, 1], the true mask if there is one, else a hint, else empty.
        has_mask: (B,) bool.
        images: (B, 3, S, S) RGB in [0, 1].
        config: Settings.
    """
    losses = {}
    boxed = ~has_mask
    share = mean_over_processes(boxed.float().mean(), minimum=0.0)
    # The projections of a true mask are known exactly, including gaps.
    held = masks > 0.5
    rows = torch.where(has_mask[:, None], held.any(2), rows)
    columns = torch.where(has_mask[:, None], held.any(1), columns)
    if config.mil_weight > 0:
        losses["mil"] = mil_loss(logits, rows, columns, config.mil_reduction).mean()
    if config.smooth_weight > 0:
        losses["smooth"] = smoothness_loss(logits, config.mil_reduction).mean()
    if config.projection_weight > 0:
        losses["projection"] = projection_loss(logits, rows, columns).mean()
    if config.affinity_weight > 0:
        losses["affinity"] = share * _affinity(
            logits[boxed], rows[boxed], columns[boxed], images[boxed], config
        )
    if config.hint_weight > 0:
        hinted = boxed & held.flatten(1).any(1)
        losses["hint"] = hinted.float().mean() * mask_loss(logits[hinted], masks[hinted], config.dice_weight)
    return losses


def mask_loss(logits: Tensor, masks: Tensor, dice_weight: float) -> Tensor:
    """Compute the mean cross-entropy of the pixels, (N, S, S), plus Dice if it has a weight; 0 without masks."""
    if not len(logits):
        return logits.sum() * 0
    loss = F.binary_cross_entropy_with_logits(logits, masks)
    return loss + dice_weight * dice_loss(logits.sigmoid(), masks).mean() if dice_weight > 0 else loss


def _affinity(
    logits: Tensor, rows: Tensor, columns: Tensor, images: Tensor, config: BoxCasegConfig
) -> Tensor:
    edges = color_similarity(images, None, COLOR_STRIDE, 3, config.dilation, config.theta) >= config.tau
    coarse = F.avg_pool2d(logits[:, None], COLOR_STRIDE)[:, 0]
    index = torch.arange(len(logits), device=logits.device)
    rows, columns = (span[:, COLOR_STRIDE // 2 :: COLOR_STRIDE] for span in (rows, columns))
    return affinity_loss(coarse, edges, index, rows, columns, dilation=config.dilation)
