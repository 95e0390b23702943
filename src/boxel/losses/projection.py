"""BoxInst's projection loss: a mask must reach every side of its box and not leave it (Eq. 1-3)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from boxel.losses.dice import dice_loss, full_precision
from boxel.losses.types import Projection


def projection_loss(logits: Tensor, rows: Tensor, columns: Tensor, kind: Projection = "dice") -> Tensor:
    """Dice loss or cross-entropy between the projections of a mask and of its box, summed over both axes.

    A projection is the maximum along an axis. The sigmoid is monotonic, so it is applied after the maximum: the same
    value from h + w numbers instead of h * w.

    Args:
        logits: (N, h, w) mask logits.
        rows: (N, h) bool, rows of the grid in each box: the box's projection on y. :func:`~boxel.masks.box_spans`
            returns rows and columns.
        columns: (N, w) bool, columns of the grid in each box.
        kind: ``"dice"`` is Eq. 3, ``"cross-entropy"`` the mean over the rows or columns (footnote 2).

    Returns:
        (N,) losses, those of ``"dice"`` in [0, 2]; BoxInst takes their mean over instances.

    Examples:
        >>> import torch
        >>> box = torch.tensor([[True, True, False]])
        >>> filled, empty = torch.full((1, 3, 3), -9.0), torch.full((1, 3, 3), -9.0)
        >>> filled[:, :2, :2] = 9
        >>> projection_loss(torch.cat([filled, empty]), box.repeat(2, 1), box.repeat(2, 1)).round(decimals=1)
        tensor([0., 2.])

    References:
        Tian et al., BoxInst, 2021, Eq. 1-3.
    """
    if not len(logits):
        return logits.flatten(1).sum(1)
    logits = full_precision(logits)
    on_y, on_x = logits.max(2).values, logits.max(1).values
    return _compare(on_y, rows, kind) + _compare(on_x, columns, kind)


def _compare(logits: Tensor, target: Tensor, kind: Projection) -> Tensor:
    """Return the (N,) losses of (N, n) logits of projections."""
    if kind == "dice":
        return dice_loss(logits.sigmoid(), target)
    return F.binary_cross_entropy_with_logits(logits, target.to(logits.dtype), reduction="none").mean(1)
