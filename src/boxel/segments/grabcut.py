"""GrabCut: the segment in a box that colour models of inside and outside agree on."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

_FEWEST_PIXELS = 25
"""Five for each of the five colours of a mixture."""


def grabcut(image: NDArray[np.uint8], box: ArrayLike, iterations: int = 5) -> NDArray[np.bool_]:
    """The object in a box, as OpenCV's GrabCut finds it.

    All outside the box is ground. Inside it, two mixtures of colours (object, ground) and a minimal cut take
    turns. The same arguments give the same mask.

    Args:
        image: (H, W, 3) uint8 RGB.
        box: (4,) xyxy pixels; the pixels whose centres it holds are in it.
        iterations: turns of mixtures and cut.

    Returns:
        (H, W) bool mask inside the box. It is the filled box where nothing can be told apart: too few pixels
        for a mixture in the box or outside it, or a cut that leaves no object.

    References:
        Rother, Kolmogorov and Blake, "GrabCut", SIGGRAPH 2004.
    """
    height, width = image.shape[:2]
    x0, y0, x1, y1 = np.ceil(np.asarray(box, dtype=np.float64) - 0.5).clip(0, [width, height] * 2).astype(int)
    filled = np.zeros((height, width), dtype=bool)
    filled[y0:y1, x0:x1] = True
    if min(filled.sum(), (~filled).sum()) < _FEWEST_PIXELS:
        return filled
    trimap = np.where(filled, cv2.GC_PR_FGD, cv2.GC_BGD).astype(np.uint8)
    ground, thing = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)  # the mixtures start from k-means, which draws from OpenCV's own random numbers
    try:
        cv2.grabCut(image, trimap, (0, 0, 0, 0), ground, thing, iterations, cv2.GC_INIT_WITH_MASK)
    except cv2.error:
        return filled
    mask = (trimap == cv2.GC_PR_FGD) & filled
    return mask if mask.any() else filled
