"""Which objects a reviewer wants to see, and in which order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from boxel.labeling.review import DOUBT
from boxel.review.sample import random_ranks
from boxel.review.session import STATES, Review

Order: TypeAlias = Literal["worst", "best", "file", "small", "large", "random"]
Size: TypeAlias = Literal["small", "medium", "large"]

_SIDES: dict[Size, tuple[float, float]] = {"small": (0, 32), "medium": (32, 96), "large": (96, np.inf)}
"""Sides of boxes in pixels, as COCO's square roots of areas."""


@dataclass(frozen=True)
class Selection:
    """What to show; objects must meet all conditions.

    Attributes:
        order: ``worst`` quality first, ``best`` first, as in the ``file``, ``small`` or ``large`` boxes first, or
            ``random``, as a guarantee assumes.
        state: State of the objects; None for all but deleted ones.
        category: Name of their class; None for all.
        size: Size of their boxes as COCO defines it; None for all.
        min_quality: Minimum quality, in [0, 1].
        max_quality: Maximum quality; masks of unknown quality meet the condition only if it is 1.
        suspect: Only boxes that look wrong.
        image: Index of the image; None for all.

    Examples:
        >>> Selection(state="open", max_quality=0.75).order
        'worst'
    """

    order: Order = "worst"
    state: str | None = None
    category: str | None = None
    size: Size | None = None
    min_quality: float = 0.0
    max_quality: float = 1.0
    suspect: bool = False
    image: int | None = None


def select(review: Review, selection: Selection) -> NDArray[np.int64]:
    """Return the objects to show, in their order.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from boxel.data import example_scenes
        >>> from boxel.review.decisions import DecisionStore
        >>> review = Review(example_scenes(), DecisionStore(Path(tempfile.mkdtemp(), "decisions.sqlite")))
        >>> review.quality[:] = [0.9, 0.2, 0.5, 0.8, 0.7]
        >>> select(review, Selection(max_quality=0.75)).tolist()
        [1, 2, 4]
    """
    quality, states = review.quality, review.states
    state = selection.state
    kept = states != STATES.index("deleted") if state is None else states == STATES.index(state)
    if selection.category is not None:
        kept &= review.labels == review.names.index(selection.category)
    if selection.size is not None:
        low, high = _SIDES[selection.size]
        kept &= (review.sides >= low) & (review.sides < high)
    if selection.min_quality > 0:
        kept &= quality >= selection.min_quality
    if selection.max_quality < 1:
        kept &= quality <= selection.max_quality
    if selection.suspect:
        kept &= np.isin(np.arange(len(review)), list(review.suspects))
    if selection.image is not None:
        kept &= review.image_index == selection.image
    rows = np.flatnonzero(kept)
    return rows[np.argsort(_sort_key(review, selection.order)[rows], kind="stable")]


def _sort_key(review: Review, order: Order) -> NDArray[np.float64]:
    """Return (N,) numbers that grow in an order."""
    if order in ("small", "large"):
        return review.sides if order == "small" else -review.sides
    if order == "file":
        return np.arange(len(review), dtype=np.float64)
    if order == "random":
        return random_ranks(review).astype(np.float64)
    quality = np.nan_to_num(review.quality, nan=0.5)  # unknown: as doubtful as a coin
    # Boxes that look wrong come before masks that do.
    quality[list(review.suspects)] -= 1
    return quality if order == "worst" else -quality


def count_states(review: Review) -> dict[str, int]:
    """Count the objects by state, and as `doubtful` those in doubt that nobody has decided on.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from boxel.data import example_scenes
        >>> from boxel.review.decisions import DecisionStore
        >>> review = Review(example_scenes(), DecisionStore(Path(tempfile.mkdtemp(), "decisions.sqlite")))
        >>> count_states(review)["open"]
        5
    """
    counts = np.bincount(review.states, minlength=len(STATES)).tolist()
    doubtful = (review.states == STATES.index("open")) & ~(review.quality >= DOUBT)
    return dict(zip(STATES, counts, strict=True)) | {"doubtful": int(doubtful.sum())}
