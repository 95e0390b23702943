"""Dice loss with squares in the denominator, as in V-Net."""

from __future__ import annotations

from torch import Tensor


def dice_loss(probabilities: Tensor, target: Tensor) -> Tensor:
    """One minus the Dice overlap of each prediction with its target.

    ``1 - 2 sum(p t) / (sum(p^2) + sum(t^2) + 1e-5)``, with sums over all dimensions but the first, so that the loss of
    an empty prediction and target is 1. Half precision is converted to float32, because such sums overflow it.

    Args:
        probabilities: (N, ...) in [0, 1].
        target: (N, ...) in [0, 1], any dtype.

    Returns:
        (N,) losses in [0, 1].

    Examples:
        >>> import torch
        >>> dice_loss(torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([[1, 0], [1, 0]])).round(decimals=3)
        tensor([0., 1.])

    References:
        Milletari et al., V-Net, 2016, section 3; L in BoxInst's Eq. 3.
    """
    probabilities = full_precision(probabilities).flatten(1)
    target = target.to(probabilities.dtype).flatten(1)
    squares = probabilities.square().sum(1) + target.square().sum(1)
    return 1 - 2 * (probabilities * target).sum(1) / (squares + 1e-5)


def full_precision(x: Tensor) -> Tensor:
    """Convert half precision to float32; float32 and float64 stay as they are."""
    return x if x.element_size() >= 4 else x.float()
