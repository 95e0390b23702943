"""BoxInst's pairwise loss for the classes of pixels: neighbors of like color should be of one class."""

from __future__ import annotations

import torch
from torch import Tensor

from boxel.losses.affinity import edge_ends, edge_offsets
from boxel.losses.dice import full_precision


def class_affinity_loss(scores: Tensor, edges: Tensor, size: int = 3, dilation: int = 2) -> Tensor:
    """Mean negative log-probability that both ends of each supervised edge are of one class.

    With two classes it is the loss of BoxInst (Eq. 8) with the logit that is the difference of their scores.

    Args:
        scores: (B, K, h, w) logits.
        edges: (B, E, h, w) bool, the supervised edges: ``color_similarity(...) >= tau``.
        size: side of the patch, as `edges` was made with.
        dilation: step of the patch, as `edges` was made with.

    Returns:
        () the loss; 0 where there is no supervised edge.
    """
    logs = full_precision(scores).log_softmax(1)
    total = logs.new_zeros(())
    for e, (dy, dx) in enumerate(edge_offsets(size, dilation)):
        a, b = edge_ends(dy, dx, logs.shape[-2] - dy)
        same = torch.logsumexp(logs[a] + logs[b], 1)
        total = total - same[edges[:, e][a]].sum()
    return total / edges.sum().clamp(min=1)
