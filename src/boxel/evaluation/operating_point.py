"""What scores are worth: the threshold with the best F1, the precision-recall curve, and calibration."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

_RECALLS = np.linspace(0, 1, 101)  # at which COCO averages precision
_BINS = 10


class OperatingPoint(NamedTuple):
    """What the detections of at least a score amount to, in [0, 1]; NaN for what is undefined."""

    threshold: float
    f1: float
    precision: float
    recall: float


def best_threshold(scores: ArrayLike, correct: ArrayLike, instances: int) -> OperatingPoint:
    """Find the minimum score whose detections have the best F1, 2 TP / (detections + instances).

    Args:
        scores: (D,) scores of detections, in any order.
        correct: (D,) bool, whether each matches an instance of its own.
        instances: Number of instances that could be found.

    Returns:
        The metrics of the detections of at least the threshold, which lies halfway between the last score that is kept
        and the next lower one, or 0. Of equal F1 the highest threshold is taken; if nothing is correct, the lowest. All
        are NaN without detections or instances.

    Examples:
        >>> best_threshold([0.9, 0.8, 0.6, 0.2], [True, False, True, False], 2)
        OperatingPoint(threshold=0.4, f1=0.8, precision=0.6666666666666666, recall=1.0)

    References:
        Van Rijsbergen, Information Retrieval, 1979, Chapter 7, whose effectiveness at equal weights is 1 - F1.
    """
    scores, correct = np.asarray(scores, dtype=np.float64), np.asarray(correct, dtype=bool)
    if not len(scores) or not instances:
        return OperatingPoint(*[float("nan")] * 4)
    order = np.argsort(-scores, kind="stable")
    kept, hits = np.arange(1, len(order) + 1), np.cumsum(correct[order])
    following = np.append(scores[order][1:], 0.0)
    is_last = np.append(scores[order][:-1] > following[:-1], True)  # of equal scores, which are kept together
    f1 = np.where(is_last, 2 * hits / (kept + instances), -1.0)
    best = int(f1.argmax()) if hits[-1] else len(f1) - 1
    threshold = (scores[order][best] + min(following[best], scores[order][best])) / 2
    return OperatingPoint(
        *(float(v) for v in (threshold, f1[best], hits[best] / kept[best], hits[best] / instances))
    )


def precision_recall(scores: ArrayLike, correct: ArrayLike, instances: int) -> NDArray[np.float64]:
    """Compute COCO's precision-recall curve, whose mean is the average precision.

    Args:
        scores: (D,) scores of detections; equal ones count in this order.
        correct: (D,) bool, whether each matches an instance of its own.
        instances: Number of instances that could be found.

    Returns:
        (101,) the best precision at a recall of at least 0, 0.01, ... 1, and 0 if no threshold reaches it; NaN without
        instances.

    Examples:
        >>> curve = precision_recall([0.9, 0.8], [True, False], 2)
        >>> curve[[0, 50, 51]].tolist()
        [1.0, 1.0, 0.0]

    References:
        Lin et al., Microsoft COCO, ECCV 2014, as pycocotools interpolates.
    """
    if not instances:
        return np.full(len(_RECALLS), np.nan)
    order = np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable")
    hits = np.cumsum(np.asarray(correct, dtype=bool)[order])
    precision = hits / np.arange(1, len(hits) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return np.append(best, 0.0)[np.searchsorted(hits / instances, _RECALLS)]


def calibrate_scores(scores: ArrayLike, correct: ArrayLike) -> tuple[float, list[dict[str, float]]]:
    """Compare scores, read as probabilities, with the share of the detections that are correct.

    Args:
        scores: (D,) scores of detections in [0, 1].
        correct: (D,) bool, whether each matches an instance of its own.

    Returns:
        The expected calibration error, which is the distance of mean score and precision averaged over the detections
        (NaN without any), and for each tenth of the scores its bounds `low` and `high`, the `count` of its detections,
        their mean `score` and their `precision`, both NaN without any.

    Examples:
        >>> error, bins = calibrate_scores([0.95, 0.95, 0.15], [True, False, False])
        >>> round(error, 3), bins[9]
        (0.35, {'low': 0.9, 'high': 1.0, 'count': 2, 'score': 0.95, 'precision': 0.5})

    References:
        Guo et al., On Calibration of Modern Neural Networks, ICML 2017, Eq. 3.
    """
    scores, correct = np.asarray(scores, dtype=np.float64), np.asarray(correct, dtype=bool)
    bounds = np.arange(_BINS + 1) / _BINS
    index = np.digitize(scores, bounds[1:-1])
    count = np.bincount(index, minlength=_BINS)
    total, hits = (
        np.bincount(index, weights, minlength=_BINS) for weights in (scores, correct.astype(float))
    )
    with np.errstate(invalid="ignore"):
        error = np.abs(total - hits).sum() / np.float64(count.sum())
        columns = {
            "low": bounds[:-1],
            "high": bounds[1:],
            "count": count,
            "score": total / count,
            "precision": hits / count,
        }
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return float(error), [dict(zip(columns, row, strict=True)) for row in rows]
