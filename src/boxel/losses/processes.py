"""Normalizers of losses in a distributed training."""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor


def mean_over_processes(value: Tensor, minimum: float = 1.0) -> Tensor:
    """Average the normalizer of a loss over the processes of a distributed training, each of which must call it.

    DDP averages the gradients of the processes. With the mean normalizer instead of its own, each process contributes
    its share to the loss of the whole batch, even if it has much fewer samples than the others, or none.

    Args:
        value: () number of samples, or sum of weights, of this process.
        minimum: Lower limit of the sum over all processes.

    Returns:
        () float, without a gradient; without a distributed training the value itself, if it is not below the minimum.

    Examples:
        >>> import torch
        >>> mean_over_processes(torch.tensor(0)), mean_over_processes(torch.tensor(5))
        (tensor(1.), tensor(5.))
    """
    total = value.detach().float().clone() if not value.is_floating_point() else value.detach().clone()
    count = 1
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(total)
        count = dist.get_world_size()
    return total.clamp(min=minimum) / count
