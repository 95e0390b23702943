"""Augmentation: torchvision's v2 transforms in the order detectors use them, and random crops with label maps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from boxel.data.config import AugmentConfig, ScaleCropConfig
from boxel.data.dataset import Sample
from boxel.data.label_maps import IGNORE_INDEX, NO_INSTANCE


def train_transforms(config: AugmentConfig) -> v2.Compose:
    """Build the transforms of a training sample.

    Returns:
        A transform of (uint8 image, target) to (float RGB in [0, 1], target).

    Examples:
        >>> transform = train_transforms(AugmentConfig(short_sides=[8], flip=0))
        >>> boxes = tv_tensors.BoundingBoxes([[1, 1, 3, 3]], format="XYXY", canvas_size=(4, 6))
        >>> image = tv_tensors.Image(torch.zeros(3, 4, 6, dtype=torch.uint8))
        >>> image, target = transform((image, {"boxes": boxes, "labels": torch.zeros(1)}))
        >>> target["boxes"].tolist()
        [[2, 2, 6, 6]]
    """
    steps: list[torch.nn.Module] = [_RandomShortSide(config)]
    if config.crop > 0:
        steps.insert(0, v2.RandomApply([_RandomCrop()], config.crop))
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


class _RandomShortSide(torch.nn.Module):
    """Resize as `v2.RandomShortestSize`, but the short side of a narrow image to at least a pixel."""

    def __init__(self, config: AugmentConfig):
        super().__init__()
        self.config = config

    def forward(self, sample: Sample) -> Sample:
        short_sides, sides = self.config.short_sides, sample[0].shape[-2:]
        short_side = short_sides[int(torch.randint(len(short_sides), ()))]
        factor = min(short_side / min(sides), self.config.max_size / max(sides))
        return v2.Resize([max(int(side * factor), 1) for side in sides])(sample)


class _RandomCrop(torch.nn.Module):
    """Cut part of an image out by `v2.RandomIoUCrop` if it has an instance to keep; centers outside drop theirs.

    `orig_size` becomes the size of the part, and `rows_below` the number of rows that were cut off below it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.crop = v2.RandomIoUCrop(min_scale=0.4)
        self.sanitize = v2.SanitizeBoundingBoxes(min_size=1, labels_getter=_instance_columns)

    def forward(self, sample: Sample) -> Sample:
        image, target = sample
        if not len(target["boxes"]):
            return sample
        height, width = image.shape[-2:]
        rows = tv_tensors.Mask(torch.arange(height)[:, None].expand(height, width))
        part, cut = self.crop((image, target | {"rows": rows}))
        rows = cut.pop("rows")  # those of the image that are left
        cut |= {"orig_size": tuple(rows.shape), "rows_below": height - 1 - int(rows[-1, 0])}
        found = self.sanitize(v2.ClampBoundingBoxes()((part, cut)))
        return found if len(found[1]["boxes"]) else sample


def _instance_columns(sample: tuple[Any, dict[str, Any]]) -> tuple[Tensor, ...]:
    """Return the fields that are dropped together with a box, beside masks."""
    target = sample[1]
    return tuple(target[name] for name in ("labels", "iscrowd", "has_mask", "quality") if name in target)


class RandomScaleCrop(torch.nn.Module):
    """Scale an image at random, crop a square out of it, and flip it now and then.

    Boxes are moved along and not clipped: the target of a pixel does not depend on the square.

    Args:
        config: Scales, crop, flip and colors.
        fill: (3, 1, 1) float, the color outside the image.
    """

    def __init__(self, config: ScaleCropConfig, fill: Tensor):
        super().__init__()
        self.config, self.fill = config, fill
        self.jitter = v2.ColorJitter(config.color, config.color, config.color)

    def forward(self, sample: Sample) -> Sample:
        """Transform (uint8 image, target) to (float RGB in [0, 1], target), both of `crop` by `crop` pixels."""
        config, (image, target) = self.config, sample
        height, width = image.shape[-2:]
        low, high = config.scale
        factor = low + (high - low) * float(torch.rand(()))
        factor *= config.long_side / max(height, width) if config.long_side else 1
        size = [max(round(height * factor), 1), max(round(width * factor), 1)]
        image = self.jitter(F.resize(image, size, antialias=True)) / 255
        side = config.crop
        top, left = (int(torch.randint(max(length - side, 0) + 1, ())) for length in size)
        flipped = float(torch.rand(())) < config.flip

        def crop(values: Tensor, outside: Tensor) -> Tensor:
            inside = values[..., top : top + side, left : left + side]
            square = outside.expand(*values.shape[:-2], side, side).clone()
            square[..., : inside.shape[-2], : inside.shape[-1]] = inside
            return square.flip(-1) if flipped else square

        cropped = dict(target)
        for name, outside in (("labels", IGNORE_INDEX), ("instances", NO_INSTANCE)):
            if name in target:
                values = F.resize_mask(target[name][None], size)[0]
                cropped[name] = crop(values, values.new_tensor(outside))
        if "boxes" in target:
            x, y = size[1] / width, size[0] / height
            boxes = target["boxes"] * torch.tensor([x, y, x, y]) - torch.tensor([left, top, left, top])
            x0, y0, x1, y1 = boxes.unbind(1)
            cropped["boxes"] = torch.stack([side - x1, y0, side - x0, y1], 1) if flipped else boxes
        return tv_tensors.Image(crop(image.as_subclass(Tensor), self.fill)), cropped
