"""Confidence intervals: is one set of detections better than another, or were the images lucky?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from boxel.data.annotations import Annotations
from boxel.evaluation.coco import ClassMatches, match_detections
from boxel.evaluation.matching import match_results
from boxel.evaluation.results import Result


def paired_bootstrap(
    truth: Annotations,
    results_a: Sequence[Result] | Sequence[Sequence[Result]],
    results_b: Sequence[Result] | Sequence[Sequence[Result]],
    metric: Literal["segm", "bbox"] = "segm",
    samples: int = 1000,
    seed: int = 0,
    thresholds: Sequence[float] | None = None,
) -> dict[str, float]:
    """Compute the ratio of two COCO APs, or of the mean APs of two groups of runs, with a 95 % confidence interval.

    The images are resampled with replacement, the same for both sides, and both APs computed from each sample.

    Args:
        truth: The ground truth.
        results_a: Detections; or those of several runs (e.g. with different seeds), whose APs are averaged.
        results_b: Detections of one run or several to compare with.
        metric: AP of masks or of boxes.
        samples: Number of samples.
        seed: Seed of the samples.
        thresholds: IoU thresholds whose APs are averaged, ``[0.5]`` for AP50. None: COCO's ten.

    Returns:
        `a` and `b`: the two APs in [0, 1]; `ratio`: a / b; `low` and `high`: the ends of the interval. NaN if b is 0 or
        there are no instances.

    Raises:
        BoxelError: Results and ground truth cannot be compared (see `match_results`).

    Examples:
        >>> from boxel.data import example_scenes
        >>> from boxel.evaluation import fill_boxes, to_results
        >>> truth = example_scenes(4)
        >>> perfect = to_results(truth)
        >>> paired_bootstrap(truth, fill_boxes(truth, perfect), perfect, samples=100)["high"] < 1
        True

    References:
        Efron and Tibshirani, An Introduction to the Bootstrap, 1993, Chapter 13 (percentile intervals).
    """
    draws = draw_images(len(truth), samples, seed)

    def mean_ap(results: Sequence[Result] | Sequence[Sequence[Result]]) -> NDArray[np.float64]:
        aps = []
        is_one_run = not results or isinstance(results[0], Mapping)
        for run in cast(Sequence[Sequence[Result]], [results] if is_one_run else results):
            matches = match_detections(*match_results(truth, run), metric, thresholds)
            aps.append(sample_ap(matches, draws))
        return np.mean(aps, axis=0)

    a, b = mean_ap(results_a), mean_ap(results_b)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = a / b
    low, high = _interval(ratios)
    ratio = ratios[0] if b[0] else np.nan
    values = {"a": a[0], "b": b[0], "ratio": ratio, "low": low, "high": high}
    return {name: float(value) for name, value in values.items()}


def draw_images(count: int, samples: int = 1000, seed: int = 0) -> NDArray[np.float64]:
    """Return how often each image is drawn, (samples + 1, count): once each in the first row, of all images."""
    draws = np.ones((samples + 1, count))
    if count:
        draws[1:] = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=samples)
    return draws


def paired_difference(a: NDArray[np.float64], b: NDArray[np.float64]) -> dict[str, float]:
    """Summarize how much larger a metric is than another on the same samples of images.

    Args:
        a: (S,) the metric of :func:`draw_images`, the first of all images.
        b: (S,) what it is compared with.

    Returns:
        `difference`: a - b of all images; `low` and `high`: the ends of its 95 % interval.

    Examples:
        >>> paired_difference(np.array([0.5, 0.5, 0.75]), np.array([0.25, 0.25, 0.5]))
        {'difference': 0.25, 'low': 0.25, 'high': 0.25}
    """
    values = a - b
    low, high = _interval(values)
    return {"difference": float(values[0]), "low": float(low), "high": float(high)}


def _interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the 95 % percentile interval of all values but the first."""
    sampled = values[1:][np.isfinite(values[1:])]
    low, high = np.quantile(sampled, [0.025, 0.975]) if len(sampled) else (np.nan, np.nan)
    return low, high


def sample_ap(matches: Sequence[ClassMatches], draws: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute COCO's AP of each sample of images: (S,) means over classes, NaN without any, of (S, I) draws.

    An image drawn n times repeats each of its detections n times in the list of scores; counting them n times at once
    leaves the precision-recall curve as it is.
    """
    by_class = np.full((len(matches), len(draws)), np.nan)
    for k, match in enumerate(matches):
        present = draws @ match.present
        step = max(1, 4_000_000 // max(1, len(match.image)))  # keeps each array below 32 MB
        for start in range(0, len(draws), step):
            part = slice(start, start + step)
            by_class[k, part] = _class_precision(match, draws[part], present[part])
    defined = ~np.isnan(by_class)
    with np.errstate(invalid="ignore"):
        return np.where(defined, by_class, 0).sum(axis=0) / defined.sum(axis=0)


def _class_precision(
    match: ClassMatches, draws: NDArray[np.float64], present: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the (S,) AP of one class: the mean over thresholds of precision interpolated at COCO's 101 recalls."""
    recalls = np.linspace(0, 1, 101)
    weights = draws[:, match.image]
    total = np.zeros(len(draws))
    with np.errstate(divide="ignore", invalid="ignore"):
        for true, false in zip(match.true, match.false, strict=True):
            # Recall grows and interpolated precision peaks only at true detections, so the others are skipped.
            hits = np.cumsum(weights[:, true], axis=1)
            misses = np.cumsum(weights * false, axis=1)[:, true]
            precision = hits / (hits + misses + np.spacing(1))
            precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
            reached = np.searchsorted(recalls, hits / present[:, None], side="right")
            total += (np.diff(reached, axis=1, prepend=0) * precision).sum(axis=1)
    return np.where(present > 0, total / (len(match.true) * len(recalls)), np.nan)
