"""Checkpoints that survive a kill at any moment, and Ctrl-C that finishes the step."""

from __future__ import annotations

import os
import signal
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


class StopOnSignal(pl.Callback):
    """On Ctrl-C or SIGTERM finish the step, write `last.ckpt` and end; a second Ctrl-C ends at once.

    Args:
        path: the checkpoint to write.
    """

    def __init__(self, path: Path):
        self.path = path
        self.stopped = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen for the signals."""
        self._before = {name: signal.signal(name, self._ask) for name in (signal.SIGINT, signal.SIGTERM)}

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen no more."""
        for name, handler in self._before.items():
            signal.signal(name, handler)

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Write and stop if asked to."""
        if self.stopped:
            trainer.save_checkpoint(self.path)
            trainer.should_stop = True

    def _ask(self, number: int, frame: Any) -> None:
        if self.stopped:
            raise KeyboardInterrupt
        self.stopped = True
