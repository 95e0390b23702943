"""What the mask head learns: masks by cross-entropy, boxes by the rows and columns that they cross."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

from boxel.losses.affinity import affinity_loss, color_similarity
from boxel.losses.mil import mil_loss, smoothness_loss
from boxel.losses.projection import projection_loss
from boxel.masks.spans import box_masks
from boxel.models.mask_rcnn.config import MaskRCNNConfig
from boxel.models.mask_rcnn.targets import GRID, grid_windows, spans_in


class Lessons(NamedTuple):
    """The proposals of a batch that teach masks, and what each of them teaches.

    Attributes:
        rois: (R, 4) proposals, xyxy pixels.
        image_index: (R,) int64, index into the images.
        labels: (R,) int64, class of its instance, from 1 up.
        boxes: (R, 4) its instance's box.
        has_mask: (R,) bool, those learned from their mask.
        weights: (R,) of the masks.
        masks: (R, GRID, GRID) in [0, 1], the instance's mask on the cells of the proposal; anything where
            there is none.
    """

    rois: Tensor
    image_index: Tensor
    labels: Tensor
    boxes: Tensor
    has_mask: Tensor
    weights: Tensor
    masks: Tensor


def mask_losses(
    logits: Tensor, lessons: Lessons, images: Tensor, sizes: list[tuple[int, int]], config: MaskRCNNConfig
) -> dict[str, Tensor]:
    """Losses of the mask head: cross-entropy where there is a mask, elsewhere the loss of boxes that is set.

    All are means over the R proposals, so that in a mixed batch each weighs as much as its share. Where all
    have masks of weight 1, `mask` is torchvision's `maskrcnn_loss`.

    Args:
        logits: (R, GRID, GRID) of each proposal's own class.
        lessons: what they are compared with.
        images: (B, 3, H, W) RGB in [0, 1].
        sizes: (height, width) of each image before padding.
        config: settings.

    Returns:
        `mask`, and of instances with a box only `mil` and `smoothness`, or `projection` and perhaps
        `affinity`; raw, not weighted.
    """
    with torch.autocast(logits.device.type, enabled=False):
        logits = logits.float()
        total = max(len(logits), 1)
        known, boxed = lessons.has_mask, ~lessons.has_mask
        entropy = F.binary_cross_entropy_with_logits(logits[known], lessons.masks[known], reduction="none")
        losses = {"mask": (entropy.mean((1, 2)) * lessons.weights[known]).sum() / total}
        if config.mask_loss == "none":
            return losses

        windows, unknown = grid_windows(lessons.rois[boxed]), logits[boxed]
        rows, columns = spans_in(windows, lessons.boxes[boxed])
        if config.mask_loss == "mil":
            losses["mil"] = mil_loss(unknown, rows, columns).sum() / total
            losses["smoothness"] = smoothness_loss(unknown).sum() / total
            return losses
        losses["projection"] = projection_loss(unknown, rows, columns).sum() / total
        if config.mask_loss == "projection+affinity":
            similarity = window_similarity(images, sizes, windows, lessons.image_index[boxed], config)
            own = torch.arange(len(unknown), device=unknown.device)  # each has edges of its own
            edges = similarity >= config.tau
            loss = affinity_loss(unknown, edges, own, rows, columns, dilation=config.dilation)
            losses["affinity"] = loss * len(unknown) / total
        return losses


@torch.no_grad()
def window_similarity(
    images: Tensor,
    sizes: list[tuple[int, int]],
    windows: Tensor,
    image_index: Tensor,
    config: MaskRCNNConfig,
) -> Tensor:
    """Color similarity of neighboring cells of each window (BoxInst, Eq. 7).

    Args:
        images: (B, 3, H, W) RGB in [0, 1].
        sizes: (height, width) of each image before padding.
        windows: (N, 4) xyxy pixels.
        image_index: (N,) int64, each window's image.
        config: `theta` and `dilation`.

    Returns:
        (N, 4, GRID, GRID) in [0, 1]; -1 for edges with an end outside the image.
    """
    places = torch.cat([image_index[:, None].to(windows), windows], 1)
    colors = roi_align(images, places, GRID, aligned=True)
    whole = windows.new_tensor([(0, 0, width, height) for height, width in sizes])[image_index]
    valid = box_masks(*spans_in(windows, whole))
    return color_similarity(colors, valid, stride=1, dilation=config.dilation, theta=config.theta)
