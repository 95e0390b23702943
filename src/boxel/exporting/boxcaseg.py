"""BoxCaseg as one graph: crops in, logits of the object in each out."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any, ClassVar

import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn
from torch.nn import functional as F

from boxel.exporting.check import check_boxcaseg
from boxel.models.boxcaseg import BoxCaseg
from boxel.models.onnx import OnnxBoxCaseg


class BoxCasegGraph(nn.Module):
    """:meth:`~boxel.models.boxcaseg.model.BoxCaseg.predict_logits`, of crops of any size that is a multiple of 32.

    A copy of the model is used. `rows`, `columns` and `neighbors` are among the inputs only if the network takes them.
    The attributes are those of :class:`~boxel.exporting.boxinst.BoxInstGraph`.
    """

    method = "boxcaseg"
    outputs: ClassVar = {"logits": {0: "batch", 1: "mask_height", 2: "mask_width"}}
    runtime: ClassVar[Callable[..., Any]] = OnnxBoxCaseg
    check: ClassVar[Callable[..., Any]] = staticmethod(check_boxcaseg)

    def __init__(self, model: BoxCaseg):
        super().__init__()
        self.model = deepcopy(model)
        for parent in list(self.model.modules()):
            for name, module in list(parent.named_children()):
                if isinstance(module, Conv2dSame) and module.bias is None:
                    setattr(parent, name, SameConv(module))
        self.inputs = {"crops": {0: "batch", 2: "height", 3: "width"}}
        if model.config.box_channel:
            self.inputs |= {"rows": {0: "batch", 1: "height"}, "columns": {0: "batch", 1: "width"}}
        if model.config.neighbor_channel:
            self.inputs |= {"neighbors": {0: "batch", 1: "height", 2: "width"}}

    def forward(
        self,
        crops: Tensor,
        rows: Tensor | None = None,
        columns: Tensor | None = None,
        neighbors: Tensor | None = None,
    ) -> Tensor:
        """Return the logits of the object; arguments and result as of `BoxCaseg.predict_logits`."""
        return self.model.predict_logits(crops, rows, columns, neighbors)  # type: ignore[arg-type]

    def example(self) -> tuple[Tensor, ...]:
        """Return inputs to trace the graph with."""
        inside = torch.ones(2, 64).bool()
        given = torch.zeros(2, 3, 64, 64), inside, inside, torch.zeros(2, 64, 64)
        return given[: len(self.inputs)]

    def metadata(self) -> dict[str, Any]:
        """Return what is needed to run the file, as plain data."""
        return {
            "mean": self.model.backbone.mean.flatten().tolist(),
            "side": self.model.config.side,
            "margin": self.model.config.margin,
            "threshold": self.model.config.threshold,
            "mask_stride": 2 if self.model.config.fine_channels else 4,
        }


class SameConv(nn.Module):
    """A convolution with TensorFlow's padding, for maps whose sides are multiples of its stride.

    The padding is then constant and part of one ONNX operator. timm computes it from the size of each map; the
    operators for that, and the copies of the maps, take a fifth of onnxruntime's time. The convolution has no bias.
    """

    def __init__(self, conv: Conv2dSame):
        super().__init__()
        self.conv = conv
        totals = [
            max(dilation * (kernel - 1) + 1 - stride, 0)
            for kernel, stride, dilation in zip(conv.kernel_size, conv.stride, conv.dilation, strict=True)
        ]
        self.before, self.after = [total // 2 for total in totals], [total - total // 2 for total in totals]

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (B, c, H, W) to (B, C, H / stride, W / stride)."""
        return _PaddedConv.apply(x, self.conv.weight, self)


class _PaddedConv(torch.autograd.Function):
    """ONNX's convolution, whose padding may differ from side to side, unlike torch's."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, same: SameConv) -> Tensor:
        conv, (top, left), (bottom, right) = same.conv, same.before, same.after
        padded = F.pad(x, [left, right, top, bottom])
        return F.conv2d(padded, weight, None, conv.stride, 0, conv.dilation, conv.groups)

    @staticmethod
    def symbolic(g: Any, x: Any, weight: Any, same: SameConv) -> Any:
        conv = same.conv
        return g.op(
            "Conv",
            *(x, weight),
            kernel_shape_i=conv.kernel_size,
            strides_i=conv.stride,
            pads_i=[*same.before, *same.after],
            dilations_i=conv.dilation,
            group_i=conv.groups,
        )
