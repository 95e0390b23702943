"""Mask R-CNN as one graph: a batch of images in, all of their instances out, proposals and NMS included.

The layers, the anchors and the coding of boxes are those of the model. What torchvision does image by image is written
again for the list of all proposals or instances of a batch, each with the index of its image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import MultiScaleRoIAlign, nms, roi_align

from boxel.exporting.batch import (
    best_per_image,
    clip_boxes,
    detector_metadata,
    nms_per_label,
    pad_to_multiple,
)
from boxel.exporting.check import check_detector
from boxel.exporting.same_conv import with_constant_padding
from boxel.models.mask_rcnn import MaskRCNN
from boxel.models.onnx import OnnxMaskRCNN

MIN_SIDE = 1e-2
"""Minimum side of a detection in pixels, torchvision's."""


class MaskRCNNGraph(nn.Module):
    """Compute what :meth:`~boxel.models.mask_rcnn.model.MaskRCNN.detect` does, for a batch of images of one size.

    The attributes are those of :class:`~boxel.exporting.boxinst.BoxInstGraph`.
    """

    inputs: ClassVar = {"images": {0: "batch", 2: "height", 3: "width"}}
    outputs: ClassVar = {
        name: {0: "instances"} for name in ("boxes", "scores", "labels", "mask_logits", "image_index")
    }
    runtime: ClassVar[Callable[..., Any]] = OnnxMaskRCNN
    check: ClassVar[Callable[..., Any]] = staticmethod(check_detector)

    def __init__(self, model: MaskRCNN):
        super().__init__()
        self.model = with_constant_padding(model)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the instances of a batch, those of the first image first, best first in each.

        Args:
            images: (B, 3, H, W) float, RGB in [0, 1], of any height and width.

        Returns:
            boxes (N, 4) float, xyxy pixels; scores (N,) in [0, 1]; labels (N,) int64; mask logits (N, 28, 28) over the
            windows of :func:`~boxel.models.mask_rcnn.heads.grid_windows`; and (N,) int64, the image each belongs to.
        """
        heads, size = self.model.roi_heads, images.shape[-2:]
        batch = pad_to_multiple(images, self.model.backbone.mean)
        features = self.model.extract_features(batch)
        proposals, image = self._propose(batch, list(features.values()), size)
        boxes, scores, labels, image = self._detect(features, proposals, image, size, images.shape[0])
        pooled = pool(heads.mask_roi_pool, features, boxes, image)
        logits = heads.mask_predictor(heads.mask_head(pooled))
        rows = torch.arange(labels.shape[0], device=labels.device)
        return boxes, scores, labels, logits[rows, labels + 1], image

    def example(self) -> tuple[Tensor, ...]:
        """Return inputs to trace the graph with."""
        return (torch.zeros(2, 3, 96, 128),)

    def metadata(self) -> dict[str, Any]:
        """Return what is needed to run the file, as plain data."""
        return detector_metadata(self.model)

    def _propose(self, batch: Tensor, maps: list[Tensor], size: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return the (R, 4) proposals of all images and the image of each, as of torchvision's `filter_proposals`."""
        rpn, count, levels = self.model.rpn, batch.shape[0], len(maps)
        (anchors,) = rpn.anchor_generator(ImageList(batch, [(0, 0)]), maps)  # the same for all images
        objectness, deltas = rpn.head(maps)
        top, best, places, first = rpn.pre_nms_top_n(), [], [], 0
        for level in objectness:
            flat = level.permute(0, 2, 3, 1).flatten(1)
            # Padded with the score of nothing, so that a small level has the number too.
            level_best, index = F.pad(flat, (0, top), value=-torch.inf).topk(top)
            best.append(level_best)
            places.append(index.clamp(max=flat.shape[1] - 1) + first)
            first = first + flat.shape[1]
        # One list of candidates per image and level: (B * levels, top).
        logits, place = torch.stack(best, 1).flatten(0, 1), torch.stack(places, 1).flatten(0, 1)
        image = torch.arange(logits.shape[0], device=logits.device) // levels
        all_deltas = torch.cat([values.permute(0, 2, 3, 1).reshape(count, -1, 4) for values in deltas], 1)
        own_deltas = all_deltas[image[:, None], place].flatten(0, 1)
        boxes = rpn.box_coder.decode_single(own_deltas, anchors[place.flatten()])
        boxes = clip_boxes(boxes, size).reshape(-1, top, 4)

        solid = ((boxes[..., 2:] - boxes[..., :2]) >= rpn.min_size).all(2) & (logits > -torch.inf)
        scores = torch.where(solid, logits.sigmoid(), -1.0)
        kept, _, place = _ListwiseNMS.apply(boxes, scores, rpn.nms_thresh).unbind(1)
        order = scores[kept, place].argsort(descending=True)
        kept, place = kept[order], place[order]
        image, order = best_per_image(image[kept], count, rpn.post_nms_top_n())
        return boxes[kept[order], place[order]], image

    def _detect(
        self, features: dict[str, Tensor], proposals: Tensor, image: Tensor, size: Sequence[int], count: int
    ) -> tuple[Tensor, ...]:
        """Return boxes, scores, labels and images of the detections, as of `postprocess_detections`."""
        heads, classes = self.model.roi_heads, self.model.num_classes
        pooled = pool(heads.box_roi_pool, features, proposals, image)
        logits, deltas = heads.box_predictor(heads.box_head(pooled))
        probabilities = logits.softmax(1)[:, 1:]
        decoded = heads.box_coder.decode_single(deltas, proposals).reshape(-1, classes + 1, 4)[:, 1:]
        row, labels = (probabilities > heads.score_thresh).nonzero(as_tuple=True)
        boxes, scores, image = clip_boxes(decoded[row, labels], size), probabilities[row, labels], image[row]

        solid = ((boxes[:, 2:] - boxes[:, :2]) >= MIN_SIDE).all(1).nonzero().squeeze(1)
        boxes, scores, labels, image = boxes[solid], scores[solid], labels[solid], image[solid]
        keep = nms_per_label(boxes, scores, labels, image, classes, size, heads.nms_thresh)
        image, place = best_per_image(image[keep], count, heads.detections_per_img)
        keep = keep[place]
        return boxes[keep], scores[keep], labels[keep], image


def pool(align: MultiScaleRoIAlign, features: dict[str, Tensor], boxes: Tensor, image: Tensor) -> Tensor:
    """Return the (R, C, h, w) features of boxes of any images, each from its level, as of `MultiScaleRoIAlign`."""
    levels = align.map_levels([boxes])
    rois = torch.cat([image[:, None].to(boxes.dtype), boxes], 1)
    order, parts = [], []
    for level, (name, scale) in enumerate(zip(align.featmap_names, align.scales, strict=True)):
        own = (levels == level).nonzero().squeeze(1)
        order.append(own)
        parts.append(roi_align(features[name], rois[own], align.output_size, scale, align.sampling_ratio))
    return torch.cat(parts)[torch.cat(order).argsort()]


class _ListwiseNMS(torch.autograd.Function):
    """ONNX's NMS, which takes several lists of boxes at once, unlike torchvision's, and leaves their coordinates exact.

    Of (L, N, 4) boxes with (L, N) scores it keeps those with scores from 0 up, as rows of list, 0 and index, (M, 3).
    """

    @staticmethod
    def forward(ctx: Any, boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
        rows = []
        for index, (own, own_scores) in enumerate(zip(boxes, scores, strict=True)):
            valid = (own_scores >= 0).nonzero().squeeze(1)
            keep = valid[nms(own[valid], own_scores[valid], threshold)]
            rows.append(F.pad(keep[:, None], (2, 0)) + keep.new_tensor([index, 0, 0]))
        return torch.cat(rows)

    @staticmethod
    def symbolic(g: Any, boxes: Any, scores: Any, threshold: float) -> Any:
        axis, most = (g.op("Constant", value_t=torch.tensor([value])) for value in (1, 2**31 - 1))
        limits = (g.op("Constant", value_t=torch.tensor([value])) for value in (threshold, -0.5))
        return g.op("NonMaxSuppression", boxes, g.op("Unsqueeze", scores, axis), most, *limits)
