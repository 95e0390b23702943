"""All metrics of a set of detections, and their table."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boxel.data.annotations import Annotations
from boxel.evaluation.analysis import find_matches, summarize_matches
from boxel.evaluation.baselines import BASELINE_TITLES, MAKE_BASELINE, MIN_SCORE
from boxel.evaluation.boxes import BOX_LIKE, box_agreement, mean_fill
from boxel.evaluation.breakdown import SIZES, break_down, format_breakdown
from boxel.evaluation.causes import find_causes
from boxel.evaluation.coco import average_found, matched_ious, summarize_overlaps
from boxel.evaluation.config import EvaluateConfig
from boxel.evaluation.matching import match_results
from boxel.evaluation.overlaps import Overlaps, find_overlaps
from boxel.evaluation.reading import clean_results
from boxel.evaluation.report import write_report_on
from boxel.evaluation.results import Result, code_areas, filter_categories, has_masks, with_sound_masks
from boxel.evaluation.scores import DetectionScores
from boxel.evaluation.tables import format_cell, format_table
from boxel.evaluation.voc import region_ap
from boxel.masks.rle import Rle

logger = logging.getLogger(__name__)


def evaluate_detections(
    truth: Annotations,
    results: Sequence[Result],
    config: EvaluateConfig | None = None,
    file: str = "results",
    positions: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Compute every metric of detections that the ground truth allows.

    Args:
        truth: The ground truth.
        results: Detections; see :func:`~boxel.evaluation.match_results` for how they meet the ground truth. What is
            likely wrong with all of them, e.g. boxes of two corners, is logged.
        config: What to compute: `categories` and `class_agnostic` (see :func:`filter_categories`), `boundary`,
            `regions`, `baselines` and `report`.
        file: Where the results come from, for messages.
        positions: Where each result stands in that file, if some of them were left out. None: check them here.

    Returns:
        Plain JSON, None for what is undefined:

        * `images`, `instances`, `results`: counts;
        * `box`: metrics of :func:`~boxel.evaluation.coco.coco_ap` for boxes;
        * with masks in results and truth: `mask` and `boundary` (the same metrics), `mask_iou`
          (:func:`~boxel.evaluation.coco.mask_iou`, with `per_class`, `per_size` and `worst` of
          :func:`~boxel.evaluation.breakdown.break_down`), `regions` (:func:`~boxel.evaluation.voc.region_ap`), and
          `baselines`: `mask`, `boundary` and `mask_iou` of each;
        * with masks in the results: `mean_fill`;
        * with a `report`: `analysis`, see :func:`~boxel.evaluation.analyze_detections`;
        * with masks in the results but none in the truth: `box_agreement`.

    Raises:
        BoxelError: Results and ground truth cannot be compared (see `match_results`), a category is
            unknown, or masks are compared and the size of an image is unknown.

    Examples:
        >>> from boxel.data import example_scenes
        >>> from boxel.evaluation import to_results
        >>> truth = example_scenes()
        >>> metrics = evaluate_detections(truth, to_results(truth))
        >>> metrics["mask_iou"]["mask_iou"], metrics["mask_iou"]["per_size"]["small"]["instances"]
        (1.0, 5)
    """
    return compare_detections(truth, results, config or EvaluateConfig(), file, positions)[0]


def compare_detections(
    truth: Annotations,
    results: Sequence[Result],
    config: EvaluateConfig,
    file: str = "results",
    positions: Sequence[int] | None = None,
) -> tuple[dict[str, Any], DetectionScores]:
    """Compute every metric of detections, see :func:`evaluate_detections`, and return what was compared too."""
    if not len(results):
        logger.warning("%s has no detections, so every instance counts as missed.", file)
    if positions is None:
        results, positions = clean_results(results, file)
    truth, results = match_results(truth, results, config.class_agnostic, file, positions)
    for cause in find_causes(truth, results, config.class_agnostic):
        logger.warning("%s: %s.", file, cause)
    truth, results = filter_categories(truth, results, config.categories, config.class_agnostic)
    if not config.class_agnostic:
        _warn_of_one_category(truth, results, file)
    overlaps = find_overlaps(truth, results, "bbox")
    metrics: dict[str, Any] = {
        "images": len(truth),
        "instances": int((~truth.iscrowd).sum()),
        "results": len(results),
        "box": summarize_overlaps(overlaps),
    }
    # Masks are read once for all metrics.
    truth, masks = with_sound_masks(truth) if has_masks(results) or config.baselines else (truth, [])
    of_masks, mask_overlaps = _compare_masks(truth, masks, results, overlaps, config, file)
    metrics |= of_masks
    scores = DetectionScores(find_matches(truth, results, mask_overlaps or overlaps))
    if config.report is not None:
        metrics["analysis"] = summarize_matches(scores.matches)
    metrics = without_nan(metrics)
    if config.report is not None:
        write_report_on(scores, metrics, config.report, file)
    return metrics, scores


def _compare_masks(
    truth: Annotations,
    masks: Sequence[Rle | None],
    results: Sequence[Result],
    by_box: Overlaps,
    config: EvaluateConfig,
    file: str,
) -> tuple[dict[str, Any], Overlaps | None]:
    """Compute the metrics of masks, and return the overlaps of masks; what either side has none for is reported."""
    metrics, overlaps = dict[str, Any](), None
    source = truth.file or "the ground truth"
    masked = has_masks(results)
    has_true_masks = bool((truth.has_mask & ~truth.iscrowd).any())
    areas = code_areas([result["segmentation"] for result in results]) if masked else np.zeros(0)
    if masked:
        metrics["mean_fill"] = mean_fill(results, areas)
    if masked and has_true_masks:
        overlaps = by_box.by_mask(truth, results, masks, areas)
        matched = matched_ious(by_box, overlaps)
        metrics |= _mask_metrics(overlaps, matched[1], config.boundary)
        metrics["mask_iou"] |= break_down(truth, *matched)
        if config.regions:
            metrics["regions"] = region_ap(truth, results)
    elif masked and results:
        metrics["box_agreement"] = box_agreement(truth, results)
        message = "%s has no masks, so the masks of %s are compared with its boxes only."
        logger.warning(message, source, file)
    elif has_true_masks:
        logger.warning("%s has no masks, so only boxes are compared.", file)
    if config.baselines and has_true_masks:
        metrics["baselines"] = {}
        for name in config.baselines:
            made = MAKE_BASELINE[name](truth, results)
            of_made = by_box.by_mask(truth, made, masks, code_areas([one["segmentation"] for one in made]))
            metrics["baselines"][name] = _mask_metrics(
                of_made, matched_ious(by_box, of_made)[1], config.boundary
            )
    elif config.baselines:
        names = ", ".join(BASELINE_TITLES[name] for name in config.baselines)
        logger.warning("%s has no masks to compare baselines with; skipped: %s", source, names)
    return metrics, overlaps


def _mask_metrics(overlaps: Overlaps, ious: NDArray[np.float64], boundary: bool) -> dict[str, Any]:
    """Compute the metrics of masks from their overlaps, and from the IoUs of those whose boxes match."""
    metrics: dict[str, Any] = {"mask": summarize_overlaps(overlaps)}
    if boundary:
        metrics["boundary"] = summarize_overlaps(overlaps.by_boundary())
    return metrics | {"mask_iou": average_found(ious)}


def _warn_of_one_category(truth: Annotations, results: Sequence[Result], file: str) -> None:
    """Warn if all results have one category; a model without classes may have given them any."""
    found = {result["category_id"] for result in results}
    if len(found) != 1:
        return
    name = next(category.name for category in truth.categories if category.id in found)
    others = sum(truth.categories[label].id not in found for label in truth.labels[~truth.iscrowd])
    if others:
        logger.warning(
            "%s: all results have category %r, so %d instances of other categories count as missed; `class_agnostic` "
            "compares the results with all.",
            *(file, name, others),
        )


# ---------------------------------------------------------------- table


_KINDS = ("box", "mask", "boundary")
_LEGEND = """\
AP: mean over classes and IoUs of 0.5 to 0.95; AP25 to AP75 at one IoU; s, m and l: small, medium and large objects,
below 32 x 32 pixels, below 96 x 96, and more. AR1 to AR100: recall with this many detections per image. found: share of
the objects whose box is found; mask_iou, IoU@50, IoU@75: mean IoU of their masks, and shares above 0.5 and 0.75."""


def format_detections(metrics: Mapping[str, Any]) -> str:
    """Format the metrics of :func:`evaluate_detections` as text, with a dash for what is undefined."""
    baselines = metrics.get("baselines", {})
    rows = {name: metrics[name] for name in _KINDS if name in metrics}
    for name, scores in baselines.items():
        kinds = [kind for kind in ("mask", "boundary") if kind in scores]
        rows |= {f"{BASELINE_TITLES[name]}, {kind}": scores[kind] for kind in kinds}
    heads = [name for name in metrics["box"] if name != "per_class"]
    lines = [format_table([["", *heads], *([name, *map(row.get, heads)] for name, row in rows.items())])]
    if "per_class" in metrics.get("mask_iou", {}):
        by_class = {f"{name} AP": row["per_class"] for name, row in rows.items() if name in _KINDS}
        by_size = {
            f"{name} AP": {size: row[f"AP{size[0]}"] for size in SIZES}
            for name, row in rows.items()
            if name in _KINDS
        }
        lines += format_breakdown(metrics["mask_iou"], {"per_class": by_class, "per_size": by_size})
    else:
        # Without an instance of the class, all are undefined.
        classes = [name for name, ap in metrics["box"]["per_class"].items() if ap is not None]
        if len(classes) > 1:
            by_name = [[name, *(row["per_class"][name] for row in rows.values())] for name in classes]
            lines += ["", format_table([["AP by class", *rows], *by_name])]
    counts = f"{metrics['images']} images, {metrics['instances']} instances, {metrics['results']} detections"
    return "\n".join([*lines, "", f"{counts}.", *_sentences(metrics, baselines), "", _LEGEND])


def _sentences(metrics: Mapping[str, Any], baselines: Mapping[str, Any]) -> Iterable[str]:
    """Yield the metrics that are not in the table."""
    if "regions" in metrics:
        areas = {name: value for name, value in metrics["regions"].items() if name != "per_class"}
        yield "; ".join(f"{name} {format_cell(value)}" for name, value in areas.items()) + "."
    titled = {f" ({BASELINE_TITLES[name]})": scores for name, scores in baselines.items()}
    for name, scores in {"": metrics, **titled}.items():
        if "mask_iou" in scores:
            iou = scores["mask_iou"]
            matched = f"{iou['matched']} of {iou['instances']} instances found"
            yield f"Mask IoU{name}: {format_cell(iou['mask_iou'])} over {matched}."
    if "grabcut" in baselines:
        yield f"GrabCut runs for detections with a score of at least {MIN_SCORE}; the boxes of the others are filled."
    if "box_agreement" in metrics:
        fit = metrics["box_agreement"]
        yield (
            f"No true masks. IoU of the tight boxes of masks with the true boxes: {format_cell(fit['mean'])} over "
            f"{fit['matched']} of {fit['instances']} instances found; {format_cell(fit['share50'])} of them have at "
            f"least 0.5, and {format_cell(fit['share75'])} at least 0.75."
        )
    fill = metrics.get("mean_fill")
    if fill is not None and fill > BOX_LIKE:
        yield f"The masks fill {format_cell(fill)} of their boxes: they are boxes rather than masks."


def without_nan(value: Any) -> Any:
    """Return the value with None instead of NaN, which JSON lacks.

    Examples:
        >>> without_nan({"AP": float("nan"), "AP50": [0.5]})
        {'AP': None, 'AP50': [0.5]}
    """
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
