"""All measures of one result set, and a table of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

from boxel.data.annotations import Annotations
from boxel.evaluation.agreement import box_agreement, mean_fill
from boxel.evaluation.baselines import fill_boxes, grabcut_boxes
from boxel.evaluation.coco import coco_ap
from boxel.evaluation.matching import mask_iou
from boxel.evaluation.results import Result, check_results, has_masks, restrict

BOX_LIKE = 0.95
"""Masks that fill more than this share of their boxes, on average, came out as boxes."""


def evaluate(
    results: Sequence[Result],
    truth: Annotations,
    *,
    class_agnostic: bool = False,
    categories: Sequence[str] | None = None,
    boundary: bool = True,
    baselines: Sequence[Literal["box", "grabcut"]] = (),
    workers: int = 1,
    file: str = "results",
) -> dict[str, Any]:
    """Measure detections in every way the truth allows.

    Args:
        results: detections.
        truth: what is there.
        class_agnostic: all classes are one.
        categories: names of the only classes looked at (AP on unseen classes); None for all.
        boundary: also Boundary AP, which takes longest.
        baselines: masks made from the same boxes to compare with: "box" fills them, "grabcut" cuts in them.
        workers: threads for GrabCut.
        file: where the results come from, for error messages.

    Returns:
        A dict ready for JSON, None for what is undefined:

        * `images`, `instances`, `results`: how many;
        * `box`: `coco_ap` of the boxes;
        * with masks in results and truth: `mask` and `boundary` (`coco_ap`), `mask_iou` (`mask_iou`), and
          `baselines`: for each its `mask`, `boundary` and `mask_iou`;
        * with masks in the results: `mean_fill`;
        * with masks in the results but none in the truth: `box_agreement`.

    Raises:
        BoxelError: results and truth don't fit together (`check_results`), or a category is unknown.
    """
    check_results(results, truth, class_agnostic, file)
    results, truth = restrict(results, truth, categories)
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
        else:
            metrics["box_agreement"] = box_agreement(results, truth, class_agnostic=class_agnostic)
    if baselines and true_masks:
        made = {
            name: fill_boxes(results, truth)
            if name == "box"
            else grabcut_boxes(results, truth, workers=workers)
            for name in baselines
        }
        metrics["baselines"] = {
            name: _masks(other, truth, class_agnostic, boundary) for name, other in made.items()
        }
    return _without_nan(metrics)


def format_table(metrics: dict[str, Any]) -> str:
    """The metrics of `evaluate` as text: figures in percent, a dash for what is undefined."""
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
        f"{metrics['images']} images, {metrics['instances']} instances, {metrics['results']} detections.",
    ]
    measured = {"": metrics} | {
        f" ({_BASELINES[n]})": scores for n, scores in metrics.get("baselines", {}).items()
    }
    for name, scores in measured.items():
        if "mask_iou" in scores:
            iou = scores["mask_iou"]
            found = f"{iou['matched']} of {iou['instances']} instances found"
            lines.append(f"Mask IoU{name}: {_percent(iou['mask_iou'])} over {found}.")
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


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
