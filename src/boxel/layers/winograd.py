"""3x3 convolutions by Winograd's algorithm on CPUs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

MIN_CELLS = 1000
"""Cells of a feature map from which on the algorithm is faster: below, transforming the weights takes too long."""


def use_winograd(module: nn.Module) -> None:
    """Let a module's 3x3 convolutions use Winograd's algorithm wherever it is faster: on large float32 maps on CPUs.

    The module is changed in place; its weights and state dict stay as they are. The algorithm (Lavin and Gray, CVPR
    2016; F(6x6, 3x3) of PyTorch's NNPACK) needs a fifth of the products and takes a half to a third of the time. Its
    rounding errors are about 1e-5 of the largest value, those of the direct algorithm 3e-7.
    """
    names = ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
    plain = ((3, 3), (1, 1), (1, 1), (1, 1), 1, "zeros")
    for conv in module.modules():
        if type(conv) is nn.Conv2d and tuple(getattr(conv, name) for name in names) == plain:
            conv.__class__ = WinogradConv2d


class WinogradConv2d(nn.Conv2d):
    """A 3x3 convolution of stride 1; see :func:`use_winograd`."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (B, C, H, W); the size stays."""
        if not _is_faster(x):
            return super().forward(x)
        # NNPACK computes several images at once by a slower path.
        parts = [_Winograd.apply(image, self.weight, self.bias) for image in x.split(1)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)


class _Winograd(torch.autograd.Function):
    """NNPACK's convolution; its gradient with respect to the input is one too, with the weights turned."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _convolve(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight), (to_x, *to_others) = ctx.saved_tensors, ctx.needs_input_grad
        grad_x = _convolve(grad, weight.flip(2, 3).transpose(0, 1), None) if to_x else None
        geometry = [len(weight)], [1, 1], [1, 1], [1, 1], False, [0, 0], 1
        others = torch.ops.aten.convolution_backward(grad, x, weight, *geometry, [False, *to_others])[1:]
        return grad_x, *others


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch._nnpack_spatial_convolution(x, weight, bias, padding=1)


def _is_faster(x: Tensor) -> bool:
    return (
        torch.backends.nnpack.is_available()
        and not torch.jit.is_tracing()
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and x.shape[-2] * x.shape[-1] >= MIN_CELLS
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )
