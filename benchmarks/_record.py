"""The one way in which a benchmark writes its results: `benchmarks/results/<topic>.json`.

A file holds named tables. Each states the command, commit, machine, date and seeds that it comes from; a cell is a
number, a text, or the spread over seeds (:func:`spread`). `python benchmarks/tables.py` makes Markdown of them.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import shlex
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results"
MAX_DIGITS = 3


def arguments(description: str | None, data: bool = False) -> argparse.ArgumentParser:
    """Return a parser that shows the script's docstring; with `--data`, the folder that data.md describes."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if data:
        default = os.environ.get("BOXEL_DATA")
        parser.add_argument(
            "--data",
            type=Path,
            default=default and Path(default),
            required=default is None,
            help="folder of the datasets, see benchmarks/data.md (default: $BOXEL_DATA)",
        )
    return parser


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Return a cell: mean and standard deviation over seeds, and the values."""
    values = [float(value) for value in values]
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "std": deviation, "values": values}


class Table:
    """Rows that are printed as they come and written to the topic's file at the end.

    Args:
        topic: Name of the file in `benchmarks/results`.
        name: Name of the table in it; a table of this name is replaced.
        columns: Header, without the first column.
        first: Header of the first column.
        title: Heading above the table.
        note: What the reader must know: conditions, and what the numbers mean.
    """

    def __init__(
        self, topic: str, name: str, columns: Sequence[str], first: str = "", title: str = "", note: str = ""
    ) -> None:
        self.topic, self.name = topic, name
        self.content: dict[str, Any] = {
            "title": title,
            "note": note,
            "columns": [first, *columns],
            "rows": [],
        }
        print(heading(self.content["columns"]), flush=True)

    def add(self, label: str, *cells: Any) -> None:
        """Print a row and keep it."""
        row = [label, *(rounded(cell.item() if hasattr(cell, "item") else cell) for cell in cells)]
        self.content["rows"].append(row)
        print(markdown_row(row), flush=True)

    def write(self, seeds: Sequence[int] = (), whole: str = "") -> None:
        """Add the table to the topic's file, with where it comes from.

        Args:
            seeds: The seeds of its rows.
            whole: The command that makes all of it, if it grows in parts; by default the one that is running.
        """
        file = RESULTS / f"{self.topic}.json"
        topic = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"title": self.topic}
        origin = {
            "command": whole or command(),
            "commit": commit(),
            "date": f"{datetime.date.today():%Y-%m-%d}",
        }
        old = topic.setdefault("tables", {}).get(self.name, {})
        content = {key: value or old.get(key, value) for key, value in self.content.items()}
        topic["tables"][self.name] = content | origin | {"machine": machine(), "seeds": list(seeds)}
        file.write_text(dumps(topic), encoding="utf-8")


def dumps(topic: dict[str, Any]) -> str:
    """Return a topic as JSON with one row of a table per line."""
    rows: list[str] = []

    def mark(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: mark(item) for key, item in value.items()}
        if isinstance(value, list):
            rows.append(json.dumps(value, ensure_ascii=False))
            return (
                [mark(row) for row in value] if value and isinstance(value[0], list) else f"@{len(rows) - 1}@"
            )
        return value

    text = json.dumps(mark(topic), indent=1, ensure_ascii=False)
    return re.sub(r'"@(\d+)@"', lambda match: rows[int(match[1])], text) + "\n"


def command() -> str:
    """Return the command that is running, without the folders that it was given to work in."""
    words = ["python", Path(sys.argv[0]).resolve().relative_to(REPO).as_posix()]
    given = iter(sys.argv[1:])
    for word in given:
        if word in ("--data", "--file", "--folder"):
            next(given)
        elif word == "--out":
            folder = next(given)
            words += [] if Path(folder).is_absolute() else [word, folder]
        else:
            words.append(word)
    return shlex.join(words)


def commit() -> str:
    """Return the commit of the working tree, with a `+` if there are changes."""

    def git(*args: str) -> str:
        done = subprocess.run(["git", *args], cwd=REPO, capture_output=True, text=True)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--", "src", "benchmarks/*.py")
    return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")


def machine() -> str:
    """Describe the machine in a few words."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].partition(":")[2].strip() if lines else model
    return f"{os.cpu_count()} cores of {model}, Python {platform.python_version()}, {platform.system()}"


def rounded(cell: Any) -> Any:
    """Return a cell with its floats at three significant digits or more; shares keep four decimals, also above 1."""
    if isinstance(cell, dict):
        return {key: rounded(value) for key, value in cell.items()}
    if isinstance(cell, list):
        return [rounded(value) for value in cell]
    return round(cell, 4 if abs(cell) < 2 else 2) if isinstance(cell, float) else cell


def heading(columns: Sequence[str]) -> str:
    """Return the first two lines of a Markdown table."""
    return f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}"


def markdown_row(row: Sequence[Any], digits: Sequence[int] | None = None) -> str:
    """Return a row as Markdown.

    Args:
        row: Texts, numbers and spreads.
        digits: Decimals of each column; by the size of each number if None.
    """
    return f"| {' | '.join(markdown_cell(row[k], digits and digits[k]) for k in range(len(row)))} |"


def markdown_cell(cell: Any, digits: int | None = None) -> str:
    """Return a cell as Markdown; a spread as "mean (standard deviation)"."""
    if isinstance(cell, dict):
        mean = markdown_cell(cell["mean"], digits)
        return mean if cell.get("std") is None else f"{mean} ({cell['std']:.{MAX_DIGITS}f})"
    if cell is None or cell != cell:
        return ""
    if isinstance(cell, float):
        if digits is None:
            digits = MAX_DIGITS if abs(cell) < 2 else 1 if abs(cell) < 100 else 0
        return f"{cell:.{digits}f}"
    return f"{cell:,}" if isinstance(cell, int) else str(cell)
