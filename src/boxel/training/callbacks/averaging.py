"""An exponential moving average of the weights that suits runs of any length."""

from __future__ import annotations

from collections.abc import Callable

from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor


class AveragedWeights(WeightAveraging):
    """Validate and keep an exponential moving average of the weights, over at most a quarter of the steps so far.

    With a constant decay of 0.99, the first weights would be a third of the average of a run of 100 steps.

    Args:
        decay: Maximum decay per step, in [0, 1].
    """

    def __init__(self, decay: float):
        super().__init__(avg_fn=warmed_average(decay))


def warmed_average(decay: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Return the function that averages in one more tensor, with a decay of min(decay, (n + 4) / (n + 8)) after n.

    Examples:
        >>> import torch
        >>> average = warmed_average(0.99)
        >>> average(torch.tensor(0.0), torch.tensor(1.0), torch.tensor(8))  # a decay of 12 / 16
        tensor(0.2500)
    """

    def average(mean: Tensor, current: Tensor, count: Tensor) -> Tensor:
        step = int(count)
        share = 1 - min(decay, (step + 4) / (step + 8))
        return (mean + share * (current - mean)).to(mean.dtype)

    return average
