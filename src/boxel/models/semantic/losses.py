"""The cross-entropy of labeled pixels, and the grid on which scores and labels are compared."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from boxel.data.label_maps import IGNORE_INDEX
from boxel.losses.dice import full_precision
from boxel.losses.processes import mean_over_processes
from boxel.models.semantic.inference import cells_to_pixels


def align_scores_and_labels(
    scores: Tensor, labels: Tensor, stride: int, loss_grid: Literal["cells", "pixels"]
) -> tuple[Tensor, Tensor]:
    """Return (B, K, h, w) logits of cells and (B, H, W) uint8 labels of pixels on one grid, in float32 and int64.

    `cells` takes the label of the pixel at the center of each cell, and leaves cells out whose center is padding;
    `pixels` enlarges the scores.
    """
    scores = full_precision(scores)
    if loss_grid == "pixels":
        return cells_to_pixels(scores, labels.shape[-2:], stride), labels.long()
    labels = sample_cell_centers(labels, stride).long()
    return scores[..., : labels.shape[-2], : labels.shape[-1]], labels


def cross_entropy(scores: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy of (B, H, W) int64 labels that are not `IGNORE_INDEX`; 0 if there are none."""
    losses = F.cross_entropy(scores, labels, ignore_index=IGNORE_INDEX, reduction="sum")
    return losses / mean_over_processes((labels != IGNORE_INDEX).sum())


def sample_cell_centers(values: Tensor, stride: int) -> Tensor:
    """Return the (..., h, w) values of (..., H, W) pixels at the centers of cells."""
    return values[..., stride // 2 :: stride, stride // 2 :: stride]


def stack_maps(targets: list[dict], name: str, device: torch.device) -> Tensor:
    """Return a batch of maps of one size, one per target."""
    return torch.stack([target[name] for target in targets]).to(device)
