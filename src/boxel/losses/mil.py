"""Multiple-instance loss of boxes: each row and column across a box holds foreground, each one outside holds none.

The rows and columns of the grid are bags of pixels. Only the maximum of each bag is supervised, so a cross of one
pixel's width scores as well as the filled box; the rest is left to other losses.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from boxel.losses.affinity import edge_ends, edge_offsets
from boxel.losses.dice import full_precision
from boxel.losses.types import Reduction


def mil_loss(logits: Tensor, rows: Tensor, columns: Tensor, reduction: Reduction = "mean") -> Tensor:
    """Cross-entropy of bags: the maximum of each row and column against whether it crosses the object.

    Args:
        logits: (N, h, w) mask logits.
        rows: (N, h) bool, rows that cross the object: those of its box, or of its mask.
        columns: (N, w) bool, columns that do.
        reduction: ``"sum"`` over the bags, as printed, or their ``"mean"``, which does not depend on the grid's size.

    Returns:
        (N,) losses, without the smoothness term.

    Examples:
        >>> inside = torch.tensor([[True, False]])
        >>> mil_loss(torch.zeros(1, 2, 2), inside, inside)
        tensor([0.6931])

    References:
        Wang et al., BoxCaseg, 2021, Eq. 1; Hsu et al., BBTP, 2019, Eq. 2.
    """
    logits = full_precision(logits)
    # The sigmoid is monotonic, so the maximum logit is that of the maximum score.
    bags = torch.cat([logits.amax(2), logits.amax(1)], dim=1)
    positive = torch.cat([rows, columns], dim=1).to(bags.dtype)
    losses = F.binary_cross_entropy_with_logits(bags, positive, reduction="none")
    return losses.sum(1) if reduction == "sum" else losses.mean(1)


def smoothness_loss(logits: Tensor, reduction: Reduction = "mean") -> Tensor:
    """Squared differences between the scores of each pixel and of its eight neighbors.

    There are no neighbors beyond the grid, so an object that reaches the border costs nothing there.

    Args:
        logits: (N, h, w) mask logits, h and w at least 2.
        reduction: ``"sum"`` over all pixels and their neighbors, as printed, so each pair counts twice; or the
            ``"mean"`` over pairs.

    Returns:
        (N,) losses; in [0, 1] for the mean.

    Examples:
        >>> smoothness_loss(torch.full((1, 4, 4), 3.0))
        tensor([0.])

    References:
        Wang et al., BoxCaseg, 2021, Eq. 2.
    """
    scores = full_precision(logits).sigmoid()
    total, pairs = scores.new_zeros(len(scores)), 0
    for dy, dx in edge_offsets(size=3, dilation=1):
        start, end = edge_ends(dy, dx, scores.shape[1] - dy)
        squares = (scores[start] - scores[end]).square().flatten(1)
        total = total + squares.sum(1)
        pairs += squares.shape[1]
    return 2 * total if reduction == "sum" else total / max(pairs, 1)
