"""Convolutions that keep the size of a map, in a form that onnxruntime runs, and fast."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, TypeVar

import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn
from torch.nn import functional as F

ModelT = TypeVar("ModelT", bound=nn.Module)


def with_constant_padding(model: ModelT) -> ModelT:
    """Return a copy of a model with :class:`SameConv` for the convolutions of TensorFlow's and of `same` padding."""
    model = deepcopy(model)
    for parent in list(model.modules()):
        for name, module in list(parent.named_children()):
            if isinstance(module, nn.Conv2d) and (isinstance(module, Conv2dSame) or module.padding == "same"):
                setattr(parent, name, SameConv(module))
    return model


class SameConv(nn.Module):
    """A convolution with TensorFlow's padding, for maps whose sides are multiples of its stride.

    The padding is then constant and part of one ONNX operator. timm computes it from the size of each map; the
    operators for that, and the copies of the maps, take a fifth of onnxruntime's time. torch's own `padding="same"`
    becomes an attribute that onnxruntime does not support with a dilation.
    """

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        self.conv = conv
        totals = [
            max(dilation * (kernel - 1) + 1 - stride, 0)
            for kernel, stride, dilation in zip(conv.kernel_size, conv.stride, conv.dilation, strict=True)
        ]
        self.before, self.after = [total // 2 for total in totals], [total - total // 2 for total in totals]

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (B, c, H, W) to (B, C, H / stride, W / stride)."""
        bias = () if self.conv.bias is None else (self.conv.bias,)
        return _PaddedConv.apply(x, self, self.conv.weight, *bias)


class _PaddedConv(torch.autograd.Function):
    """ONNX's convolution, whose padding may differ from side to side, unlike torch's."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, same: SameConv, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        conv, (top, left), (bottom, right) = same.conv, same.before, same.after
        padded = F.pad(x, [left, right, top, bottom])
        return F.conv2d(padded, weight, bias, conv.stride, 0, conv.dilation, conv.groups)

    @staticmethod
    def symbolic(g: Any, x: Any, same: SameConv, *weights: Any) -> Any:
        conv = same.conv
        return g.op(
            "Conv",
            *(x, *weights),
            kernel_shape_i=conv.kernel_size,
            strides_i=conv.stride,
            pads_i=[*same.before, *same.after],
            dilations_i=conv.dilation,
            group_i=conv.groups,
        )
