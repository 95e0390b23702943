"""Teachers that need nothing but an image and a box: baselines, and a fallback for teachers with gaps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from boxel.labeling.teachers.base import CERTAIN_LOGIT, SoftMask, from_binary_mask
from boxel.masks.boxes import normalized_box_coords, pixel_region
from boxel.masks.grabcut import grabcut_agreement, grabcut_from_box, grabcut_from_ellipse

_AGREED = 0.7  # share of the cuts of `grabcut_agree` that decide about a pixel
_INNER_SHARE = 0.2  # share of the box's area that `inner_box` takes for the object


def rectangle(image: NDArray[np.uint8], box: NDArray[np.float64]) -> SoftMask:
    """Fill the box."""
    region = pixel_region(box, *image.shape[:2])
    return from_binary_mask(np.ones(region.shape, dtype=bool), region.left, region.top)


def ellipse(image: NDArray[np.uint8], box: NDArray[np.float64]) -> SoftMask:
    """Fill the ellipse that touches the sides of the box, or the box if the ellipse holds no pixel center."""
    region = pixel_region(box, *image.shape[:2])
    x, y = np.arange(region.left, region.right) + 0.5, np.arange(region.top, region.bottom) + 0.5
    u, v = normalized_box_coords(box, x, y)
    mask = u**2 + v**2 <= 1
    return from_binary_mask(mask if mask.any() else ~mask, region.left, region.top)


def inner_box(image: NDArray[np.uint8], box: NDArray[np.float64]) -> SoftMask:
    """Take the inner fifth of the visible box's area for the object, without an opinion (NaN) on the rest of the box.

    References:
        Khoreva et al., "Simple Does It", CVPR 2017, Section 3.1: Box^i, whose rest is ignored in training.
    """
    height, width = image.shape[:2]
    box = box.clip(0, [width, height] * 2)
    region = pixel_region(box, height, width)
    # A negative margin on each side keeps sqrt(_INNER_SHARE) of the length of the sides.
    core = pixel_region(box, height, width, (_INNER_SHARE**0.5 - 1) / 2)
    soft = from_binary_mask(np.zeros(region.shape, dtype=bool), region.left, region.top)
    left, top = int(soft.window[0]), int(soft.window[1])
    soft.logits[1:-1, 1:-1] = np.nan
    soft.logits[core.top - top : core.bottom - top, core.left - left : core.right - left] = CERTAIN_LOGIT
    return soft


def grabcut(image: NDArray[np.uint8], box: NDArray[np.float64]) -> SoftMask:
    """Segment the box with plain GrabCut, the baseline of papers, whose background is the whole rest of the image."""
    region = pixel_region(box, *image.shape[:2])
    return from_binary_mask(grabcut_from_box(image, box)[region.slices], region.left, region.top)


def grabcut_agree(image: NDArray[np.uint8], box: NDArray[np.float64]) -> SoftMask:
    """Segment the box with 10 GrabCuts from disturbed boxes, without an opinion (NaN) where fewer than 70 % agree.

    References:
        Khoreva et al., "Simple Does It", CVPR 2017, Section 3.2: GrabCut+^i, which takes background from 80 % on.
    """
    share, window = grabcut_agreement(image, box)
    logits = np.full(share.shape, np.nan, dtype=np.float32)
    logits[share >= _AGREED], logits[share <= 1 - _AGREED] = CERTAIN_LOGIT, -CERTAIN_LOGIT
    return SoftMask(logits, window)


def grabcut_ellipse(image: NDArray[np.uint8], box: NDArray[np.float64]) -> SoftMask:
    """Segment the box with a single cut that starts from the ellipse in it, in a few milliseconds."""
    return from_binary_mask(*grabcut_from_ellipse(image, box))
