"""BoxInst's projection loss: a mask must reach every side of its box and leave none (Eq. 1-3)."""

from __future__ import annotations

import math

from torch import Tensor

from boxel.losses.dice import dice_loss, full_precision


def projection_loss(logits: Tensor, rows: Tensor, columns: Tensor, slack: float = 0.0) -> Tensor:
    """Dice loss between the projections of a predicted mask and of its box, both axes added.

    A projection is the maximum along an axis (Eq. 2). The sigmoid rises with its input, so it is taken after the
    maximum: the same value, of h + w numbers instead of h * w.

    With loose boxes, drawn wider than their objects, the object may end before the box does. `slack` leaves
    open how far: inside the box, rows and columns that lie wholly within ``slack`` times its height or width
    of its edge, its rim, leave the Dice sums, so that there the mask may be on or off. Outside the box it must be
    off as ever. What is on in the rim counts for no row or column of the core: else a line in the rim, along each
    of two sides, would meet all that is asked.

    Args:
        logits: (N, h, w) mask logits.
        rows: (N, h) bool, rows of the grid in each box; the box's projection on y (Eq. 1).
        columns: (N, w) bool, columns of the grid in each box.
        slack: share of the box's side in [0, 0.5) that is left open at each edge; 0 is Eq. 3.

    Returns:
        (N,) losses in [0, 2]; BoxInst takes their mean over instances.

    Raises:
        ValueError: `slack` is out of its range.

    References:
        Tian et al., BoxInst, 2021, Eq. 1-3.
    """
    if not 0 <= slack < 0.5:
        raise ValueError(f"slack is a share of the box's side in [0, 0.5), not {slack}")
    if not len(logits):
        return logits.flatten(1).sum(1)
    logits = full_precision(logits)
    return _side(logits, 2, rows, columns, slack) + _side(logits, 1, columns, rows, slack)


def _side(logits: Tensor, axis: int, span: Tensor, across: Tensor, slack: float) -> Tensor:
    """(N,) losses of the projection along an axis of the logits; `across` is the box's span there, `span` the other."""
    maxima = logits.max(axis).values
    if slack == 0:
        return dice_loss(maxima.sigmoid(), span)
    core = logits.masked_fill(_near_edge(across, slack).unsqueeze(3 - axis), -math.inf).max(axis).values
    keep = ~_near_edge(span, slack)
    return dice_loss(core.where(span, maxima).sigmoid() * keep, span & keep)


def _near_edge(span: Tensor, slack: float) -> Tensor:
    """(N, n) bool: the cells of each span that lie wholly within ``slack`` of its length of either end."""
    rank = span.cumsum(1)
    length = rank[:, -1:]
    margin = slack * length
    return span & ((rank <= margin) | (rank > length - margin.floor()))
