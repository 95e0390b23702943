"""BoxCaseg as one graph: crops in, logits of the object in each out."""

from __future__ import annotations

import json

import torch
from torch import Tensor, nn

from boxel.models.boxcaseg import BoxCaseg

STRIDE = 4
"""Pixels of a crop to a cell of the logits."""


class BoxCasegGraph(nn.Module):
    """:meth:`~boxel.models.boxcaseg.model.BoxCaseg.segment`, of crops of any size that is a multiple of 32.

    Args:
        model: used as it is.

    Attributes:
        inputs: names of the inputs, each with its dynamic axes; `rows` and `columns` only where the network sees them.
        outputs: names of the outputs, likewise.
    """

    def __init__(self, model: BoxCaseg):
        super().__init__()
        self.model = model
        self.outputs = {"logits": {0: "batch", 1: "mask_height", 2: "mask_width"}}
        self.inputs = {"crops": {0: "batch", 2: "height", 3: "width"}}
        if model.config.box_channel:
            self.inputs |= {"rows": {0: "batch", 1: "height"}, "columns": {0: "batch", 1: "width"}}

    def forward(self, crops: Tensor, rows: Tensor | None = None, columns: Tensor | None = None) -> Tensor:
        """Logits of the object, (B, S / 4, S / 4).

        Args:
            crops: (B, 3, S, S) float, RGB in [0, 1].
            rows: (B, S) bool, rows of the crop in the box.
            columns: (B, S) bool.
        """
        return self.model.segment(crops, rows, columns)  # type: ignore[arg-type]

    def example(self) -> tuple[Tensor, ...]:
        """Inputs to trace the graph with."""
        given = torch.zeros(2, 3, 64, 64), torch.ones(2, 64).bool(), torch.ones(2, 64).bool()
        return given[: len(self.inputs)]

    def about(self) -> dict[str, str]:
        """What a user of the file must know: JSON by name."""
        config = self.model.config
        about = {
            "mean": self.model.backbone.mean.flatten().tolist(),
            "side": config.side,
            "margin": config.margin,
            "mask_stride": STRIDE,
        }
        return {name: json.dumps(value) for name, value in about.items()}
