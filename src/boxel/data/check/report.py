"""Faults as JSON and as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from boxel.data.faults import Fault


def faults_as_json(faults: Sequence[Fault]) -> list[dict[str, Any]]:
    """Faults as plain dictionaries with the attributes of `Fault`, ready for `json.dumps`."""
    return [_plain(asdict(fault)) for fault in faults]


def summary(faults: Sequence[Fault], examples: int = 3) -> list[str]:
    """Lines of text: how many faults there are, then each kind with its number, first examples and repair.

    Args:
        faults: what `check` or `repair` gave.
        examples: messages printed of each kind.
    """
    if not faults:
        return ["no fault found"]
    kinds: dict[str, list[Fault]] = {}
    for fault in faults:
        kinds.setdefault(fault.kind, []).append(fault)
    lines = [f"{_count(len(faults), 'fault')} of {_count(len(kinds), 'kind')}"]
    for kind, members in sorted(kinds.items(), key=lambda item: -len(item[1])):
        mended = sum(bool(fault.repair) for fault in members)
        lines += ["", f"{kind}: {len(members)} ({mended} that --repair mends)"]
        for fault in members[:examples]:
            lines.append(f"  {fault.message}" + (f" [{fault.repair}]" if fault.repair else ""))
        if len(members) > examples:
            lines.append(f"  ... and {len(members) - examples} more; --json lists them all")
    return lines


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _plain(value: Any) -> Any:
    """The value without NumPy types, and with the names of numbers that JSON can't write."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float | bool | None) else str(value)
