"""The training samples of a run, as one stream of batches that can be resumed at any batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeAlias

import torch
from torch.utils.data import DataLoader, Sampler

from boxel.data.crops import CropDataset
from boxel.data.dataset import ImageDataset, collate
from boxel.data.samplers import AspectBatchSampler, MixedBatchSampler, SeededIndex
from boxel.utils.errors import BoxelError

BatchSampler: TypeAlias = AspectBatchSampler | MixedBatchSampler


@dataclass(frozen=True)
class Samples:
    """The samples of a run."""

    dataset: ImageDataset | CropDataset
    batches: Callable[[int, int], BatchSampler]  # of an epoch, from the rank and the number of processes
    per_epoch: int  # number of samples, over all processes
    unit: str  # what a sample is, in the plural


class Stream(Sampler[list[SeededIndex]]):
    """The first `length` batches of a sampler of one epoch, epoch after epoch."""

    def __init__(self, batches: BatchSampler, length: int):
        self.batches, self.length = batches, length
        self.start = 0

    def __len__(self) -> int:
        """Return the number of batches, including those before `start`."""
        return self.length

    def __iter__(self) -> Iterator[list[SeededIndex]]:
        """Yield the batches from `start` on."""
        position = self.start
        while position < self.length:
            self.batches.epoch, self.batches.skip = divmod(position, len(self.batches))
            for batch in islice(self.batches, self.length - position):
                yield batch
                position += 1


class ResumableLoader(DataLoader):
    """A data loader whose position in the stream is part of Lightning's checkpoints.

    torchdata's StatefulDataLoader stores the state of its workers; here samples depend on the seed, the epoch and the
    batch alone, so that a position is enough, on any number of workers.
    """

    def __init__(self, dataset: ImageDataset | CropDataset, stream: Stream, workers: int):
        super().__init__(
            dataset,
            batch_sampler=stream,
            num_workers=workers,
            collate_fn=collate,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            multiprocessing_context="spawn" if workers > 0 else None,
        )
        self.samples, self.stream = dataset, stream
        self.seen = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Yield the batches and count them, since workers read ahead."""
        self.seen = self.stream.start
        for batch in super().__iter__():
            self.seen += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Return the number of batches yielded so far, and of samples in the dataset."""
        return {"seen": self.seen, "images": len(self.samples)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after the batches already seen, if the dataset has as many samples as it had then."""
        if state["images"] != len(self.samples):
            raise BoxelError(
                f"{self.samples.data.file}: {len(self.samples)} samples to learn from, but the run started with "
                f"{state['images']}; resume on the same data, or start a new run from its weights with `init`."
            )
        self.stream.start = state["seen"]
