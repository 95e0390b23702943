"""What a run folder holds of its training: settings, inputs, curves and sample pictures, and the page on it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from boxel.utils.errors import BoxelError
from boxel.utils.safe_yaml import parse_yaml
from boxel.viz.curves import group_curves, read_curves
from boxel.viz.names import describe_measure
from boxel.viz.report.charts import make_chart
from boxel.viz.report.render import Section, embed_file, format_setting, write_page


@dataclass(frozen=True)
class TrainingRecord:
    """A training, as its folder has it.

    Attributes:
        folder: The run folder.
        settings: Settings by their path, e.g. `optim.lr`.
        data: What it was trained on and with, in words.
        record: `run.json`; empty if it is missing.
        metrics: The metrics of the weights that were kept, by the names of `metrics.json`.
        curves: Steps and values by column of `metrics.csv`.
        sample: The last sample picture as an address, and its step.
    """

    folder: Path
    settings: dict[str, str]
    data: dict[str, str]
    record: dict[str, Any]
    metrics: dict[str, float]
    curves: dict[str, tuple[list[float], list[float]]]
    sample: str = ""
    sample_step: int = 0

    @property
    def sections(self) -> list[Section]:
        """The sections on the training."""
        shown = {
            "Training": "curves",
            "Samples": "samples" if self.sample else "",
            "Data": "data",
            "Settings": "settings",
        }
        return [Section(heading, "training.html.j2", macro) for heading, macro in shown.items() if macro]

    @property
    def charts(self) -> list[dict[str, Any]]:
        """The curves, a chart per kind."""
        return [
            make_chart(title, {describe_measure(key).name: curve for key, curve in curves.items()}, "step")
            for title, curves in group_curves(self.curves).items()
            if curves
        ]


def read_training(folder: str | os.PathLike[str]) -> TrainingRecord | None:
    """Read what a run folder holds of its training; None if it is not the folder of a run."""
    folder = Path(folder)
    settings = _load(folder / "config.yaml", parse_yaml)
    if not isinstance(settings, dict):
        return None
    record = _load(folder / "run.json", json.loads)
    record = record if isinstance(record, dict) else {}
    metrics = _load(folder / "metrics.json", json.loads)
    metrics = metrics if isinstance(metrics, dict) else {}
    try:
        curves = read_curves(folder / "metrics.csv")
    except BoxelError:
        curves = {}
    samples = sorted(folder.glob("samples/step_*.jpg"))
    sample = embed_file(samples[-1].read_bytes(), "jpeg") if samples else ""
    step = int("".join(filter(str.isdigit, samples[-1].stem)) or 0) if samples else 0
    flat = {path: format_setting(value) for path, value in _flatten(settings)}
    return TrainingRecord(folder, flat, _describe(record), record, metrics, curves, sample, step)


def write_training_report(folder: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Write a page on a training that was not evaluated.

    Raises:
        BoxelError: It is not a run folder, or the file cannot be written.
    """
    run = read_training(folder)
    if run is None:
        raise BoxelError(f"{folder}: this is not the folder of a run, which has a config.yaml.")
    tiles = {"method": run.settings.get("method", ""), "steps": run.metrics.get("step")}
    name = run.folder.resolve().name
    lead = ["There were no validation images that could be measured, so the page has no metrics."]
    write_page(path, "Training", name, run.sections, tiles, {"run": run}, lead)


def _load(path: Path, parse: Any) -> Any:
    """Return what a file holds, None if it is missing or damaged."""
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return None


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name, value in settings.items():
        rows += (
            _flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else [(f"{prefix}{name}", value)]
        )
    return rows


def _describe(record: Mapping[str, Any]) -> dict[str, str]:
    """Describe what a run was trained on and with."""
    rows = {}
    for name in ("training", "validation"):
        if isinstance(counts := record.get(name), dict):
            rows[f"{name} data"] = ", ".join(
                f"{value:,} {key}" if isinstance(value, int) else f"{value} {key}"
                for key, value in counts.items()
            )
    inputs = record.get("inputs")
    for name, source in inputs.items() if isinstance(inputs, dict) else ():
        rows[f"input: {name}"] = str(source.get("path", source)) if isinstance(source, dict) else str(source)
    for name in ("recipe", "seed", "device", "date", "command", "boxel"):
        if record.get(name) is not None:
            rows[name] = str(record[name])
    versions = record.get("versions")
    if isinstance(versions, dict):
        rows["versions"] = ", ".join(f"{name} {version}" for name, version in versions.items())
    return rows
