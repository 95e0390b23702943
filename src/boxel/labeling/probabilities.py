"""Probabilities of the object: from votes, and to a mask with the largest expected IoU."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_BINS, _THRESHOLDS = 50, (0.2, 0.74)  # of probabilities, and the range that a threshold is chosen from


def best_threshold(probability: NDArray[np.float32]) -> float:
    """Return the threshold at which the mask of an (h, w) probability has the largest expected IoU.

    If each pixel is the object's with its probability, independent of the others, the expected intersection of the
    pixels above a threshold with the object is their sum, and the expected union their number plus the sum of the rest.
    Vague objects get a threshold below 0.5, since a missed pixel costs more than one too many.

    Examples:
        >>> best_threshold(np.array([[0.95, 0.9, 0.45, 0.43, 0.1, 0.05]], np.float32))
        0.42
        >>> best_threshold(np.array([[0.99, 0.98, 0.02]], np.float32))
        0.5
    """
    expected = expect_ious(probability)
    low, high = (round(limit * _BINS) for limit in _THRESHOLDS)
    best = np.flatnonzero(expected[low : high + 1] >= expected[low : high + 1].max() - 1e-9) + low
    return float(best[np.abs(best - _BINS // 2).argmin()] / _BINS)


def expect_ious(probability: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the expected IoU of the masks of an (h, w) probability at the thresholds 0, 0.02, ..., 0.98.

    Examples:
        >>> expect_ious(np.array([[0.9, 0.3]], np.float32)).round(2)[[0, 25, 49]].tolist()
        [0.6, 0.69, 0.0]
    """
    known = probability[~np.isnan(probability)]
    bins = (known * _BINS).astype(np.int64).clip(0, _BINS - 1)
    counts = np.bincount(bins, minlength=_BINS)[::-1].cumsum()[::-1]
    sums = np.bincount(bins, weights=known, minlength=_BINS)[::-1].cumsum()[::-1]
    return sums / np.maximum(counts + sums[0] - sums, 1e-6)


def mean_probability(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Average the probabilities of votes with (V, h, w) logits; NaN only where no vote has an opinion.

    Examples:
        >>> mean_probability(np.array([[[0, -9]], [[0, np.nan]]], np.float32)).round(3).tolist()
        [[0.5, 0.0]]
    """
    known, probability = ~np.isnan(logits), sigmoid(logits)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN, as it should be
        return probability.sum(axis=0, where=known) / known.sum(axis=0, dtype=np.float32)


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute the logistic function without overflow."""
    probability = np.tanh(0.5 * logits)
    probability *= 0.5
    probability += 0.5
    return probability
