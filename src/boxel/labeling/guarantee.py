"""A guarantee on masks: those from some quality up have a stated IoU with the true masks, with 95 % confidence."""

from __future__ import annotations

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
"""Minimum number of true masks from the threshold up: 0.9 to the power of 28 is still above 0.05."""

MIN_SIDE = 16.0
"""Minimum shorter side, in pixels, of the boxes that calibration and guarantee use."""

SHARES = np.arange(0.4, 1.001, 0.05)
"""Shares of the masks, those of the highest quality, that are tested in this order.

In smaller ones there are few true masks, and a single failure among them would end the test.
"""


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
        masks: Number of guaranteed masks.
        remaining: Number of the other masks, which are not trusted.
        checked: Number of true masks that the quality was compared with.
        above: Number of those with a quality of at least `threshold`; of all if nothing is guaranteed.
        failures: Number of these whose IoU is below `iou`.
        missing: If nothing is guaranteed, about how many more true masks may change that; 0 if not even all would.

    Examples:
        >>> Guarantee(0.8, 0.7, 90, 10, 60, 50, 1, 0).describe().split(":")[0]
        '90 masks are guaranteed'
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
                f"{self.masks:,} masks are guaranteed: with {CONFIDENCE:.0%} confidence, at least {MIN_SHARE:.0%} of "
                f"them have an IoU of at least {self.iou:g}, if the true masks were drawn at random from the dataset "
                f"(quality at least {self.threshold:.2f}; {self.above} of {self.checked} true masks have that, "
                f"{self.failures} of these a lower IoU){remain}"
            )
        remedy = (
            f"correct about {self.missing:,} more, drawn at random"
            if self.missing
            else "more of them hardly change that; ask for a lower IoU, or adapt the network"
        )
        return (
            f"no mask is guaranteed to have an IoU of at least {self.iou:g}: {self.failures} of {self.checked} true "
            f"masks have a lower one, too many at every quality; {remedy}{remain}"
        )


def find_threshold(
    quality: NDArray[np.floating], ious: NDArray[np.floating], iou: float, thresholds: NDArray[np.floating]
) -> float:
    """Find the lowest threshold of the quality from which up masks have a stated IoU with the true masks.

    Thresholds are tested from the highest down, until one fails. A test passes if the upper bound of Clopper and
    Pearson on the share of masks with a lower IoU is at most 1 - `MIN_SHARE`; by the fixed order, all thresholds
    together err with a probability of at most 1 - `CONFIDENCE`. Those with too few true masks to pass are skipped: this
    depends on the quality alone.

    The true masks must be drawn at random from those that the guarantee is for, and neither their quality nor the
    thresholds may depend on their IoU.

    Args:
        quality: (M,) quality of the predicted masks of which the true ones are known.
        ious: (M,) IoU with them.
        iou: Minimum IoU.
        thresholds: Thresholds of the quality.

    Returns:
        The threshold, NaN if the highest one fails already.

    Examples:
        >>> quality = np.linspace(1, 0, 101)
        >>> find_threshold(quality, np.where(quality >= 0.5, 0.9, 0.3), 0.8, np.array([0.8, 0.7, 0.6, 0.4, 0.2]))
        0.6

    References:
        Angelopoulos, Bates, Candès, Jordan, Lei, "Learn then Test: Calibrating Predictive Algorithms to Achieve Risk
        Control", 2021, https://arxiv.org/abs/2110.01052, Section 2 (fixed sequence testing).
    """
    found = np.nan
    for threshold in np.sort(thresholds)[::-1].tolist():
        above = quality >= threshold
        if above.sum() < MIN_TRUE_MASKS:
            continue
        if not _passes((ious[above] < iou).sum(), above.sum()):
            break
        found = threshold
    return found


def guarantee_masks(
    data: Annotations, made: NDArray[np.bool_], checked: CheckedMasks
) -> tuple[Annotations, Guarantee]:
    """Trust only those predicted masks of a dataset that are guaranteed; masks of small boxes are not.

    Args:
        data: A labeled dataset.
        made: (N,) bool, its predicted masks.
        checked: Predicted masks of which the true ones are known, drawn at random from these.

    Returns:
        The dataset with another `trusted`, and the guarantee.
    """
    quality, ious, iou = checked
    large = (data.boxes[:, 2:] - data.boxes[:, :2]).min(axis=1, initial=np.inf) >= MIN_SIDE
    covered = made & data.trusted & large & np.isfinite(data.quality)
    thresholds = np.quantile(data.quality[covered], 1 - SHARES) if covered.any() else np.empty(0)
    threshold = find_threshold(quality, ious, iou, thresholds)
    covered &= data.quality >= threshold  # none if it is NaN
    above = quality >= (threshold if covered.any() else -np.inf)
    guarantee = Guarantee(
        iou=iou,
        threshold=threshold,
        masks=int(covered.sum()),
        remaining=int((made & ~covered).sum()),
        checked=len(ious),
        above=int(above.sum()),
        failures=int((ious[above] < iou).sum()),
        missing=0 if covered.any() else _count_missing(quality, ious < iou, thresholds, int(made.sum())),
    )
    return replace(data, trusted=np.where(made, covered, data.trusted)), guarantee


def _passes(failures: ArrayLike, count: ArrayLike) -> NDArray[np.bool_]:
    """Return whether the upper bound on the share of failures is at most 1 - `MIN_SHARE`.

    That is, whether so few failures are improbable at that share: the test whose inversion is Clopper and Pearson's
    bound.
    """
    from scipy.stats import binom

    return np.asarray(binom.cdf(failures, count, 1 - MIN_SHARE) <= 1 - CONFIDENCE)


def _count_missing(
    quality: NDArray[np.floating], failed: NDArray[np.bool_], thresholds: NDArray[np.floating], maximum: int
) -> int:
    """Estimate how many more true masks a test takes to pass, if they fail as often as those that are known.

    Returns:
        The number, 0 if it is larger than the maximum.
    """
    more = np.unique(np.geomspace(1, max(maximum, 1), 200).astype(int))
    passes = np.zeros(len(more), dtype=bool)
    for threshold in thresholds.tolist():
        above = quality >= threshold
        if above.any():
            counts = (above.mean() * (len(quality) + more)).astype(int)
            passes |= _passes(np.ceil(failed[above].mean() * counts), counts)
    return int(more[passes.argmax()]) if passes.any() else 0
