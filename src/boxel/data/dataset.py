"""`Annotations` as a torch data set, and batches of images of like aspect."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from torchvision import tv_tensors

from boxel.data.annotations import Annotations
from boxel.data.images import read_image
from boxel.utils.errors import BoxelError

Sample: TypeAlias = tuple[tv_tensors.Image, dict[str, Any]]
Draw: TypeAlias = tuple[int, int]
"""Index of an image and the seed of its augmentation."""


class ImageDataset(Dataset[Sample]):
    """Samples of a set's images, one an image; what a sample is, a subclass says.

    Args:
        data: the annotations.
        transforms: of the whole sample.
    """

    def __init__(self, data: Annotations, transforms: Callable[[Sample], Sample] | None = None):
        self.data, self.transforms = data, transforms

    def __len__(self) -> int:
        """Number of images."""
        return len(self.data)

    def __getitem__(self, key: int | Draw) -> Sample:
        """One sample; a :data:`Draw` fixes what its augmentation does, whatever happened before.

        An image that can't be read is reported and the next one takes its place.
        """
        index, seed = key if isinstance(key, tuple) else (key, None)
        for _ in range(len(self)):
            try:
                sample = self._read(index)
                break
            except BoxelError as error:
                warnings.warn(f"{error} It is skipped.", stacklevel=2)
                index = (index + 1) % len(self)
        else:
            raise BoxelError(f"{self.data.file}: none of its {len(self)} images can be read; check --images.")
        if self.transforms is None:
            return sample
        with torch.random.fork_rng(devices=[], enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            return self.transforms(sample)

    def _read(self, index: int) -> Sample:
        """The sample of an image before any transform.

        Raises:
            BoxelError: the image can't be used.
        """
        raise NotImplementedError


class InstanceDataset(ImageDataset):
    """Images with boxes and, where there are any, masks, in torchvision's detection convention.

    A sample is ``(image, target)``: `image` (3, H, W), `target` with `boxes` (N, 4) xyxy, `labels` (N,), `iscrowd`
    (N,) bool, `has_mask` (N,) bool, `quality` (N,) float32 in [0, 1], NaN where unknown, `image_id`, `orig_size`, the
    image's height and width before any transform, and, if any instance of the image has a mask, `masks` (N, H, W)
    uint8.

    Args:
        data: the annotations.
        transforms: torchvision v2 transforms of the whole sample.
        hints: give masks that are not trusted too; `has_mask` is False for them.
    """

    def __init__(
        self,
        data: Annotations,
        transforms: Callable[[Sample], Sample] | None = None,
        hints: bool = False,
    ):
        sound = data.has_box
        if not sound.all():
            first = int(np.flatnonzero(~sound)[0])
            warnings.warn(
                f"{data.file}: {int((~sound).sum())} boxes are empty or not finite and are left out, "
                f"the first of annotation {data.ids[first]}; `boxel check` lists them.",
                stacklevel=2,
            )
        super().__init__(data.select_instances(sound), transforms)
        self.has_mask = self.data.has_mask
        self.shown = self.data.has_segmentation if hints else self.has_mask
        self._warned_of_size = False

    def _read(self, index: int) -> Sample:
        data = self.data
        pixels = read_image(data.image_path(index))
        size = (pixels.shape[0], pixels.shape[1])
        said = (int(data.heights[index]), int(data.widths[index]))
        if all(said) and said != size and not self._warned_of_size:
            self._warned_of_size = True
            warnings.warn(
                f"{data.image_path(index)}: the image is {size[1]} x {size[0]} pixels, not {said[1]} x {said[0]} as "
                f"{data.file} says, so its boxes may lie elsewhere; `boxel check` lists all such images.",
                stacklevel=2,
            )
        own = data.instances_of(index)
        masks, has_mask = self._masks(own, size)
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
        return tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1).contiguous()), target

    def _masks(self, own: np.ndarray, size: tuple[int, int]) -> tuple[Tensor | None, Tensor]:
        has_mask = torch.from_numpy(self.has_mask[own])
        if not self.shown[own].any():
            return None, has_mask
        masks = torch.zeros((len(own), *size), dtype=torch.uint8)
        for row, instance in enumerate(own):
            if self.shown[instance]:
                try:
                    masks[row] = torch.from_numpy(self.data.mask(int(instance), size))
                except BoxelError as error:
                    warnings.warn(f"{error} Its box is still used.", stacklevel=2)
                    has_mask[row] = False
        return masks, has_mask


class AspectBatchSampler(Sampler[list[Draw]]):
    """Batches of images that are all wide or all tall, so that little of a batch is padding.

    What it yields depends on the seed, the epoch and the process alone, so a run can go on in mid-epoch.

    Args:
        data: the annotations.
        batch_size: images a batch.
        seed: of the order and of each sample's augmentation.
        rank: this process.
        processes: how many share the epoch.
        repeats: (I,) how often each image comes in an epoch; once where None.
    """

    def __init__(
        self,
        data: Annotations,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        processes: int = 1,
        repeats: NDArray[np.integer] | None = None,
    ):
        self.images = np.arange(len(data)) if repeats is None else np.repeat(np.arange(len(data)), repeats)
        self.wide = (data.widths >= data.heights)[self.images]
        self.batch_size, self.seed, self.rank, self.processes = batch_size, seed, rank, processes
        self.epoch = 0
        self.skip = 0

    def __len__(self) -> int:
        """Batches a process sees in an epoch."""
        batches = -(-len(self.wide) // self.batch_size)
        return -(-batches // self.processes)

    def __iter__(self) -> Iterator[list[Draw]]:
        """Yield this epoch's batches; the first ``skip`` of them are left out, once."""
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(len(self.wide))
        groups = [order[self.wide[order]], order[~self.wide[order]]]
        whole = [group[: len(group) // self.batch_size * self.batch_size] for group in groups]
        rest = np.concatenate([group[len(full) :] for group, full in zip(groups, whole, strict=True)])
        stacked = np.concatenate([*whole, rest])
        batches = [stacked[at : at + self.batch_size] for at in range(0, len(stacked), self.batch_size)]
        seeds = rng.integers(2**31, size=len(self.wide))
        turn = np.resize(rng.permutation(len(batches)), len(self) * self.processes)[
            self.rank :: self.processes
        ]
        skip, self.skip = self.skip, 0
        for batch in turn[skip:]:
            yield [(int(self.images[one]), int(seeds[one])) for one in batches[batch]]


def collate(samples: list[Sample]) -> tuple[list[Tensor], list[dict[str, Any]]]:
    """A batch, as torchvision's detectors take it.

    Args:
        samples: (image, target) each.

    Returns:
        B images (3, H, W) of any sizes, and their targets.
    """
    images, targets = zip(*samples, strict=True)
    return [image.as_subclass(Tensor) for image in images], list(targets)
