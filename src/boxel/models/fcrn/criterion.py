"""What FCRN learns: the class of each cell or pixel, from the hard ones."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from boxel.data.label_maps import IGNORE
from boxel.losses.bootstrap import bootstrapped_cross_entropy
from boxel.losses.dice import full_precision
from boxel.models.fcrn.config import FCRNConfig

GRID = 8
"""Pixels to a cell of the grid that `min_kept` counts in."""


def segmentation_loss(scores: Tensor, labels: Tensor, stride: int, config: FCRNConfig) -> Tensor:
    """Cross-entropy of all or of the hard cells or pixels (Eq. 1).

    Args:
        scores: (B, K, h, w) logits of cells.
        labels: (B, H, W) uint8 in [0, K), or `IGNORE`; H and W are h and w times the stride.
        stride: pixels to a cell.
        config: which are learned from, and where.

    Returns:
        () the loss.
    """
    if config.loss_at == "cells":
        labels = at_cells(labels, stride)
    else:
        scores = F.interpolate(full_precision(scores), labels.shape[-2:], mode="bilinear")
    labels = labels.long()
    if config.min_kept is None:
        losses = F.cross_entropy(full_precision(scores), labels, ignore_index=IGNORE, reduction="sum")
        return losses / (labels != IGNORE).sum().clamp(min=1)
    kept = kept_of(config.min_kept, stride if config.loss_at == "cells" else 1)
    return bootstrapped_cross_entropy(scores, labels, kept, config.threshold, IGNORE)


def at_cells(values: Tensor, stride: int) -> Tensor:
    """(..., h, w) values of the pixels at the centres of cells, of (..., H, W)."""
    return values[..., stride // 2 :: stride, stride // 2 :: stride]


def kept_of(min_kept: int, stride: int) -> int:
    """`min_kept`, counted in cells of the grid of stride 8, as a number of cells of another stride; 1 at least."""
    return max(round(min_kept * (GRID / stride) ** 2), 1)


def stacked(targets: list[dict], name: str, device: torch.device) -> Tensor:
    """A batch of maps of one size."""
    return torch.stack([target[name] for target in targets]).to(device)
