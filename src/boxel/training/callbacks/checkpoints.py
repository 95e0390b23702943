"""Checkpoints that survive a kill at any moment, and Ctrl-C that finishes the step."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.plugins.io import TorchCheckpointIO


class AtomicCheckpoints(TorchCheckpointIO):
    """Write beside the target and rename, so that a kill in mid-write leaves the checkpoint before."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Save under a temporary name, then put it in place."""
        partial = f"{path}.partial"
        super().save_checkpoint(checkpoint, partial, storage_options)
        os.replace(partial, path)


class Stopped(Exception):
    """The run was asked to stop and has written its checkpoint."""


class LastCheckpoint(pl.callbacks.Checkpoint):
    """Write `last.ckpt` every so many steps, at the end, and where Ctrl-C or SIGTERM asks the run to stop.

    A checkpoint lies between two optimizer steps, after the validation where one is due, so that a run resumed
    from it repeats nothing and leaves nothing out. A second Ctrl-C ends at once.

    Args:
        path: the checkpoint to write.
        every: optimizer steps from one to the next.
    """

    def __init__(self, path: Path, every: int):
        self.path, self.every = path, every
        self._asked = self._stopping = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen for the signals; Lightning puts the handlers from before back when it is done."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, self._ask)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Stop here, where the figures of the step before are logged too."""
        if self._stopping:
            raise Stopped

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write after the last batch of a step, unless a validation comes first."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        # A signal may reach one process a step before the others.
        self._stopping = trainer.strategy.reduce_boolean_decision(self._asked, all=False)
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

    def _ask(self, number: int, frame: Any) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
