"""`metrics.csv`, the metrics of a run as a table."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from boxel.utils.files import atomic_path


class MetricsTable(pl.Callback):
    """Write the metrics of steps and validations, each row at once.

    Unlike a logger of Lightning's, it writes the row of a step before a later callback writes its checkpoint, so that a
    kill loses no row that the checkpoint does not lose too.

    Args:
        folder: The folder of the run.
        steps: Number of steps that the run has done; rows of later ones, and one that was cut short, are dropped.
    """

    def __init__(self, folder: Path, steps: int = 0):
        self.path = folder / "metrics.csv"
        self.rows = _read_rows(self.path, steps)
        self._columns: list[str] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the rows from before."""
        if trainer.is_global_zero and (self.rows or self.path.exists()):
            self._rewrite()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add a row after every few optimizer steps and after the last one."""
        step = trainer.global_step
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]  # Lightning sets it elsewhere
        is_due = step % every == 0 or step >= trainer.max_steps
        if is_due and (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self._add(trainer, validation=False)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add a row."""
        self._add(trainer, validation=True)

    def _add(self, trainer: pl.Trainer, validation: bool) -> None:
        logged = trainer.callback_metrics.items()
        row = {name: float(value) for name, value in logged if name.startswith("val/") == validation}
        if not row or not trainer.is_global_zero:
            return
        self.rows.append({**row, "step": trainer.global_step - 1})  # steps count from 0
        if not self.rows[-1].keys() <= set(self._columns):
            self._rewrite()
            return
        with open(self.path, "a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self._columns).writerow(self.rows[-1])

    def _rewrite(self) -> None:
        """Write the table with all columns that there are."""
        self._columns = sorted({name for row in self.rows for name in row})
        with atomic_path(self.path) as path, open(path, "w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, self._columns)
            table.writeheader()
            table.writerows(self.rows)


def _read_rows(path: Path, steps: int) -> list[dict[str, Any]]:
    """Read the rows of the first `steps` steps, which count from 0, without one that was cut short."""
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        rows = [
            row for row in csv.DictReader(file) if None not in row.values() and row.get("step", "").isdigit()
        ]
    return [{name: value for name, value in row.items() if value} for row in rows if int(row["step"]) < steps]
