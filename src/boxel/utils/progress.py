"""Progress of something long: a bar with rate and time left on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TimeRemainingColumn
from rich.text import Text

SECONDS = 20.0
"""Least time between two lines."""


@contextmanager
def progress(total: int, unit: str, report: Callable[[str], None] = print) -> Iterator[Callable[[int], None]]:
    """Show how far something is.

    Args:
        total: units to be done.
        unit: their name, in the plural.
        report: is told of the progress where standard output is no terminal.

    Yields:
        A function to be told how many units were done since it was called last.
    """
    if sys.stdout.isatty():
        with Progress(BarColumn(), MofNCompleteColumn(), _Rate(unit), TimeRemainingColumn()) as bar:
            task = bar.add_task("", total=total)
            yield lambda done: bar.advance(task, done)
    else:
        yield _lines(total, unit, report)


class _Rate(ProgressColumn):
    """Units a second."""

    def __init__(self, unit: str):
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:.1f} {self._unit}/s")


def _lines(total: int, unit: str, report: Callable[[str], None]) -> Callable[[int], None]:
    began = last = time.monotonic()
    done = 0

    def advance(count: int) -> None:
        nonlocal done, last
        done += count
        now = time.monotonic()
        if now - last < SECONDS:
            return
        last = now
        rate = done / (now - began)
        report(
            f"{done:,} of {total:,} {unit}, {rate:.1f} a second, {(total - done) / rate / 60:.1f} min left"
        )

    return advance
