"""GrabCut as a teacher."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from boxel.labeling.teachers.base import SoftMask, from_binary_mask
from boxel.masks.boxes import pixel_region
from boxel.masks.grabcut import grabcut_from_box, grabcut_from_ellipse


def cut(image: NDArray[np.uint8], box: NDArray[np.float64]) -> SoftMask:
    """Segment the box with plain GrabCut, the baseline of papers, whose background is the whole rest of the image.

    Args:
        image: (H, W, 3) RGB.
        box: (4,) xyxy pixels.
    """
    region = pixel_region(box, *image.shape[:2])
    found = grabcut_from_box(image, box)
    return from_binary_mask(found[region.slices], region.left, region.top)


def cut_from_ellipse(image: NDArray[np.uint8], box: NDArray[np.float64]) -> SoftMask:
    """Segment the box with a single cut that starts from the ellipse in it, in a few milliseconds.

    Args:
        image: (H, W, 3) RGB.
        box: (4,) xyxy pixels.
    """
    return from_binary_mask(*grabcut_from_ellipse(image, box))
