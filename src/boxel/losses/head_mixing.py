"""BoxCaseg's mix of the maps of two heads."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from boxel.losses.dice import full_precision
from boxel.losses.types import MixingSpace


def mix_heads(
    salient: Tensor, transferred: Tensor, alpha: float, space: MixingSpace = "probabilities"
) -> Tensor:
    """Mix two maps: ``alpha`` of the salient head's, the rest of the transferred head's.

    Binary cross-entropy with logits of the result is Eq. 3.

    Args:
        salient: Logits of any shape.
        transferred: Logits of the same shape.
        alpha: Share of the salient head in [0, 1].
        space: Mix ``"probabilities"``, as printed, or ``"logits"``, as the authors' code does.

    Returns:
        Logits of the same shape.

    Examples:
        >>> mixed = mix_heads(torch.tensor(0.9).logit(), torch.tensor(0.5).logit(), alpha=0.7)
        >>> mixed.sigmoid()  # 0.7 * 0.9 + 0.3 * 0.5
        tensor(0.7800)

    References:
        Wang et al., BoxCaseg, 2021, Eq. 3 and Table 6.
    """
    salient, transferred = full_precision(salient), full_precision(transferred)
    if space == "logits" or alpha in (0.0, 1.0):
        return torch.lerp(transferred, salient, alpha)
    # The log of the mixed probability minus that of its complement; neither underflows.
    shares = torch.tensor([alpha, 1 - alpha], dtype=salient.dtype, device=salient.device).log()
    both = torch.stack([salient, transferred], dim=-1)
    inside = torch.logsumexp(F.logsigmoid(both) + shares, dim=-1)
    return inside - torch.logsumexp(F.logsigmoid(-both) + shares, dim=-1)
