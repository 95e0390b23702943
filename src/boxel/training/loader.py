"""One endless stream of batches that can be taken up again at any batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader, Sampler

from boxel.data.dataset import AspectBatchSampler, Draw, InstanceDataset, collate
from boxel.errors import BoxelError


class Stream(Sampler[list[Draw]]):
    """A fixed number of batches, epoch after epoch.

    Args:
        batches: the sampler of one epoch.
        length: batches in all.
    """

    def __init__(self, batches: AspectBatchSampler, length: int):
        self.batches, self.length = batches, length
        self.start = 0

    def __len__(self) -> int:
        """Batches in all, those already seen among them."""
        return self.length

    def __iter__(self) -> Iterator[list[Draw]]:
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

    def __init__(self, dataset: InstanceDataset, stream: Stream, workers: int):
        super().__init__(
            dataset,
            batch_sampler=stream,
            num_workers=workers,
            collate_fn=collate,
            persistent_workers=workers > 0,
            multiprocessing_context="spawn" if workers > 0 else None,
        )
        self.images, self.stream = dataset, stream
        self.seen = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Count what is handed out; workers read ahead."""
        self.seen = self.stream.start
        for batch in super().__iter__():
            self.seen += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Batches handed out so far, and of how many images."""
        return {"seen": self.seen, "images": len(self.images)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the batches already seen.

        Raises:
            BoxelError: the data set has another number of images than it had then.
        """
        if state["images"] != len(self.images):
            raise BoxelError(
                f"{self.images.data.file}: {len(self.images)} images to learn from, but the run began with "
                f"{state['images']}; resume on the same data, or start anew from its weights with --init."
            )
        self.stream.start = state["seen"]
