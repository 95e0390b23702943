"""A light pressure toward small masks, for what boxes and color leave open.

The projection and color-affinity losses are both content with the hole of a ring filled or empty: nothing links it
with the background outside. Where no evidence asks for foreground, a small cost of area decides for background.
"""

from __future__ import annotations

from torch import Tensor

from boxel.losses.dice import full_precision
from boxel.masks.spans import box_masks


def area_loss(logits: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Share of each box that its mask covers. Not in the BoxInst paper.

    Args:
        logits: (N, h, w).
        rows: (N, h) bool, rows of the grid in each box.
        columns: (N, w) bool, columns of the grid in each box.

    Returns:
        (N,) in [0, 1]: mean foreground probability over the box's cells.
    """
    inside = box_masks(rows, columns)
    return (full_precision(logits).sigmoid() * inside).sum((1, 2)) / inside.sum((1, 2))
