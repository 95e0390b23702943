"""Instances as crops about their boxes: the data set and the mixed batches of a box-to-mask model."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from torchvision.ops import box_iou
from torchvision.transforms import v2

from boxel.data.annotations import Annotations
from boxel.data.config import CropConfig
from boxel.data.images import read_image
from boxel.masks.crops import crop, crop_spans, crop_window
from boxel.utils.errors import BoxelError

SALIENT_SHARE = 0.9
"""Share of a salient image's width and height that a crop of it shows: 288 of 320 pixels (section 3.2.2)."""

Pick: TypeAlias = tuple[int, int]
"""Index of an instance among those of all sets, and the seed of its augmentation."""


class CropDataset(Dataset[tuple[Tensor, dict[str, Any]]]):
    """Crops of the instances of two sets, boxed images and salient ones, in the order of the sets.

    A sample is ``(crop, target)``: `crop` (3, S, S) float RGB in [0, 1]; `target` with `rows` and `columns` (S,) bool,
    those of the crop in the box, `mask` (S, S) float32 in [0, 1], the mask, a hint or nothing, `has_mask` bool, whether
    it is a mask that may be learned from, and `image_id`.

    Args:
        boxed: instances with boxes and, perhaps, masks or hints; crowds must be left out.
        salient: one instance an image, with its mask; or None.
        config: windows and augmentation.
        margin: of ground about a box that the network sees when it is asked for a mask.
        fill: color of what is outside an image, RGB in 0..255.
    """

    def __init__(
        self,
        boxed: Annotations,
        salient: Annotations | None,
        config: CropConfig,
        margin: float = 0.0,
        fill: Sequence[int] = (124, 116, 104),
    ):
        self.sets = [boxed] if salient is None else [boxed, salient]
        self.has_mask = [data.has_mask for data in self.sets]
        self.config, self.margin, self.fill = config, margin, fill
        strength = config.color
        self.colors = v2.ColorJitter(strength, strength, strength) if strength else torch.nn.Identity()

    @property
    def data(self) -> Annotations:
        """The boxed set, named in messages."""
        return self.sets[0]

    def __len__(self) -> int:
        """Number of instances in all."""
        return sum(len(data.labels) for data in self.sets)

    def __getitem__(self, key: Pick) -> tuple[Tensor, dict[str, Any]]:
        """One sample; an instance whose image can't be read is reported and the next one takes its place."""
        index, seed = key
        for _ in range(len(self)):
            try:
                return self._sample(index, seed)
            except BoxelError as error:
                warnings.warn(f"{error} It is skipped.", stacklevel=2)
                index = (index + 1) % len(self)
        raise BoxelError(f"{self.data.file}: none of its images can be read; check --images.")

    def _sample(self, index: int, seed: int) -> tuple[Tensor, dict[str, Any]]:
        which = int(index >= len(self.sets[0].labels))
        data, instance = self.sets[which], index - which * len(self.sets[0].labels)
        config, rng = self.config, np.random.default_rng(seed)
        image_index = int(data.image_index[instance])
        image = read_image(data.image_path(image_index))
        size = image.shape[:2]
        box, has_mask = data.boxes[instance], bool(self.has_mask[which][instance])
        window = (
            _part_of_image(size, SALIENT_SHARE, rng)
            if which and config.salient == "image"
            else _moved(crop_window(box, self.margin), box, config, rng)
        )
        if config.clip:
            window = _clipped(window, size)
        if has_mask and config.box_noise:
            box = box + rng.normal(0, config.box_noise, 4) * np.tile(box[2:] - box[:2], 2)

        pixels = crop(image, window, config.side, self.fill)
        rows, columns = crop_spans(box, window, config.side)
        mask = data.mask(instance, size)
        mask = (
            np.zeros((config.side, config.side), dtype=np.float32)
            if mask is None
            else crop(mask.astype(np.float32), window, config.side)
        )
        if rng.random() < config.flip:
            pixels, mask, columns = pixels[:, ::-1], mask[:, ::-1], columns[::-1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            shown = self.colors(torch.from_numpy(pixels.transpose(2, 0, 1).copy()))
        target = {
            "rows": torch.from_numpy(rows),
            "columns": torch.from_numpy(columns.copy()),
            "mask": torch.from_numpy(mask.copy()),
            "has_mask": has_mask,
            "image_id": data.image_ids[image_index],
        }
        return shown.float() / 255, target


class MixedBatchSampler(Sampler[list[Pick]]):
    """Batches of boxed instances and salient images at a fixed ratio (BoxCaseg, section 4.2.3).

    An epoch is all salient images, with as many boxed instances, drawn anew, as the ratio asks for; without salient
    images it is all boxed instances. What it yields depends on the seed, the epoch and the process alone.

    Args:
        boxed: the boxed set.
        salient: number of salient images, which come after the boxed instances.
        config: ratio and overlaps.
        batch_size: crops a batch.
        seed: of the order and of each sample's augmentation.
        rank: this process.
        processes: how many share the epoch.
    """

    def __init__(
        self,
        boxed: Annotations,
        salient: int,
        config: CropConfig,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        processes: int = 1,
    ):
        first, second = config.salient_ratio
        self.boxed, self.salient = len(boxed.labels), salient if second or config.random else 0
        self.crowded = crowded(boxed) if config.overlap_drop else np.zeros(self.boxed, dtype=bool)
        self.config, self.batch_size = config, batch_size
        self.seed, self.rank, self.processes = seed, rank, processes
        self.epoch = 0
        self.skip = 0
        both = bool(first and self.boxed)
        share = second / (first + second) if both else 1.0
        # Where the ratio has both, so has a batch; one of a single crop is drawn at random.
        of_salient = min(max(round(batch_size * share), 1), batch_size - both)
        self.of_salient = of_salient if self.salient and not config.random else 0

    def __len__(self) -> int:
        """Batches a process sees in an epoch."""
        if not self.of_salient:
            batches = -(-(self.boxed + self.salient) // self.batch_size)
        else:
            batches = -(-self.salient // self.of_salient)
        return -(-batches // self.processes)

    def __iter__(self) -> Iterator[list[Pick]]:
        """Yield this epoch's batches; the first ``skip`` of them are left out, once."""
        rng = np.random.default_rng([self.seed, self.epoch])
        kept = np.flatnonzero(~self.crowded | (rng.random(self.boxed) >= self.config.overlap_drop))
        kept = kept if len(kept) else np.arange(self.boxed)
        salient = self.boxed + np.arange(self.salient)
        batches = len(self) * self.processes
        if not self.of_salient:
            drawn = _endless(np.concatenate([kept, salient]), batches * self.batch_size, rng)
            together = drawn.reshape(batches, self.batch_size)
        else:
            others = self.batch_size - self.of_salient
            together = np.concatenate(
                [
                    _endless(kept, batches * others, rng).reshape(batches, others),
                    _endless(salient, batches * self.of_salient, rng).reshape(batches, self.of_salient),
                ],
                axis=1,
            )
        seeds = rng.integers(2**31, size=together.shape)
        skip, self.skip = self.skip, 0
        for batch, own in list(zip(together, seeds, strict=True))[self.rank :: self.processes][skip:]:
            yield [(int(index), int(seed)) for index, seed in zip(batch, own, strict=True)]


def crowded(data: Annotations, iou: float = 0.5) -> NDArray[np.bool_]:
    """Which instances' boxes overlap another box of their image.

    Args:
        data: the set.
        iou: overlap above which they do.

    Returns:
        (N,) bool.
    """
    found = np.zeros(len(data.labels), dtype=bool)
    for image in range(len(data)):
        own = data.instances_of(image)
        boxes = torch.from_numpy(data.boxes[own])
        overlaps = box_iou(boxes, boxes).fill_diagonal_(0)
        found[own] = (overlaps > iou).any(1).numpy()
    return found


def _endless(items: NDArray[Any], count: int, rng: np.random.Generator) -> NDArray[Any]:
    """`count` items, each permutation of them used up before the next."""
    turns = -(-count // max(len(items), 1))
    return np.concatenate([rng.permutation(items) for _ in range(turns)] or [items])[:count]


def _moved(
    window: NDArray[np.float64], box: NDArray[np.float64], config: CropConfig, rng: np.random.Generator
) -> NDArray[np.float64]:
    """A window moved and scaled at random (section 3.2.2)."""
    extent = box[2:] - box[:2]
    center = (window[:2] + window[2:]) / 2 + rng.uniform(-config.shift, config.shift, 2) * extent
    half = (window[2:] - window[:2]) / 2 * rng.uniform(*config.scale, 2)
    return np.concatenate([center - half, center + half])


def _part_of_image(size: tuple[int, int], share: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """A window of a share of the image's width and height, somewhere in it."""
    extent = np.array([size[1], size[0]]) * share
    corner = rng.uniform(0, 1, 2) * (np.array([size[1], size[0]]) - extent)
    return np.concatenate([corner, corner + extent])


def _clipped(window: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """The part of a window inside the image; the whole of it where that is thinner than a pixel."""
    height, width = size
    inside = window.clip(0, [width, height, width, height])
    return inside if (inside[2:] - inside[:2]).min() >= 1 else window
