"""Average precision of regions, mAP^r and mAP^r_vol: the instance metrics of Pascal VOC."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boxel.data.annotations import Annotations
from boxel.evaluation.coco import ClassMatches, match_detections
from boxel.evaluation.results import Comparison, Result

VOLUME = tuple(np.arange(1, 10) / 10)
"""The IoU thresholds whose APs mAP^r_vol averages."""


def region_ap(
    truth: Annotations,
    results: Sequence[Result],
    thresholds: Sequence[float] = (0.5, 0.7),
    class_agnostic: bool = False,
    categories: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Compute the area under the precision-recall curve of detected masks.

    Unlike COCO's AP it is exact instead of sampled at 101 recalls, counts all detections of an image, and is reported
    per IoU threshold. Precision is the highest at a recall or beyond it. Instances are ignored as in
    :func:`~boxel.evaluation.coco.coco_ap`.

    Args:
        truth: The ground truth.
        results: Detections with masks.
        thresholds: Minimum IoUs of a match.
        class_agnostic: Merge all classes.
        categories: Names of the categories to evaluate. None: all.

    Returns:
        `mAPr50`, `mAPr70` and so on, one per threshold: the mean over the classes that have instances; `mAPr_vol`: the
        mean over the IoUs 0.1, 0.2, ... 0.9; `per_class`: the mAP^r_vol of each class by name. All in [0, 1], NaN if
        there are no instances.

    Raises:
        BoxelError: A category or the size of an image is unknown.

    Examples:
        >>> import tempfile
        >>> from boxel.data.synthetic import write_scenes
        >>> from boxel.evaluation import to_results
        >>> truth = write_scenes(tempfile.mkdtemp(), 1, height=64, width=96)
        >>> region_ap(truth, to_results(truth))["mAPr50"]
        1.0

    References:
        Hariharan et al., Simultaneous Detection and Segmentation, ECCV 2014, Section 5; Wu et al., 2016, Table 6.
    """
    return region_precision(Comparison.of(truth, results, class_agnostic, categories), thresholds)


def region_precision(comparison: Comparison, thresholds: Sequence[float] = (0.5, 0.7)) -> dict[str, Any]:
    """Compute :func:`region_ap` for a prepared comparison."""
    ious = sorted({*VOLUME, *thresholds})
    matches = match_detections(comparison, "segm", ious, max_detections=len(comparison.results))
    areas = {match.label: dict(zip(ious, _areas(match), strict=True)) for match in matches}

    def mean(chosen: Sequence[float]) -> float:
        return fmean(area[iou] for area in areas.values() for iou in chosen) if areas else np.nan

    return {
        **{f"mAPr{round(100 * iou)}": mean([iou]) for iou in thresholds},
        "mAPr_vol": mean(VOLUME),
        "per_class": {
            category.name: fmean(areas[label][iou] for iou in VOLUME) if label in areas else np.nan
            for label, category in enumerate(comparison.truth.categories)
        },
    }


def _areas(match: ClassMatches) -> list[float]:
    """Return the average precision of a class at each threshold."""
    present = int(match.present.sum())
    return [_area(true, false, present) for true, false in zip(match.true, match.false, strict=True)]


def _area(true: NDArray[np.bool_], false: NDArray[np.bool_], present: int) -> float:
    """Return the area under one curve: recall grows by one instance at each true detection, and only there."""
    hits, misses = np.arange(1, true.sum() + 1), np.cumsum(false)[true]
    precision = hits / (hits + misses)
    return float(np.maximum.accumulate(precision[::-1]).sum() / present)
