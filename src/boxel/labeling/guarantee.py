"""A guarantee on masks: those from some quality up have a stated IoU with the true masks, with 95 % confidence."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from boxel.data.annotations import Annotations

MIN_SHARE = 0.9
"""Minimum share of the guaranteed masks that have the stated IoU..."""

CONFIDENCE = 0.95
"""...and the probability, over the choice of the true masks, that this holds."""

MIN_TRUE_MASKS = 29
"""Minimum number of true masks: 0.9 to the power of 28 is still above 0.05."""

MIN_SIDE = 16.0
"""Minimum shorter side, in pixels, of the boxes that calibration and guarantee use."""

_MAX_CHECKED = 5000  # true masks that count; of more, a random sample, as the time grows with their square
_MAX_DISTANCE = 8.0  # of the bounds, in standard deviations
_MAX_MISSING = 2000  # true masks more that are worth a thought


class CheckedMasks(NamedTuple):
    """Predicted masks of which the true ones are known: (M,) quality, (M,) IoU, and the IoU to guarantee."""

    quality: NDArray[np.float64]
    ious: NDArray[np.float64]
    iou: float


@dataclass(frozen=True)
class Guarantee:
    """Which masks of a dataset are guaranteed, and by what.

    Attributes:
        iou: The IoU with the true mask that is guaranteed.
        threshold: The minimum quality of the guaranteed masks; NaN if none are.
        masks: Number of guaranteed masks; none of them is among those that were checked.
        remaining: Number of the other masks, which are not trusted.
        checked: Number of true masks that the quality was compared with.
        above: Number of those with a quality of at least `threshold`; of all if nothing is guaranteed.
        failures: Number of these whose IoU is below `iou`.
        missing: If nothing is guaranteed, about how many more true masks may change that; 0 if hardly any number.

    Examples:
        >>> Guarantee(0.8, 0.7, 90, 10, 60, 50, 1, 0).describe().split(":")[0]
        '90 masks that nobody checked are guaranteed'
    """

    iou: float
    threshold: float
    masks: int
    remaining: int
    checked: int
    above: int
    failures: int
    missing: int

    def describe(self) -> str:
        """State in a sentence what is guaranteed, under which assumption, and what remains."""
        remain = f"; {self.remaining:,} masks remain and are not trusted" if self.remaining else ""
        if self.masks:
            return (
                f"{self.masks:,} masks that nobody checked are guaranteed: with {CONFIDENCE:.0%} confidence, at least "
                f"{MIN_SHARE:.0%} of them have an IoU of at least {self.iou:g}, if the true masks were drawn at random "
                f"from the dataset, or from one like it (quality at least {self.threshold:.2f}; {self.above} of "
                f"{self.checked} true masks have that, {self.failures} of these a lower IoU){remain}"
            )
        if not self.remaining:
            return "no mask is guaranteed: there is none that nobody checked"
        remedy = (
            f"correct about {self.missing:,} more, drawn at random"
            if self.missing
            else "more of them hardly change that; ask for a lower IoU, or adapt the network"
        )
        return (
            f"no mask is guaranteed to have an IoU of at least {self.iou:g}: {self.failures} of {self.checked} true "
            f"masks have a lower one, so that at no quality the others are sure enough; {remedy}{remain}"
        )


def bound_failures(checked: int, others: int) -> NDArray[np.int64]:
    """Bound how many masks that nobody checked fail from any threshold up, by the failures among the checked ones.

    With a probability of at least `CONFIDENCE` the bounds hold for all thresholds of the quality at once, so that one
    may be chosen after all were seen. From the highest quality down, the masks that fail are a random sequence of
    checked and other ones, however many fail. The bounds are a curve that such a sequence, as long as all masks
    together, crosses with a probability of at most 1 - `CONFIDENCE`; this is computed exactly.

    Args:
        checked: Number of masks that were drawn at random and checked.
        others: Number of the other masks.

    Returns:
        (K,) maximum failures among the others if 0, 1, ..., K - 1 of the checked ones fail. More than K - 1 allow no
        guarantee, not even of all masks together.

    Examples:
        >>> bound_failures(30, 500)  # without a failure, at most 48 of the 500 others fail
        array([48])

    References:
        Angelopoulos, Bates, Candès, Jordan, Lei, "Learn then Test: Calibrating Predictive Algorithms to Achieve Risk
        Control", 2021, https://arxiv.org/abs/2110.01052, whose tests of a fixed sequence this replaces.
    """
    low, high = 0.0, _MAX_DISTANCE
    for _ in range(14):
        middle = (low + high) / 2
        crossed = _cross_probability(_make_curve(checked, others, middle), checked, others) > 1 - CONFIDENCE
        low, high = (middle, high) if crossed else (low, middle)
    return _make_curve(checked, others, high)


def find_threshold(
    quality: NDArray[np.floating], ious: NDArray[np.floating], iou: float, others: NDArray[np.floating]
) -> float:
    """Find the lowest threshold of the quality from which up masks have a stated IoU with the true masks.

    With a probability of at least `CONFIDENCE`, at least `MIN_SHARE` of the others from the threshold up have the IoU;
    see `bound_failures`. The true masks must be drawn at random from a dataset of which the others are the rest, or
    from one like it, and no quality may depend on an IoU.

    Args:
        quality: (M,) quality of the predicted masks of which the true ones are known.
        ious: (M,) IoU with them.
        iou: Minimum IoU.
        others: (U,) quality of the predicted masks that nobody checked, NaN if they cannot be guaranteed.

    Returns:
        The threshold, one of the quality of the others; NaN if there is none.

    Examples:
        >>> quality = np.linspace(1, 0, 101)
        >>> find_threshold(quality, np.where(quality >= 0.5, 0.9, 0.3), 0.8, np.linspace(1, 0, 101))
        0.5
    """
    thresholds, failures, counts = _count_above(quality[ious < iou], others)
    passes = _pass(bound_failures(len(quality), len(others)), failures, counts)
    return float(thresholds[passes.argmax()]) if passes.any() else np.nan


def guarantee_masks(
    data: Annotations, made: NDArray[np.bool_], known: NDArray[np.bool_], checked: CheckedMasks
) -> tuple[Annotations, Guarantee]:
    """Trust only those predicted masks of a dataset that are guaranteed; masks of small boxes are not.

    Args:
        data: A labeled dataset.
        made: (N,) bool, its predicted masks.
        known: (N,) bool, the instances of which the true mask is known; what was predicted for them is not guaranteed.
        checked: Predicted masks of which the true ones are known, drawn at random from these or from the like.

    Returns:
        The dataset with another `trusted`, and the guarantee.
    """
    quality, ious, iou = checked
    drawn = np.random.default_rng(0).permutation(len(ious))[:_MAX_CHECKED]
    quality, ious = quality[drawn], ious[drawn]
    large = (data.boxes[:, 2:] - data.boxes[:, :2]).min(axis=1, initial=np.inf) >= MIN_SIDE
    others = np.where(data.trusted, data.quality, np.nan)[made & large & ~known]
    threshold = find_threshold(quality, ious, iou, others)
    covered = made & large & ~known & data.trusted & (data.quality >= threshold)  # none if it is NaN
    above = quality >= (threshold if covered.any() else -np.inf)
    guarantee = Guarantee(
        iou=iou,
        threshold=threshold,
        masks=int(covered.sum()),
        remaining=int((made & ~covered).sum()),
        checked=len(ious),
        above=int(above.sum()),
        failures=int((ious[above] < iou).sum()),
        missing=0 if covered.any() else _count_missing(quality, ious < iou, others),
    )
    return replace(data, trusted=np.where(made, covered, data.trusted)), guarantee


def _make_curve(checked: int, others: int, distance: float) -> NDArray[np.int64]:
    """Compute (K,) bounds that lie so many standard deviations above what is expected of one threshold.

    Any shape is valid. This one is near the upper limit of Clopper and Pearson: that of a Poisson variable by Wilson
    and Hilferty, as a share by Bolshev.
    """
    n = np.arange(1, checked + 1)
    limit = n * (1 - 1 / (9 * n) + distance / (3 * np.sqrt(n))) ** 3
    curve = np.ceil(others * limit / (checked + (limit - n + 1) / 2)).astype(np.int64)
    return curve[: np.searchsorted(curve, _count_allowed(others), side="right")]


def _cross_probability(curve: NDArray[np.int64], checked: int, others: int) -> float:
    """Compute how probable it is that more others come than a curve allows before the next checked one, anywhere.

    All orders of the checked and the other masks are equally probable. Those that have not crossed the curve are
    counted, by the number of others that came before the k-th checked one.
    """
    probability, scale, ways = 0.0, 0.0, np.zeros(0)
    for k, bound in enumerate(curve.tolist() if others else []):
        before = np.zeros(bound + 1)
        before[: len(ways)] = ways
        ways = np.cumsum(before) if k else np.ones(bound + 1)
        scale, ways = scale + np.log(ways[-1]), ways / ways[-1]  # the last one is the largest
        orders = _log_orders(checked - k, others - bound - 1) - _log_orders(checked, others)
        probability += float(np.exp(scale + orders))
    return probability


def _log_orders(checked: int, others: int) -> float:
    """Compute the logarithm of the number of orders of checked and other masks."""
    return math.lgamma(checked + others + 1) - math.lgamma(checked + 1) - math.lgamma(others + 1)


def _count_allowed(masks: ArrayLike) -> NDArray[np.int64]:
    """Count how many of so many masks may fail."""
    return np.asarray(masks) - np.ceil(MIN_SHARE * np.asarray(masks)).astype(np.int64)


def _count_above(
    failed: NDArray[np.floating], others: NDArray[np.floating]
) -> tuple[NDArray[np.floating], NDArray[np.int64], NDArray[np.int64]]:
    """Count from each quality of the others up, lowest first, the checked masks that failed and the others."""
    thresholds = np.sort(others[np.isfinite(others)])
    first = np.searchsorted(thresholds, thresholds)  # of those that are equal
    return thresholds, len(failed) - np.searchsorted(np.sort(failed), thresholds), len(thresholds) - first


def _pass(
    bounds: NDArray[np.int64], failures: NDArray[np.int64], counts: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return at which thresholds the failures of the others are bounded by what is allowed."""
    passes = failures < len(bounds)
    passes[passes] = bounds[failures[passes]] <= _count_allowed(counts[passes])
    return passes


def _count_missing(
    quality: NDArray[np.floating], failed: NDArray[np.bool_], others: NDArray[np.floating]
) -> int:
    """Estimate how many more of the masks to check for a guarantee, if they fail as often as those that are known.

    Returns:
        The number, 0 if not even all of them are enough, or more than people correct.
    """
    _, failures, counts = _count_above(quality[failed], others)

    def suffices(more: int) -> bool:
        checked, left = len(quality) + more, len(others) - more
        scaled = np.ceil(failures * (checked / len(quality))).astype(np.int64)
        return bool(_pass(bound_failures(checked, left), scaled, counts * left // len(others)).any())

    steps = np.unique(np.geomspace(1, min(max(len(others) - 1, 1), _MAX_MISSING), 100).astype(int)).tolist()
    place = bisect_left(steps, True, key=suffices) if len(others) > 1 else len(steps)
    return steps[place] if place < len(steps) else 0
