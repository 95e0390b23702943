"""BoxCaseg as one graph: crops in, logits of the object in each out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from boxel.exporting.check import check_boxcaseg
from boxel.exporting.same_conv import with_constant_padding
from boxel.models.boxcaseg import BoxCaseg
from boxel.models.onnx import OnnxBoxCaseg


class BoxCasegGraph(nn.Module):
    """:meth:`~boxel.models.boxcaseg.model.BoxCaseg.predict_logits`, of crops of any size that is a multiple of 32.

    A copy of the model is used. `rows`, `columns` and `neighbors` are among the inputs only if the network takes them.
    The attributes are those of :class:`~boxel.exporting.boxinst.BoxInstGraph`.
    """

    outputs: ClassVar = {"logits": {0: "batch", 1: "mask_height", 2: "mask_width"}}
    runtime: ClassVar[Callable[..., Any]] = OnnxBoxCaseg
    check: ClassVar[Callable[..., Any]] = staticmethod(check_boxcaseg)

    def __init__(self, model: BoxCaseg):
        super().__init__()
        self.model = with_constant_padding(model)
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
