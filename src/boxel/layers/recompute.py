"""Less memory in training: maps that are cheap to compute again are not kept for the gradient."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

CONVOLUTIONS = [torch.ops.aten.convolution.default, torch.ops.aten._nnpack_spatial_convolution.default]


def recompute(function: Callable[..., Tensor], *inputs: Any) -> Tensor:
    """Call a function; on a CPU, keep of its intermediate maps only the results of convolutions for the gradient.

    Norms, activations and small matrix products are computed again; the function may use no random numbers and no
    running statistics. Accelerators keep everything, which is faster. The first of the inputs is a tensor.
    """
    recorded = torch.compiler.is_compiling() or torch.jit.is_tracing()
    if recorded or inputs[0].device.type != "cpu" or not torch.is_grad_enabled():
        return function(*inputs)
    contexts = partial(create_selective_checkpoint_contexts, CONVOLUTIONS)
    return checkpoint(function, *inputs, use_reentrant=False, context_fn=contexts, preserve_rng_state=False)
