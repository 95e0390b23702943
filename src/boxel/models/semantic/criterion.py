"""Where scores and labels meet, and the cross-entropy of all that is labeled."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from boxel.data.label_maps import IGNORE_INDEX
from boxel.losses.dice import full_precision


def met(
    scores: Tensor, labels: Tensor, stride: int, loss_at: Literal["cells", "pixels"]
) -> tuple[Tensor, Tensor]:
    """Scores and labels on one grid.

    Args:
        scores: (B, K, h, w) logits of cells.
        labels: (B, H, W) uint8; H and W are h and w times the stride.
        stride: pixels to a cell.
        loss_at: `cells` takes the label of the pixel at each cell's center, `pixels` enlarges the scores.

    Returns:
        (B, K, ...) float32 and (B, ...) int64, both of (h, w) or of (H, W).
    """
    scores = full_precision(scores)
    if loss_at == "cells":
        return scores, at_cells(labels, stride).long()
    return F.interpolate(scores, labels.shape[-2:], mode="bilinear"), labels.long()


def cross_entropy(scores: Tensor, labels: Tensor) -> Tensor:
    """() the mean over all pixels with a label; 0 where there is none.

    Args:
        scores: (B, K, H, W) logits.
        labels: (B, H, W) int64 in [0, K), or `IGNORE_INDEX`.
    """
    losses = F.cross_entropy(scores, labels, ignore_index=IGNORE_INDEX, reduction="sum")
    return losses / (labels != IGNORE_INDEX).sum().clamp(min=1)


def at_cells(values: Tensor, stride: int) -> Tensor:
    """(..., h, w) values of the pixels at the centers of cells, of (..., H, W)."""
    return values[..., stride // 2 :: stride, stride // 2 :: stride]


def stacked(targets: list[dict], name: str, device: torch.device) -> Tensor:
    """A batch of maps of one size."""
    return torch.stack([target[name] for target in targets]).to(device)
