"""The progress of a long job: a bar on a terminal or in a notebook, elsewhere an occasional line."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TimeRemainingColumn
from rich.text import Text

logger = logging.getLogger(__name__)

MIN_INTERVAL = 20.0
"""Minimum seconds between two lines."""


@contextmanager
def progress(total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """Show the progress of a job with its rate and the time left; without a terminal or a notebook, log it.

    If the job is interrupted, the `KeyboardInterrupt` states how much of it was done.

    Args:
        total: Number of units of work.
        unit: Their name in the plural.

    Yields:
        A function to call with the number of units done since its last call.

    Examples:
        >>> with progress(3, "images") as advance:
        ...     for _ in range(3):
        ...         advance(1)
    """
    done = 0
    with _shown(total, unit) as show:

        def advance(count: int) -> None:
            nonlocal done
            done += count
            show(count)

        try:
            yield advance
        except KeyboardInterrupt as stop:
            stop.args = stop.args or (f" after {done:,} of {total:,} {unit}",)
            raise


@contextmanager
def _shown(total: int, unit: str) -> Iterator[Callable[[int], None]]:
    console = Console(stderr=True)
    if console.is_terminal or (console.is_jupyter and find_spec("ipywidgets")):
        columns = BarColumn(), MofNCompleteColumn(), _Rate(unit), TimeRemainingColumn()
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("", total=total)
            yield lambda done: bar.advance(task, done)
    else:
        yield _log_lines(total, unit)


class _Rate(ProgressColumn):
    """Units per second."""

    def __init__(self, unit: str):
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        return Text(_describe_rate(task.speed or 0, f" {self._unit}/s"))


def _log_lines(total: int, unit: str) -> Callable[[int], None]:
    started = last = time.monotonic()
    done = 0

    def advance(count: int) -> None:
        nonlocal done, last
        done += count
        now = time.monotonic()
        if now - last < MIN_INTERVAL:
            return
        last = now
        rate = done / (now - started)
        left = describe_time_left((total - done) / rate)
        logger.info(f"{done:,} of {total:,} {unit}, {_describe_rate(rate, ' per second')}, {left}")

    return advance


def _describe_rate(rate: float, per_second: str) -> str:
    """Return units per second, or seconds per unit if they are slower than one per second."""
    return f"{1 / rate:.1f} s each" if 0 < rate < 0.95 else f"{rate:.1f}{per_second}"


def describe_time_left(seconds: float) -> str:
    """Return how long a job will still take, in the unit that suits it.

    Examples:
        >>> describe_time_left(41.7)
        '42 s left'
        >>> describe_time_left(330), describe_time_left(10_800)
        ('5.5 min left', '3.0 h left')
    """
    if round(seconds) < 60:
        return f"{seconds:.0f} s left"
    minutes = seconds / 60
    return f"{minutes:.1f} min left" if minutes < 119.95 else f"{minutes / 60:.1f} h left"
