"""What the benchmarks share: datasets, trainings that are done once, and measuring times in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import boxel
from boxel.data import Annotations, read


def read_coco(data: Path, name: str) -> Annotations:
    """Read `coco/NAME.json` of the folder of datasets, e.g. `val_masks`."""
    return read(data / "coco" / f"{name}.json", images=data / "coco" / "images")


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
