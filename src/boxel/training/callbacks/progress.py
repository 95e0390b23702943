"""Progress of a run: a bar on a terminal, log lines elsewhere, and none of Lightning's remarks about itself."""

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

from boxel.utils.progress import describe_time_left

logger = logging.getLogger(__name__)


class ProgressLines(ProgressBar):
    """Log a line after the first step, at the end, and in between if some `seconds` have passed since the last one."""

    def __init__(self, seconds: float = 20.0):
        super().__init__()
        self.seconds = seconds
        self._start = self._last = 0.0
        self._first = 0

    def disable(self) -> None:
        """Do nothing: Lightning asks this of all processes but the first, which alone logs anyway."""

    def enable(self) -> None:
        """Do nothing, as in `disable`."""

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:  # type: ignore[override]
        """Start the clock at the first step, since much may be done before it."""
        if not self._start:
            self._start = time.monotonic()
            self._last = self._start - self.seconds
            self._first = trainer.global_step

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:  # type: ignore[override]
        """Log the progress if it is time."""
        now, step, steps = time.monotonic(), trainer.global_step, trainer.max_steps
        if not trainer.is_global_zero or (now - self._last < self.seconds and step < steps):
            return
        self._last = now
        rate = (step - self._first) / max(now - self._start, 1e-9)
        left = describe_time_left((steps - step) / max(rate, 1e-9))
        loss = float(trainer.callback_metrics.get("loss/total", float("nan")))
        logger.info("step %d/%d  loss %.3f  %.2f steps/s  %s", step, steps, loss, rate, left)


class ValidationLines(Callback):
    """Log a line per validation."""

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the metrics."""
        metrics = {k[4:]: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
        if trainer.is_global_zero and metrics:
            words = "  ".join(f"{name} {value:.3f}" for name, value in metrics.items())
            logger.info("step %d  %s", trainer.global_step, words)


def progress_callbacks() -> list[Callback]:
    """Return a bar on a terminal or else log lines, and a log line per validation."""
    return [RichProgressBar() if sys.stdout.isatty() else ProgressLines(), ValidationLines()]


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Suppress Lightning's tips, and its warnings about what is intended."""
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
