"""Batches of images of like aspect, and of boxed instances mixed with salient images.

What a sampler yields depends on the seed, the epoch and the rank alone, so that a run can resume within an epoch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from boxel.data.annotations import Annotations
from boxel.data.config import CropConfig
from boxel.masks.boxes import box_iou

SeededIndex: TypeAlias = tuple[int, int]
"""Index of a sample and the seed of its augmentation."""


class AspectBatchSampler(Sampler[list[SeededIndex]]):
    """Batches of images that are all wide or all tall, so that little of a batch is padding.

    Args:
        data: The annotations.
        batch_size: Images per batch.
        seed: Seed of the order and of each sample's augmentation.
        rank: Index of this process.
        processes: Number of processes that share an epoch.
        repeats: (I,) how often each image occurs in an epoch; once if None.

    Examples:
        >>> from boxel.data.samples import sample_images
        >>> data = sample_images()
        >>> batches = AspectBatchSampler(data, batch_size=2)
        >>> sum(map(len, batches)) == len(data)
        True
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
        """Batches per process and epoch."""
        batches = -(-len(self.wide) // self.batch_size)
        return -(-batches // self.processes)

    def __iter__(self) -> Iterator[list[SeededIndex]]:
        """Yield the batches of this epoch; the first ``skip`` of them are skipped, once."""
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(len(self.wide))
        groups = [order[self.wide[order]], order[~self.wide[order]]]
        whole = [group[: len(group) // self.batch_size * self.batch_size] for group in groups]
        rest = np.concatenate([group[len(full) :] for group, full in zip(groups, whole, strict=True)])
        stacked = np.concatenate([*whole, rest])
        batches = [stacked[at : at + self.batch_size] for at in range(0, len(stacked), self.batch_size)]
        seeds = rng.integers(2**31, size=len(self.wide))
        turn = np.resize(rng.permutation(len(batches)), len(self) * self.processes)
        skip, self.skip = self.skip, 0
        for batch in turn[self.rank :: self.processes][skip:]:
            yield [(int(self.images[one]), int(seeds[one])) for one in batches[batch]]


class MixedBatchSampler(Sampler[list[SeededIndex]]):
    """Batches of boxed instances and salient images at a fixed ratio (BoxCaseg, section 4.2.3).

    An epoch is all salient images, with as many boxed instances, drawn for each epoch, as the ratio asks for; without
    salient images it is all boxed instances.

    Args:
        boxed: The boxed dataset.
        salient: Number of salient images, which come after the boxed instances.
        config: Ratio and overlaps.
        batch_size: Crops per batch.
        seed: Seed of the order and of each sample's augmentation.
        rank: Index of this process.
        processes: Number of processes that share an epoch.

    Examples:
        >>> from boxel.data.samples import sample_images
        >>> batches = MixedBatchSampler(sample_images(), 7, CropConfig(), batch_size=16)
        >>> [len(batch) for batch in batches]
        [16]
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
        self.crowded = find_crowded(boxed) if config.overlap_drop else np.zeros(self.boxed, dtype=bool)
        self.config, self.batch_size = config, batch_size
        self.seed, self.rank, self.processes = seed, rank, processes
        self.epoch = 0
        self.skip = 0
        both = bool(first and self.boxed)
        share = second / (first + second) if both else 1.0
        # A batch has both kinds if the ratio has, unless it is of a single crop, which is drawn at random.
        salient_per_batch = min(max(round(batch_size * share), 1), batch_size - both)
        self.salient_per_batch = salient_per_batch if self.salient and not config.random else 0

    def __len__(self) -> int:
        """Batches per process and epoch."""
        if not self.salient_per_batch:
            batches = -(-(self.boxed + self.salient) // self.batch_size)
        else:
            batches = -(-self.salient // self.salient_per_batch)
        return -(-batches // self.processes)

    def __iter__(self) -> Iterator[list[SeededIndex]]:
        """Yield the batches of this epoch; the first ``skip`` of them are skipped, once."""
        rng = np.random.default_rng([self.seed, self.epoch])
        kept = np.flatnonzero(~self.crowded | (rng.random(self.boxed) >= self.config.overlap_drop))
        kept = kept if len(kept) else np.arange(self.boxed)
        salient = self.boxed + np.arange(self.salient)
        batches = len(self) * self.processes
        if not self.salient_per_batch:
            drawn = _draw(np.concatenate([kept, salient]), batches * self.batch_size, rng)
            together = drawn.reshape(batches, self.batch_size)
        else:
            others = self.batch_size - self.salient_per_batch
            drawn = _draw(kept, batches * others, rng).reshape(batches, others)
            images = _draw(salient, batches * self.salient_per_batch, rng).reshape(batches, -1)
            together = np.concatenate([drawn, images], axis=1)
        seeds = rng.integers(2**31, size=together.shape)
        skip, self.skip = self.skip, 0
        for batch, own in list(zip(together, seeds, strict=True))[self.rank :: self.processes][skip:]:
            yield [(int(index), int(seed)) for index, seed in zip(batch, own, strict=True)]


def find_crowded(data: Annotations) -> NDArray[np.bool_]:
    """(N,) bool: the instance's box overlaps another box of its image with an IoU above 0.5."""
    found = np.zeros(len(data.labels), dtype=bool)
    for image in range(len(data)):
        own = data.instances_in(image)
        overlaps = box_iou(data.boxes[own], data.boxes[own])
        np.fill_diagonal(overlaps, 0)
        found[own] = (overlaps > 0.5).any(axis=1)
    return found


def _draw(items: NDArray[Any], count: int, rng: np.random.Generator) -> NDArray[Any]:
    """Draw `count` items; each permutation of them is used up before the next."""
    turns = -(-count // max(len(items), 1))
    return np.concatenate([rng.permutation(items) for _ in range(turns)] or [items])[:count]
