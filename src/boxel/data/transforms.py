"""Augmentation: torchvision's v2 transforms in the order detectors use them, and boxes made loose on purpose."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from boxel.data.annotations import Annotations
from boxel.data.config import AugmentConfig


def train_transforms(config: AugmentConfig) -> v2.Compose:
    """Transforms of a training sample.

    Args:
        config: which, and how strong.

    Returns:
        A transform of (uint8 image, target) to (float RGB in [0, 1], target without the boxes that were cut away).
    """
    steps: list[torch.nn.Module] = []
    if config.scale_jitter is None:
        steps.append(v2.RandomShortestSize(config.short_sides, max_size=config.max_size))
    else:
        side = max(config.short_sides)
        steps.append(v2.ScaleJitter((side, side), scale_range=config.scale_jitter))
        steps.append(RandomCropWithin(side))
    if config.flip > 0:
        steps.append(v2.RandomHorizontalFlip(config.flip))
    if config.color > 0:
        steps.append(v2.ColorJitter(config.color, config.color, config.color))
    return v2.Compose(
        [
            *steps,
            # Without it, a box that sticks out of its image, if only by rounding, would be dropped.
            v2.ClampBoundingBoxes(),
            v2.SanitizeBoundingBoxes(min_size=1, labels_getter=_instance_columns),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )


class RandomCropWithin(torch.nn.Module):
    """Crop what is longer than a square's side, somewhere along it; a smaller image is left as it is.

    Filling it up is the model's part, which knows where an image ends and learns no edges from the filling.

    Args:
        side: of the square, in pixels.
    """

    def __init__(self, side: int):
        super().__init__()
        self.side = side

    def forward(self, sample: tuple[Any, dict[str, Any]]) -> tuple[Any, dict[str, Any]]:
        """The sample with its image, boxes and masks cropped alike."""
        image, target = sample
        height, width = (min(length, self.side) for length in image.shape[-2:])
        top = int(torch.randint(image.shape[-2] - height + 1, ()))
        left = int(torch.randint(image.shape[-1] - width + 1, ()))
        cropped = {
            name: F.crop(value, top, left, height, width) if isinstance(value, tv_tensors.TVTensor) else value
            for name, value in target.items()
        }
        return F.crop(image, top, left, height, width), cropped


def jitter_boxes(data: Annotations, amount: float, seed: int = 0) -> Annotations:
    """The same set with boxes that are not tight: each side moved by up to ``amount`` of the box's extent.

    Args:
        data: the set.
        amount: largest shift as a share of width (left, right) or height (top, bottom), either way.
        seed: the same seed moves the same boxes alike.

    Returns:
        The set with other boxes, cut off at the image where its size is known.
    """
    extent = np.tile(data.boxes[:, 2:] - data.boxes[:, :2], 2)
    shift = np.random.default_rng(seed).uniform(-amount, amount, size=data.boxes.shape)
    boxes = data.boxes + shift * extent
    width, height = data.widths[data.image_index], data.heights[data.image_index]
    known = (width > 0)[:, None]
    limit = np.stack([width, height, width, height], axis=1)
    return replace(data, boxes=np.where(known, boxes.clip(0, np.where(known, limit, np.inf)), boxes))


def ignore_small(data: Annotations, min_box: float) -> Annotations:
    """Mark instances with a short side as regions to ignore, not as background.

    Args:
        data: the set.
        min_box: pixels of the image as stored; shorter sides make an instance a crowd.
    """
    sides = data.boxes[:, 2:] - data.boxes[:, :2]
    return replace(data, iscrowd=data.iscrowd | (sides.min(axis=1, initial=np.inf) < min_box))


def _instance_columns(sample: tuple[Any, dict[str, Any]]) -> tuple[torch.Tensor, ...]:
    """What goes when an instance's box is lost to the border."""
    return tuple(
        sample[1][name] for name in ("labels", "iscrowd", "has_mask", "quality", "masks") if name in sample[1]
    )
