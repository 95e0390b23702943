"""Checkpoints that survive a kill at any moment, and Ctrl-C that finishes the step."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.plugins.io import TorchCheckpointIO

from boxel.utils.files import atomic_path


class AtomicCheckpoints(TorchCheckpointIO):
    """Write checkpoints completely or not at all, so that a kill leaves the one before.

    Lightning writes through fsspec, which moves a temporary file of the system's temporary folder into place. Across
    file systems that is a copy, and not atomic.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Save under a temporary name, then rename."""
        with atomic_path(path) as temporary:
            super().save_checkpoint(checkpoint, temporary, storage_options)


class Stopped(Exception):
    """The run was interrupted and has written its checkpoint."""


class StoppedAtOnce(BaseException):
    """The run was interrupted again before it could write its checkpoint.

    Lightning would end the process on a `KeyboardInterrupt`; an `Exception` might be handled where an image is read.
    """


class LastCheckpoint(pl.callbacks.Checkpoint):
    """Write a checkpoint every few optimizer steps, at the end, and when Ctrl-C or SIGTERM interrupts the run.

    A checkpoint lies between two optimizer steps, after the validation if one is due, so that a run resumed from it
    repeats nothing and skips nothing. A second Ctrl-C ends the run at once.
    """

    def __init__(self, path: Path, every: int):
        self.path, self.every = path, every
        self._interrupted = self._stopping = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen for the signals; Lightning restores the handlers afterward."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, self._interrupt)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Stop here, when the metrics of the step before are logged."""
        if self._stopping:
            raise Stopped

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write after the last batch of a step, unless a validation comes first."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        # A signal may reach one process a step before the others.
        self._stopping = trainer.strategy.reduce_boolean_decision(self._interrupted, all=False)
        if trainer.global_step >= trainer.max_steps:
            trainer.should_stop = True  # makes Lightning validate the last weights, whatever the interval
        interval = trainer.val_check_batch or 1
        validates = trainer.should_stop or (batch_idx + 1) % interval == 0
        if not (trainer.enable_validation and validates):
            self._write(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write after a validation."""
        self._write(trainer)

    def _write(self, trainer: pl.Trainer) -> None:
        if self._stopping or trainer.should_stop or trainer.global_step % self.every == 0:
            trainer.save_checkpoint(self.path)

    def _interrupt(self, number: int, frame: Any) -> None:
        if self._interrupted:
            raise StoppedAtOnce
        self._interrupted = True
