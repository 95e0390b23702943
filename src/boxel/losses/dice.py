"""Dice loss, in the form with squares in its denominator (V-Net)."""

from __future__ import annotations

from torch import Tensor


def dice_loss(p: Tensor, t: Tensor, eps: float = 1e-5) -> Tensor:
    """One minus the Dice overlap of predictions and targets, an instance at a time.

    ``1 - 2 sum(p t) / (sum(p^2) + sum(t^2) + eps)``, each sum over all but the first dimension. It is
    computed in float32 at least, since such sums overflow half precision.

    Args:
        p: (N, ...) probabilities in [0, 1].
        t: (N, ...) targets in [0, 1], any dtype.
        eps: keeps an empty prediction of an empty target finite; its loss is 1.

    Returns:
        (N,) losses in [0, 1].

    References:
        Milletari et al., V-Net, 2016, section 3; L in BoxInst's Eq. 3.
    """
    p = full_precision(p).flatten(1)
    t = t.to(p.dtype).flatten(1)
    return 1 - 2 * (p * t).sum(1) / (p.square().sum(1) + t.square().sum(1) + eps)


def full_precision(x: Tensor) -> Tensor:
    """Half precision raised to float32; float32 and float64 as they are."""
    return x if x.element_size() >= 4 else x.float()
