"""How far an estimate of masks' quality can be trusted."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import spearmanr


def ranking_figures(quality: ArrayLike, ious: ArrayLike, keep: float = 0.6) -> dict[str, float]:
    """How far a quality can be trusted.

    Args:
        quality: (N,) estimates in [0, 1].
        ious: (N,) true IoUs.
        keep: share of the masks kept for `gain`.

    Returns:
        `spearman`, rank correlation; `calibration_error`, the mean distance of estimate and truth over ten bins of
        equal count; `gain`, of what the best `keep` by true IoU would gain in mean IoU over all, the share that the
        best by quality do.
    """
    estimate, truth = np.asarray(quality, dtype=np.float64), np.asarray(ious, dtype=np.float64)
    order = np.argsort(-estimate, kind="stable")
    count = round(keep * len(truth))
    best, oracle = truth[order[:count]].mean(), np.sort(truth)[::-1][:count].mean()
    bins = [abs(estimate[part].mean() - truth[part].mean()) for part in np.array_split(order, 10)]
    return {
        "spearman": float(spearmanr(estimate, truth).statistic),
        "calibration_error": float(np.mean(bins)),
        "gain": float((best - truth.mean()) / max(oracle - truth.mean(), 1e-9)),
    }
