"""Accuracy and intersection over union of label maps, from a confusion matrix that grows image by image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def confusion(
    found: NDArray[np.integer], truth: NDArray[np.integer], classes: int, void: int = 255
) -> NDArray[np.int64]:
    """How often each class was taken for each. The matrices of several images add up to that of all.

    Args:
        found: (H, W) labels in [0, classes).
        truth: (H, W) labels in [0, classes), or void: such pixels do not count.
        classes: how many there are, 255 at most.
        void: the label of pixels without one, no class.

    Returns:
        (classes, classes) counts of pixels; a row is a true class, a column one that was found.

    Raises:
        ValueError: there are other labels.
    """
    # A table of all pairs of bytes: one pass over the pixels, and none of them has to be looked for first.
    pairs = np.bincount((truth.astype(np.intp) << 8 | found).ravel(), minlength=2**16).reshape(256, 256)
    counts = pairs[:classes, :classes]
    if counts.sum() + pairs[void].sum() < truth.size:
        raise ValueError(f"a label is not in [0, {classes}), nor {void}")
    return counts


def semantic_figures(matrix: NDArray[np.int64], names: Sequence[str]) -> dict[str, Any]:
    """The measures of semantic segmentation.

    Args:
        matrix: (K, K) as of :func:`confusion`, or with one more class at the end for what is none of them.
        names: K names of the classes.

    Returns:
        `pixel_accuracy`, share of the pixels whose class was found; `mean_class_accuracy`, mean over classes of that of
        their own pixels; `mean_iou`, mean over classes of the pixels that are of a class and were found to be, by those
        that either are or were; `per_class`, that IoU by the class's name. All in [0, 1]; classes with nothing to
        divide by are NaN and left out of means.
    """
    sums = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
    hits, true, found = (counts[: len(names)] for counts in sums)
    with np.errstate(invalid="ignore"):
        accuracy, iou = hits / true, hits / (true + found - hits)
        overall = hits.sum() / true.sum()
    return {
        "pixel_accuracy": float(overall),
        "mean_class_accuracy": _mean(accuracy),
        "mean_iou": _mean(iou),
        "per_class": dict(zip(names, iou.tolist(), strict=True)),
    }


def _mean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
