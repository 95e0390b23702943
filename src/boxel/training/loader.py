"""The training samples of a run, as one stream of batches that can be resumed at any batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from torch.utils.data import DataLoader, Sampler

from boxel.data.annotations import Annotations
from boxel.data.crops import CropDataset
from boxel.data.dataset import ImageDataset, collate
from boxel.data.samplers import AspectBatchSampler, MixedBatchSampler, SeededIndex
from boxel.training.prepare import TrainingData
from boxel.utils.errors import BoxelError

BatchSampler: TypeAlias = AspectBatchSampler | MixedBatchSampler


@dataclass(frozen=True)
class SampleRequest:
    """What the samples of a run are made from.

    Attributes:
        data: The datasets.
        settings: The settings of the run.
        out: The run folder.
        model: The model to be trained.
    """

    data: TrainingData
    settings: Any
    out: Path
    model: Any


@dataclass(frozen=True)
class Samples:
    """The samples of a run.

    Attributes:
        dataset: The samples.
        batches: Returns the batches of an epoch for a process, given its rank and the number of processes.
        per_epoch: Number of samples per epoch, over all processes.
        unit: What a sample is, in the plural.
    """

    dataset: ImageDataset | CropDataset
    batches: Callable[[int, int], BatchSampler]
    per_epoch: int
    unit: str


def shard_for_rank(data: Annotations, processes: int, rank: int) -> Annotations:
    """Return a process's share of the images; shares have one length, so that some images may be in two."""
    padded = np.resize(np.arange(len(data)), -(-len(data) // processes) * processes)
    return data.select_images(padded[rank::processes])


class Stream(Sampler[list[SeededIndex]]):
    """A fixed number of batches, epoch after epoch.

    Args:
        batches: The sampler of one epoch.
        length: The number of batches.
    """

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
            for batch in self.batches:
                if position == self.length:
                    return
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
        """Continue after the batches already seen.

        Raises:
            BoxelError: The dataset has another number of samples than it had then.
        """
        if state["images"] != len(self.samples):
            raise BoxelError(
                f"{self.samples.data.file}: {len(self.samples)} samples to learn from, but the run started with "
                f"{state['images']}; resume on the same data, or start a new run from its weights with `init`."
            )
        self.stream.start = state["seen"]
