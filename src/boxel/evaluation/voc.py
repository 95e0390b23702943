"""Average precision of regions, mAP^r and mAP^r_vol: how instances are measured on Pascal VOC."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boxel.data.annotations import Annotations
from boxel.evaluation.outcomes import Outcome, outcomes_of
from boxel.evaluation.results import Result, restrict

VOLUME = tuple(np.arange(1, 10) / 10)
"""IoUs whose APs are averaged in mAP^r_vol."""


def region_ap(
    results: Sequence[Result],
    truth: Annotations,
    thresholds: Sequence[float] = (0.5, 0.7),
    class_agnostic: bool = False,
    categories: Sequence[str] | None = None,
) -> dict[str, Any]:
    """The area under the curve of precision over recall, of detections whose masks overlap an instance's.

    Unlike COCO's AP it is exact, not sampled at 101 recalls, counts all detections of an image, and is told for one
    IoU at a time. Precision is the highest at a recall or beyond it. What is to be ignored is as in
    :func:`~boxel.evaluation.coco.coco_ap`.

    Args:
        results: detections with masks.
        truth: what is there.
        thresholds: least IoUs of a mask that finds an instance.
        class_agnostic: all classes are one.
        categories: names of the only classes looked at; None for all.

    Returns:
        `mAPr50`, `mAPr70` and so on: mean over the classes that have instances, one for each threshold; `mAPr_vol`:
        the mean over the IoUs 0.1, 0.2, ... 0.9; `per_class`: that of each class by its name. All in [0, 1], NaN where
        there is nothing to find.

    Raises:
        BoxelError: a category is unknown, or an image's size can't be told.

    References:
        Hariharan et al., Simultaneous Detection and Segmentation, ECCV 2014, Section 5; Wu et al., 2016, Table 6.
    """
    results, truth = restrict(results, truth, categories, class_agnostic)
    asked = sorted({*VOLUME, *thresholds})
    outcomes = outcomes_of(results, truth, "segm", class_agnostic, asked, most=len(results))
    areas = {outcome.label: dict(zip(asked, _areas(outcome), strict=True)) for outcome in outcomes}

    def mean(ious: Sequence[float]) -> float:
        return fmean(area[iou] for area in areas.values() for iou in ious) if areas else np.nan

    return {
        **{f"mAPr{round(100 * iou)}": mean([iou]) for iou in thresholds},
        "mAPr_vol": mean(VOLUME),
        "per_class": {
            category.name: fmean(areas[label][iou] for iou in VOLUME) if label in areas else np.nan
            for label, category in enumerate(truth.categories)
        },
    }


def _areas(outcome: Outcome) -> list[float]:
    """The average precision of a class at each threshold."""
    return [
        _area(true, false, int(outcome.present.sum()))
        for true, false in zip(outcome.true, outcome.false, strict=True)
    ]


def _area(true: NDArray[np.bool_], false: NDArray[np.bool_], present: int) -> float:
    """Recall grows by one instance at each true detection, and only there."""
    hits, misses = np.arange(1, true.sum() + 1), np.cumsum(false)[true]
    precision = hits / (hits + misses)
    return float(np.maximum.accumulate(precision[::-1]).sum() / present)
