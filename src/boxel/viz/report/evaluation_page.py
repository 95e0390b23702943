"""The report of an evaluation: one HTML file on what detections, masks or label maps get right and wrong."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from boxel.viz.names import describe_measure
from boxel.viz.report.charts import make_chart, make_histogram
from boxel.viz.report.render import Section, write_page
from boxel.viz.report.training import TrainingRecord

_MAX_CLASSES = 20  # of the confusion matrix and of the curves
_MASKS = ("mask_iou", "mask_iou_by_class", "IoU@50", "IoU@75")
_QUALITY = ("spearman", "calibration_error", "gain")


def write_evaluation_report(
    kind: str,
    metrics: Mapping[str, Any],
    cards: Sequence[Mapping[str, Any]],
    path: str | os.PathLike[str],
    names: tuple[str, str] = ("results", "the ground truth"),
    more: Mapping[str, Any] | None = None,
    run: TrainingRecord | None = None,
) -> None:
    """Write a page on an evaluation: its metrics, what is behind them, and the worst images or masks.

    The file is self-contained: nothing of it is fetched.

    Args:
        kind: What was evaluated: `detections`, `masks` of given boxes, or `pixels`.
        metrics: Those of :func:`boxel.evaluation.evaluate`, None for what is undefined; of detections with `analysis`.
        cards: The worst images or masks, with their `pictures` by what they show, or why there are none.
        path: The file to write.
        names: What was evaluated, and what it was compared with.
        more: What else the sections show: the meaning of `errors`; `ious` and `bins` of masks; `confusion` of pixels.
        run: The training of the model.

    Raises:
        BoxelError: The file cannot be written.
    """
    collect = {"detections": _collect_detections, "masks": _collect_masks, "pixels": _collect_pixels}[kind]
    sections, tiles, context = collect(metrics, more or {})
    template = f"{kind}.html.j2"
    shown = [Section(heading, template, macro) for heading, macro in sections.items()]
    if run is not None:
        shown += run.sections
        context["run"] = run
    name, truth = (Path(name).name or name for name in names)
    lead = [f"Compared with {truth}. All shares lie between 0 and 1."]
    if kind == "detections":
        analysis = metrics["analysis"]
        lead.append(
            f"If not stated otherwise, a detection is correct if its {analysis['compared']} has an IoU of at least "
            f"{analysis['iou']} with an object of its class that no detection of a higher score has found."
        )
    write_page(path, "Evaluation", name, shown, tiles, {"m": metrics, "cards": cards, **context}, lead)


_Parts = tuple[dict[str, str], dict[str, object], dict[str, Any]]


def _collect_detections(metrics: Mapping[str, Any], more: Mapping[str, Any]) -> _Parts:
    """Return the sections by heading, the numbers at the top, and what the sections show."""
    analysis, masks = metrics["analysis"], "mask" in metrics
    # Classes without instances come last.
    classes = sorted(
        analysis["per_class"].items(), key=lambda item: (item[1]["AP50"] is None, item[1]["AP50"] or 0)
    )
    common = sorted(
        (item for item in classes if item[1]["instances"]), key=lambda item: -item[1]["instances"]
    )
    rows = metrics[analysis["compared"]]["per_class"]
    kinds = ("mask", "boundary", "box")
    measures = {f"{kind}_AP": metrics[kind]["AP"] for kind in kinds if kind in metrics}
    measures |= {f"{kind}_AP50": metrics[kind]["AP50"] for kind in ("mask", "box") if kind in metrics}
    if masks:
        measures["mask_iou"] = metrics["mask_iou"]["mask_iou"]
    measures |= {
        key: analysis[key] for key in ("threshold", "f1", "precision", "recall", "calibration_error")
    }
    sections = {
        "Numbers": "numbers",
        "Classes": "classes",
        **({"Masks": "masks"} if masks else {}),
        "Curves": "curves",
        "Confusion": "confusions",
        "Errors": "mistakes",
        "Calibration": "calibration",
        "Worst images": "worst",
    }
    tiles = {"images": metrics["images"], "objects": metrics["instances"], "detections": metrics["results"]}
    tiles |= {f"{kind} AP": metrics[kind]["AP"] for kind in ("mask", "box") if kind in metrics}
    tiles["best F1"] = analysis["f1"]
    context = {
        "a": analysis,
        "measures": measures,
        "by_class": [(name, {**row, "AP": rows[name]}) for name, row in classes],
        "curve": _chart_precision(analysis["curve"]),
        "class_curves": [
            (name, row["AP50"], _chart_precision(row["curve"])) for name, row in common[:_MAX_CLASSES]
        ],
        "confusion": _shorten_confusion(**analysis["confusion"], extra="background"),
        "errors": more["errors"],
        "errors_of_boxes": {kind: text for kind, text in more["errors"].items() if kind != "mask"},
    }
    return sections, tiles, context


def _chart_precision(curve: Sequence[float]) -> dict[str, Any]:
    recalls = np.linspace(0, 1, len(curve)).tolist()
    return make_chart("precision", {"precision": (recalls, curve)}, "recall", (0, 1))


def _collect_masks(metrics: Mapping[str, Any], more: Mapping[str, Any]) -> _Parts:
    masks, ious = metrics["masks"], more["ious"]
    shared = [key for key in (*_MASKS, *_QUALITY) if any(key in row for row in metrics.values())]
    measures = {key: masks[key] for key in (*_MASKS, *_QUALITY, "mae", "max_f") if key in masks}
    sections = {"Numbers": "numbers", "Classes and sizes": "breakdown", "IoU": "distribution"}
    sections |= {"Quality": "quality"} if "calibration_error" in masks else {}
    tiles: dict[str, object] = {"boxes": int(masks["instances"])}
    tiles |= {describe_measure(key).name: masks[key] for key in (*_MASKS, "spearman") if key in masks}
    context = {
        "measures": measures,
        "shared": shared,
        "shared_names": [describe_measure(key).name for key in shared],
        "histogram": make_histogram(ious),
        "bins": more["bins"],
    }
    # A row may lack what the others have.
    context["m"] = {name: {**dict.fromkeys(shared), **row} for name, row in metrics.items()}
    return sections | {"Worst masks": "worst"}, tiles, context


def _collect_pixels(metrics: Mapping[str, Any], more: Mapping[str, Any]) -> _Parts:
    measures = {key: metrics[key] for key in ("mean_iou", "pixel_accuracy", "mean_class_accuracy")}
    classes = sorted(
        metrics["classes"].items(), key=lambda item: (item[1]["iou"] is None, item[1]["iou"] or 0)
    )
    sections = {"Numbers": "numbers", "Classes": "classes", "Confusion": "confusions"}
    context = {
        "measures": measures,
        "by_class": classes,
        "confusion": _shorten_confusion([*metrics["classes"]], more["confusion"], shares=True),
    }
    if "trimap" in metrics:
        sections["Outlines"] = "outlines"
        widths = metrics["trimap"]["width"]
        lines = {name: (widths, metrics["trimap"][name]) for name in ("boundary", "interior")}
        context["trimap"] = make_chart("mean IoU", lines, "width of the band (pixels)", (0, 1))
    tiles: dict[str, object] = {"images": metrics["images"], "classes": len(classes)}
    tiles |= {describe_measure(key).name: value for key, value in measures.items()}
    return sections | {"Worst images": "worst"}, tiles, context


def _shorten_confusion(
    classes: Sequence[str], counts: Sequence[Sequence[int]], extra: str = "", shares: bool = False
) -> dict[str, Any]:
    """Return the rows of the classes with the most errors, in the order of the dataset, with shares of all of a row.

    The last class may be an ``extra`` one, which stays. Cells show counts or ``shares``.
    """
    table = np.array(counts)
    wrong = (table.sum(axis=0) + table.sum(axis=1) - 2 * np.diag(table))[: len(classes)]
    shown = np.sort(np.argsort(-wrong, kind="stable")[:_MAX_CLASSES])
    index = np.append(shown, len(classes)) if extra else shown
    names = [classes[k] for k in shown]
    parts = table / np.maximum(table.sum(axis=1, keepdims=True), 1)

    def show(row: int, column: int) -> tuple[str, float]:
        share = float(parts[row, column])
        text = f"{share:.2f}" if shares else f"{table[row, column]:,}"
        return ("", 0.0) if not table[row, column] or (shares and share < 0.005) else (text, share)

    cells = [[show(k, column) for column in index] for k in index]
    rows = list(zip([*names, *[extra] * bool(extra)], cells, strict=True))
    return {"names": names, "rows": rows, "total": len(classes)}
