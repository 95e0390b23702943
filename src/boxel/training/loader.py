"""One endless stream of batches that can be taken up again at any batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import DataLoader, Sampler

from boxel.data.annotations import Annotations
from boxel.data.crops import CropDataset
from boxel.data.dataset import ImageDataset, collate
from boxel.data.samplers import AspectBatchSampler, MixedBatchSampler, SeededIndex
from boxel.utils.errors import BoxelError

BatchSampler = AspectBatchSampler | MixedBatchSampler


class Samples(NamedTuple):
    """What a run learns from.

    Attributes:
        dataset: the samples.
        batches: the batches of an epoch for a process, given its rank and the number of processes.
        per_epoch: samples of an epoch in all.
        unit: what a sample is called.
    """

    dataset: ImageDataset | CropDataset
    batches: Callable[[int, int], BatchSampler]
    per_epoch: int
    unit: str


def shared_out(data: Annotations, processes: int, rank: int) -> Annotations:
    """A process's share of the images; all shares are of one length, so some images may be in two."""
    shared = np.resize(np.arange(len(data)), -(-len(data) // processes) * processes)
    return data.select_images(shared[rank::processes])


class Stream(Sampler[list[SeededIndex]]):
    """A fixed number of batches, epoch after epoch.

    Args:
        batches: the sampler of one epoch.
        length: batches in all.
    """

    def __init__(self, batches: BatchSampler, length: int):
        self.batches, self.length = batches, length
        self.start = 0

    def __len__(self) -> int:
        """Batches in all, those already seen among them."""
        return self.length

    def __iter__(self) -> Iterator[list[SeededIndex]]:
        """Yield the batches from `start` on."""
        at = self.start
        while at < self.length:
            self.batches.epoch, self.batches.skip = divmod(at, len(self.batches))
            for batch in self.batches:
                if at == self.length:
                    return
                yield batch
                at += 1


class ResumableLoader(DataLoader):
    """A data loader whose place in the stream is part of Lightning's checkpoints."""

    def __init__(self, dataset: ImageDataset | CropDataset, stream: Stream, workers: int):
        super().__init__(
            dataset,
            batch_sampler=stream,
            num_workers=workers,
            collate_fn=collate,
            persistent_workers=workers > 0,
            multiprocessing_context="spawn" if workers > 0 else None,
        )
        self.samples, self.stream = dataset, stream
        self.seen = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Count what is handed out; workers read ahead."""
        self.seen = self.stream.start
        for batch in super().__iter__():
            self.seen += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Batches handed out so far, and of how many samples."""
        return {"seen": self.seen, "images": len(self.samples)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the batches already seen.

        Raises:
            BoxelError: the data set has another number of images than it had then.
        """
        if state["images"] != len(self.samples):
            raise BoxelError(
                f"{self.samples.data.file}: {len(self.samples)} samples to learn from, but the run began with "
                f"{state['images']}; resume on the same data, or start anew from its weights with --init."
            )
        self.stream.start = state["seen"]
