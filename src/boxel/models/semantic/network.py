"""The fully convolutional network: a dilated backbone and a classifier with a wide field of view."""

from __future__ import annotations

import logging
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from boxel.layers.backbone import Backbone
from boxel.layers.classifier import DilatedClassifier, FullyConnectedClassifier, load_fully_connected
from boxel.layers.norm import synchronize_heads
from boxel.layers.weights import classifier_state_dict
from boxel.models.semantic.config import SemanticConfig
from boxel.utils.errors import BoxelError

logger = logging.getLogger(__name__)


class FullyConvolutional(nn.Module):
    """A dilated backbone and a classifier that score every cell of an image.

    Args:
        outputs: Scores per cell.
        config: Settings.

    Attributes:
        stride: Pixels per cell.
        padding_color: (3, 1, 1), the color of padding.

    Raises:
        BoxelError: The backbone cannot be built with these settings.

    References:
        Wu, Shen, van den Hengel, Bridging Category-level and Instance-level Semantic Image Segmentation, 2016,
        Section 2.3; Chen, Papandreou, Kokkinos, Murphy, Yuille, Semantic Image Segmentation with Deep Convolutional
        Nets and Fully Connected CRFs, ICLR 2015, Section 3.1, with a VGG and a `fully-connected` classifier.
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
        self.classifier = _build_classifier(self.backbone.channels[0], outputs, config)
        if config.backbone_norm == "sync_bn":
            synchronize_heads(self)

    @property
    def padding_color(self) -> Tensor:
        """The mean color of the images that the backbone was trained on."""
        return self.backbone.mean

    def forward(self, images: Tensor) -> Tensor:
        """Score each cell.

        Args:
            images: (B, 3, H, W) float RGB in [0, 1]; sides are padded to multiples of the stride.

        Returns:
            (B, outputs, H / stride, W / stride), rounded up.
        """
        height, width = images.shape[-2:]
        right, bottom = -width % self.stride, -height % self.stride
        if right or bottom:
            # Zero is the mean color after it was subtracted.
            images = F.pad(images - self.padding_color, (0, right, 0, bottom)) + self.padding_color
        (features,) = self.backbone(images)
        return self.classifier(features)


def _build_classifier(channels: int, outputs: int, config: SemanticConfig) -> nn.Module:
    """Build the classifier, with the ImageNet weights that a VGG has for it."""
    options = (channels, outputs, config.kernel, config.dilation, config.hidden)
    if config.classifier == "dilated":
        return DilatedClassifier(*options)
    classifier = FullyConnectedClassifier(*options)
    if config.weights == "none" or not config.backbone.startswith("vgg"):
        return classifier
    if not load_fully_connected(classifier, classifier_state_dict(config.backbone, config.weights)):
        logger.warning(
            "%s has no fully connected layers of %s, so the classifier starts at random; give a file with them.",
            config.weights,
            config.backbone,
        )
    return classifier


def _drop_in_last_blocks(body: Any, shares: list[float]) -> None:
    """Add dropout before the last convolution of the last blocks, by hooks that keep the names of the weights."""
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
