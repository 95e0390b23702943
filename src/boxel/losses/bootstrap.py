"""Online bootstrapping: learn from the pixels that are hard for the network as it is now, and drop the others."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from boxel.losses.dice import full_precision


def select_hard_pixels(ease: Tensor, valid: Tensor, min_kept: int, threshold: float | None = None) -> Tensor:
    """Which pixels are kept.

    Without a threshold exactly the `min_kept` hardest are (Table 7); of pixels as hard as the last of these, any. With
    one, all pixels up to it are (Eq. 1), and where these are too few it rises until `min_kept` are: `ease <=
    max(threshold, the min_kept-th lowest ease)`. No pixel is kept that is not valid, so where fewer are valid than
    `min_kept`, all that are. NaN is the hardest of all, so that what diverges is seen. Nothing waits for the device.

    Args:
        ease: (...) how easy each pixel is for the network: the probability of its true class, or its logarithm, or the
            IoU of its box with the true one.
        valid: (...) bool, pixels that have a label.
        min_kept: how many pixels are kept at least, of all together; 1 or more.
        threshold: of `ease`, or None.

    Returns:
        (...) bool.

    References:
        Wu, Shen, van den Hengel, Bridging Category-level and Instance-level Semantic Image Segmentation, 2016,
        Section 2.2.
    """
    if valid.numel() == 0:
        return valid
    hardness = (-ease.detach()).masked_fill_(~valid, -torch.inf).flatten()
    if threshold is not None:
        hardness.clamp_(max=-threshold)  # all up to the threshold count as equally hard
    top = hardness.topk(min(min_kept, hardness.numel()), sorted=False)
    if threshold is not None:
        kept = ~(hardness < top.values.amin())
    else:
        kept = torch.zeros_like(hardness, dtype=torch.bool).index_fill_(0, top.indices, True)
    return kept.view_as(valid) & valid


def bootstrapped_cross_entropy(
    logits: Tensor, labels: Tensor, min_kept: int, threshold: float | None = None, void: int = 255
) -> Tensor:
    """Mean cross-entropy of the hard pixels (Eq. 1). Pixels that are dropped get a gradient of exactly 0.

    Args:
        logits: (B, K, h, w).
        labels: (B, h, w) int64 in [0, K), or void.
        min_kept: see :func:`select_hard_pixels`; the pixels of the whole batch are in one pool.
        threshold: see there, of the probability of the true class, in (0, 1].
        void: the label of pixels without one.

    Returns:
        () the loss, float32 at least; 0 where no pixel has a label. It can be differentiated once.
    """
    log_threshold = None if threshold is None else math.log(threshold)
    return _BootstrappedCrossEntropy.apply(full_precision(logits), labels, min_kept, log_threshold, void)


class _BootstrappedCrossEntropy(Function):
    """The loss with its gradient in closed form.

    Ranking, loss and gradient share one log-softmax, and the gradient is made in one buffer of the logits' size, where
    autograd fills one for the log-probabilities and another for the logits. That pays for the ranking.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, labels: Tensor, min_kept: int, log_threshold: float | None, void: int
    ) -> Tensor:
        valid = labels != void
        index = (labels * valid).unsqueeze(1)  # void pixels look up class 0, and count for nothing
        log_p = F.log_softmax(logits, 1)
        log_p_true = log_p.gather(1, index).squeeze(1)
        kept = select_hard_pixels(log_p_true, valid, min_kept, log_threshold)
        count = kept.sum().clamp(min=1)
        ctx.save_for_backward(log_p, index, kept, count)
        return -log_p_true.masked_fill_(~kept, 0).sum() / count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        log_p, index, kept, count = ctx.saved_tensors
        weights = (kept * (gradient / count)).unsqueeze(1)
        # Softmax less one at the true class, of the pixels kept.
        return log_p.exp().mul_(weights).scatter_add_(1, index, -weights), None, None, None, None
