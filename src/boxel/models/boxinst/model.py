"""BoxInst: FCOS with a dynamic mask head for every instance, its masks learned from boxes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import batched_nms, clip_boxes_to_image, remove_small_boxes

from boxel.layers.backbone import Backbone
from boxel.layers.bifpn import BiFPN
from boxel.layers.dynamic import COORDINATE_UNIT, dynamic_masks, num_dynamic_params, upsample_twice
from boxel.layers.padding import pad_batch
from boxel.layers.pyramid import FPN
from boxel.layers.recompute import recompute
from boxel.layers.winograd import use_winograd
from boxel.losses.affinity import valid_pixels, warmup_weight
from boxel.models.boxinst.boxes import fit_boxes
from boxel.models.boxinst.config import BoxInstConfig
from boxel.models.boxinst.heads import Head, HeadOutput, MaskBranch
from boxel.models.boxinst.losses import MASK_STRIDE, detection_losses, mask_losses
from boxel.models.boxinst.matching import (
    TOPK_CANDIDATES,
    Locations,
    boxes_around,
    inside_any_box,
    instance_centers,
    make_locations,
    match_locations,
    sample_locations_per_box,
)
from boxel.models.detector import (
    Detections,
    Detector,
    Target,
    check_targets,
    full_image_detections,
    paste_masks,
    separate_crowds,
)

MASK_CHUNK = 16  # masks computed at once on a CPU: their hidden maps take little memory


class BoxInst(Detector):
    """One-stage instance segmenter that learns masks from boxes, from masks, or from any mix.

    Targets are those of :class:`~boxel.models.detector.Detector`. A mask without `has_mask` is a hint. `orig_size`, the
    (height, width) of the image as stored, is the unit of `ignored_bottom_rows`; if it is that of a part, `rows_below`
    is the number of rows of the image below the part.

    Args:
        num_classes: K, without the background.
        config: Settings.

    Examples:
        >>> import torch
        >>> model = BoxInst(3, BoxInstConfig(backbone="resnet10t", weights="none", neck_channels=16))
        >>> image = torch.rand(3, 64, 96)
        >>> losses = model([image], [{"boxes": torch.tensor([[8.0, 8, 40, 40]]), "labels": torch.tensor([2])}])
        >>> list(losses)
        ['classification', 'box', 'centerness', 'projection', 'affinity', 'mask']
        >>> sorted(model.eval()([image])[0])
        ['boxes', 'labels', 'masks', 'scores']

    References:
        Tian et al., BoxInst: High-Performance Instance Segmentation with Box Annotations, CVPR 2021; Tian et al.,
        Conditional Convolutions for Instance Segmentation, ECCV 2020; Tian et al., FCOS, ICCV 2019.
    """

    def __init__(self, num_classes: int, config: BoxInstConfig | None = None):
        config = config or BoxInstConfig()
        super().__init__(num_classes, config)
        self.backbone = Backbone(
            config.backbone, config.weights, config.backbone_norm, config.deformable, config.frozen_stages
        )
        neck = BiFPN if config.neck == "bifpn" else FPN
        self.neck = neck(self.backbone.channels, config.neck_channels)
        params = num_dynamic_params(config.mask_features, config.mask_width)
        self.head = Head(config.neck_channels, num_classes, params, config.head_convs)
        self.mask_branch = MaskBranch(
            config.neck_channels,
            config.mask_channels,
            config.mask_features,
            config.mask_convs,
            config.mask_norm,
        )
        use_winograd(self)

    def forward(self, images: list[Tensor], targets: list[Target] | None = None) -> Any:
        """Return losses in training, instances in eval mode; see :meth:`Detector.forward`."""
        if not self.training:
            return paste_masks(self.detect(images), images)
        batch, sizes = pad_batch(images, self.backbone.mean)  # (B, 3, H, W)
        return self.compute_losses(self.predict_maps(batch), batch, sizes, check_targets(targets))

    def predict_maps(self, batch: Tensor) -> Maps:
        """Return all that the network predicts for a batch of images, (B, 3, H, W)."""
        pyramid = self.neck(self.backbone(batch))  # P3 to P7
        sizes = [level.shape[-2:] for level in pyramid]
        locations = make_locations(sizes, batch.device, self.config.level_scale or 1.0)
        return Maps(self.head(pyramid), self.mask_branch(pyramid), locations)

    @torch.no_grad()
    def detect(self, images: list[Tensor]) -> list[Detections]:
        """Return the detections in each image before their masks are pasted."""
        batch, sizes = pad_batch(images, self.backbone.mean)
        return self.postprocess_detections(self.predict_maps(batch), sizes)

    def loss_weights(self, progress: float) -> dict[str, float]:
        """Return the weight of each loss at a point of the schedule; see :meth:`Detector.loss_weights`."""
        warmup = warmup_weight(progress, self.config.affinity_warmup)
        return {
            "classification": 1.0,
            "box": 1.0,
            "centerness": 1.0,
            "projection": self.config.projection_weight,
            "affinity": self.config.affinity_weight * warmup,
            # It decides early what is empty, and fades so that colors decide the outlines.
            "area": self.config.area_weight * warmup * (1 - progress),
            "hint": self.config.hint_weight,
            "mask": 1.0,
        }

    def compute_losses(
        self, maps: Maps, batch: Tensor, sizes: list[tuple[int, int]], targets: list[Target]
    ) -> dict[str, Tensor]:
        """Match the targets to locations and compute all losses.

        Args:
            maps: What the network predicts.
            batch: (B, 3, H, W) images.
            sizes: (height, width) of each image before padding.
            targets: One per image.
        """
        grid = (batch.shape[-2] // MASK_STRIDE, batch.shape[-1] // MASK_STRIDE)
        matched = [self._match(target, maps, image, grid) for image, target in enumerate(targets)]
        gt_boxes = torch.cat([image.gt_boxes for image in matched])
        gt_labels = torch.cat([image.gt_labels for image in matched])
        has_mask = torch.cat([image.has_mask for image in matched])
        weights = torch.cat([image.weights for image in matched])
        # (B, L), instances numbered through the batch
        first = list(accumulate((len(image.gt_boxes) for image in matched), initial=0))[:-1]
        matched_idxs = torch.stack([image.matched_idxs for image in matched])
        matched_idxs = matched_idxs.where(
            matched_idxs < 0, matched_idxs + matched_idxs.new_tensor(first)[:, None]
        )

        positive = matched_idxs >= 0
        instance = matched_idxs[positive]
        ignored = torch.stack([image.ignored for image in matched])
        losses = detection_losses(
            maps.head, maps.locations.points, gt_boxes[instance], gt_labels[instance], positive, ignored
        )

        location, image_index = _concatenate([image.sampled for image in matched])
        instance = matched_idxs[image_index, location]
        return losses | mask_losses(
            self._predict_masks(maps, image_index, location),
            gt_boxes[instance],
            has_mask[instance],
            torch.cat([image.masks for image in matched]),
            weights[instance],
            image_index,
            batch,
            self._valid_pixels(batch, sizes, targets),
            self.config,
        )

    @torch.no_grad()
    def postprocess_detections(self, maps: Maps, sizes: list[tuple[int, int]]) -> list[Detections]:
        """Select the best locations of each image by NMS and predict their masks."""
        selected = [self._select(maps, image, size) for image, size in enumerate(sizes)]
        boxes, scores, labels, locations = zip(*selected, strict=True)
        location, image_index = _concatenate(locations)
        logits = self._predict_masks(maps, image_index, location).split([len(own) for own in locations])
        cells, margin = self.config.fit_boxes, self.config.mask_margin
        if cells is not None:
            boxes = tuple(fit_boxes(*found, cells) for found in zip(boxes, logits, sizes, strict=True))
        return [
            full_image_detections(*found, stride=MASK_STRIDE, margin=margin)
            for found in zip(boxes, scores, labels, logits, strict=True)
        ]

    def _match(self, target: Target, maps: Maps, image: int, grid: tuple[int, int]) -> _MatchedTargets:
        """Match one image's instances to locations, and sample the locations of the mask loss."""
        config = self.config
        own = separate_crowds(target)
        gt_boxes, gt_labels, has_mask = own["boxes"], own["labels"], own["has_mask"]
        centers = instance_centers(gt_boxes, own["masks"], has_mask)
        matched_idxs = match_locations(maps.locations, gt_boxes, centers)
        masks = _sample_cell_centers(own["masks"], *grid)
        location = (matched_idxs >= 0).nonzero().squeeze(1)
        if not any(
            (config.projection_weight, config.affinity_weight, config.area_weight, config.hint_weight)
        ):
            # Boxes alone supervise no mask: their locations would only take the place of others.
            location = location[has_mask[matched_idxs[location]]]
        with torch.no_grad():
            scores = maps.head.logits[image, location, gt_labels[matched_idxs[location]]].sigmoid()
            scores = scores * maps.head.centerness[image, location].sigmoid()
        sampled = location[sample_locations_per_box(matched_idxs[location], scores, config.max_instances)]
        ignored = inside_any_box(maps.locations.points, own["crowds"]) & (matched_idxs < 0)
        return _MatchedTargets(
            gt_boxes,
            gt_labels,
            has_mask,
            own["weights"],
            matched_idxs,
            ignored,
            sampled,
            masks[matched_idxs[sampled]],
        )

    def _valid_pixels(self, batch: Tensor, sizes: list[tuple[int, int]], targets: list[Target]) -> Tensor:
        """Return (B, H, W) bool, pixels that are neither padding nor among the ignored bottom rows."""
        ignored, rows = self.config.ignored_bottom_rows, []
        for target, size in zip(targets, sizes, strict=True):
            in_image = max(ignored - target.get("rows_below", 0), 0)
            rows.append(round(in_image * size[0] / target.get("orig_size", size)[0]))
        return valid_pixels(sizes, batch.shape[-2], batch.shape[-1], rows, batch.device)

    def _predict_masks(self, maps: Maps, image_index: Tensor, location: Tensor) -> Tensor:
        """Return (N, h, w) mask logits at stride 4 of the instances predicted at N locations."""
        params = self.head.predict_mask_params(maps.head.towers, image_index, location)
        centers = maps.locations.points[location]
        scales = COORDINATE_UNIT * maps.locations.strides[location]
        count = MASK_CHUNK if params.device.type == "cpu" else max(len(params), 1)
        masks = [
            recompute(dynamic_masks, maps.mask_features, *part, self.config.mask_width)
            for part in zip(*(t.split(count) for t in (params, image_index, centers, scales)), strict=True)
        ]
        return upsample_twice(torch.cat(masks))

    def _select(self, maps: Maps, image: int, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Select the best locations of one image by threshold and number per level, then by NMS.

        Returns their boxes, scores, labels and indices.
        """
        config, centerness = self.config, maps.head.centerness[image]
        probability = maps.head.logits[image].float().sigmoid() * centerness.float().sigmoid()[:, None]
        location, label, first = [], [], 0
        for level in probability.split(maps.locations.level_sizes):
            flat = level.flatten()
            best = flat.topk(min(TOPK_CANDIDATES, len(flat))).indices
            best = best[flat[best] > config.score_threshold]
            location.append(best // self.num_classes + first)
            label.append(best % self.num_classes)
            first += len(level)
        candidates, labels = torch.cat(location), torch.cat(label)
        scores = probability[candidates, labels].sqrt()
        points, distances = maps.locations.points[candidates], maps.head.distances[image, candidates]
        boxes = clip_boxes_to_image(boxes_around(points, distances), size)
        solid = remove_small_boxes(boxes, min_size=1)  # boxes in the padding are clipped to nothing
        keep = solid[batched_nms(boxes[solid], scores[solid], labels[solid], config.nms_threshold)]
        keep = keep[: config.max_detections]
        return boxes[keep], scores[keep], labels[keep], candidates[keep]


class Maps(NamedTuple):
    """What the network predicts for a batch."""

    head: HeadOutput
    mask_features: Tensor  # (B, C, H / 8, W / 8)
    locations: Locations  # those of the head's predictions


class _MatchedTargets(NamedTuple):
    """The targets of one image, matched to locations; N instances that are not crowds."""

    gt_boxes: Tensor  # (N, 4)
    gt_labels: Tensor  # (N,)
    has_mask: Tensor  # (N,) bool, instances that are learned from their mask
    weights: Tensor  # (N,) how much their masks count
    matched_idxs: Tensor  # (L,) index of the instance that each location must predict, or -1
    ignored: Tensor  # (L,) bool, locations in crowds
    sampled: Tensor  # (M,) locations whose masks are supervised
    masks: Tensor  # (M, h, w) bool, true masks or hints of their instances


def _concatenate(locations: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Concatenate the locations of each image; return them and the index of the image of each."""
    image_index = [torch.full_like(own, image) for image, own in enumerate(locations)]
    return torch.cat(list(locations)), torch.cat(image_index)


def _sample_cell_centers(masks: Tensor, height: int, width: int) -> Tensor:
    """Sample (N, H, W) masks at the center of each cell, and pad them to the batch's (N, height, width) bool."""
    center = slice(MASK_STRIDE // 2, None, MASK_STRIDE)
    sampled = masks[:, center, center].bool()
    return F.pad(sampled, (0, width - sampled.shape[-1], 0, height - sampled.shape[-2]))
