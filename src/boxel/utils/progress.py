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
        return Text(f"{task.speed or 0:.1f} {self._unit}/s")


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
        minutes = (total - done) / rate / 60
        logger.info(f"{done:,} of {total:,} {unit}, {rate:.1f} per second, {minutes:.1f} min left")

    return advance
