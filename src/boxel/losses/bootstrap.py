"""Online bootstrapping: learn from the pixels that are hard for the network as it is now, and drop the others."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from boxel.losses.dice import full_precision


def hardest(ease: Tensor, valid: Tensor, min_kept: int, threshold: float | None = None) -> Tensor:
    """Which pixels are kept.

    Without a threshold exactly the `min_kept` hardest are (Table 7); where several are as hard as the last of these,
    the first in memory. With one, all pixels below it are (Eq. 1), and where these are too few it rises until
    `min_kept` are: `ease <= max(threshold, the min_kept-th lowest ease)`. No pixel is kept that is not valid, so where
    fewer are valid than `min_kept`, all that are. Nothing waits for the device.

    Args:
        ease: (...) how easy each pixel is for the network: the probability of its true class, or the IoU of its box
            with the true one.
        valid: (...) bool, pixels that have a label.
        min_kept: how many pixels are kept at least, of all together; 1 or more.
        threshold: in (0, 1], or None.

    Returns:
        (...) bool.

    References:
        Wu, Shen, van den Hengel, Bridging Category-level and Instance-level Semantic Image Segmentation, 2016,
        Section 2.2.
    """
    ranked = ease.detach().masked_fill(~valid, torch.inf).flatten()
    if ranked.numel() == 0:
        return valid
    last = ranked.kthvalue(min(min_kept, ranked.numel())).values
    if threshold is not None:
        kept = ranked <= last.clamp(min=threshold)
    else:
        below, level = ranked < last, ranked == last
        kept = below | (level & (level.cumsum(0) <= min_kept - below.sum()))
    return kept.view_as(valid) & valid


def bootstrapped_cross_entropy(
    logits: Tensor, labels: Tensor, min_kept: int, threshold: float | None = None, void: int = 255
) -> Tensor:
    """Mean cross-entropy of the hard pixels (Eq. 1).

    Args:
        logits: (B, K, h, w).
        labels: (B, h, w) int64 in [0, K), or void.
        min_kept: see :func:`hardest`; the pixels of the whole batch are in one pool.
        threshold: see there, of the probability of the true class.
        void: the label of pixels without one.

    Returns:
        () the loss; 0 where no pixel has a label.
    """
    losses = F.cross_entropy(full_precision(logits), labels, ignore_index=void, reduction="none")
    kept = hardest(torch.exp(-losses.detach()), labels != void, min_kept, threshold)
    return (losses * kept).sum() / kept.sum().clamp(min=1)
