"""What a teacher says of a box: a soft mask on a grid of its own, and how it looks on the image's pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from boxel.masks.crops import resample
from boxel.utils.errors import BoxelError


class Region(NamedTuple):
    """Whole pixels of an image: columns `left` to `right` and rows `top` to `bottom`, the latter not included."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.bottom - self.top, self.right - self.left


@dataclass(frozen=True)
class SoftMask:
    """A teacher's opinion on the object in one box.

    Attributes:
        logits: (h, w) float32, above 0 where the object is; NaN where the teacher does not say. Infinite ones, which
            nothing can be interpolated between, become `LIMIT`.
        window: x0, y0, x1, y1, the pixels of the image that the grid covers from edge to edge, which may lie partly
            outside the image.
        score: the teacher's certainty in [0, 1].
    """

    logits: NDArray[np.float32]
    window: tuple[float, float, float, float]
    score: float = 1.0

    def __post_init__(self) -> None:
        logits = np.asarray(self.logits, dtype=np.float32)
        if logits.ndim != 2 or not logits.size:
            raise BoxelError(f"logits of shape {logits.shape} are no soft mask; give (rows, columns).")
        x0, y0, x1, y1 = self.window
        if not (x0 < x1 and y0 < y1 and np.isfinite(self.window).all()):
            raise BoxelError(f"{self.window} is no window of a soft mask; give x0, y0, x1, y1 with an area.")
        object.__setattr__(self, "logits", logits.clip(-LIMIT, LIMIT) if np.isinf(logits).any() else logits)


LIMIT = 100.0
"""Logit of what is certain."""


NO_OPINION = SoftMask(np.full((1, 1), np.nan, dtype=np.float32), (0, 0, 1, 1), 0.0)
"""Of a teacher that does not know what is in a box."""


class Teacher(Protocol):
    """Anything that makes masks of boxes: a function of an image, with a name."""

    name: str

    def __call__(
        self, image: NDArray[np.uint8], boxes: NDArray[np.float64], labels: NDArray[np.int32]
    ) -> list[SoftMask]:
        """One soft mask a box.

        Args:
            image: (H, W, 3) RGB.
            boxes: (N, 4) xyxy pixels, each with an area and partly inside the image.
            labels: (N,) index of each box's category in the data set.
        """
        ...


def region_about(box: ArrayLike, height: int, width: int, margin: float = 0.0) -> Region:
    """The pixels of an image that a mask of a box may take: those whose middle is in the box and its margin.

    Args:
        box: (4,) xyxy pixels.
        height: of the image.
        width: of the image.
        margin: on each side, as a share of the box's width and height.

    Returns:
        A region of one pixel at least, the one nearest the middle of the box where there would be none.
    """
    x0, y0, x1, y1 = np.asarray(box, dtype=np.float64)
    across, down = margin * (x1 - x0), margin * (y1 - y0)
    left, right = _middles_between(x0 - across, x1 + across, width)
    top, bottom = _middles_between(y0 - down, y1 + down, height)
    return Region(left, top, right, bottom)


def _middles_between(start: float, end: float, size: int) -> tuple[int, int]:
    first, last = (int(np.clip(np.ceil(edge - 0.5), 0, size)) for edge in (start, end))
    if first >= last:
        first = int(np.clip(np.floor((start + end) / 2), 0, size - 1))
        last = first + 1
    return first, last


def logits_on(soft: SoftMask, region: Region) -> NDArray[np.float32]:
    """A soft mask's logits at the pixels of a region, bilinear between the middles of its cells.

    Beyond the outermost middles the edge goes on. A pixel that leans on a cell of NaN is NaN.

    Args:
        soft: the mask.
        region: the pixels.

    Returns:
        (rows, columns) float32 of the region.
    """
    return resample(soft.logits, soft.window, region)
