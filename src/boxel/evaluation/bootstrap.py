"""Is one set of masks better than another, or was it the luck of the images?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from boxel.data.annotations import Annotations
from boxel.evaluation.outcomes import Outcome, outcomes_of
from boxel.evaluation.results import Result, check_results, restrict


def paired_bootstrap(
    results_a: Sequence[Result] | Sequence[Sequence[Result]],
    results_b: Sequence[Result] | Sequence[Sequence[Result]],
    truth: Annotations,
    metric: Literal["segm", "bbox"] = "segm",
    samples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
    class_agnostic: bool = False,
    categories: Sequence[str] | None = None,
    thresholds: Sequence[float] | None = None,
) -> dict[str, float]:
    """The ratio of the COCO APs of two result sets, or of the mean APs of two sets of runs, with an interval.

    The interval is of the images: they are drawn with replacement, the same for both sets, and both APs computed anew
    from them (the percentile bootstrap of Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, Chapter 13).

    Args:
        results_a: detections; or those of several runs, as of different seeds, whose APs are averaged.
        results_b: detections to compare them with, of one run or several.
        truth: what is there, for both.
        metric: AP of masks or of boxes.
        samples: how often to draw.
        seed: of the draws; the same seed gives the same interval.
        confidence: that of the interval, in (0, 1).
        class_agnostic: all classes are one.
        categories: names of the only classes looked at; None for all.
        thresholds: of IoU, whose APs are averaged: COCO's ten where None, ``[0.5]`` for AP50.

    Returns:
        `a` and `b`: the two APs in [0, 1]; `ratio`: a / b; `low` and `high`: the interval's ends. NaN where b
        is 0 or there is nothing to find.

    Raises:
        BoxelError: results and truth don't fit together (`check_results`).
    """
    runs_a, runs_b = _runs(results_a), _runs(results_b)
    for results in (*runs_a, *runs_b):
        check_results(results, truth, class_agnostic)
    kept = restrict([], truth, categories, class_agnostic)[1]
    images = len(kept)
    draws = np.ones((1, images))  # the set as it is; all others are drawn
    if images:
        random = np.random.default_rng(seed)
        drawn = random.multinomial(images, np.full(images, 1 / images), size=samples)
        draws = np.concatenate([draws, drawn])

    def mean_ap(runs: list[Sequence[Result]]) -> NDArray[np.float64]:
        shown = [restrict(results, truth, categories, class_agnostic)[0] for results in runs]
        outcomes = [outcomes_of(results, kept, metric, class_agnostic, thresholds) for results in shown]
        return np.mean([_average_precision(outcome, draws) for outcome in outcomes], axis=0)

    a, b = mean_ap(runs_a), mean_ap(runs_b)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = a / b
    drawn_ratios = ratios[1:][np.isfinite(ratios[1:])]
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn_ratios, [tail, 1 - tail]) if len(drawn_ratios) else (np.nan, np.nan)
    ratio = ratios[0] if b[0] else np.nan
    figures = {"a": a[0], "b": b[0], "ratio": ratio, "low": low, "high": high}
    return {name: float(figure) for name, figure in figures.items()}


def _runs(results: Sequence[Result] | Sequence[Sequence[Result]]) -> list[Sequence[Result]]:
    one = not results or isinstance(results[0], Mapping)
    return cast(list[Sequence[Result]], [results] if one else list(results))


def _average_precision(outcomes: Sequence[Outcome], draws: NDArray[np.float64]) -> NDArray[np.float64]:
    """COCO's AP, each image as often as drawn.

    Drawing an image n times repeats each of its detections n times in the list of scores; counting it n times
    at once leaves the curve of precision over recall as it is.

    Args:
        outcomes: one a class.
        draws: (S, I) how often each image was drawn.

    Returns:
        (S,) mean over the classes that the images drawn have, NaN without any.
    """
    by_class = np.full((len(outcomes), len(draws)), np.nan)
    for k, outcome in enumerate(outcomes):
        present = draws @ outcome.present
        step = max(1, 4_000_000 // max(1, len(outcome.image)))  # keeps the arrays below 32 MB each
        for start in range(0, len(draws), step):
            part = slice(start, start + step)
            by_class[k, part] = _class_precision(outcome, draws[part], present[part])
    defined = ~np.isnan(by_class)
    with np.errstate(invalid="ignore"):
        return np.where(defined, by_class, 0).sum(axis=0) / defined.sum(axis=0)


def _class_precision(
    outcome: Outcome, draws: NDArray[np.float64], present: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(S,) AP of one class: the mean over IoU thresholds of precision at COCO's 101 recalls, interpolated."""
    recalls = np.linspace(0, 1, 101)
    weights = draws[:, outcome.image]
    total = np.zeros(len(draws))
    with np.errstate(divide="ignore", invalid="ignore"):
        for true, false in zip(outcome.true, outcome.false, strict=True):
            # Recall grows and interpolated precision peaks only at true detections, so only they are looked
            # at.
            hits = np.cumsum(weights[:, true], axis=1)
            misses = np.cumsum(weights * false, axis=1)[:, true]
            precision = hits / (hits + misses + np.spacing(1))
            precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
            reached = np.searchsorted(recalls, hits / present[:, None], side="right")
            total += (np.diff(reached, axis=1, prepend=0) * precision).sum(axis=1)
    return np.where(present > 0, total / (len(outcome.true) * len(recalls)), np.nan)
