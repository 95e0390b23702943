"""torchvision's box and mask heads (He et al., ICCV 2017), with masks that may be missing and crowds."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.models.detection import roi_heads
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import MultiScaleRoIAlign, box_iou
from torchvision.ops.poolers import LevelMapper

from boxel.models.detector import Detections
from boxel.models.mask_rcnn.config import MaskRCNNConfig
from boxel.models.mask_rcnn.criterion import Lessons
from boxel.models.mask_rcnn.targets import GRID, grid_windows, in_crowd

STRIDES = (4, 8, 16, 32)
"""Of the pyramid's levels P2 to P5, which proposals are cut from; P6 gives proposals only."""

Target = dict[str, Tensor]


class RoIHeads(roi_heads.RoIHeads):
    """The heads that see one proposal at a time, with torchvision's settings.

    Targets hold `boxes` (N, 4), `labels` (N,) from 1 up, `has_mask` (N,) bool, `weights` (N,) of the masks,
    `masks` (N, H, W), and `crowds` (C, 4), which are not among the boxes.

    Args:
        num_classes: K, with no class for the background.
        config: widths, number of samples and thresholds.
    """

    def __init__(self, num_classes: int, config: MaskRCNNConfig):
        box_size, mask_size = 7, GRID // 2
        channels = config.neck_channels
        mask_channels = [config.mask_channels] * config.mask_convs
        super().__init__(
            _pool(box_size),
            TwoMLPHead(channels * box_size**2, config.box_channels),
            FastRCNNPredictor(config.box_channels, num_classes + 1),
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=config.box_samples,
            positive_fraction=0.25,
            bbox_reg_weights=None,
            score_thresh=config.score_threshold,
            nms_thresh=config.nms_threshold,
            detections_per_img=config.max_detections,
            mask_roi_pool=_pool(mask_size),
            mask_head=MaskRCNNHeads(channels, mask_channels, dilation=1),
            mask_predictor=MaskRCNNPredictor(
                [channels, *mask_channels][-1], config.mask_channels, num_classes + 1
            ),
        )
        # torchvision's start makes logits the larger the fewer classes there are.
        nn.init.normal_(self.mask_predictor.mask_fcn_logits.weight, std=0.01)
        self.boxes_teach = config.mask_loss != "none"

    def losses(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        sizes: list[tuple[int, int]],
        targets: list[Target],
    ) -> tuple[dict[str, Tensor], Tensor, Lessons]:
        """The box head's losses, and what the mask head has to say on proposals that teach masks.

        Args:
            features: P2 to P6 by name.
            proposals: (N, 4) of each image.
            sizes: (height, width) of each image.
            targets: of each image.

        Returns:
            `classification` and `box`, (R, GRID, GRID) mask logits, and what these are to be compared with.
        """
        proposals, instances, labels, deltas = self.select_training_samples(proposals, targets)
        class_logits, box_deltas = self._boxes(features, proposals, sizes)
        classification, box = (
            roi_heads.fastrcnn_loss(class_logits, box_deltas, labels, deltas)
            if len(class_logits)
            else (class_logits.sum(), box_deltas.sum())  # images of nothing but crowds
        )
        lessons = [
            self._lessons(image, *drawn)
            for image, drawn in enumerate(zip(proposals, instances, labels, targets, strict=True))
        ]
        together = Lessons(*map(torch.cat, zip(*lessons, strict=True)))
        logits = self._masks(features, [own.rois for own in lessons], sizes, together.labels)
        return {"classification": classification, "box": box}, logits, together

    def detect(
        self, features: dict[str, Tensor], proposals: list[Tensor], sizes: list[tuple[int, int]]
    ) -> list[Detections]:
        """Instances of each image; arguments as for :meth:`losses`."""
        found = self.postprocess_detections(*self._boxes(features, proposals, sizes), proposals, sizes)
        boxes, _, labels = found
        logits = self._masks(features, boxes, sizes, torch.cat(labels)).split([len(own) for own in labels])
        return [
            Detections(own, scores, classes - 1, masks, grid_windows(own))
            for own, scores, classes, masks in zip(*found, logits, strict=True)
        ]

    def select_training_samples(
        self, proposals: list[Tensor], targets: list[Target] | None
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
        """torchvision's choice, after proposals in `crowds` that meet no object were left out."""
        assert targets is not None
        threshold = self.proposal_matcher.low_threshold
        proposals = [
            own[~in_crowd(own, target["crowds"]) | (box_iou(own, target["boxes"]) >= threshold).any(1)]
            for own, target in zip(proposals, targets, strict=True)
        ]
        return super().select_training_samples(proposals, targets)

    def _boxes(
        self, features: dict[str, Tensor], proposals: list[Tensor], sizes: list[tuple[int, int]]
    ) -> tuple[Tensor, Tensor]:
        """(R, K + 1) class logits and (R, 4 (K + 1)) box deltas, in full precision."""
        class_logits, deltas = self.box_predictor(
            self.box_head(self.box_roi_pool(features, proposals, sizes))
        )
        return class_logits.float(), deltas.float()

    def _masks(
        self, features: dict[str, Tensor], rois: list[Tensor], sizes: list[tuple[int, int]], labels: Tensor
    ) -> Tensor:
        """(R, GRID, GRID) mask logits of each proposal's own class."""
        maps = self.mask_predictor(self.mask_head(self.mask_roi_pool(features, rois, sizes)))
        return maps[torch.arange(len(labels), device=labels.device), labels]

    def _lessons(
        self, image: int, proposals: Tensor, instances: Tensor, labels: Tensor, target: Target
    ) -> Lessons:
        """What the drawn proposals of one image teach about masks."""
        chosen = (labels > 0).nonzero().squeeze(1)
        if not self.boxes_teach:
            chosen = chosen[target["has_mask"][instances[chosen]]]
        rois, own = proposals[chosen], instances[chosen]
        return Lessons(
            rois,
            torch.full_like(own, image),
            target["labels"][own],
            target["boxes"][own],
            target["has_mask"][own],
            target["weights"][own],
            roi_heads.project_masks_on_boxes(target["masks"], rois, own, GRID),
        )


def _pool(size: int) -> MultiScaleRoIAlign:
    pool = MultiScaleRoIAlign([str(level) for level in range(len(STRIDES))], size, sampling_ratio=2)
    # Left to itself it would guess them from the first image, and wrongly where padding is wider than that.
    pool.scales = [1 / stride for stride in STRIDES]
    pool.map_levels = LevelMapper(2, 5)
    return pool
