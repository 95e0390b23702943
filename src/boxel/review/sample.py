"""Guarantee masks that nobody has checked, by a reviewer's random sample."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from boxel.labeling.guarantee import (
    CONFIDENCE,
    MIN_SHARE,
    MIN_SIDE,
    MIN_TRUE_MASKS,
    CheckedMasks,
    Guarantee,
    guarantee_masks,
)
from boxel.masks.rle import mask_iou
from boxel.review.decisions import Decision
from boxel.review.session import STATES, Review

SEED = 0
"""Of the random order, which is the same in every session."""


def random_ranks(review: Review) -> NDArray[np.int64]:
    """Return (N,) places of the objects in a random order; objects that the reviewer added come last."""
    own = len(review.data.ids)
    ranks = np.arange(len(review))
    ranks[:own] = np.random.default_rng(SEED).permutation(own)
    return ranks


def guarantee_so_far(review: Review, iou: float) -> tuple[Guarantee | None, int]:
    """Guarantee what can be guaranteed by the masks that were decided on in the random order.

    The sample are the masks of that order up to the first one that is open. The guarantee is about all predicted masks
    outside of it, as they were predicted, whether they were decided on or not: those that are still open may be the
    worst ones. An accepted mask has an IoU of 1 with the true one, a corrected mask the IoU of the predicted mask with
    it, and a rejected one an IoU of 0. Objects that are ignored or deleted have no true mask.

    Args:
        review: The review.
        iou: The IoU with the true mask to guarantee.

    Returns:
        The guarantee, None if the sample is too small for one; and how many more masks it needs then, else 0.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from boxel.data import example_scenes
        >>> from boxel.labeling import label
        >>> from boxel.review.decisions import DecisionStore
        >>> masks = label(example_scenes().without_masks(), teacher="ellipse")
        >>> review = Review(masks, DecisionStore(Path(tempfile.mkdtemp(), "decisions.sqlite")))
        >>> guarantee_so_far(review, 0.75)
        (None, 29)
    """
    data = review.data
    own = len(data.ids)
    predicted = data.has_generated_mask & ~data.iscrowd & data.has_box
    large = (data.boxes[:, 2:] - data.boxes[:, :2]).min(axis=1, initial=np.inf) >= MIN_SIDE
    order = np.argsort(random_ranks(review)[:own])
    order = order[(predicted & large)[order]]
    is_open = review.states[order] == STATES.index("open")
    sample = order[: is_open.argmax()] if is_open.any() else order
    true = [(row, review.entry(row).decision) for row in sample.tolist()]
    rated = [(data.quality[row], _true_iou(review, row, one)) for row, one in true if _is_object(one)]
    if len(rated) < MIN_TRUE_MASKS:
        return None, MIN_TRUE_MASKS - len(rated)
    quality, ious = np.array(rated, dtype=np.float64).T
    sampled = np.zeros(own, dtype=bool)
    sampled[sample] = True
    return guarantee_masks(data, predicted, sampled, CheckedMasks(quality, ious, iou))[1], 0


def describe_guarantee(found: Guarantee) -> str:
    """State what is guaranteed of the masks outside of the sample, after "Of the 60 masks decided on, ".

    Examples:
        >>> describe_guarantee(Guarantee(0.8, 0.7, 90, 10, 60, 50, 1, 0)).split(":")[0]
        '50 have a quality of at least 0.70, 1 of them an IoU below 0.8'
    """
    if not found.masks:
        more = f"; about {found.missing:,} more may change that" if found.missing else ""
        return f"{found.failures} have an IoU below {found.iou:g}, too many for a guarantee{more}."
    return (
        f"{found.above} have a quality of at least {found.threshold:.2f}, {found.failures} of them an IoU below "
        f"{found.iou:g}: with {CONFIDENCE:.0%} confidence, at least {MIN_SHARE:.0%} of the {found.masks:,} other masks "
        "of that quality have that IoU, as they were predicted."
    )


def _is_object(decision: Decision) -> bool:
    return decision.state in ("accepted", "rejected")


def _true_iou(review: Review, row: int, decision: Decision) -> float:
    """Return the IoU of a predicted mask with what the reviewer made of it."""
    predicted, true = review.data.rle(row), review.rle(row)
    if decision.state == "rejected" or predicted is None or true is None:
        return 0.0
    return 1.0 if predicted == true else mask_iou(predicted, true)
