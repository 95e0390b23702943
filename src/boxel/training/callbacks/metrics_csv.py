"""`metrics.csv`, the metrics of a run as a table."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger


class MetricsTable(CSVLogger):
    """Lightning's table of metrics, which a run that has done some `steps` continues, without rows of later ones."""

    def __init__(self, folder: Path, steps: int = 0):
        # Each row is written at once, so that a kill loses no row that the checkpoint does not lose too.
        super().__init__(folder, name="", version="", flush_logs_every_n_steps=1)
        self._rows = _read_rows(folder / "metrics.csv", steps)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """Lightning's writer, with the rows from before."""
        new = self._experiment is None
        writer = super().experiment
        if new:
            writer.metrics += self._rows
            writer.save()
        return writer


def _read_rows(path: Path, steps: int) -> list[dict[str, str]]:
    """Read the rows of the first `steps` steps, which count from 0, without one that was cut short."""
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        rows = [
            row for row in csv.DictReader(file) if None not in row.values() and row.get("step", "").isdigit()
        ]
    return [{name: value for name, value in row.items() if value} for row in rows if int(row["step"]) < steps]
