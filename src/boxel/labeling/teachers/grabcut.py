"""Masks that GrabCut finds in a box."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from boxel.labeling.teachers.base import SoftMask, region_about
from boxel.labeling.teachers.shapes import exact
from boxel.masks import grabcut


def cut(image: NDArray[np.uint8], box: NDArray[np.float64]) -> SoftMask:
    """The object that plain GrabCut finds, all of the image outside the box being ground.

    Its color model of the ground is that of the whole image. To show it less of the image is faster and gives other
    masks; this teacher stays what papers and ``boxel evaluate --baselines grabcut`` mean by the name.

    Args:
        image: (H, W, 3) RGB.
        box: (4,) xyxy pixels.
    """
    region = region_about(box, *image.shape[:2])
    found = grabcut.grabcut(image, box)
    return exact(found[region.top : region.bottom, region.left : region.right], region.left, region.top)


def cut_from_ellipse(image: NDArray[np.uint8], box: NDArray[np.float64]) -> SoftMask:
    """The object that a single cut finds which starts from the ellipse in the box; in a few milliseconds.

    Args:
        image: (H, W, 3) RGB.
        box: (4,) xyxy pixels.
    """
    return exact(*grabcut.grabcut_from_ellipse(image, box))
