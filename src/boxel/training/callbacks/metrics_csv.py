"""`metrics.csv`, the figures of a run as a table."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger


class MetricsTable(CSVLogger):
    """Lightning's table of figures, which a resumed run goes on with in place of beginning anew.

    Args:
        folder: the run's.
        steps: optimizer steps already done; rows of later ones, lost with the process that wrote them, are dropped.
    """

    def __init__(self, folder: Path, steps: int = 0):
        # Each row is on disk at once, so that a kill costs none that the checkpoint does not.
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
    """Rows logged in the first ``steps`` steps; Lightning numbers them from 0. A row cut short is dropped."""
    if not path.is_file():
        return []
    with open(path, newline="") as file:
        rows = [
            row for row in csv.DictReader(file) if None not in row.values() and row.get("step", "").isdigit()
        ]
    return [{name: value for name, value in row.items() if value} for row in rows if int(row["step"]) < steps]
