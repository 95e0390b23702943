"""BoxInst: FCOS with a dynamic mask head for every instance, its masks learned from boxes.

Tian et al., BoxInst, CVPR 2021, on CondInst (Tian et al., ECCV 2020) and FCOS (Tian et al., ICCV 2019).
"""

from __future__ import annotations

from itertools import accumulate
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import batched_nms, clip_boxes_to_image, remove_small_boxes

from boxel.layers.backbone import Backbone
from boxel.layers.bifpn import BiFPN
from boxel.layers.dynamic import dynamic_masks, num_dynamic_params, upsample_twice
from boxel.layers.padding import pad_batch
from boxel.layers.pyramid import FPN
from boxel.losses.affinity import valid_pixels, warmup_weight
from boxel.models.boxinst.config import BoxInstConfig
from boxel.models.boxinst.criterion import MASK_STRIDE, detection_losses, mask_losses
from boxel.models.boxinst.head import Head, HeadOutput
from boxel.models.boxinst.mask_branch import MaskBranch
from boxel.models.boxinst.targets import SIZE_RANGES, STRIDES, in_crowd, locations, match, share_out
from boxel.models.detector import Detections, Detector, Target, full_image_detections


class BoxInst(Detector):
    """One-stage instance segmenter that needs no masks to learn them.

    Args:
        num_classes: K, with no class for the background.
        config: every other choice.
    """

    def __init__(self, num_classes: int, config: BoxInstConfig | None = None):
        config = config or BoxInstConfig()
        super().__init__(num_classes, config)
        self.backbone = Backbone(
            config.backbone, config.weights, config.backbone_norm, config.deformable, config.frozen_stages
        )
        self.neck = (
            BiFPN(self.backbone.channels, config.neck_channels, config.neck_repeats, config.neck_norm)
            if config.neck == "bifpn"
            else FPN(self.backbone.channels, config.neck_channels)
        )
        params = num_dynamic_params(config.mask_features, config.mask_width)
        self.head = Head(config.neck_channels, num_classes, params, config.head_convs, STRIDES)
        self.mask_branch = MaskBranch(
            config.neck_channels,
            config.mask_channels,
            config.mask_features,
            config.mask_convs,
            config.mask_norm,
        )

    def losses(self, images: list[Tensor], targets: list[Target]) -> dict[str, Tensor]:
        """Raw losses by name.

        Args:
            images: as in `forward`.
            targets: as of :meth:`Detector.losses`. A mask that is not true is a hint, or empty where there is none.
                `orig_size`, the height and width of the image as stored, is what `bottom_rows` is counted in; that of
                the tensor if missing.
        """
        batch, sizes = pad_batch(images, self.backbone.mean)
        pyramid, output = self._features(batch)
        return self._losses(batch, sizes, pyramid, output, targets)

    def loss_weights(self, progress: float) -> dict[str, float]:
        """Weight of each loss at a point of the schedule; see :meth:`Detector.loss_weights`."""
        ramp = warmup_weight(progress, self.config.affinity_warmup)
        return {
            "classification": 1.0,
            "box": 1.0,
            "centerness": 1.0,
            "projection": self.config.projection_weight,
            "affinity": self.config.affinity_weight * ramp,
            # It decides early what is empty, and fades so that outlines settle where color says.
            "area": self.config.area_weight * ramp * (1 - progress),
            "hint": self.config.hint_weight,
            "mask": 1.0,
        }

    @torch.no_grad()
    def detect(self, images: list[Tensor]) -> list[Detections]:
        """Instances of each image; see :meth:`Detector.detect`."""
        batch, sizes = pad_batch(images, self.backbone.mean)
        pyramid, output = self._features(batch)
        points, strides, _ = self._grid(pyramid)
        features = self.mask_branch(pyramid)
        kept = [self._keep(output, index, points, size, pyramid) for index, size in enumerate(sizes)]
        image_index = torch.cat([torch.full_like(k.location, i) for i, k in enumerate(kept)])
        location = torch.cat([k.location for k in kept])
        logits = self._mask_logits(features, output, image_index, location, points, strides)
        return [
            full_image_detections(k.boxes, k.scores, k.labels, mask, stride=MASK_STRIDE)
            for k, mask in zip(kept, logits.split([len(k.location) for k in kept]), strict=True)
        ]

    def _features(self, batch: Tensor) -> tuple[list[Tensor], HeadOutput]:
        pyramid = self.neck(self.backbone(batch))
        return pyramid, self.head(pyramid)

    def _grid(self, pyramid: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """(L, 2) locations, (L,) strides and (L, 2) size ranges of all levels."""
        points, strides, ranges = [], [], []
        for features, stride, size_range in zip(pyramid, STRIDES, SIZE_RANGES, strict=True):
            level = locations(features.shape[-2], features.shape[-1], stride, features.device)
            points.append(level)
            strides.append(level.new_full((len(level),), stride))
            ranges.append(level.new_tensor(size_range).expand(len(level), 2))
        return torch.cat(points), torch.cat(strides), torch.cat(ranges)

    def _losses(
        self,
        batch: Tensor,
        sizes: list[tuple[int, int]],
        pyramid: list[Tensor],
        output: HeadOutput,
        targets: list[Target],
    ) -> dict[str, Tensor]:
        points, strides, ranges = self._grid(pyramid)
        height, width = batch.shape[-2] // MASK_STRIDE, batch.shape[-1] // MASK_STRIDE
        lessons = [
            self._lesson(target, output, index, points, strides, ranges, (height, width))
            for index, target in enumerate(targets)
        ]
        all_boxes = torch.cat([lesson.boxes for lesson in lessons])
        all_labels = torch.cat([lesson.labels for lesson in lessons])
        has_mask = torch.cat([lesson.has_mask for lesson in lessons])
        # Instances are numbered through the batch.
        first = accumulate((len(lesson.boxes) for lesson in lessons), initial=0)
        box_of = torch.stack(
            [
                torch.where(lesson.match >= 0, lesson.match + n, -1)
                for lesson, n in zip(lessons, first, strict=False)
            ]
        )
        positive = box_of >= 0
        owner = box_of[positive]
        ignored = torch.stack([lesson.ignored for lesson in lessons])
        losses = detection_losses(output, points, all_boxes[owner], all_labels[owner], positive, ignored)

        location = torch.cat([lesson.chosen for lesson in lessons])
        image_index = torch.cat([torch.full_like(lesson.chosen, i) for i, lesson in enumerate(lessons)])
        instance = box_of[image_index, location]
        logits = self._mask_logits(self.mask_branch(pyramid), output, image_index, location, points, strides)
        stored = [target.get("orig_size", size)[0] for target, size in zip(targets, sizes, strict=True)]
        bottom_rows = [
            round(self.config.bottom_rows * size[0] / h) for size, h in zip(sizes, stored, strict=True)
        ]
        return losses | mask_losses(
            logits,
            all_boxes[instance],
            has_mask[instance],
            torch.cat([lesson.masks for lesson in lessons]),
            image_index,
            batch,
            valid_pixels(sizes, batch.shape[-2], batch.shape[-1], bottom_rows, batch.device),
            self.config,
        )

    def _lesson(
        self,
        target: Target,
        output: HeadOutput,
        image: int,
        points: Tensor,
        strides: Tensor,
        ranges: Tensor,
        grid: tuple[int, int],
    ) -> _Lesson:
        """What there is to learn from one image, and at which of its locations."""
        config = self.config
        crowd = target.get("iscrowd", torch.zeros_like(target["labels"])).bool()
        own = (~crowd).nonzero().squeeze(1)
        boxes, labels = target["boxes"].as_subclass(Tensor).float(), target["labels"][own]
        matched = match(points, strides, ranges, boxes[own], config.center_radius)
        if "masks" in target:
            has_mask = target.get("has_mask", torch.ones_like(crowd)).bool()[own]
            masks = _on_grid(target["masks"][own], *grid)
        else:
            has_mask = torch.zeros_like(crowd)[own]
            masks = has_mask.new_zeros((1, 1, 1)).expand(len(own), *grid)
        location = (matched >= 0).nonzero().squeeze(1)
        boxes_teach = any(
            (config.projection_weight, config.affinity_weight, config.area_weight, config.hint_weight)
        )
        if not boxes_teach:  # instances that nothing would be learned from take no turn
            location = location[has_mask[matched[location]]]
        with torch.no_grad():
            score = output.logits[image, location, labels[matched[location]]].sigmoid()
            score = score * output.centerness[image, location].sigmoid()
        chosen = location[share_out(matched[location], score, config.max_instances)]
        ignored = in_crowd(points, boxes[crowd]) & (matched < 0)
        return _Lesson(boxes[own], labels, has_mask, matched, ignored, chosen, masks[matched[chosen]])

    def _mask_logits(
        self,
        features: Tensor,
        output: HeadOutput,
        image_index: Tensor,
        location: Tensor,
        points: Tensor,
        strides: Tensor,
    ) -> Tensor:
        """(N, h, w) at stride 4 for chosen locations."""
        params = self.head.control(output.towers, image_index, location)
        logits = dynamic_masks(
            features, params, image_index, points[location], 8 * strides[location], self.config.mask_width
        )
        return upsample_twice(logits, self.config.mask_upsampling)

    def _keep(
        self, output: HeadOutput, image: int, points: Tensor, size: tuple[int, int], pyramid: list[Tensor]
    ) -> _Kept:
        """Best locations of one image after NMS."""
        config = self.config
        probability = (
            output.logits[image].float().sigmoid() * output.centerness[image].float().sigmoid()[:, None]
        )
        levels = [features.shape[-2] * features.shape[-1] for features in pyramid]
        location, label, first = [], [], 0
        for level in probability.split(levels):
            flat = level.flatten()
            best = flat.topk(min(config.candidates, len(flat))).indices
            best = best[flat[best] > config.score_threshold]
            location.append(best // self.num_classes + first)
            label.append(best % self.num_classes)
            first += len(level)
        location_, labels = torch.cat(location), torch.cat(label)
        scores = probability[location_, labels].sqrt()
        here, sides = points[location_], output.distances[image, location_]
        boxes = clip_boxes_to_image(torch.cat([here - sides[:, :2], here + sides[:, 2:]], dim=1), size)
        solid = remove_small_boxes(boxes, min_size=1)  # what lies in the padding is clipped to nothing
        keep = solid[batched_nms(boxes[solid], scores[solid], labels[solid], config.nms_threshold)]
        keep = keep[: config.max_detections]
        return _Kept(boxes[keep], scores[keep], labels[keep], location_[keep])


class _Lesson(NamedTuple):
    """What one image teaches.

    Attributes:
        boxes: (N, 4) of its instances that are no crowds.
        labels: (N,) of these.
        has_mask: (N,) bool, those learned from their mask.
        match: (L,) index of the instance that each location is to find, or -1.
        ignored: (L,) bool, locations in crowds.
        chosen: (M,) locations that give masks.
        masks: (M, h, w) bool, true masks or hints of their instances.
    """

    boxes: Tensor
    labels: Tensor
    has_mask: Tensor
    match: Tensor
    ignored: Tensor
    chosen: Tensor
    masks: Tensor


class _Kept(NamedTuple):
    boxes: Tensor
    scores: Tensor
    labels: Tensor
    location: Tensor


def _on_grid(masks: Tensor, height: int, width: int) -> Tensor:
    """Masks of one image sampled at the middle of each cell of the padded batch's grid."""
    sampled = masks.as_subclass(Tensor)[
        :, MASK_STRIDE // 2 :: MASK_STRIDE, MASK_STRIDE // 2 :: MASK_STRIDE
    ].bool()
    return F.pad(sampled, (0, width - sampled.shape[-1], 0, height - sampled.shape[-2]))
