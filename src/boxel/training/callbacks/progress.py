"""Progress on a terminal as a bar, elsewhere as plain lines; Lightning's remarks about itself kept out of it."""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, ProgressBar, RichProgressBar
from lightning.pytorch.utilities import rank_zero_only

say = rank_zero_only(logging.getLogger("boxel").info)
"""One voice for all processes."""


class PlainProgress(ProgressBar):
    """A line after the first step, and then now and then.

    Args:
        seconds: least time between two lines.
    """

    def __init__(self, seconds: float = 20.0):
        super().__init__()
        self.seconds = seconds

    def disable(self) -> None:
        """Lightning asks this of every process but the first, which alone prints in any case."""

    def enable(self) -> None:
        """The counterpart of `disable`."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin anew."""
        self._began = 0.0

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:  # type: ignore[override]
        """Start the clock with the first step, since much may be done before it."""
        if not self._began:
            self._began = time.monotonic()
            self._last = self._began - self.seconds
            self._first = trainer.global_step

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:  # type: ignore[override]
        """Say how far the run is."""
        now, step, steps = time.monotonic(), trainer.global_step, trainer.max_steps
        if not trainer.is_global_zero or (now - self._last < self.seconds and step < steps):
            return
        self._last = now
        rate = (step - self._first) / max(now - self._began, 1e-9)
        left = (steps - step) / max(rate, 1e-9)
        loss = trainer.callback_metrics.get("loss/total", float("nan"))
        print(
            f"step {step}/{steps}  loss {float(loss):.3f}  {rate:.2f} steps/s  {left / 60:.1f} min left",
            flush=True,
        )


class ValidationLines(Callback):
    """A line for each validation."""

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say what was measured."""
        found = {k[4:]: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
        if trainer.is_global_zero and found:
            print(
                f"step {trainer.global_step}  " + "  ".join(f"{k} {v:.3f}" for k, v in found.items()),
                flush=True,
            )


def progress_callbacks() -> list[Callback]:
    """A rich bar on a terminal, plain lines without one; a line for each validation on both."""
    return [RichProgressBar() if sys.stdout.isatty() else PlainProgress(), ValidationLines()]


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep Lightning's tips, and its warnings about what is meant to be so, off the user's terminal."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\.")
        warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)")
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
