"""Losses of the mask head: cross-entropy of masks, and losses of boxes for instances without a mask."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

from boxel.losses.affinity import affinity_loss, color_similarity
from boxel.losses.mil import mil_loss, smoothness_loss
from boxel.losses.projection import projection_loss
from boxel.masks.spans import box_masks
from boxel.models.mask_rcnn.config import MaskRCNNConfig
from boxel.models.mask_rcnn.heads import GRID, MaskTargets, grid_windows, spans_in


def mask_losses(
    logits: Tensor,
    targets: MaskTargets,
    images: Tensor,
    sizes: list[tuple[int, int]],
    config: MaskRCNNConfig,
) -> dict[str, Tensor]:
    """Compute the cross-entropy of proposals with a mask, and the configured box loss of the others.

    All are means over the R proposals, so that in a mixed batch each kind weighs as much as its share. If all have
    masks, `mask` is torchvision's `maskrcnn_loss`.

    Args:
        logits: (R, GRID, GRID) of the class of each proposal.
        targets: Their targets.
        images: (B, 3, H, W) RGB in [0, 1].
        sizes: (height, width) of each image before padding.
        config: Settings.

    Returns:
        `mask`, and of instances with a box only `mil` and `smoothness`, or `projection` and possibly `affinity`; not
        weighted.
    """
    with torch.autocast(logits.device.type, enabled=False):
        logits = logits.float()
        total = max(len(logits), 1)
        masked, boxed = targets.has_mask, ~targets.has_mask
        entropy = F.binary_cross_entropy_with_logits(
            logits[masked], targets.gt_masks[masked], reduction="none"
        )
        losses = {"mask": entropy.mean((1, 2)).sum() / total}
        if config.mask_loss == "none":
            return losses

        windows, logits = grid_windows(targets.rois[boxed]), logits[boxed]
        rows, columns = spans_in(windows, targets.gt_boxes[boxed])
        if config.mask_loss == "mil":
            losses["mil"] = mil_loss(logits, rows, columns).sum() / total
            losses["smoothness"] = smoothness_loss(logits).sum() / total
            return losses
        losses["projection"] = projection_loss(logits, rows, columns).sum() / total
        if config.mask_loss == "projection+affinity":
            edges = window_similarity(images, sizes, windows, targets.image_index[boxed]) >= config.tau
            index = torch.arange(len(logits), device=logits.device)  # each has its own edges
            losses["affinity"] = affinity_loss(logits, edges, index, rows, columns) * len(logits) / total
        return losses


@torch.no_grad()
def window_similarity(
    images: Tensor, sizes: list[tuple[int, int]], windows: Tensor, image_index: Tensor
) -> Tensor:
    """Compute the color similarity of neighboring cells of (N, 4) windows of images (BoxInst, Eq. 7).

    It is (N, 4, GRID, GRID) in [0, 1]; -1 for edges with an end outside the image, whose size is before padding.
    """
    rois = torch.cat([image_index[:, None].to(windows), windows], 1)
    colors = roi_align(images, rois, GRID, aligned=True)
    extents = windows.new_tensor([(0, 0, width, height) for height, width in sizes])[image_index]
    valid = box_masks(*spans_in(windows, extents))
    return color_similarity(colors, valid, stride=1)
