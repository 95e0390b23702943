"""All measures of one result set, and a table of them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from boxel.data.annotations import Annotations
from boxel.evaluation.agreement import box_agreement, mean_fill
from boxel.evaluation.baselines import MAX_PER_IMAGE, MIN_SCORE, fill_boxes, grabcut_boxes
from boxel.evaluation.coco import coco_ap
from boxel.evaluation.matching import mask_iou
from boxel.evaluation.results import Result, check_results, has_masks, restrict, with_ids_of
from boxel.evaluation.sizes import with_sizes
from boxel.evaluation.voc import region_ap
from boxel.utils.errors import BoxelError, nearest

BOX_LIKE = 0.95
"""Masks that fill more than this share of their boxes, on average, came out as boxes."""


def evaluate_detections(
    results: Sequence[Result],
    truth: Annotations,
    *,
    class_agnostic: bool = False,
    categories: Sequence[str] | None = None,
    boundary: bool = True,
    regions: bool = False,
    baselines: Sequence[str] = (),
    workers: int = 1,
    file: str = "results",
) -> dict[str, Any]:
    """Measure detections in every way the truth allows.

    Args:
        results: detections; their `file_name` goes before their `image_id` (`with_ids_of`).
        truth: what is there.
        class_agnostic: all classes are one.
        categories: names of the only classes looked at (AP on unseen classes), see `restrict`; None for all.
        boundary: also Boundary AP, which takes longest.
        regions: also mAP^r and mAP^r_vol (`region_ap`), by which tables on Pascal VOC tell instances.
        baselines: masks made from the same boxes to compare with: "box" fills them, "grabcut" cuts in them.
        workers: threads for GrabCut.
        file: where the results come from, for error messages.

    Returns:
        A dict ready for JSON, None for what is undefined:

        * `images`, `instances`, `results`: how many;
        * `box`: `coco_ap` of the boxes;
        * with masks in results and truth: `mask` and `boundary` (`coco_ap`), `mask_iou` (`mask_iou`), `regions`
          (`region_ap`), and `baselines`: for each its `mask`, `boundary` and `mask_iou`;
        * with masks in the results: `mean_fill`;
        * with masks in the results but none in the truth: `box_agreement`.

    Raises:
        BoxelError: results and truth don't fit together (`check_results`), a category or baseline is unknown, or
            masks are compared and an image's size can't be told (`with_sizes`).
    """
    check_baselines(baselines)
    results = with_ids_of(truth, results)
    truth = _with_readable_masks(with_sizes(truth, results, required=False))
    check_results(results, truth, class_agnostic, file)
    results, truth = restrict(results, truth, categories, class_agnostic)
    if not class_agnostic:
        _warn_of_one_category(results, truth, file)
    metrics: dict[str, Any] = {
        "images": len(truth),
        "instances": int((~truth.iscrowd).sum()),
        "results": len(results),
        "box": coco_ap(results, truth, "bbox", class_agnostic),
    }
    true_masks = bool((truth.has_mask & ~truth.iscrowd).any())
    if has_masks(results):
        metrics["mean_fill"] = mean_fill(results)
        if true_masks:
            metrics.update(_masks(results, truth, class_agnostic, boundary))
            if regions:
                metrics["regions"] = region_ap(results, truth, class_agnostic=class_agnostic)
        else:
            metrics["box_agreement"] = box_agreement(results, truth, class_agnostic=class_agnostic)
    if baselines and not true_masks:
        left_out = ", ".join(_BASELINES[name] for name in baselines)
        warnings.warn(
            f"{truth.file or 'the truth'} has no masks to compare baselines with: {left_out} left out.",
            stacklevel=2,
        )
    elif baselines:
        made = {
            name: fill_boxes(results, truth)
            if name == "box"
            else grabcut_boxes(results, truth, workers=workers)
            for name in baselines
        }
        metrics["baselines"] = {
            name: _masks(other, truth, class_agnostic, boundary) for name, other in made.items()
        }
    return without_nan(metrics)


def format_table(metrics: dict[str, Any]) -> str:
    """The metrics of `evaluate_detections` as text: figures in percent, a dash for what is undefined."""
    rows = {"box": metrics["box"]}
    rows |= {name: metrics[name] for name in ("mask", "boundary") if name in metrics}
    for name, scores in metrics.get("baselines", {}).items():
        rows |= {
            f"{_BASELINES[name]}, {kind}": scores[kind] for kind in ("mask", "boundary") if kind in scores
        }
    figures = [figure for figure in metrics["box"] if figure != "per_class"]
    lines = _columns("", figures, {name: [row[figure] for figure in figures] for name, row in rows.items()})
    per_class = {
        name: [row["per_class"][name] for row in rows.values()] for name in metrics["box"]["per_class"]
    }
    if len(per_class) > 1:
        lines += ["", *_columns("AP by class", list(rows), per_class)]
    lines += [
        "",
        f"In percent. {metrics['images']} images, {metrics['instances']} instances, {metrics['results']} detections.",
    ]
    if "regions" in metrics:
        areas = {name: value for name, value in metrics["regions"].items() if name != "per_class"}
        lines.append("; ".join(f"{name} {_percent(value)}" for name, value in areas.items()) + ".")
    measured = {"": metrics} | {
        f" ({_BASELINES[n]})": scores for n, scores in metrics.get("baselines", {}).items()
    }
    for name, scores in measured.items():
        if "mask_iou" in scores:
            iou = scores["mask_iou"]
            found = f"{iou['matched']} of {iou['instances']} instances found"
            lines.append(f"Mask IoU{name}: {_percent(iou['mask_iou'])} over {found}.")
    if "grabcut" in metrics.get("baselines", {}):
        lines.append(
            f"GrabCut cuts the {MAX_PER_IMAGE} best detections of an image that score at least {MIN_SCORE}; "
            "the boxes of the others are filled."
        )
    if "box_agreement" in metrics:
        fit = metrics["box_agreement"]
        lines.append(
            f"No true masks. IoU of the masks' tight boxes with the true boxes: {_percent(fit['mean'])} over "
            f"{fit['matched']} of {fit['instances']} instances found, "
            f"at least 50 for {_percent(fit['share50'])} % and 75 for {_percent(fit['share75'])} % of them."
        )
    fill = metrics.get("mean_fill")
    if fill is not None and fill > BOX_LIKE:
        lines.append(f"The masks fill {_percent(fill)} % of their boxes: they came out as boxes.")
    return "\n".join(lines)


_BASELINES = {"box": "box filled", "grabcut": "GrabCut"}


def check_baselines(names: Sequence[str]) -> None:
    """Raise a `BoxelError` where a name is no baseline of `evaluate_detections`."""
    known = list(_BASELINES)
    for name in names:
        if name not in known:
            raise BoxelError(f"there is no baseline {name!r}, only {', '.join(known)}.{nearest(name, known)}")


def _with_readable_masks(truth: Annotations) -> Annotations:
    """The truth, its instances whose mask can't be read left with their box, which a warning tells."""
    sized = (truth.widths > 0) & (truth.heights > 0)
    unreadable = {}
    for instance in np.flatnonzero(truth.has_mask & sized[truth.image_index]).tolist():
        try:
            truth.rle(instance)
        except BoxelError as error:
            unreadable[instance] = str(error)
    if not unreadable:
        return truth
    first = next(iter(unreadable.values()))
    warnings.warn(
        f"{len(unreadable)} true masks can't be read and are measured by their boxes only, the first: {first}",
        stacklevel=3,
    )
    segmentations = truth.segmentations.copy()
    segmentations[list(unreadable)] = None
    return replace(truth, segmentations=segmentations)


def _warn_of_one_category(results: Sequence[Result], truth: Annotations, file: str) -> None:
    """Say so where results of a model without classes, whose only id may be any, are taken for one class."""
    found = {result["category_id"] for result in results}
    if len(found) != 1:
        return
    name = next(category.name for category in truth.categories if category.id in found)
    others = sum(truth.categories[label].id not in found for label in truth.labels[~truth.iscrowd])
    if others:
        warnings.warn(
            f"{file}: all results are of category {name!r}, so that {others} instances of other categories count "
            "as missed; --class-agnostic measures the results against all.",
            stacklevel=3,
        )


def _masks(
    results: Sequence[Result], truth: Annotations, class_agnostic: bool, boundary: bool
) -> dict[str, Any]:
    scores: dict[str, Any] = {"mask": coco_ap(results, truth, "segm", class_agnostic)}
    if boundary:
        scores["boundary"] = coco_ap(results, truth, "boundary", class_agnostic)
    return scores | {"mask_iou": mask_iou(results, truth, class_agnostic=class_agnostic)}


def _columns(corner: str, heads: list[str], rows: dict[str, list[float | None]]) -> list[str]:
    first = max(map(len, [corner, *rows]))
    widths = [max(len(head), 5) for head in heads]
    cells = {corner: heads} | {name: [_percent(value) for value in values] for name, values in rows.items()}
    return [
        name.ljust(first) + "".join(cell.rjust(width + 2) for cell, width in zip(row, widths, strict=True))
        for name, row in cells.items()
    ]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def without_nan(value: Any) -> Any:
    """The value with None for NaN, which JSON does not know."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
