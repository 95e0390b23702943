"""Average precision of regions, mAP^r and mAP^r_vol: the instance metrics of Pascal VOC."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from boxel.data.annotations import Annotations
from boxel.evaluation.coco import match_detections
from boxel.evaluation.results import Result

_VOLUME = tuple(tenths / 10 for tenths in range(1, 10))
"""The IoU thresholds whose APs mAP^r_vol averages."""

_IOUS = tuple(sorted((*_VOLUME, 0.25, 0.75)))


class RegionMetrics(TypedDict):
    """The metrics of :func:`region_ap`."""

    mAPr25: float
    mAPr50: float
    mAPr70: float
    mAPr75: float
    mAPr_vol: float
    per_class: dict[str, float]


def region_ap(truth: Annotations, results: Sequence[Result]) -> RegionMetrics:
    """Compute the area under the precision-recall curve of detected masks.

    Unlike COCO's AP it is exact instead of sampled at 101 recalls, counts all detections of an image, and is reported
    per IoU threshold. Precision is the highest at a recall or beyond it. Instances are ignored as in
    :func:`~boxel.evaluation.coco.coco_ap`.

    Args:
        truth: The ground truth.
        results: Detections with masks.

    Returns:
        `mAPr25`, `mAPr50`, `mAPr70` and `mAPr75`: the mean over the classes that have instances at an IoU of 0.25, 0.5,
        0.7 and 0.75; `mAPr_vol`: the mean over the IoUs 0.1, 0.2, ... 0.9; `per_class`: the mAP^r_vol of each class by
        name. All in [0, 1], NaN if there are no instances.

    Raises:
        BoxelError: The size of an image is unknown.

    Examples:
        >>> from boxel.data import example_scenes
        >>> from boxel.evaluation import to_results
        >>> truth = example_scenes()
        >>> region_ap(truth, to_results(truth))["mAPr50"]
        1.0

    References:
        Hariharan et al., Simultaneous Detection and Segmentation, ECCV 2014, Section 5; Wu et al. (FCRN), 2016, Table
        6; Wang et al. (BoxCaseg), CVPR 2021, Table 1.
    """
    areas = np.full((len(truth.categories), len(_IOUS)), np.nan)
    for match in match_detections(truth, results, "segm", _IOUS, max_detections=len(results)):
        if present := int(match.present.sum()):
            areas[match.label] = [_area(*one, present) for one in zip(match.true, match.false, strict=True)]
    known = areas[~np.isnan(areas[:, 0])]
    mean_at = dict(zip(_IOUS, known.mean(axis=0) if len(known) else [np.nan] * len(_IOUS), strict=True))
    per_class = areas[:, np.isin(_IOUS, _VOLUME)].mean(axis=1).tolist()
    return {
        "mAPr25": float(mean_at[0.25]),
        "mAPr50": float(mean_at[0.5]),
        "mAPr70": float(mean_at[0.7]),
        "mAPr75": float(mean_at[0.75]),
        "mAPr_vol": float(np.mean([mean_at[iou] for iou in _VOLUME])),
        "per_class": {
            category.name: area for category, area in zip(truth.categories, per_class, strict=True)
        },
    }


def _area(true: NDArray[np.bool_], false: NDArray[np.bool_], present: int) -> float:
    """Return the area under one curve: recall grows by one instance at each true detection, and only there."""
    hits, misses = np.arange(1, true.sum() + 1), np.cumsum(false)[true]
    precision = hits / (hits + misses)
    return float(np.maximum.accumulate(precision[::-1]).sum() / present)
