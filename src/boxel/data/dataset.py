"""`Annotations` as PyTorch datasets: instances in torchvision's detection convention, and the class of each pixel."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors

from boxel.data.annotations import Annotations, Category
from boxel.data.images import read_image
from boxel.data.label_maps import (
    NO_INSTANCE,
    UNKNOWN,
    build_class_lookup,
    has_background,
    make_instance_map,
    make_label_map,
    pixel_classes,
)
from boxel.data.samplers import SeededIndex
from boxel.utils.errors import BoxelError

logger = logging.getLogger(__name__)

Sample: TypeAlias = tuple[tv_tensors.Image, dict[str, Any]]
SampleT = TypeVar("SampleT")


class SkippingDataset(Dataset[SampleT]):
    """Base class of datasets in which the next sample replaces one that cannot be read."""

    def __init__(self, data: Annotations):
        self.data = data
        self._warned: set[str] = set()

    def first_readable(self, read: Callable[[int], SampleT], index: int) -> SampleT:
        """Read the sample at an index, or the next one that can be read; a `BoxelError` if none can."""
        count = len(self)  # type: ignore[arg-type]
        for step in range(count):
            try:
                return read((index + step) % count)
            except BoxelError as error:
                self.warn_once(f"{error} It is skipped.")
        raise BoxelError(f"{self.data.file}: none of its images can be read; check `images`.")

    def warn_once(self, message: str) -> None:
        """Log a warning unless this dataset has logged it before; epochs would repeat it."""
        if message not in self._warned:
            self._warned.add(message)
            logger.warning("%s", message)


class ImageDataset(SkippingDataset[Sample]):
    """One sample per image; subclasses define the sample.

    An image that cannot be read is logged, and the next one takes its place.

    Args:
        data: The annotations.
        transforms: Transforms of the whole sample.
    """

    def __init__(self, data: Annotations, transforms: Callable[[Sample], Sample] | None = None):
        super().__init__(data)
        self.transforms = transforms

    def __len__(self) -> int:
        """Number of images."""
        return len(self.data)

    def __getitem__(self, key: int | SeededIndex) -> Sample:
        """Return the sample of an image; the seed of a `SeededIndex` fixes its augmentation."""
        index, seed = key if isinstance(key, tuple) else (key, None)
        sample = self.first_readable(self._read, index)
        if self.transforms is None:
            return sample
        with torch.random.fork_rng(devices=[], enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            return self.transforms(sample)

    def _read(self, index: int) -> Sample:
        """Return the sample of an image before any transform, or raise a `BoxelError` if it cannot be used."""
        raise NotImplementedError


class InstanceDataset(ImageDataset):
    """Images with boxes and, if there are any, masks, in torchvision's detection convention.

    A sample is ``(image, target)``: `image` (3, H, W); `target` with `boxes` (N, 4) xyxy, `labels` (N,), `iscrowd`
    (N,) bool, `has_mask` (N,) bool, `quality` (N,) float32 in [0, 1] or NaN if unknown, `image_id`, `orig_size` (height
    and width of the image, or of a part that was cut out, before resizing) and, if any instance has a mask, `masks`
    (N, H, W) uint8.

    Args:
        data: The annotations. Instances whose box is empty or not finite are left out.
        transforms: torchvision v2 transforms of the whole sample.
        include_untrusted: Include masks that are not trusted too, with `has_mask` False.

    Examples:
        >>> from boxel.data.samples import sample_images
        >>> image, target = InstanceDataset(sample_images())[0]
        >>> image.shape[0], target["boxes"].shape[1]
        (3, 4)
    """

    def __init__(
        self,
        data: Annotations,
        transforms: Callable[[Sample], Sample] | None = None,
        include_untrusted: bool = False,
    ):
        usable = data.has_box
        if not usable.all():
            first = int(np.flatnonzero(~usable)[0])
            logger.warning(
                "%s: %d boxes are empty or not finite and are left out, the first of annotation %s; `boxel check` "
                "lists them.",
                *(data.file, int((~usable).sum()), data.ids[first]),
            )
        super().__init__(data.select_instances(usable), transforms)
        self.has_mask = self.data.has_mask
        self.included = self.data.has_segmentation if include_untrusted else self.has_mask
        self._warned_of_size = False

    def _read(self, index: int) -> Sample:
        data = self.data
        pixels = read_image(data.image_path(index))
        size = (pixels.shape[0], pixels.shape[1])
        self._check_size(index, size)
        own = data.instances_in(index)
        masks, has_mask = self._read_masks(own, size)
        target: dict[str, Any] = {
            "boxes": tv_tensors.BoundingBoxes(  # type: ignore[call-overload]
                torch.from_numpy(data.boxes[own]).float(), format="XYXY", canvas_size=size
            ),
            "labels": torch.from_numpy(data.labels[own]).long(),
            "iscrowd": torch.from_numpy(data.iscrowd[own]),
            "has_mask": has_mask,
            "quality": torch.from_numpy(data.quality[own]),
            "image_id": data.image_ids[index],
            "orig_size": size,
        }
        if masks is not None:
            target["masks"] = tv_tensors.Mask(masks)
        return _to_tensor(pixels), target

    def _check_size(self, index: int, size: tuple[int, int]) -> None:
        data = self.data
        recorded = (int(data.heights[index]), int(data.widths[index]))
        if all(recorded) and recorded != size and not self._warned_of_size:
            self._warned_of_size = True
            logger.warning(
                "%s: the image is %d x %d pixels, not %d x %d as %s states, so its boxes may be misplaced; `boxel "
                "check` lists all such images.",
                *(data.image_path(index), *size[::-1], *recorded[::-1], data.file),
            )

    def _read_masks(self, own: NDArray[np.int64], size: tuple[int, int]) -> tuple[Tensor | None, Tensor]:
        has_mask = torch.from_numpy(self.has_mask[own])
        if not self.included[own].any():
            return None, has_mask
        masks = torch.zeros((len(own), *size), dtype=torch.uint8)
        for row, instance in enumerate(own):
            if self.included[instance]:
                try:
                    masks[row] = torch.from_numpy(self.data.mask(int(instance), size))
                except BoxelError as error:
                    self.warn_once(f"{error} Its box is still used.")
                    has_mask[row] = False
        return masks, has_mask


class SemanticDataset(ImageDataset):
    """Images with the class of each pixel.

    A sample is ``(image, target)``: `image` (3, H, W); `target` with `labels` (H, W) uint8, `IGNORE_INDEX` if unknown,
    `image_id`, and `orig_size`, height and width of the image before any transform. With `instances` also `instances`
    (H, W) int16, the instance of each pixel or -1, `boxes` (N, 4) xyxy of the instances, which may extend past the
    image, and `instance_labels` (N,), their classes.

    Args:
        data: The annotations.
        transforms: Transforms of the whole sample.
        classes: The classes that `labels` index; if None, those of the dataset itself.
        instances: Include instances too.

    Examples:
        >>> from boxel.data.samples import sample_images
        >>> image, target = SemanticDataset(sample_images())[0]
        >>> image.shape[1:] == target["labels"].shape
        True
    """

    def __init__(
        self,
        data: Annotations,
        transforms: Callable[[Sample], Sample] | None = None,
        classes: Sequence[Category] | None = None,
        instances: bool = False,
    ):
        super().__init__(data, transforms)
        self.lookup = build_class_lookup(data, pixel_classes(data) if classes is None else classes)
        self.instances = instances

    def _read(self, index: int) -> Sample:
        data = self.data
        pixels = read_image(data.image_path(index))
        size = (pixels.shape[0], pixels.shape[1])
        target: dict[str, Any] = {
            "labels": torch.from_numpy(self.lookup[self.labels(index, size)]),
            "image_id": data.image_ids[index],
            "orig_size": size,
        }
        if self.instances:
            own = data.instances_in(index)
            found = make_instance_map(data, index, size)
            target["instances"] = torch.from_numpy(np.where(found == UNKNOWN, NO_INSTANCE, found))
            target["boxes"] = torch.from_numpy(data.boxes[own]).float()
            labels = self.lookup[data.labels[own] + int(has_background(data))]
            target["instance_labels"] = torch.from_numpy(labels).long()
        return _to_tensor(pixels), target

    def labels(self, index: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Return the (H, W) target of an image: indices into the dataset's own classes, or `IGNORE_INDEX`."""
        return make_label_map(self.data, index, size)


def collate(samples: list[Sample]) -> tuple[list[Tensor], list[dict[str, Any]]]:
    """Collate samples into a batch for torchvision's detectors.

    Args:
        samples: B pairs of image and target.

    Returns:
        B images (3, H, W) of any sizes, and their targets.

    Examples:
        >>> from boxel.data.samples import sample_images
        >>> dataset = InstanceDataset(sample_images())
        >>> images, targets = collate([dataset[0], dataset[1]])
        >>> len(images), len(targets)
        (2, 2)
    """
    images, targets = zip(*samples, strict=True)
    return [image.as_subclass(Tensor) for image in images], list(targets)


def _to_tensor(pixels: NDArray[np.uint8]) -> tv_tensors.Image:
    return tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1).contiguous())
