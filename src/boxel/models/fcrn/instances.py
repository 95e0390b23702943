"""Instances by voting: one network predicts the class of each pixel, another the box of its instance."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from boxel.layers.padding import pad_batch
from boxel.losses.localization import bootstrapped_box_loss, size_weights
from boxel.models.detector import (
    Detections,
    Detector,
    Target,
    check_targets,
    full_image_detections,
    paste_masks,
)
from boxel.models.fcrn.config import FCRNInstancesConfig, scale_min_kept
from boxel.models.fcrn.voting import vote
from boxel.models.semantic.losses import sample_cell_centers, stack_maps
from boxel.models.semantic.network import FullyConvolutional

OFFSET_SCALE = 32.0
"""Pixels that count as 1 in the regression."""


class FCRNInstances(Detector):
    """Semantic segmentation first, instances after; see :class:`~boxel.models.detector.Detector`.

    Only the localization network learns: the two are trained separately (Section 2.1). In training all images have one
    size. A target has `instances` (H, W), the instance of each pixel or -1, `boxes` (N, 4) xyxy and `instance_labels`
    (N,), their classes, with the background as class 0.

    Args:
        num_classes: K, without the background.
        config: Settings.

    Examples:
        >>> from boxel.models import FCRNConfig
        >>> tiny = {"backbone": "resnet10t", "weights": "none"}
        >>> model = FCRNInstances(2, FCRNInstancesConfig(**tiny, semantic=FCRNConfig(**tiny)))
        >>> sorted(model.eval()([torch.rand(3, 64, 64)])[0])
        ['boxes', 'labels', 'masks', 'scores']

    References:
        Wu, Shen, van den Hengel, Bridging Category-level and Instance-level Semantic Image Segmentation, 2016.
    """

    config: FCRNInstancesConfig

    def __init__(self, num_classes: int, config: FCRNInstancesConfig):
        super().__init__(num_classes, config)
        self.network = FullyConvolutional(4 * num_classes, config)
        self.semantic = FullyConvolutional(num_classes + 1, config.semantic)
        self.semantic.requires_grad_(False)

    def train(self, mode: bool = True) -> FCRNInstances:
        """Set the training mode of everything but the semantic network."""
        super().train(mode)
        self.semantic.eval()
        return self

    def forward(self, images: list[Tensor], targets: list[Target] | None = None) -> Any:
        """Return losses in training, instances in eval mode; see :meth:`Detector.forward`."""
        if not self.training:
            return paste_masks(self.detect(images), images)
        offsets = self.network(torch.stack(list(images)))  # (B, 4 K, h, w)
        return self.compute_losses(offsets.unflatten(1, (self.num_classes, 4)), check_targets(targets))

    @torch.no_grad()
    def detect(self, images: list[Tensor], classes: Sequence[Tensor] | None = None) -> list[Detections]:
        """Return the detections in each image before their masks are pasted.

        Args:
            images: (3, H, W) float RGB in [0, 1] each, of any sizes.
            classes: Instead of the scores of the semantic network, (K + 1, h, w) scores in each image, on grids of any
                size; 1 and 0 for known classes (the paper's pilot experiment, Section 3.2).
        """
        stride = self.network.stride
        batch, sizes = pad_batch(images, self.network.padding_color, max(stride, self.semantic.stride))
        offsets = self.network(batch).unflatten(1, (self.num_classes, 4)) * OFFSET_SCALE
        if classes is None:
            scores = self.semantic(batch).softmax(1)
            # The cells of the two networks may have different sizes.
            classes = list(interpolate(scores, offsets.shape[-2:], mode="bilinear"))
        else:
            classes = [
                sample_cells(scores, size, stride) for scores, size in zip(classes, sizes, strict=True)
            ]
        return [
            self._vote(own, image_offsets, size)
            for own, image_offsets, size in zip(classes, offsets, sizes, strict=True)
        ]

    def compute_losses(self, offsets: Tensor, targets: list[Target]) -> dict[str, Tensor]:
        """Compute the localization loss of (B, K, 4, h, w) predictions, of each cell and class."""
        config, stride, device = self.config, self.network.stride, offsets.device
        instances = sample_cell_centers(stack_maps(targets, "instances", device), stride).long()
        per_image = [
            _boxes_and_labels_of_cells(cells, target, device)
            for cells, target in zip(instances, targets, strict=True)
        ]
        boxes, labels = (torch.stack(values) for values in zip(*per_image, strict=True))
        index = labels[:, None, None].expand(-1, 1, 4, -1, -1)
        gt_offsets = to_offsets(boxes, stride) / OFFSET_SCALE
        return {
            "localization": bootstrapped_box_loss(
                offsets.gather(1, index).squeeze(1),
                gt_offsets,
                instances >= 0,
                None if config.min_kept is None else scale_min_kept(config.min_kept, stride),
                config.threshold,
                size_weights(gt_offsets, config.size_power) if config.size_power else None,
            )
        }

    def loss_weights(self, progress: float) -> dict[str, float]:
        """Return weight 1 for the only loss."""
        return {"localization": 1.0}

    def _vote(self, classes: Tensor, offsets: Tensor, size: tuple[int, int]) -> Detections:
        """Return the detections of one image from the class scores and box offsets of its cells."""
        (height, width), stride = size, self.network.stride
        rows, columns = ceil(height / stride), ceil(width / stride)  # without the padding
        boxes = from_offsets(offsets[..., :rows, :columns], stride)
        limits = boxes.new_tensor([width, height, width, height])[:, None, None]
        boxes = boxes.clamp(min=0).minimum(limits)
        classes = classes[:, :rows, :columns]
        hypotheses = vote(classes, boxes, self.config.voting, stride)
        margin = _score_margin(classes)[hypotheses.labels + 1].abs().clamp(min=1e-3)
        logits = torch.where(hypotheses.masks, margin, -margin)
        return full_image_detections(
            hypotheses.boxes, hypotheses.scores, hypotheses.labels, logits, stride=stride, margin=None
        )


def sample_cells(values: Tensor, size: tuple[int, int], stride: int) -> Tensor:
    """Return the (C, h, w) values at the centers of the cells of an image with a (height, width) in pixels.

    The values, (C, H, W), cover the image on a grid of any size. A center in the padding gets the nearest value.
    """
    rows, columns = (
        ((torch.arange(ceil(side / stride)) + 0.5) * (stride * count / side)).long().clamp(max=count - 1)
        for side, count in zip(size, values.shape[1:], strict=True)
    )
    return values[:, rows[:, None], columns]


def to_offsets(boxes: Tensor, stride: int) -> Tensor:
    """Return the regression targets of cells from the box of each cell's instance, (..., 4, h, w) xyxy pixels.

    They are (..., 4, h, w) pixels: down and right to the box's center, its height and width (Section 2.1).
    """
    x0, y0, x1, y1 = boxes.unbind(-3)
    y, x = _centers(boxes, stride)
    return torch.stack([(y0 + y1) / 2 - y, (x0 + x1) / 2 - x, y1 - y0, x1 - x0], dim=-3)


def from_offsets(offsets: Tensor, stride: int) -> Tensor:
    """Invert :func:`to_offsets`."""
    down, right, height, width = offsets.unbind(-3)
    y, x = _centers(offsets, stride)
    y, x = y + down, x + right
    return torch.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], dim=-3)


def _centers(cells: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Return (h, 1) and (w,) pixels, the centers of a grid's rows and columns."""
    y, x = ((torch.arange(count, device=cells.device) + 0.5) * stride for count in cells.shape[-2:])
    return y[:, None], x


def _score_margin(scores: Tensor) -> Tensor:
    """Return (C, h, w) the difference of each class's score and the best score of the others.

    Between two cells it crosses 0 where the classes meet, so that an edge need not lie on the grid.
    """
    (best, second), (winner, _) = scores.topk(2, 0)
    wins = torch.arange(len(scores), device=scores.device)[:, None, None] == winner
    return scores - torch.where(wins, second, best)


def _boxes_and_labels_of_cells(
    instances: Tensor, target: Target, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return (4, h, w) boxes and (h, w) labels in [0, K) of the instances of cells; arbitrary without an instance."""
    boxes, labels = target["boxes"].to(device), target["instance_labels"].to(device)
    if not len(boxes):
        return torch.zeros(4, *instances.shape, device=device), torch.zeros_like(instances)
    own = instances.clamp(min=0)
    return boxes[own].permute(2, 0, 1), labels[own] - 1
