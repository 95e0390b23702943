"""The report of a comparison: one HTML file on what differs between runs on the same images."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from boxel.viz.curves import Curve, group_curves
from boxel.viz.names import describe_measure
from boxel.viz.report.charts import make_chart
from boxel.viz.report.render import Section, write_page
from boxel.viz.report.training import TrainingRecord

_SCORES = {"detections": "F1", "masks": "mean mask IoU", "pixels": "mean IoU"}
_LEFT_OUT = ("date", "command", "versions", "boxel")  # of what is compared; they differ between any two runs


def write_comparison_report(
    comparison: Mapping[str, Any],
    cards: Sequence[Mapping[str, Any]],
    per_class: tuple[str, Mapping[str, Sequence[float | None]]],
    runs: Sequence[TrainingRecord | None],
    samples: int,
    path: str | os.PathLike[str],
    truth: str,
) -> None:
    """Write a page on a comparison: metrics, classes, curves, images and settings that differ.

    Args:
        comparison: The attributes of :class:`boxel.evaluation.compare.Comparison`.
        cards: The images that differ most, with their `pictures`.
        per_class: What is compared by class, and its values by class.
        runs: The training of each of what is compared; None for what has none.
        samples: Number of samples of the intervals.
        path: The file to write.
        truth: What all were compared with.

    Raises:
        BoxelError: The file cannot be written.
    """
    names, metrics = comparison["names"], comparison["metrics"]
    known = {name: run for name, run in zip(names, runs, strict=True) if run is not None}
    charts, notes = _chart_runs(known)
    shown = {
        "Numbers": "numbers",
        "Classes": "classes" if len(per_class[1]) > 1 else "",
        "Curves": "curves" if charts else "",
        "Images that differ": "images" if cards else "",
        "Settings that differ": "settings" if len(known) > 1 else "",
    }
    context = {
        "runs": names,
        "image_count": comparison["images"],
        "truth": Path(truth).name or truth,
        "samples": samples,
        "table": {key: [{"difference": None, **row} for row in rows] for key, rows in metrics.items()},
        "by_class_title": per_class[0],
        "by_class": list(per_class[1].items()),
        "charts": charts,
        "curve_notes": notes,
        "cards": cards,
        "score_name": _SCORES[comparison["kind"]],
        "marked": comparison["kind"] == "detections",
        "differing": _find_differences(names, runs) if len(known) > 1 else {},
    }
    first = next(iter(metrics))
    tiles: dict[str, object] = {"images": comparison["images"]}
    tiles |= {f"{row['run']}, {describe_measure(first).name}": row["value"] for row in metrics[first]}
    sections = [Section(heading, "compare.html.j2", macro) for heading, macro in shown.items() if macro]
    lead = ["All shares lie between 0 and 1.", *comparison["notes"]]
    write_page(path, "Comparison", " and ".join(names), sections, tiles, context, lead)


def _chart_runs(runs: Mapping[str, TrainingRecord]) -> tuple[list[dict[str, Any]], list[str]]:
    """Return a chart per measure with a line per run: validations, the losses that all have, and rates."""
    columns: dict[str, dict[str, Curve]] = {}
    for group in ("validation", "losses", "learning rate"):
        for name, run in runs.items():
            for key, curve in group_curves(run.curves)[group].items():
                columns.setdefault(key, dict.fromkeys(runs, ([], [])))[name] = curve
    charts = [make_chart(describe_measure(key).name, lines, "step") for key, lines in columns.items()]
    sets = {str(run.record.get("validation")) + run.data.get("input: val", "") for run in runs.values()}
    notes = []
    if any(key.startswith("val/") for key in columns) and len(sets) > 1:
        notes.append(
            "The runs were not validated on the same images, so compare the curves of validation with care."
        )
    return charts, notes


def _find_differences(names: Sequence[str], runs: Sequence[TrainingRecord | None]) -> dict[str, list[str]]:
    """Return the settings and inputs that are not the same in all runs, each with its values in order."""
    tables = [{} if run is None else {**run.data, **run.settings} for run in runs]
    keys = [key for key in dict.fromkeys(key for table in tables for key in table) if key not in _LEFT_OUT]
    rows = {key: [table.get(key, "\N{EN DASH}") for table in tables] for key in keys}
    return {key: values for key, values in rows.items() if len(set(values)) > 1}
