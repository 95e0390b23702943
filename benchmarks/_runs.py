"""What the benchmarks share: datasets, trainings that are done once, and measuring times in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import boxel
from boxel.data import Annotations, read


def read_coco(data: Path, name: str) -> Annotations:
    """Read `coco/NAME.json` of the folder of datasets, e.g. `val_masks`."""
    return read(data / "coco" / f"{name}.json", images=data / "coco" / "images")


def jitter_boxes(data: Annotations, amount: float, seed: int = 0) -> Annotations:
    """Make boxes loose: move each side by up to ``amount`` of the box's extent.

    Args:
        data: The dataset.
        amount: Maximum shift as a share of the width (left, right) or the height (top, bottom), in either direction.
        seed: The same seed moves the same boxes alike.

    Returns:
        The dataset with other boxes, clipped to images of known size.
    """
    extent = np.tile(data.boxes[:, 2:] - data.boxes[:, :2], 2)
    shift = np.random.default_rng(seed).uniform(-amount, amount, size=data.boxes.shape)
    boxes = data.boxes + shift * extent
    width, height = data.widths[data.image_index], data.heights[data.image_index]
    known = (width > 0)[:, None]
    limit = np.stack([width, height, width, height], axis=1)
    return replace(data, boxes=np.where(known, boxes.clip(0, np.where(known, limit, np.inf)), boxes))


def row_folder(out: Path, row: str, seed: int) -> Path:
    """Return the folder of a row's run."""
    return out / f"{row.replace(',', '').replace(' ', '_')}_{seed}"


def train_once(method: str, data: Any, out: Path, **settings: Any) -> float | None:
    """Train a run unless it is finished; one that was stopped is resumed.

    Returns:
        Minutes of this training, None if it was finished before.
    """
    if (out / "model.safetensors").exists():
        return None
    began = time.monotonic()
    resume = (out / "checkpoints" / "last.ckpt").exists()
    boxel.train(method, data, out=out, resume=resume, **settings)
    minutes = (time.monotonic() - began) / 60
    print(f"{out.name}: {minutes:.1f} minutes", flush=True)
    return minutes


def take_turns(
    ways: Mapping[str, Callable[[], Any]],
    repeats: int,
    warmup: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Time several ways in turns, so that what else the machine does slows all of them.

    Returns:
        Milliseconds of each way's calls after the first `warmup`.
    """
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(warmup + repeats):
        for name, way in ways.items():
            began = clock()
            way()
            spent[name].append(1000 * (clock() - began))
    return {name: times[warmup:] for name, times in spent.items()}


def medians(spent: Mapping[str, list[float]]) -> dict[str, float]:
    """Return the median of each way."""
    return {name: statistics.median(times) for name, times in spent.items()}
