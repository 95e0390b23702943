"""What FCRN learns: the class of each cell or pixel, from the hard ones."""

from __future__ import annotations

from torch import Tensor

from boxel.data.label_maps import IGNORE_INDEX
from boxel.losses.bootstrap import bootstrapped_cross_entropy
from boxel.models.fcrn.config import FCRNConfig
from boxel.models.semantic.criterion import cross_entropy, met

GRID = 8
"""Pixels to a cell of the grid that `min_kept` counts in."""


def segmentation_loss(scores: Tensor, labels: Tensor, stride: int, config: FCRNConfig) -> Tensor:
    """Cross-entropy of all or of the hard cells or pixels (Eq. 1).

    Args:
        scores: (B, K, h, w) logits of cells.
        labels: (B, H, W) uint8 in [0, K), or `IGNORE_INDEX`; H and W are h and w times the stride.
        stride: pixels to a cell.
        config: which are learned from, and where.

    Returns:
        () the loss.
    """
    scores, labels = met(scores, labels, stride, config.loss_at)
    if config.min_kept is None:
        return cross_entropy(scores, labels)
    kept = kept_of(config.min_kept, stride if config.loss_at == "cells" else 1)
    return bootstrapped_cross_entropy(scores, labels, kept, config.threshold, IGNORE_INDEX)


def kept_of(min_kept: int, stride: int) -> int:
    """`min_kept`, counted in cells of the grid of stride 8, as a number of cells of another stride; 1 at least."""
    return max(round(min_kept * (GRID / stride) ** 2), 1)
