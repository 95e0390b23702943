"""Online bootstrapping: train on the pixels that are hard for the current network, and drop the others."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from boxel.losses.dice import full_precision
from boxel.losses.processes import mean_over_processes


def select_hard_pixels(ease: Tensor, valid: Tensor, min_kept: int, threshold: float | None = None) -> Tensor:
    """Select the pixels to train on.

    Without a threshold, exactly the `min_kept` hardest pixels are kept (Table 7); ties are broken arbitrarily. With a
    threshold, all pixels up to it are kept (Eq. 1), and it rises if they are fewer than `min_kept`: ``ease <=
    max(threshold, the min_kept-th lowest ease)``. Invalid pixels are never kept, so if fewer than `min_kept` are valid,
    all valid ones are kept. NaN counts as the hardest, so that divergence is seen. Nothing waits for the device.

    Args:
        ease: (...) how easy each pixel is for the network: the probability of its true class, its logarithm, or the IoU
            of its box with the true one.
        valid: (...) bool, pixels that have a label.
        min_kept: Minimum number of pixels to keep, of all together; at least 1.
        threshold: Threshold of ``ease``, or None.

    Returns:
        (...) bool.

    Examples:
        >>> ease = torch.tensor([0.9, 0.2, 0.6, 0.1])
        >>> select_hard_pixels(ease, ease > 0.15, min_kept=2)
        tensor([False,  True,  True, False])

    References:
        Wu, Shen, van den Hengel, Bridging Category-level and Instance-level Semantic Image Segmentation, 2016,
        Section 2.2.
    """
    if valid.numel() == 0:
        return valid
    hardness = (-ease.detach()).masked_fill_(~valid, -torch.inf).flatten()
    if threshold is not None:
        hardness.clamp_(max=-threshold)  # all pixels up to the threshold are equally hard
    top = hardness.topk(min(min_kept, hardness.numel()), sorted=False)
    if threshold is not None:
        kept = ~(hardness < top.values.amin())
    else:
        kept = torch.zeros_like(hardness, dtype=torch.bool).index_fill_(0, top.indices, True)
    return kept.view_as(valid) & valid


def bootstrapped_cross_entropy(
    logits: Tensor, labels: Tensor, min_kept: int, threshold: float | None = None, ignore_index: int = 255
) -> Tensor:
    """Mean cross-entropy of the hard pixels; the gradient of all others is exactly 0.

    Args:
        logits: (B, K, h, w).
        labels: (B, h, w) int64 in [0, K), or `ignore_index`.
        min_kept: As in :func:`select_hard_pixels`; the pixels of the whole batch form one pool.
        threshold: As there, of the probability of the true class, in (0, 1].
        ignore_index: The label of pixels without one.

    Returns:
        () float32 or float64, the loss; 0 if no pixel has a label. It can be differentiated once. In a distributed
        training each process selects among its own pixels, and the mean is that of all processes.

    Examples:
        >>> logits = torch.tensor([[[[2.0, -1.0]], [[0.0, 0.0]]]])  # one image of 1 x 2 pixels, two classes
        >>> bootstrapped_cross_entropy(logits, torch.tensor([[[0, 0]]]), min_kept=1)
        tensor(1.3133)

    References:
        Wu, Shen, van den Hengel, 2016, Eq. 1.
    """
    log_threshold = None if threshold is None else math.log(threshold)
    return _BootstrappedCrossEntropy.apply(
        full_precision(logits), labels, min_kept, log_threshold, ignore_index
    )


class _BootstrappedCrossEntropy(Function):
    """The loss with its gradient in closed form.

    Ranking, loss and gradient share one log-softmax, and the gradient takes one buffer of the size of the logits, where
    autograd takes two. That pays for the ranking.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        labels: Tensor,
        min_kept: int,
        log_threshold: float | None,
        ignore_index: int,
    ) -> Tensor:
        valid = labels != ignore_index
        index = (labels * valid).unsqueeze(1)  # ignored pixels look up class 0 and count nothing
        log_p = F.log_softmax(logits, 1)
        log_p_true = log_p.gather(1, index).squeeze(1)
        kept = select_hard_pixels(log_p_true, valid, min_kept, log_threshold)
        count = mean_over_processes(kept.sum())
        ctx.save_for_backward(log_p, index, kept, count)
        return -log_p_true.masked_fill_(~kept, 0).sum() / count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        log_p, index, kept, count = ctx.saved_tensors
        weights = (kept * (gradient / count)).unsqueeze(1)
        # Softmax minus one at the true class, for the kept pixels.
        return log_p.exp().mul_(weights).scatter_add_(1, index, -weights), None, None, None, None
