"""torchvision's proposal, box and mask heads, with masks that may be missing and with crowds.

They lean on three helpers of torchvision that are not documented: `fastrcnn_loss`, `project_masks_on_boxes` and
`LevelMapper`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.detection import roi_heads, rpn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import MultiScaleRoIAlign, box_iou
from torchvision.ops.poolers import LevelMapper

from boxel.losses.processes import mean_over_processes
from boxel.masks.spans import box_spans
from boxel.models.detector import Detections
from boxel.models.mask_rcnn.config import MaskRCNNConfig

STRIDES = (4, 8, 16, 32)
"""Strides of P2 to P5, which proposals are cropped from; P6 only gives proposals."""

ANCHOR_SIZES = (32, 64, 128, 256, 512)
"""Sides of the anchors of P2 to P6, in pixels."""

ANCHOR_RATIOS = (0.5, 1.0, 2.0)
"""Height / width of the anchors."""

GRID = 28
"""Cells along each side of a proposal's mask."""

Target = dict[str, Tensor]


class MaskTargets(NamedTuple):
    """The proposals of a batch whose masks are supervised, and their targets, those of the matched instance."""

    rois: Tensor  # (R, 4) proposals, xyxy pixels
    labels: Tensor  # (R,) int64, from 1 up
    gt_boxes: Tensor  # (R, 4)
    has_mask: Tensor  # (R,) bool, proposals that are learned from a mask
    gt_masks: Tensor  # (R, GRID, GRID) in [0, 1], on the cells of the proposal; undefined without a mask
    weights: Tensor  # (R,) how much a mask counts, in [0, 1]


class RegionProposalNetwork(rpn.RegionProposalNetwork):
    """Proposals from P2 to P6, with torchvision's settings; crowds are not background."""

    def __init__(self, config: MaskRCNNConfig):
        scale = config.level_scale or 1.0
        sizes = tuple((scale * size,) for size in ANCHOR_SIZES)
        anchors = AnchorGenerator(sizes, (ANCHOR_RATIOS,) * len(sizes))
        top_n = {"training": 2 * config.proposals, "testing": config.proposals}
        super().__init__(
            anchors,
            _FullPrecisionHead(config.neck_channels, len(ANCHOR_RATIOS)),
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=256,
            positive_fraction=0.5,
            pre_nms_top_n=top_n,
            post_nms_top_n=top_n,
            nms_thresh=0.7,
        )

    def assign_targets_to_anchors(
        self, anchors: list[Tensor], targets: list[Target]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Match as torchvision does, then ignore background anchors in the `crowds` of a target.

        Anchors around the corners of an image reach out of every crowd, so some background always remains.
        """
        labels, boxes = super().assign_targets_to_anchors(anchors, targets)
        for image_labels, image_anchors, target in zip(labels, anchors, targets, strict=True):
            image_labels[(image_labels == 0) & in_crowd(image_anchors, target["crowds"])] = -1
        return labels, boxes

    def compute_loss(
        self, objectness: Tensor, deltas: Tensor, labels: list[Tensor], targets: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Compute torchvision's losses, as means over the anchors that the sampler takes in all processes."""
        size = self.fg_bg_sampler.batch_size_per_image
        max_positive = int(size * self.fg_bg_sampler.positive_fraction)
        number = torch.zeros((), device=objectness.device)
        for own in labels:
            positive = (own >= 1).sum().clamp(max=max_positive)
            number += positive + torch.minimum((own == 0).sum(), size - positive)
        share = number / mean_over_processes(number)
        losses = super().compute_loss(objectness, deltas, labels, targets)
        return share * losses[0], share * losses[1]


class _FullPrecisionHead(rpn.RPNHead):
    """Returns full precision: the eight bits of bfloat16 cannot place a box of a thousand pixels."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        logits, deltas = super().forward(x)
        return [level.float() for level in logits], [level.float() for level in deltas]


class RoIHeads(roi_heads.RoIHeads):
    """The box head and the mask head, which see one proposal at a time, with torchvision's settings.

    Targets have `boxes` (N, 4), `labels` (N,) from 1 up, `has_mask` (N,) bool, `masks` (N, H, W), `weights` (N,), how
    much these count, and `crowds` (C, 4), which are not among the boxes.
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
        # With torchvision's initialization, fewer classes mean larger logits.
        nn.init.normal_(self.mask_predictor.mask_fcn_logits.weight, std=0.01)
        self.learns_from_boxes = config.mask_loss != "none"

    def compute_losses(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        sizes: list[tuple[int, int]],
        targets: list[Target],
    ) -> tuple[dict[str, Tensor], Tensor, MaskTargets]:
        """Compute the losses of the box head, and predict the masks of sampled proposals, (R, GRID, GRID) logits.

        Features are P2 to P6 by name; proposals are (N, 4), sizes (height, width) and targets one per image.
        """
        proposals, matched_idxs, labels, deltas = self.select_training_samples(proposals, targets)
        class_logits, box_deltas = self._predict_boxes(features, proposals, sizes)
        classification, box = (
            roi_heads.fastrcnn_loss(class_logits, box_deltas, labels, deltas)
            if len(class_logits)
            else (class_logits.sum(), box_deltas.sum())  # images with nothing but crowds
        )
        number = class_logits.new_tensor(len(class_logits))
        share = number / mean_over_processes(number)
        per_image = [
            self._mask_targets(*sampled)
            for sampled in zip(proposals, matched_idxs, labels, targets, strict=True)
        ]
        mask_targets = MaskTargets(*map(torch.cat, zip(*per_image, strict=True)))
        rois = [image.rois for image in per_image]
        logits = self._predict_masks(features, rois, sizes, mask_targets.labels)
        return {"classification": share * classification, "box": share * box}, logits, mask_targets

    def detect(
        self, features: dict[str, Tensor], proposals: list[Tensor], sizes: list[tuple[int, int]]
    ) -> list[Detections]:
        """Return the detections in each image; arguments as for :meth:`compute_losses`."""
        class_logits, box_deltas = self._predict_boxes(features, proposals, sizes)
        boxes, scores, labels = self.postprocess_detections(class_logits, box_deltas, proposals, sizes)
        logits = self._predict_masks(features, boxes, sizes, torch.cat(labels))
        per_image = zip(boxes, scores, labels, logits.split([len(own) for own in labels]), strict=True)
        return [
            Detections(b, s, classes - 1, masks, grid_windows(b), b) for b, s, classes, masks in per_image
        ]

    def select_training_samples(
        self, proposals: list[Tensor], targets: list[Target] | None
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
        """Sample as torchvision does, without the proposals in `crowds` that match no instance."""
        assert targets is not None
        threshold = self.proposal_matcher.low_threshold
        proposals = [
            own[~in_crowd(own, target["crowds"]) | (box_iou(own, target["boxes"]) >= threshold).any(1)]
            for own, target in zip(proposals, targets, strict=True)
        ]
        return super().select_training_samples(proposals, targets)

    def _predict_boxes(
        self, features: dict[str, Tensor], proposals: list[Tensor], sizes: list[tuple[int, int]]
    ) -> tuple[Tensor, Tensor]:
        """Return (R, K + 1) class logits and (R, 4 (K + 1)) box deltas, in full precision."""
        pooled = self.box_roi_pool(features, proposals, sizes)
        class_logits, deltas = self.box_predictor(self.box_head(pooled))
        return class_logits.float(), deltas.float()

    def _predict_masks(
        self, features: dict[str, Tensor], rois: list[Tensor], sizes: list[tuple[int, int]], labels: Tensor
    ) -> Tensor:
        """Return (R, GRID, GRID) mask logits of the class of each proposal."""
        logits = self.mask_predictor(self.mask_head(self.mask_roi_pool(features, rois, sizes)))
        return logits[torch.arange(len(labels), device=labels.device), labels]

    def _mask_targets(
        self, proposals: Tensor, matched_idxs: Tensor, labels: Tensor, target: Target
    ) -> MaskTargets:
        """Return the mask targets of the sampled proposals of one image."""
        positive = (labels > 0).nonzero().squeeze(1)
        if not self.learns_from_boxes:
            positive = positive[target["has_mask"][matched_idxs[positive]]]
        rois, instance = proposals[positive], matched_idxs[positive]
        return MaskTargets(
            rois,
            target["labels"][instance],
            target["boxes"][instance],
            target["has_mask"][instance],
            roi_heads.project_masks_on_boxes(target["masks"], rois, instance, GRID),
            target["weights"][instance],
        )


def in_crowd(boxes: Tensor, crowds: Tensor) -> Tensor:
    """Return (N,) bool, whether one of (C, 4) crowds covers more than half of the area of each of (N, 4) boxes."""
    corner = torch.maximum(boxes[:, None, :2], crowds[:, :2])
    extent = (torch.minimum(boxes[:, None, 2:], crowds[:, 2:]) - corner).clamp(min=0)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    return (extent.prod(-1) > area[:, None] / 2).any(1)


def grid_windows(rois: Tensor) -> Tensor:
    """Return the (N, 4) xyxy pixels that the cells of each proposal's mask cover.

    torchvision's RoIAlign takes the index of a pixel for its center, so that the masks that the mask head learns lie
    half a pixel right of the proposal and below it. Everything else that refers to the cells uses these windows too.
    """
    return rois + 0.5


def spans_in(windows: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows and columns of each window's cells in its box, (N, GRID) bool each.

    They are those whose centers lie in the box, or the nearest one if none does (:func:`~boxel.masks.spans.box_spans`).
    """
    cell = (windows[:, 2:] - windows[:, :2]) / GRID
    in_cells = (boxes - windows[:, :2].repeat(1, 2)) / cell.repeat(1, 2)
    return box_spans(in_cells, GRID, GRID, stride=1)


def _pool(size: int) -> MultiScaleRoIAlign:
    pool = MultiScaleRoIAlign([str(level) for level in range(len(STRIDES))], size, sampling_ratio=2)
    # Otherwise it would guess them from the first image, and wrongly if another is larger.
    pool.scales = [1 / stride for stride in STRIDES]
    pool.map_levels = LevelMapper(2, 5)
    return pool
