"""BoxCaseg's mix of two heads' maps of one object."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from boxel.losses.dice import full_precision
from boxel.losses.types import MixingSpace


def mix_heads(
    salient: Tensor, transferred: Tensor, alpha: float, on: MixingSpace = "probabilities"
) -> Tensor:
    """Two maps mixed: ``alpha`` of the salient head's, the rest of the transferred head's (inside Eq. 3).

    Binary cross-entropy with logits of the result is Eq. 3.

    Args:
        salient: logits of any shape.
        transferred: logits of the same shape.
        alpha: share of the salient head in [0, 1].
        on: mix `probabilities`, as printed, or `logits`, as the authors' code does.

    Returns:
        Logits of the same shape.

    References:
        Wang et al., BoxCaseg, 2021, Eq. 3 and Table 6.
    """
    salient, transferred = full_precision(salient), full_precision(transferred)
    if on == "logits" or alpha in (0.0, 1.0):
        return torch.lerp(transferred, salient, alpha)
    # The log of the mixed probability less that of its complement, neither of which underflows.
    shares = torch.tensor([alpha, 1 - alpha], dtype=salient.dtype, device=salient.device).log()
    both = torch.stack([salient, transferred], dim=-1)
    inside = torch.logsumexp(F.logsigmoid(both) + shares, dim=-1)
    return inside - torch.logsumexp(F.logsigmoid(-both) + shares, dim=-1)
