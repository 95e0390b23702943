"""Boxes that fit the masks of their instances."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from boxel.models.boxinst.losses import MASK_STRIDE


def fit_boxes(boxes: Tensor, mask_logits: Tensor, size: Sequence[int], cells: float) -> Tensor:
    """Move boxes toward the tight boxes around their masks.

    The sides of a predicted box are off by a share of the object's size, the outline of a mask by a share of a cell. So
    the mask counts s / (s + cells), where s is the side in cells of a square as large as the predicted box.

    Args:
        boxes: (N, 4) xyxy pixels.
        mask_logits: (N, h, w) over the whole image and possibly padding, `MASK_STRIDE` pixels per cell.
        size: (height, width) of the image in pixels, to which the boxes around masks are clipped.
        cells: Size of an object, in cells, whose mask and predicted box count alike.

    Returns:
        (N, 4) xyxy pixels; the predicted box where the mask is empty.

    Examples:
        >>> logits = torch.full((1, 8, 8), -1.0)
        >>> logits[:, 2:6, 2:6] = 1
        >>> fit_boxes(torch.tensor([[4.0, 8, 20, 24]]), logits, (32, 32), cells=4)
        tensor([[ 6.,  8., 22., 24.]])
    """
    x0, x1 = (MASK_STRIDE * _ends(mask_logits.amax(1))).clamp(max=size[1])
    y0, y1 = (MASK_STRIDE * _ends(mask_logits.amax(2))).clamp(max=size[0])
    around = torch.stack([x0, y0, x1, y1], 1)
    extent = (boxes[:, 2:] - boxes[:, :2]).prod(1, keepdim=True).sqrt() / MASK_STRIDE
    fitted = boxes + extent / (extent + cells) * (around - boxes)
    return torch.where((around[:, 2:] > around[:, :2]).all(1, keepdim=True), fitted, boxes)


def _ends(profile: Tensor) -> Tensor:
    """Return (2, N), where the foreground begins and ends in (N, w) profiles of logits, in cells.

    Between the centers of two cells the logits are linear, as they are when masks are pasted. Without any foreground,
    it begins at w and ends at 0.
    """
    middles = torch.arange(profile.shape[1], device=profile.device) + 0.5
    # Beyond the outer cells the same logits with the other sign, so that foreground there reaches the edge.
    before = torch.cat([-profile[:, :1], profile[:, :-1]], 1)
    after = torch.cat([profile[:, 1:], -profile[:, -1:]], 1)
    inside = profile > 0
    start = torch.where(inside & (before <= 0), middles - profile / (profile - before), profile.shape[1])
    end = torch.where(inside & (after <= 0), middles + profile / (profile - after), 0)
    return torch.stack([start.amin(1), end.amax(1)])
