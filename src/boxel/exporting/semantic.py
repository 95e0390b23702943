"""FCRN and BoxSup as one graph: a batch of images in, the class of each pixel out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from boxel.exporting.batch import category_list, pad_to_multiple
from boxel.exporting.check import check_segmenter
from boxel.exporting.same_conv import with_constant_padding
from boxel.models.onnx import OnnxSegmenter
from boxel.models.semantic.inference import cells_to_pixels, semantic_inference_config
from boxel.models.semantic.model import Segmenter


class SegmenterGraph(nn.Module):
    """Compute what a :class:`~boxel.models.semantic.model.Segmenter` does, for a batch of images of one size.

    A copy of the model is used. The attributes are those of :class:`~boxel.exporting.boxinst.BoxInstGraph`.
    """

    inputs: ClassVar = {"images": {0: "batch", 2: "height", 3: "width"}}
    outputs: ClassVar = {
        "labels": {0: "batch", 1: "height", 2: "width"},
        "logits": {0: "batch", 2: "cell_height", 3: "cell_width"},
    }
    runtime: ClassVar[Callable[..., Any]] = OnnxSegmenter
    check: ClassVar[Callable[..., Any]] = staticmethod(check_segmenter)

    def __init__(self, model: Segmenter):
        super().__init__()
        self.model = with_constant_padding(model)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the classes of a batch.

        Args:
            images: (B, 3, H, W) float, RGB in [0, 1], of any height and width.

        Returns:
            labels (B, H, W) uint8, the class of each pixel; logits (B, K, h, w) of cells of `stride` pixels, which
            cover the image padded to a multiple of it.
        """
        network = self.model.network
        logits = network(pad_to_multiple(images, network.padding_color, network.stride))
        pixels = cells_to_pixels(logits, images.shape[-2:], network.stride)
        return pixels.argmax(1).to(torch.uint8), logits

    def example(self) -> tuple[Tensor, ...]:
        """Return inputs to trace the graph with."""
        return (torch.zeros(2, 3, 96, 128),)

    def metadata(self) -> dict[str, Any]:
        """Return what is needed to run the file, as plain data."""
        return {
            "categories": category_list(self.model),
            "mean": self.model.network.padding_color.flatten().tolist(),
            "long_side": semantic_inference_config(self.model).long_side,
            "stride": self.model.network.stride,
        }
