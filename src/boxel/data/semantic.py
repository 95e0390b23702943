"""`Annotations` as a torch data set of images whose every pixel has a class, and random crops of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from boxel.data.annotations import Annotations, Category
from boxel.data.config import ViewConfig
from boxel.data.dataset import ImageDataset, Sample
from boxel.data.images import read_image
from boxel.data.label_maps import (
    IGNORE,
    NO_INSTANCE,
    UNKNOWN,
    classes_of,
    has_background,
    instance_map,
    label_map,
    translation,
)


class SemanticDataset(ImageDataset):
    """Images with the class of each pixel.

    A sample is ``(image, target)``: `image` (3, H, W), `target` with `labels` (H, W) uint8, `IGNORE` where nothing is
    known, `image_id`, and `orig_size`, the image's height and width before any transform; with `instances` also
    `instances` (H, W) int16, the instance of each pixel or -1, `boxes` (N, 4) xyxy of the instances, which may reach
    past the image, and `instance_labels` (N,), their classes.

    Args:
        data: the annotations.
        transforms: of the whole sample.
        classes: that `labels` index; the set's own where None.
        instances: give instances too.
    """

    def __init__(
        self,
        data: Annotations,
        transforms: Callable[[Sample], Sample] | None = None,
        classes: Sequence[Category] | None = None,
        instances: bool = False,
    ):
        super().__init__(data, transforms)
        self.translation = translation(data, classes_of(data) if classes is None else classes)
        self.instances = instances

    def _read(self, index: int) -> Sample:
        data = self.data
        pixels = read_image(data.image_path(index))
        size = (pixels.shape[0], pixels.shape[1])
        labels = self.translation[self.labels(index, size)]
        target: dict[str, Any] = {
            "labels": torch.from_numpy(labels),
            "image_id": data.image_ids[index],
            "orig_size": size,
        }
        if self.instances:
            own = data.instances_of(index)
            found = instance_map(data, index, size)
            target["instances"] = torch.from_numpy(np.where(found == UNKNOWN, NO_INSTANCE, found))
            target["boxes"] = torch.from_numpy(data.boxes[own]).float()
            labels = self.translation[data.labels[own] + int(has_background(data))]
            target["instance_labels"] = torch.from_numpy(labels).long()
        return tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1).contiguous()), target

    def labels(self, index: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        """(H, W) what is learned from an image of that size: index into the set's classes, or `IGNORE`."""
        return label_map(self.data, index, size)


class RandomView(torch.nn.Module):
    """Scale an image at random, cut a square out of it, and mirror it now and then.

    Boxes are moved along and not cut: what a pixel has to say of its instance does not depend on the square.

    Args:
        config: how.
        fill: (3, 1, 1) float, the color of what lies outside the image.
    """

    def __init__(self, config: ViewConfig, fill: Tensor):
        super().__init__()
        self.config, self.fill = config, fill
        self.jitter = v2.ColorJitter(config.color, config.color, config.color)

    def forward(self, sample: Sample) -> Sample:
        """(uint8 image, target) to (float RGB in [0, 1], target), both of `crop` by `crop` pixels."""
        config, (image, target) = self.config, sample
        height, width = image.shape[-2:]
        low, high = config.scale
        factor = low + (high - low) * float(torch.rand(()))
        factor *= config.long_side / max(height, width) if config.long_side else 1
        size = [max(round(height * factor), 1), max(round(width * factor), 1)]
        image = self.jitter(F.resize(image, size, antialias=True)) / 255
        side = config.crop
        top, left = (int(torch.randint(max(length - side, 0) + 1, ())) for length in size)
        mirrored = float(torch.rand(())) < config.flip

        def cut(values: Tensor, outside: Tensor) -> Tensor:
            inside = values[..., top : top + side, left : left + side]
            square = outside.expand(*values.shape[:-2], side, side).clone()
            square[..., : inside.shape[-2], : inside.shape[-1]] = inside
            return square.flip(-1) if mirrored else square

        seen = dict(target)
        for name, outside in (("labels", IGNORE), ("instances", NO_INSTANCE)):
            if name in target:
                values = F.resize_mask(target[name][None], size)[0]
                seen[name] = cut(values, values.new_tensor(outside))
        if "boxes" in target:
            x, y = size[1] / width, size[0] / height
            boxes = target["boxes"] * torch.tensor([x, y, x, y]) - torch.tensor([left, top, left, top])
            x0, y0, x1, y1 = boxes.unbind(1)
            seen["boxes"] = torch.stack([side - x1, y0, side - x0, y1], 1) if mirrored else boxes
        return tv_tensors.Image(cut(image.as_subclass(Tensor), self.fill)), seen
