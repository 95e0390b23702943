"""What a job would take: measured on a sample of its images, `boxel label --plan`."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from boxel.data.formats.box_table import BoxTable, write_table
from boxel.distributed.plan import Shard
from boxel.distributed.worker import ShardWorker, Task
from boxel.utils.device import resolve_device
from boxel.utils.errors import BoxelError

_IMAGES = 32
_STAGES = {
    "fetching": "fetching the images: keep them near the machines that label",
    "labeling": "decoding images and predicting masks: more cores, or a GPU",
    "writing": "writing the masks: a faster disk, or larger shards",
}


@dataclass(frozen=True)
class Estimate:
    """What a sample of a job has taken, on one core or GPU.

    Attributes:
        boxes: Number of boxes of the sample.
        images: Number of its images.
        seconds: Seconds of the sample by stage: ``fetching``, ``labeling`` and ``writing``.
        image_bytes: Bytes of its image files.
        mask_bytes: Bytes of its rows in a shard.
        all_boxes: Number of boxes of the table.
        on_gpu: Whether a GPU labeled.

    Examples:
        >>> seconds = {"fetching": 1.0, "labeling": 8.0, "writing": 1.0}
        >>> print(Estimate(100, 20, seconds, 4_000_000, 50_000, 100).describe(16, 1_000_000, 0.05))
        measured: 100 boxes in 20 images, 100.0 ms each on one core (fetching 10.0, labeling 80.0, writing 10.0)
        1,000,000 boxes in some 200,000 images on 16 cores: 1.74 hours, 27.8 core hours, 1.39 at 0.05 each
        storage: 40 GB of images are read, 500 MB of masks are written
        bottleneck: decoding images and predicting masks: more cores, or a GPU
    """

    boxes: int
    images: int
    seconds: dict[str, float]
    image_bytes: int
    mask_bytes: int
    all_boxes: int
    on_gpu: bool = False

    def describe(self, workers: int = 1, boxes: int | None = None, price: float | None = None) -> str:
        """State time, cost, storage and the bottleneck of a job.

        Args:
            workers: Number of cores or GPUs.
            boxes: Number of boxes; None for those of the table.
            price: Of a core or GPU per hour, in any currency.
        """
        count, unit = self.all_boxes if boxes is None else boxes, "GPU" if self.on_gpu else "core"
        each = {stage: seconds / self.boxes for stage, seconds in self.seconds.items()}
        hours = sum(each.values()) * count / 3600
        stages = ", ".join(f"{stage} {1000 * seconds:.1f}" for stage, seconds in each.items())
        machines = f"{workers} {unit}{'s' * (workers != 1)}"
        cost = f", {hours * price:,.2f} at {price:g} each" if price is not None else ""
        share = count / self.boxes
        read, written = _bytes(self.image_bytes * share), _bytes(self.mask_bytes * share)
        return "\n".join(
            [
                f"measured: {self.boxes:,} boxes in {self.images:,} images, {1000 * sum(each.values()):.1f} ms each on "
                f"one {unit} ({stages})",
                f"{count:,} boxes in some {round(self.images * share):,} images on {machines}: "
                f"{_hours(hours / workers)} hours, {_hours(hours)} {unit} hours{cost}",
                f"storage: {read} of images are read, {written} of masks are written",
                f"bottleneck: {_STAGES[max(each, key=lambda stage: each[stage])]}",
            ]
        )


def measure_sample(task: Task, runs: NDArray[np.int64]) -> Estimate:
    """Label a few images from all parts of a table, and measure what that takes on one core or GPU.

    Args:
        task: What a worker needs.
        runs: (R + 1,) numbers of the first row of each image, and of all rows.

    Raises:
        BoxelError: There are no boxes.
    """
    with tempfile.TemporaryDirectory(prefix="boxel-") as out:
        worker = ShardWorker(replace(task, out=out, config=replace(task.config, workers=1), threads=1))
        if len(runs) < 2:
            raise BoxelError(f"{task.boxes}: there are no boxes in it; check that it is the right file.")
        places = np.unique(np.linspace(0, len(runs) - 2, _IMAGES).astype(int)).tolist()
        shards = [Shard(k, int(runs[place]), int(runs[place + 1])) for k, place in enumerate(places)]
        worker(shards[0])  # the first time networks and libraries are loaded
        results = [worker(shard) for shard in shards]
        together = Path(out, "together")
        write_table(BoxTable(out).read(), together, task.header)
        written = together.stat().st_size
    return Estimate(
        boxes=sum(shard.rows for shard in shards),
        images=len(shards),
        seconds={stage: sum(result.seconds[stage] for result in results) for stage in _STAGES},
        image_bytes=sum(result.image_bytes for result in results),
        mask_bytes=written,
        all_boxes=int(runs[-1]),
        on_gpu=resolve_device(task.config.device).startswith("cuda"),
    )


def _hours(count: float) -> str:
    return f"{count:,.0f}" if count >= 100 else f"{count:.3g}"


def _bytes(count: float) -> str:
    """Write a number of bytes for people."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:.3g} {unit}"
        count /= 1000
    raise AssertionError
