"""Read the curves of a training from its `metrics.csv`."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Mapping
from typing import Any, TypeAlias

from boxel.utils.errors import BoxelError, one_line

Curve: TypeAlias = tuple[list[float], list[float]]
"""Steps and values."""


def read_curves(path: str | os.PathLike[str]) -> dict[str, Curve]:
    """Read each column except the counters as a curve, without cells that are empty or not finite."""
    curves: dict[str, Curve] = {}
    try:
        with open(path, newline="", encoding="utf-8") as file:
            for number, row in enumerate(csv.DictReader(file)):
                step = _parse_number(row.get("step"))
                for name, cell in row.items():
                    value = None if name in (None, "step", "epoch") else _parse_number(cell)
                    if value is not None:
                        steps, values = curves.setdefault(name, ([], []))
                        steps.append(1 + (number if step is None else step))  # as the log counts
                        values.append(value)
    except (OSError, UnicodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else one_line(error)
        raise BoxelError(f"{path}: cannot be read ({reason}); name a run's metrics.csv.") from error
    return curves


def group_curves(curves: Mapping[str, Curve]) -> dict[str, dict[str, Curve]]:
    """Return the curves by what they show; losses that were always 0 and weights of losses are left out."""
    groups: dict[str, dict[str, Curve]] = {"losses": {}, "validation": {}, "learning rate": {}}
    for name, curve in curves.items():
        is_rate = name.startswith("lr")
        group = "losses" if "loss" in name else "learning rate" if is_rate else "validation"
        if not name.startswith("weight/") and (group != "losses" or any(curve[1])):
            groups[group][name] = curve
    return groups


def _parse_number(cell: Any) -> float | None:
    try:
        value = float(cell)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None
