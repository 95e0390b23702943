"""Mask R-CNN (He et al., ICCV 2017) with a feature pyramid, put together from torchvision's parts.

BoxCaseg (Wang et al., CVPR 2021, section 3.4) trains it on proxy masks, some of which were dropped; BBTP (Hsu
et al., NeurIPS 2019) on boxes alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from boxel.data.annotations import Category
from boxel.layers.backbone import Backbone
from boxel.layers.padding import pad_batch
from boxel.losses.affinity import warmup_weight
from boxel.masks.paste import paste_windows
from boxel.models.mask_rcnn.config import MaskRCNNConfig
from boxel.models.mask_rcnn.criterion import mask_losses
from boxel.models.mask_rcnn.roi_heads import STRIDES, Detections, RoIHeads
from boxel.models.mask_rcnn.rpn import RegionProposalNetwork
from boxel.models.predict import Instances, Photo, predict_photos

Target = dict[str, Any]


class MaskRCNN(nn.Module):
    """Two-stage instance segmenter whose masks are learned from masks, from boxes, or from any mix of both.

    In training, ``model(images, targets)`` gives a dict of raw losses; in eval, ``model(images)`` gives a
    list of dicts with `boxes`, `labels`, `scores` and `masks` (compressed run-length codes), as torchvision's
    detectors do.

    Args:
        num_classes: K, with no class for the background.
        config: every other choice.

    Attributes:
        categories: tuple of `Category`, what the labels mean; their numbers until a data set gives names.
        settings: dict, the configuration of the run that made the model; empty before.
    """

    def __init__(self, num_classes: int, config: MaskRCNNConfig | None = None):
        super().__init__()
        self.config = config = config or MaskRCNNConfig()
        self.num_classes = num_classes
        self.categories = tuple(Category(label, str(label)) for label in range(num_classes))
        self.settings: dict[str, Any] = {}
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

    def forward(self, images: list[Tensor], targets: list[Target] | None = None) -> Any:
        """Losses in training, instances in eval.

        Args:
            images: (3, H, W) float RGB in [0, 1] each, of any sizes.
            targets: in training, for each image `boxes` (N, 4) xyxy, `labels` (N,) and, where there are any,
                `iscrowd` (N,) bool, `masks` (N, H, W) and `has_mask` (N,) bool, which of these are learned
                from; all are where it is missing. `quality` (N,) in [0, 1], NaN where unknown, weighs masks
                if `quality_weighting` is set.

        Returns:
            A dict of scalar losses, or a list of dicts, an image each.
        """
        if not self.training:
            return [
                {
                    "boxes": found.boxes,
                    "labels": found.labels,
                    "scores": found.scores,
                    "masks": paste_windows(
                        found.mask_logits, found.boxes, found.windows, (image.shape[-2], image.shape[-1])
                    ),
                }
                for found, image in zip(self.detect(images), images, strict=True)
            ]
        if targets is None:
            raise ValueError("in training the model needs targets")
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

    def predict(self, photos: Photo | Sequence[Photo], **options: Any) -> Instances | list[Instances]:
        """Instances of photos of any size; see :func:`~boxel.models.predict.predict_photos`."""
        return predict_photos(self, photos, **options)

    def loss_weights(self, progress: float) -> dict[str, float]:
        """Weight of each loss at a point of the schedule.

        Args:
            progress: share of the schedule that is done, in [0, 1].

        Returns:
            The weight by the loss's name.
        """
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

    def why_filled(self, progress: float) -> str:
        """What may be the cause where masks fill their boxes, whatever share of the training is done."""
        return "the masks it learns from may be boxes, or model.mask_loss asks for too little"

    @torch.no_grad()
    def detect(self, images: list[Tensor]) -> list[Detections]:
        """Instances of each image with their mask logits, before anything is pasted.

        Args:
            images: as in `forward`.

        Returns:
            :class:`~boxel.models.mask_rcnn.roi_heads.Detections`, an image each.
        """
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
