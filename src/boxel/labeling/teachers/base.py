"""The protocol of teachers: an image and boxes in, one soft mask per box out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from boxel.data.annotations import Category
from boxel.masks.boxes import Region
from boxel.masks.crops import resample
from boxel.utils.errors import BoxelError

MAX_LOGIT = 100.0  # stands for an infinite logit, between which nothing can be interpolated
CERTAIN_LOGIT = 10.0
"""Logit of a pixel that certainly is the object (probability 0.99995); negative, of one that certainly is not."""


@dataclass(frozen=True)
class SoftMask:
    """A teacher's prediction for one box, on a grid of its own.

    Attributes:
        logits: (h, w) float32, above 0 for the object; NaN if the teacher has no opinion.
        window: x0, y0, x1, y1, the pixels of the image that the grid covers from edge to edge; it may reach past the
            image.
        score: Confidence of the teacher in [0, 1].

    Raises:
        BoxelError: The logits are not two-dimensional, or the window has no area.

    Examples:
        >>> SoftMask(np.array([[5.0, -5.0]]), (10, 20, 30, 40)).score
        1.0
    """

    logits: NDArray[np.float32]
    window: tuple[float, float, float, float]
    score: float = 1.0

    def __post_init__(self) -> None:
        logits = np.asarray(self.logits, dtype=np.float32)
        if logits.ndim != 2 or not logits.size:
            raise BoxelError(f"logits of shape {logits.shape} are not a soft mask; give (rows, columns).")
        x0, y0, x1, y1 = self.window
        if not (x0 < x1 and y0 < y1 and np.isfinite(self.window).all()):
            raise BoxelError(
                f"{self.window} is not the window of a soft mask; give x0, y0, x1, y1 with an area."
            )
        finite = logits.clip(-MAX_LOGIT, MAX_LOGIT) if np.isinf(logits).any() else logits
        object.__setattr__(self, "logits", finite)

    def resample(self, region: Region) -> NDArray[np.float32]:
        """Interpolate the logits at the pixels of a region; a pixel that depends on a cell of NaN is NaN."""
        return resample(self.logits, self.window, region)


NO_OPINION = SoftMask(np.full((1, 1), np.nan, dtype=np.float32), (0, 0, 1, 1), 0.0)
"""The prediction of a teacher that does not know what is in a box."""


class Teacher(Protocol):
    """Anything that predicts masks for boxes: a callable with a name.

    A teacher may have an ``identity``, a text that changes whenever its masks would, e.g. a digest of its weights;
    masks of different identities are never mixed. It may have ``calibrated = True`` if its logits stand for
    probabilities that are true on average, so that each mask gets the threshold with the largest expected IoU.
    """

    name: str

    def __call__(
        self, image: NDArray[np.uint8], boxes: NDArray[np.float64], labels: NDArray[np.int32]
    ) -> list[SoftMask]:
        """Predict one soft mask per box.

        Args:
            image: (H, W, 3) RGB.
            boxes: (N, 4) xyxy pixels, each with an area and partly inside the image.
            labels: (N,) index of each box's category in the dataset.
        """
        ...


def from_binary_mask(mask: NDArray[np.bool_], left: int, top: int, score: float = 1.0) -> SoftMask:
    """Convert an (h, w) mask of the image's pixels from (left, top) on; all other pixels are background."""
    h, w = mask.shape
    logits = np.where(mask, np.float32(CERTAIN_LOGIT), np.float32(-CERTAIN_LOGIT))
    # One more pixel on each side, since values are constant beyond a grid.
    padded = np.pad(logits, 1, constant_values=-CERTAIN_LOGIT)
    return SoftMask(padded, (left - 1, top - 1, left + w + 1, top + h + 1), score)


def match_classes(known: Sequence[Category], categories: Sequence[Category]) -> NDArray[np.int64]:
    """Return a model's own label of each label of a dataset, by name; -1 for classes that it does not know."""
    label_of = {category.name: label for label, category in reversed([*enumerate(known)])}
    return np.array([label_of.get(category.name, -1) for category in categories], dtype=np.int64)
