"""The multiple-instance loss of boxes: each line across a box holds object, each line outside holds none.

Lines are the rows and columns of a grid, its bags of pixels. The maxima of their scores are all that is asked about, so
a cross of one pixel's width scores as well as the filled box; what lies between is left to other losses.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from boxel.losses.affinity import edge_ends, edge_offsets
from boxel.losses.dice import full_precision
from boxel.losses.types import Reduction


def mil_loss(logits: Tensor, rows: Tensor, columns: Tensor, reduction: Reduction = "mean") -> Tensor:
    """Cross-entropy of bags: the highest score of a row or column against whether it crosses the object (Eq. 1).

    Args:
        logits: (N, h, w) mask logits.
        rows: (N, h) bool, rows that cross the object: those of its box, or of its mask.
        columns: (N, w) bool, columns that do.
        reduction: `sum` over the bags, as printed, or their `mean`, which the size of the grid does not change.

    Returns:
        (N,) losses, without the smooth term.

    References:
        Wang et al., BoxCaseg, 2021, Eq. 1; Hsu et al., BBTP, 2019, Eq. 2.
    """
    logits = full_precision(logits)
    # The sigmoid rises with its input, so the highest logit is that of the highest score.
    bags = torch.cat([logits.amax(2), logits.amax(1)], dim=1)
    positive = torch.cat([rows, columns], dim=1).to(bags.dtype)
    losses = F.binary_cross_entropy_with_logits(bags, positive, reduction="none")
    return losses.sum(1) if reduction == "sum" else losses.mean(1)


def smoothness_loss(logits: Tensor, reduction: Reduction = "mean") -> Tensor:
    """Squared differences between the scores of a pixel and its eight neighbors (Eq. 2).

    Neighbors beyond the grid do not exist: an object that reaches the border is not punished there.

    Args:
        logits: (N, h, w) mask logits, h and w at least 2.
        reduction: `sum` over all pixels and their neighbors, as printed, so that each pair counts twice; or the
            `mean` over pairs.

    Returns:
        (N,) values, in [0, 1] for the mean.

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
