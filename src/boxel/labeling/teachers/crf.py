"""Masks by a fully connected CRF with two classes: of a box alone, and of what others say of its pixels."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logit

from boxel.crf import CRFConfig, mean_field
from boxel.labeling.teachers.base import Region, SoftMask, logits_on
from boxel.labeling.teachers.shapes import SURE, inner_box
from boxel.masks.crops import crop, spans_in, window_about

SIDE = 96
"""Cells along each side of the copy that the CRF looks at; so that time does not depend on the box."""

OF_BOX = CRFConfig(appearance_weight=4, appearance_sigma=SIDE / 4, color_sigma=10, iterations=5)
"""Of a box alone; sigmas in cells."""

OF_MASK = CRFConfig(
    smooth_weight=1, appearance_weight=1, appearance_sigma=SIDE / 2, color_sigma=8, iterations=5
)
"""Of a mask, which is to change little: the better the teacher, the more a stronger CRF spoils."""

RIM_OF_BOX = 4
"""Cells of ground shown on each side of a box: as much as is certainly object, since the larger of the two wins."""

RIM_OF_MASK = 14
"""Cells of ground shown on each side of the pixels that a mask may take."""


def segment(image: NDArray[np.uint8], box: NDArray[np.float64]) -> SoftMask:
    """The object in a box: the inner fifth of the box certainly is it, what is outside the box certainly is not.

    Args:
        image: (H, W, 3) RGB.
        box: (4,) xyxy pixels, partly inside the image.

    References:
        Papandreou et al., "Weakly- and Semi-Supervised Learning of a Deep Convolutional Network for Semantic Image
        Segmentation", ICCV 2015, Section 3.2: Bbox-Seg.
    """
    inner = inner_box(image, box)  # with a pixel of ground on each side
    left, top, right, bottom = (int(edge) for edge in inner.window)
    region = Region(left + 1, top + 1, right - 1, bottom - 1)
    core = inner.logits[1:-1, 1:-1] > 0
    found = _marginals(image, region, np.where(core, np.float32(1), np.float32(0.5)), RIM_OF_BOX, OF_BOX)
    logits = np.where(core, SURE, logits_on(found, region))
    return SoftMask(np.pad(logits, 1, constant_values=-SURE), inner.window)


def refine(image: NDArray[np.uint8], region: Region, chances: NDArray[np.float32]) -> SoftMask:
    """A mask that agrees with what it was and with the photo's colors.

    Args:
        image: (H, W, 3) RGB.
        region: the pixels that the mask may take; all others are certainly ground.
        chances: (rows, columns) of the region, probability of the object; NaN where it may be or not.

    Returns:
        The mask in the region.
    """
    return _marginals(image, region, np.nan_to_num(chances, nan=0.5), RIM_OF_MASK, OF_MASK)


def _marginals(
    image: NDArray[np.uint8], region: Region, chances: NDArray[np.float32], rim: int, config: CRFConfig
) -> SoftMask:
    """The mean field of a region's chances and the ground about it; of this the region."""
    height, width = image.shape[:2]
    window = window_about(region, rim / (SIDE - 2 * rim))  # so that the region begins and ends with a cell
    seen = np.ix_(*spans_in((0, 0, width, height), window, SIDE))
    photo = torch.from_numpy(crop(image, window, SIDE)[seen]).permute(2, 0, 1)
    # 0, which is certain, beyond the region.
    chance = torch.from_numpy(crop(chances, window - [region.left, region.top] * 2, SIDE)[seen])
    found = np.zeros((SIDE, SIDE), dtype=np.float32)
    found[seen] = mean_field(photo[None] / 255, torch.stack([1 - chance, chance])[None], config)[0, 1]
    own = np.ix_(*spans_in(region, window, SIDE))
    with np.errstate(divide="ignore"):
        return SoftMask(logit(found[own]).clip(-SURE, SURE), region)
