"""Masks broken down: by class, by size, and the worst objects."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boxel.data.annotations import Annotations
from boxel.data.checks.statistics import MEDIUM, SMALL
from boxel.evaluation.results import coco_areas
from boxel.evaluation.tables import format_cell, format_table
from boxel.viz.names import describe_measure

SIZES = ("small", "medium", "large")
"""COCO's sizes, by the area of the mask: below 32 x 32 pixels, below 96 x 96, and more."""

_MAX_WORST = 24
_PRINTED = 5  # of the worst objects


def break_down(truth: Annotations, instances: NDArray[np.int64], ious: NDArray[np.float64]) -> dict[str, Any]:
    """Summarize the IoUs of masks by class and by size, and list the worst.

    Args:
        truth: The ground truth.
        instances: (M,) instances whose masks count.
        ious: (M,) IoU of the mask of each, NaN for one that was not found.

    Returns:
        `per_class` and `per_size`: by name, `instances`, their number; `found`, the share of them with a mask; and
        `mask_iou`, `IoU@50` and `IoU@75` of these, as of :func:`mask_iou_metrics`, NaN without any. `worst`: up to 24
        masks with the lowest IoU, each with `file_name`, `image_id`, `id`, `class` and `iou`. Names without instances
        are left out.

    Examples:
        >>> from boxel.data import example_scenes
        >>> truth = example_scenes()
        >>> broken = break_down(truth, np.array([0, 1]), np.array([0.5, 1.0]))
        >>> broken["per_size"]["small"]["mask_iou"], broken["worst"][0]["id"]
        (0.75, 1)
    """
    areas = coco_areas(truth)[instances]
    classes = [category.name for category in truth.categories]
    groups = (
        ("per_class", truth.labels[instances], classes),
        ("per_size", np.digitize(areas, (SMALL, MEDIUM)), SIZES),
    )
    order = np.argsort(ious, kind="stable")  # NaN comes last
    worst = [
        {
            "file_name": truth.paths[truth.image_index[instances[k]]],
            "image_id": truth.image_ids[truth.image_index[instances[k]]],
            "id": truth.ids[instances[k]],
            "class": classes[truth.labels[instances[k]]],
            "iou": float(ious[k]),
        }
        for k in order[: min(_MAX_WORST, np.isfinite(ious).sum())].tolist()
    ]
    return {name: _group(keys, names, ious) for name, keys, names in groups} | {"worst": worst}


def _group(
    keys: NDArray[np.integer], names: Sequence[str], ious: NDArray[np.float64]
) -> dict[str, dict[str, float]]:
    rows = {}
    for key in np.unique(keys).tolist():
        own = ious[keys == key]
        found = own[np.isfinite(own)]
        shares = {"mask_iou": found, "IoU@50": found > 0.5, "IoU@75": found > 0.75}
        means = {name: float(values.mean()) if len(found) else math.nan for name, values in shares.items()}
        rows[names[key]] = {"instances": len(own), "found": len(found) / len(own), **means}
    return rows


def format_breakdown(
    broken: Mapping[str, Any], columns: Mapping[str, Mapping[str, Mapping[str, Any]]] | None = None
) -> list[str]:
    """Format a :func:`break_down` as lines: a table by class if there are several, one by size, and the worst masks.

    Args:
        broken: The breakdown.
        columns: More columns of `per_class` and `per_size`, by title the value of each name.
    """
    lines = []
    for title, key in (("by class", "per_class"), ("by size", "per_size")):
        more = (columns or {}).get(key, {})
        heads = ["instances", *more, *["found"] * bool(more), "mask_iou", "IoU@50", "IoU@75"]
        rows = [
            [name, *({**row, **{head: more[head].get(name) for head in more}}[head] for head in heads)]
            for name, row in broken[key].items()
        ]
        if len(rows) > 1 or (rows and key == "per_size"):
            lines += ["", format_table([[title, *heads], *rows])]
    worst = [
        f"  {row['file_name']}, annotation {row['id']} ({row['class']}): {format_cell(row['iou'])}"
        for row in broken["worst"][:_PRINTED]
    ]
    return [*lines, *["", "lowest mask IoU:"] * bool(worst), *worst]


def explain(keys: Sequence[str]) -> list[str]:
    """Return a line on each of some columns that have a meaning to state."""
    meanings = {key: describe_measure(key).meaning for key in keys}
    return [f"{key}: {meaning}" for key, meaning in meanings.items() if meaning]
