"""Mask R-CNN with a feature pyramid, put together from torchvision's parts; its masks are learned from boxes too."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from boxel.layers.backbone import Backbone
from boxel.layers.padding import pad_batch
from boxel.models.detector import Detections, Detector, Target, check_targets, paste_masks, separate_crowds
from boxel.models.mask_rcnn.config import MaskRCNNConfig
from boxel.models.mask_rcnn.heads import STRIDES, RegionProposalNetwork, RoIHeads
from boxel.models.mask_rcnn.losses import mask_losses


class MaskRCNN(Detector):
    """Two-stage instance segmenter that learns masks from masks, from boxes, or from any mix.

    Targets are those of :class:`~boxel.models.detector.Detector`.

    Args:
        num_classes: K, without the background.
        config: Settings.

    Examples:
        >>> import torch
        >>> model = MaskRCNN(3, MaskRCNNConfig(backbone="resnet10t", weights="none", mask_loss="mil"))
        >>> image = torch.rand(3, 64, 96)
        >>> losses = model([image], [{"boxes": torch.tensor([[8.0, 8, 40, 40]]), "labels": torch.tensor([2])}])
        >>> list(losses)
        ['objectness', 'proposal', 'classification', 'box', 'mask', 'mil', 'smoothness']

    References:
        He et al., Mask R-CNN, ICCV 2017. Wang et al., Weakly-supervised Instance Segmentation via Class-agnostic
        Learning with Salient Images, CVPR 2021, section 3.4, trains it on proxy masks; Hsu et al., Weakly Supervised
        Instance Segmentation using the Bounding Box Tightness Prior, NeurIPS 2019, on boxes alone.
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

    def forward(self, images: list[Tensor], targets: list[Target] | None = None) -> Any:
        """Return losses in training, instances in eval mode; see :meth:`Detector.forward`."""
        if not self.training:
            return paste_masks(self.detect(images), images)
        batch = ImageList(*pad_batch(images, self.backbone.mean))
        features = self.extract_features(batch.tensors)
        prepared = [separate_crowds(target) for target in check_targets(targets)]
        for target in prepared:
            target["labels"] = target["labels"] + 1  # 0 is torchvision's background
        proposals, proposal_losses = self.rpn(batch, features, prepared)
        box_losses, mask_logits, mask_targets = self.roi_heads.compute_losses(
            features, proposals, batch.image_sizes, prepared
        )
        return {
            "objectness": proposal_losses["loss_objectness"],
            "proposal": proposal_losses["loss_rpn_box_reg"],
            **box_losses,
            **mask_losses(mask_logits, mask_targets, self.config.mask_loss != "none"),
        }

    @torch.no_grad()
    def detect(self, images: list[Tensor]) -> list[Detections]:
        """Return the detections in each image before their masks are pasted."""
        batch = ImageList(*pad_batch(images, self.backbone.mean))
        features = self.extract_features(batch.tensors)
        proposals, _ = self.rpn(batch, features)
        return self.roi_heads.detect(features, proposals, batch.image_sizes)

    def loss_weights(self, progress: float) -> dict[str, float]:
        """Return the weight of each loss at a point of the schedule; see :meth:`Detector.loss_weights`."""
        names = ("objectness", "proposal", "classification", "box", "mask", "mil")
        return dict.fromkeys(names, 1.0) | {"smoothness": 0.05}  # BoxCaseg, Eq. 1

    def extract_features(self, images: Tensor) -> dict[str, Tensor]:
        """Return P2 to P6 of (B, 3, H, W) images, named by torchvision's convention."""
        maps = self.backbone(images)
        return self.neck({str(level): features for level, features in enumerate(maps)})
