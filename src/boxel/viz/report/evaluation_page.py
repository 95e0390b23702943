"""The report of an evaluation: one HTML file on what detections get right and wrong."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from boxel import __version__
from boxel.data.annotations import Annotations
from boxel.data.images import read_image
from boxel.utils.errors import BoxelError
from boxel.utils.printable import printable
from boxel.viz.drawing import draw_thumbnail
from boxel.viz.output import encode_image, writing_file
from boxel.viz.report.page import render

_MAX_CLASSES = 20  # of the confusion matrix and of the curves
_SIDE = 420  # longer side of a picture, in pixels
_JPEG_QUALITY = 80


def write_evaluation_report(
    metrics: Mapping[str, Any],
    errors: Mapping[str, str],
    pictures: tuple[Annotations, Annotations],
    path: str | os.PathLike[str],
    name: str = "results",
) -> None:
    """Write a page on detections: their metrics, curves, confusions, errors, calibration, and the worst images.

    The file is self-contained: no scripts, fonts or pictures from elsewhere. An image that cannot be read costs only
    its own pictures.

    Args:
        metrics: Those of :func:`boxel.evaluation.evaluate_detections` with `analysis`, None for what is undefined.
        errors: What each kind of error means.
        pictures: The truth and the detections of the worst images, in that order, with the categories to draw.
        path: The file to write.
        name: What was evaluated.

    Raises:
        BoxelError: The file cannot be written.
    """
    analysis, truth = metrics["analysis"], pictures[0]
    # Classes without instances come last.
    classes = sorted(
        analysis["per_class"].items(), key=lambda item: (item[1]["AP50"] is None, item[1]["AP50"] or 0)
    )
    common = sorted(
        (item for item in classes if item[1]["instances"]), key=lambda item: -item[1]["instances"]
    )
    rows = metrics[analysis["compared"]]["per_class"]
    context = {
        "name": Path(name).name or name,
        "truth": Path(truth.file).name or "the ground truth",
        "m": {"mask": None, **metrics},
        "a": analysis,
        "classes": [(name, {**row, "AP": rows[name]}) for name, row in classes],
        "curves": common[:_MAX_CLASSES],
        "points": _trace_curve,
        "confusion": _shorten_confusion(**analysis["confusion"]),
        "kinds": errors,
        "cards": [
            {**row, "pictures": _draw(pictures, image)} for image, row in enumerate(analysis["worst_images"])
        ],
        "date": date.today(),
        "version": __version__,
    }
    with writing_file(path) as file:
        page = render("evaluation.html.j2", context)
        file.write_text(printable(page), encoding="utf-8")  # names may hold control characters


def _trace_curve(curve: Sequence[float], x: float, y: float, width: float, height: float) -> str:
    """Return the points of a line through precisions over recall in a panel of SVG."""
    recalls = np.linspace(0, 1, len(curve))
    return " ".join(
        f"{x + width * r:.1f},{y + height * (1 - p):.1f}" for r, p in zip(recalls, curve, strict=True)
    )


def _shorten_confusion(classes: Sequence[str], counts: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Return the rows of the classes with the most errors, in the order of the dataset, with shares of all of a row."""
    table = np.array(counts)
    wrong = (table.sum(axis=0) + table.sum(axis=1) - 2 * np.diag(table))[:-1]
    shown = np.sort(np.argsort(-wrong, kind="stable")[:_MAX_CLASSES])
    index = np.append(shown, len(classes))
    names = [classes[k] for k in shown]
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    cells = [list(zip(table[k, index].tolist(), shares[k, index].tolist(), strict=True)) for k in index]
    return {
        "names": names,
        "rows": list(zip([*names, "background"], cells, strict=True)),
        "total": len(classes),
    }


def _draw(pictures: tuple[Annotations, Annotations], image: int) -> dict[str, str] | str:
    """Return the JPEG files of truth and prediction in base64; the message of the error if the image cannot be read."""
    try:
        pixels = read_image(pictures[0].image_path(image))
    except BoxelError as error:
        return str(error)
    drawn = (draw_thumbnail(data, image, pixels, _SIDE) for data in pictures)
    files = [b64encode(encode_image(one, "JPEG", quality=_JPEG_QUALITY)).decode() for one in drawn]
    return dict(zip(("truth", "prediction"), files, strict=True))
