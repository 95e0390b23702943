"""The fully convolutional network: a dilated backbone and a classifier with a wide field of view."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from boxel.errors import BoxelError
from boxel.layers.backbone import Backbone
from boxel.layers.classifier import DilatedClassifier
from boxel.models.semantic.config import SemanticConfig


class FullyConvolutional(nn.Module):
    """Scores of every cell of an image: (B, outputs, H / stride, W / stride) of (B, 3, H, W).

    Args:
        outputs: scores a cell.
        config: every other choice.

    Attributes:
        stride: int, pixels to a cell.
        fill: (3, 1, 1), the colour of padding.

    Raises:
        BoxelError: the backbone can't be built so.

    References:
        Wu, Shen, van den Hengel, Bridging Category-level and Instance-level Semantic Image Segmentation, 2016,
        Section 2.3.
    """

    def __init__(self, outputs: int, config: SemanticConfig):
        super().__init__()
        self.stride = config.output_stride
        self.backbone = Backbone(
            config.backbone,
            config.weights,
            config.backbone_norm,
            frozen_stages=config.frozen_stages,
            strides=(self.stride,),
            output_stride=self.stride,
        )
        if config.dropout:
            _drop_in_last_blocks(self.backbone.body, config.dropout)
        self.classifier = DilatedClassifier(
            self.backbone.channels[0], outputs, config.kernel, config.dilation, config.hidden
        )

    @property
    def fill(self) -> Tensor:
        """The mean colour of what the backbone was trained on."""
        return self.backbone.mean

    def forward(self, images: Tensor) -> Tensor:
        """Scores of each cell.

        Args:
            images: (B, 3, H, W) float RGB in [0, 1]; sides that are no multiples of the stride are filled up.
        """
        height, width = images.shape[-2:]
        right, bottom = -width % self.stride, -height % self.stride
        if right or bottom:
            # Zero is the mean colour once it is taken off.
            images = F.pad(images - self.fill, (0, right, 0, bottom)) + self.fill
        (features,) = self.backbone(images)
        return self.classifier(features)


def _drop_in_last_blocks(body: Any, shares: list[float]) -> None:
    """Dropout before the last convolution of the last blocks; by hooks, so that no weight changes its name."""
    layers = [
        [child for child in module.children() if isinstance(child, nn.Conv2d)] for module in body.modules()
    ]
    blocks = [convolutions for convolutions in layers if len(convolutions) > 1]
    if len(blocks) < len(shares):
        raise BoxelError(
            f"the backbone has {len(blocks)} blocks of convolutions, fewer than dropout has entries ({len(shares)})."
        )
    for (*_, last), share in zip(blocks[-len(shares) :], shares, strict=True):
        last.register_forward_pre_hook(
            lambda layer, inputs, share=share: F.dropout(inputs[0], share, layer.training)
        )
