"""BoxInst as one graph: a batch of images in, all of their instances out, NMS and dynamic mask head included.

The trained layers are those of the model. Everything else is written again without a loop over images or instances,
whose numbers a graph cannot know: all instances of a batch are in one list, each with the index of its image.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boxel.exporting.batch import (
    best_per_image,
    clip_boxes,
    detector_metadata,
    nms_per_label,
    pad_to_multiple,
)
from boxel.exporting.check import check_detector
from boxel.exporting.same_conv import with_constant_padding
from boxel.layers.dynamic import COORDINATE_UNIT, upsample_twice
from boxel.models.boxinst import BoxInst
from boxel.models.boxinst.boxes import fit_boxes
from boxel.models.boxinst.heads import HeadOutput
from boxel.models.boxinst.losses import MASK_STRIDE
from boxel.models.boxinst.matching import STRIDES, TOPK_CANDIDATES, cell_centers
from boxel.models.onnx import OnnxBoxInst


class BoxInstGraph(nn.Module):
    """Compute what :meth:`~boxel.models.boxinst.model.BoxInst.detect` does, for a batch of images of one size."""

    # Names, each with its dynamic axes.
    inputs: ClassVar = {"images": {0: "batch", 2: "height", 3: "width"}}
    outputs: ClassVar = {
        "boxes": {0: "instances"},
        "scores": {0: "instances"},
        "labels": {0: "instances"},
        "mask_logits": {0: "instances", 1: "mask_height", 2: "mask_width"},
        "image_index": {0: "instances"},
    }
    runtime: ClassVar[Callable[..., Any]] = OnnxBoxInst  # runs an exported file like its model
    check: ClassVar[Callable[..., Any]] = staticmethod(check_detector)  # compares the two on images

    def __init__(self, model: BoxInst):
        super().__init__()
        self.model = with_constant_padding(model)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the instances of a batch, those of the first image first, best first in each.

        Args:
            images: (B, 3, H, W) float, RGB in [0, 1], of any height and width.

        Returns:
            boxes (N, 4) float, xyxy pixels; scores (N,) in [0, 1]; labels (N,) int64; mask logits (N, h, w) over the
            whole image, 4 pixels per cell, h and w being those of the image padded to a multiple of 32; and
            (N,) int64, the image each belongs to.
        """
        model, config = self.model, self.model.config
        pyramid = model.neck(model.backbone(pad_to_multiple(images, model.backbone.mean)))
        output = model.head(pyramid)
        points, strides = _grid(pyramid)
        image, location, labels, scores = self._candidates(output, pyramid)
        sides, points_of = output.distances[image, location], points[location]
        boxes = torch.cat([points_of - sides[:, :2], points_of + sides[:, 2:]], 1)
        boxes = clip_boxes(boxes, images.shape[-2:])

        solid = ((boxes[:, 2:] - boxes[:, :2]) >= 1).all(1).nonzero().squeeze(1)
        boxes, scores, labels = boxes[solid], scores[solid], labels[solid]
        image, location = image[solid], location[solid]
        classes, size = model.num_classes, images.shape[-2:]
        keep = nms_per_label(boxes, scores, labels, image, classes, size, config.nms_threshold)
        image, place = best_per_image(image[keep], images.shape[0], config.max_detections)
        keep = keep[place]

        location = location[keep]
        params = self._control(output.towers, image, location)
        scales = COORDINATE_UNIT * strides[location]
        logits = self._masks(model.mask_branch(pyramid), params, image, points[location], scales)
        boxes = boxes[keep]
        if config.fit_boxes is not None:
            boxes = fit_boxes(boxes, logits, images.shape[-2:], config.fit_boxes)
        return boxes, scores[keep], labels[keep], logits, image

    def example(self) -> tuple[Tensor, ...]:
        """Return inputs to trace the graph with."""
        return (torch.zeros(2, 3, 96, 128),)

    def metadata(self) -> dict[str, Any]:
        """Return what is needed to run the file, as plain data."""
        margin = self.model.config.mask_margin
        return {**detector_metadata(self.model), "mask_stride": MASK_STRIDE, "mask_margin": margin}

    def _candidates(self, output: HeadOutput, pyramid: list[Tensor]) -> tuple[Tensor, ...]:
        """Return the image, location, label and score of the candidates for NMS, (N,) each."""
        config, classes = self.model.config, self.model.num_classes
        probability = output.logits.sigmoid() * output.centerness.sigmoid()[..., None]
        levels, first = [], 0
        for features in pyramid:
            count = features.shape[-2] * features.shape[-1]
            # Padded with zeros, which pass no threshold, so that a small level has `TOPK_CANDIDATES` too.
            flat = F.pad(probability[:, first : first + count].flatten(1), (0, TOPK_CANDIDATES))
            best, index = flat.topk(TOPK_CANDIDATES)
            levels.append((best, index // classes + first, index % classes))
            first = first + count
        best, location, label = (torch.cat(parts, 1) for parts in zip(*levels, strict=True))
        image, place = (best > config.score_threshold).nonzero(as_tuple=True)
        return image, location[image, place], label[image, place], best[image, place].sqrt()

    def _control(self, towers: list[Tensor], image: Tensor, location: Tensor) -> Tensor:
        """Return the (N, P) parameters of the dynamic mask head, as of `Head.predict_mask_params`."""
        controller = self.model.head.controller
        around = torch.arange(3, device=location.device)
        maps, cells, first = [], [], 0
        for tower in towers:
            padded = F.pad(tower, (1, 1, 1, 1))
            height, width = padded.shape[-2:]
            rows = torch.arange(height - 2, device=location.device) * width + first
            corners = rows[:, None] + torch.arange(width - 2, device=location.device)
            cells.append(corners.flatten()[:, None] + (around[:, None] * width + around).flatten())
            maps.append(padded.flatten(2))
            first = first + height * width
        # The nine cells around each location of each level, in the concatenated maps of all levels.
        patches = torch.cat(maps, 2).transpose(1, 2)[image[:, None], torch.cat(cells)[location]]
        return F.linear(patches.transpose(1, 2).flatten(1), controller.weight.flatten(1), controller.bias)

    def _masks(
        self, features: Tensor, params: Tensor, image: Tensor, centers: Tensor, scales: Tensor
    ) -> Tensor:
        """Return (N, h, w) logits, as of :func:`~boxel.layers.dynamic.dynamic_masks`: three 1x1 layers per instance."""
        config = self.model.config
        channels, width = config.mask_features + 2, config.mask_width
        sizes = [channels * width, width * width, width, width, width, 1]
        w1, w2, w3, b1, b2, b3 = params.split(sizes, 1)
        count, (height, across) = params.shape[0], features.shape[-2:]
        relative = (centers[:, None] - cell_centers(height, across, STRIDES[0])) / scales[:, None, None]
        x = torch.cat([relative.transpose(1, 2), features.flatten(2)[image]], 1)
        x = torch.baddbmm(b1[..., None], w1.reshape(count, width, channels), x).relu()
        x = torch.baddbmm(b2[..., None], w2.reshape(count, width, width), x).relu()
        x = torch.baddbmm(b3[..., None], w3.reshape(count, 1, width), x)
        return upsample_twice(x.reshape(count, height, across))


def _grid(pyramid: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return (L, 2) locations and (L,) strides of all levels."""
    levels = list(zip(pyramid, STRIDES, strict=True))
    points = [cell_centers(f.shape[-2], f.shape[-1], stride, f.device) for f, stride in levels]
    strides = [torch.full_like(f[0, 0].flatten(), stride) for f, stride in levels]
    return torch.cat(points), torch.cat(strides)
