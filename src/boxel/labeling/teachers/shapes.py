"""Masks that need nothing but the box: what any teacher has to beat, and something to lean on for one that has gaps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from boxel.labeling.teachers.base import SoftMask, region_about
from boxel.masks.boxes import from_middle

SURE = 10.0
"""Logit of a pixel that is certainly the object, and less it of one that is certainly not: 0.99995 as probability."""

INNER_SHARE = 0.2
"""Of the box's area, what `inner_box` takes for the object."""


def exact(mask: NDArray[np.bool_], left: int, top: int) -> SoftMask:
    """A mask of whole pixels as a soft mask, ground everywhere round it.

    Args:
        mask: (h, w) bool.
        left: the image's column that its first column is.
        top: the image's row that its first row is.

    Returns:
        A grid with a pixel more on each side: beyond a grid its edge goes on, which must not be the object.
    """
    h, w = mask.shape
    logits = np.pad(np.where(mask, np.float32(SURE), np.float32(-SURE)), 1, constant_values=-SURE)
    return SoftMask(logits, (left - 1, top - 1, left + w + 1, top + h + 1))


def rectangle(image: NDArray[np.uint8], box: NDArray[np.float64]) -> SoftMask:
    """The filled box.

    Args:
        image: (H, W, 3).
        box: (4,) xyxy pixels.
    """
    region = region_about(box, *image.shape[:2])
    return exact(np.ones(region.shape, dtype=bool), region.left, region.top)


def ellipse(image: NDArray[np.uint8], box: NDArray[np.float64]) -> SoftMask:
    """The pixels whose middle is in the ellipse that touches the box's sides; the filled box where there is none.

    Args:
        image: (H, W, 3).
        box: (4,) xyxy pixels.
    """
    region = region_about(box, *image.shape[:2])
    x, y = np.arange(region.left, region.right) + 0.5, np.arange(region.top, region.bottom) + 0.5
    u, v = from_middle(box, x, y)
    mask = u**2 + v**2 <= 1
    return exact(mask if mask.any() else ~mask, region.left, region.top)


def inner_box(image: NDArray[np.uint8], box: NDArray[np.float64]) -> SoftMask:
    """The inner fifth of the box, by area, is the object; the rest of the box may be anything (NaN).

    Args:
        image: (H, W, 3).
        box: (4,) xyxy pixels, as far as it lies in the image.

    References:
        Khoreva et al., "Simple Does It", CVPR 2017, Section 3.1: Box^i, whose rest training ignores.
    """
    height, width = image.shape[:2]
    box = box.clip(0, [width, height] * 2)
    region = region_about(box, height, width)
    # A negative margin on each side, so that the sides keep sqrt(INNER_SHARE) of their length.
    core = region_about(box, height, width, (INNER_SHARE**0.5 - 1) / 2)
    soft = exact(np.zeros(region.shape, dtype=bool), region.left, region.top)
    left, top = int(soft.window[0]), int(soft.window[1])
    soft.logits[1:-1, 1:-1] = np.nan
    soft.logits[core.top - top : core.bottom - top, core.left - left : core.right - left] = SURE
    return soft
