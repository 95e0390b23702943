"""Mask R-CNN (He et al., ICCV 2017) with a feature pyramid, put together from torchvision's parts.

BoxCaseg (Wang et al., CVPR 2021, section 3.4) trains it on proxy masks, some of which were dropped; BBTP (Hsu
et al., NeurIPS 2019) on boxes alone.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from boxel.layers.backbone import Backbone
from boxel.layers.padding import pad_batch
from boxel.losses.affinity import warmup_weight
from boxel.models.detector import Detections, Detector, Target
from boxel.models.mask_rcnn.config import MaskRCNNConfig
from boxel.models.mask_rcnn.criterion import mask_losses
from boxel.models.mask_rcnn.roi_heads import STRIDES, RoIHeads
from boxel.models.mask_rcnn.rpn import RegionProposalNetwork


class MaskRCNN(Detector):
    """Two-stage instance segmenter whose masks are learned from masks, from boxes, or from any mix of both.

    Args:
        num_classes: K, with no class for the background.
        config: every other choice.
    """

    def __init__(self, num_classes: int, config: MaskRCNNConfig | None = None):
        config = config or MaskRCNNConfig()
        super().__init__(num_classes, config)
        self.backbone = Backbone(
            config.backbone,
            config.weights,
            config.backbone_norm,
            frozen_stages=config.frozen_stages,
            strides=STRIDES,
        )
        self.neck = FeaturePyramidNetwork(
            self.backbone.channels, config.neck_channels, extra_blocks=LastLevelMaxPool()
        )
        self.rpn = RegionProposalNetwork(config)
        self.roi_heads = RoIHeads(num_classes, config)

    def losses(self, images: list[Tensor], targets: list[Target]) -> dict[str, Tensor]:
        """Raw losses by name.

        Args:
            images: as in `forward`.
            targets: as of :meth:`Detector.losses`. `quality` (N,) in [0, 1], NaN where unknown, weighs masks if
                `quality_weighting` is set.
        """
        batch = ImageList(*pad_batch(images, self.backbone.mean))
        features = self._features(batch)
        prepared = [self._prepare(target) for target in targets]
        proposals, first = self.rpn(batch, features, prepared)
        second, logits, lessons = self.roi_heads.losses(features, proposals, batch.image_sizes, prepared)
        return {
            "objectness": first["loss_objectness"],
            "proposal": first["loss_rpn_box_reg"],
            **second,
            **mask_losses(logits, lessons, batch.tensors, batch.image_sizes, self.config),
        }

    def loss_weights(self, progress: float) -> dict[str, float]:
        """Weight of each loss at a point of the schedule; see :meth:`Detector.loss_weights`."""
        config = self.config
        return {
            "objectness": 1.0,
            "proposal": 1.0,
            "classification": 1.0,
            "box": 1.0,
            "mask": config.mask_weight,
            "mil": config.mil_weight,
            "smoothness": config.smoothness_weight,
            "projection": config.projection_weight,
            "affinity": config.affinity_weight * warmup_weight(progress, config.affinity_warmup),
        }

    @torch.no_grad()
    def detect(self, images: list[Tensor]) -> list[Detections]:
        """Instances of each image; see :meth:`Detector.detect`."""
        batch = ImageList(*pad_batch(images, self.backbone.mean))
        features = self._features(batch)
        proposals, _ = self.rpn(batch, features)
        return self.roi_heads.detect(features, proposals, batch.image_sizes)

    def _features(self, batch: ImageList) -> dict[str, Tensor]:
        """P2 to P6, by torchvision's names for them."""
        maps = self.backbone(batch.tensors)
        return self.neck({str(level): features for level, features in enumerate(maps)})

    def _prepare(self, target: Target) -> dict[str, Tensor]:
        """A target as :class:`~boxel.models.mask_rcnn.roi_heads.RoIHeads` has it."""
        boxes = target["boxes"].as_subclass(Tensor).float()
        crowd = target.get("iscrowd", torch.zeros_like(target["labels"])).bool()
        own = ~crowd
        if "masks" in target:
            masks = target["masks"].as_subclass(Tensor)
            has_mask = target.get("has_mask", torch.ones_like(crowd)).bool()
        else:
            masks, has_mask = boxes.new_zeros(len(boxes), 1, 1), torch.zeros_like(crowd)
        weights = torch.ones_like(boxes[:, 0])
        if self.config.quality_weighting and "quality" in target:
            weights = target["quality"].to(boxes).nan_to_num(1.0)
        return {
            "boxes": boxes[own],
            "labels": target["labels"][own] + 1,  # 0 is torchvision's background
            "masks": masks[own],
            "has_mask": has_mask[own],
            "weights": weights[own],
            "crowds": boxes[crowd],
        }
