"""A small cost of area, for pixels that neither box nor color decides.

The projection and affinity losses do not distinguish a filled hole from an empty one: nothing links it to the
background outside. The cost of area decides for background.
"""

from __future__ import annotations

from torch import Tensor

from boxel.losses.dice import full_precision
from boxel.masks.spans import box_masks


def area_loss(logits: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Share of each box that its mask covers. Not in the BoxInst paper.

    Args:
        logits: (N, h, w) mask logits.
        rows: (N, h) bool, rows of the grid in each box.
        columns: (N, w) bool, columns of the grid in each box.

    Returns:
        (N,) in [0, 1], the mean foreground probability over the cells of the box.

    Examples:
        >>> import torch
        >>> area_loss(torch.zeros(1, 2, 2), torch.tensor([[True, False]]), torch.tensor([[True, True]]))
        tensor([0.5000])
    """
    inside = box_masks(rows, columns)
    return (full_precision(logits).sigmoid() * inside).sum((1, 2)) / inside.sum((1, 2))
