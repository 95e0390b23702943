"""GrabCut in boxes: the segment that color models of inside and outside agree on."""

from __future__ import annotations

import contextlib
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from boxel.masks.boxes import Region, box_to_pixels, normalized_box_coords, pixel_region

_MIN_PIXELS = 25  # minimum number of pixels of a color mixture: five for each of its five colors

# Of `grabcut_from_ellipse`:
_MAX_SIDE = 160  # longer side, in pixels, of the copy that it works on; it bounds the time per box
_MARGIN = 0.3  # background shown on each side, as a share of the box
_CORE_RADIUS = 0.7  # of the ellipse that certainly is the object, relative to the one that fills the box

# Of `grabcut_agreement`:
_CUTS = 10
_MAX_WINDOW = 240  # longer side, in pixels, of the copy that it works on
_JITTER = 0.05  # by which each side is moved at most, as a share of the box
_BACKGROUND = 0.1, 0.6  # range of the background around the box, as a share of it


def grabcut_from_box(image: NDArray[np.uint8], box: ArrayLike) -> NDArray[np.bool_]:
    """Segment the object in a box with OpenCV's GrabCut.

    All that lies outside the box is background. Inside it, two mixtures of colors (object, background) and a minimum
    cut alternate, five times. The result is deterministic.

    Args:
        image: (H, W, 3) uint8 RGB.
        box: (4,) xyxy pixels.

    Returns:
        (H, W) bool mask inside the box. It is the filled box if object and background cannot be separated: with too few
        pixels for a mixture inside or outside the box, or a cut that leaves no object.

    References:
        Rother, Kolmogorov and Blake, "GrabCut", SIGGRAPH 2004.

    Examples:
        >>> image = np.zeros((40, 40, 3), np.uint8)
        >>> image[10:20, 10:20] = 255
        >>> int(grabcut_from_box(image, [5, 5, 25, 25]).sum())
        100
    """
    height, width = image.shape[:2]
    filled = np.zeros((height, width), dtype=bool)
    filled[Region(*box_to_pixels(box, height, width).tolist()).slices] = True
    if min(filled.sum(), (~filled).sum()) < _MIN_PIXELS:
        return filled
    trimap = np.where(filled, cv2.GC_PR_FGD, cv2.GC_BGD).astype(np.uint8)
    try:
        _cut(image, trimap, 5)
    except cv2.error:
        return filled
    mask = (trimap == cv2.GC_PR_FGD) & filled
    return mask if mask.any() else filled


def grabcut_from_ellipse(image: NDArray[np.uint8], box: ArrayLike) -> tuple[NDArray[np.bool_], int, int]:
    """Segment the object in a box with a single cut that starts from the ellipse in the box.

    The ellipse's inner part is taken for the object and all outside the box for background; one iteration decides the
    rest, in which the ellipse is more likely object. It works on a small copy of the box and a margin. The fixed core
    keeps the cut from losing the object, which is the usual failure of :func:`grabcut_from_box`.

    Args:
        image: (H, W, 3) uint8 RGB.
        box: (4,) xyxy pixels, partly inside the image.

    Returns:
        (h, w) bool mask of a window of the image, and the window's left column and top row. A box narrower than a
        pixel may have an empty mask.

    Examples:
        >>> image = np.zeros((40, 40, 3), np.uint8)
        >>> image[10:30, 10:30] = 255
        >>> mask, left, top = grabcut_from_ellipse(image, [10, 10, 30, 30])
        >>> bool(mask[20 - top, 20 - left]), bool(mask[0, 0])
        (True, False)
    """
    height, width = image.shape[:2]
    box = np.asarray(box, dtype=np.float64)
    x0, y0, x1, y1 = box
    dx, dy = _MARGIN * (x1 - x0) + 2, _MARGIN * (y1 - y0) + 2
    left, top = int(np.clip(x0 - dx, 0, width - 1)), int(np.clip(y0 - dy, 0, height - 1))
    right = int(np.clip(np.ceil(x1 + dx), left + 1, width))
    bottom = int(np.clip(np.ceil(y1 + dy), top + 1, height))
    window = image[top:bottom, left:right]
    scale = min(_MAX_SIDE / max(window.shape[:2]), 2.0)
    columns, rows = (max(round(side * scale), 8) for side in (right - left, bottom - top))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    small = cv2.resize(window, (columns, rows), interpolation=interpolation)

    x = left + (np.arange(columns) + 0.5) * (right - left) / columns
    y = top + (np.arange(rows) + 0.5) * (bottom - top) / rows
    u, v = normalized_box_coords(box, x, y)
    radius, inside = np.hypot(u, v), np.maximum(u, v) <= 1
    trimap = np.full(radius.shape, cv2.GC_BGD, dtype=np.uint8)
    trimap[inside] = cv2.GC_PR_BGD
    trimap[radius <= 1] = cv2.GC_PR_FGD
    trimap[radius <= _CORE_RADIUS] = cv2.GC_FGD
    with contextlib.suppress(cv2.error):  # too few pixels for a mixture: the ellipse stays
        _cut(small, trimap, 1)
    found = ((trimap == cv2.GC_FGD) | (trimap == cv2.GC_PR_FGD)).astype(np.float32)
    return cv2.resize(found, (right - left, bottom - top)) > 0.5, left, top


def grabcut_agreement(image: NDArray[np.uint8], box: ArrayLike) -> tuple[NDArray[np.float32], Region]:
    """Compute the share of 10 GrabCuts from disturbed boxes that take a pixel for the object.

    Each side of the box is moved by up to 5 % of its width or height, and 10 to 60 % of them are the background around
    it that a cut knows. A window of more than 240 pixels is reduced to them. The result is deterministic.

    Args:
        image: (H, W, 3) uint8 RGB.
        box: (4,) xyxy pixels, partly inside the image.

    Returns:
        (h, w) float32 in [0, 1], and the window of the image that it covers.

    References:
        Khoreva et al., "Simple Does It", CVPR 2017, Section 3.2: GrabCut+^i, with more cuts, which know object edges.

    Examples:
        >>> image = np.zeros((40, 40, 3), np.uint8)
        >>> image[10:20, 10:20] = 255
        >>> share, window = grabcut_agreement(image, [8, 8, 22, 22])
        >>> float(share[15 - window.top, 15 - window.left]), float(share[9 - window.top, 9 - window.left])
        (1.0, 0.0)
    """
    box = np.asarray(box, dtype=np.float64)
    extent, outward = np.tile(box[2:] - box[:2], 2), np.array([-1, -1, 1, 1])
    height, width = image.shape[:2]
    window = pixel_region(box, height, width, margin=_JITTER + _BACKGROUND[1])
    scale = min(1.0, _MAX_WINDOW / max(window.shape))
    columns, rows = (max(round(side * scale), 1) for side in window.shape[::-1])
    small = cv2.resize(image[window.slices], (columns, rows), interpolation=cv2.INTER_AREA).astype(np.uint8)
    corner = np.tile([window.left, window.top], 2)
    factors = np.tile([columns / window.shape[1], rows / window.shape[0]], 2)
    votes, rng = np.zeros((rows, columns), dtype=np.float32), np.random.default_rng(0)
    for _ in range(_CUTS):
        moved = box + extent * rng.uniform(-_JITTER, _JITTER, 4)
        around = moved + extent * outward * rng.uniform(*_BACKGROUND)
        moved, around = (factors * (sides - corner) for sides in (moved, around))
        part = Region(*box_to_pixels(around, rows, columns).tolist())
        votes[part.slices] += grabcut_from_box(small[part.slices], moved - np.tile([part.left, part.top], 2))
    return votes / np.float32(_CUTS), window


def _cut(image: NDArray[Any], trimap: NDArray[np.uint8], iterations: int) -> None:
    """Run GrabCut on a trimap in place."""
    cv2.setRNGSeed(0)  # the mixtures start from k-means, which draws from OpenCV's own random numbers
    mode = cv2.GC_INIT_WITH_MASK
    cv2.grabCut(image, trimap, (0, 0, 0, 0), np.zeros((1, 65)), np.zeros((1, 65)), iterations, mode)
