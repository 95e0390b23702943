"""GrabCut: the segment in a box that color models of inside and outside agree on."""

from __future__ import annotations

import contextlib

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from boxel.masks.boxes import from_middle

_FEWEST_PIXELS = 25
"""Five for each of the five colors of a mixture."""

_CROP_SIDE = 160
"""Longer side, in pixels, of what :func:`grabcut_from_ellipse` looks at; so that time hardly depends on the photo."""

_MARGIN = 0.3
"""Ground shown to it on each side, as a share of the box."""

_CORE = 0.7
"""Radius of the ellipse that is certainly the object, as a share of the one that fills the box."""


def grabcut(image: NDArray[np.uint8], box: ArrayLike, iterations: int = 5) -> NDArray[np.bool_]:
    """The object in a box, as OpenCV's GrabCut finds it.

    All outside the box is ground. Inside it, two mixtures of colors (object, ground) and a minimal cut take
    turns. The same arguments give the same mask.

    Args:
        image: (H, W, 3) uint8 RGB.
        box: (4,) xyxy pixels; the pixels whose centers it holds are in it.
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


def grabcut_from_ellipse(image: NDArray[np.uint8], box: ArrayLike) -> tuple[NDArray[np.bool_], int, int]:
    """The object in a box, as a cut finds it that starts from the ellipse in the box.

    The ellipse's inner part is taken for the object and all outside the box for ground; one turn of mixtures and cut
    decides the rest, in which the ellipse is more likely object. It works on a small copy of the box and a margin.
    Holding on to the core keeps the cut from losing the object, which is :func:`grabcut`'s usual failure.

    Args:
        image: (H, W, 3) uint8 RGB.
        box: (4,) xyxy pixels, partly inside the image.

    Returns:
        (h, w) bool mask of a window of the image, and the window's left column and upper row. A box narrower than a
        pixel may have an empty mask.
    """
    height, width = image.shape[:2]
    box = np.asarray(box, dtype=np.float64)
    x0, y0, x1, y1 = box
    across, down = _MARGIN * (x1 - x0) + 2, _MARGIN * (y1 - y0) + 2
    left, top = int(np.clip(x0 - across, 0, width - 1)), int(np.clip(y0 - down, 0, height - 1))
    right = int(np.clip(np.ceil(x1 + across), left + 1, width))
    bottom = int(np.clip(np.ceil(y1 + down), top + 1, height))
    window = image[top:bottom, left:right]
    scale = min(_CROP_SIDE / max(window.shape[:2]), 2.0)
    columns, rows = (max(round(side * scale), 8) for side in (right - left, bottom - top))
    small = cv2.resize(
        window, (columns, rows), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    )

    x = left + (np.arange(columns) + 0.5) * (right - left) / columns
    y = top + (np.arange(rows) + 0.5) * (bottom - top) / rows
    u, v = from_middle(box, x, y)
    radius, inside = np.hypot(u, v), np.maximum(u, v) <= 1
    trimap = np.full(radius.shape, cv2.GC_BGD, dtype=np.uint8)
    trimap[inside] = cv2.GC_PR_BGD
    trimap[radius <= 1] = cv2.GC_PR_FGD
    trimap[radius <= _CORE] = cv2.GC_FGD
    ground, thing = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)
    with contextlib.suppress(cv2.error):  # too few pixels for a mixture: the ellipse stays
        cv2.grabCut(small, trimap, (0, 0, 0, 0), ground, thing, 1, cv2.GC_INIT_WITH_MASK)
    found = ((trimap == cv2.GC_FGD) | (trimap == cv2.GC_PR_FGD)).astype(np.float32)
    return cv2.resize(found, (right - left, bottom - top)) > 0.5, left, top
