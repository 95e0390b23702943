"""Candidate segments of one image, from any source."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from skimage.color import rgb2lab

from boxel.proposals.candidates import Candidates
from boxel.proposals.config import ProposalConfig, Source
from boxel.proposals.gop import gop
from boxel.proposals.mcg import mcg
from boxel.proposals.selection import Pool, fill_holes, select_best, select_fitting
from boxel.proposals.selective_search import selective_search
from boxel.proposals.superpixels import Pixels, Regions, superpixels

GENERATORS: dict[Source, Callable[[NDArray[np.uint8], Pixels, Regions], Pool]] = {
    "mcg": mcg,
    "selective-search": selective_search,
    "gop": gop,
}
"""Functions of an image, (H, W, 3) RGB, of the same in CIE LAB and of its superpixels."""

MAX_SIDE = 500  # pixels of the longer side to which larger images are downscaled


def propose(
    image: NDArray[np.uint8], source: Source = "mcg", boxes: ArrayLike | None = None, count: int = 2000
) -> Candidates:
    """Propose segments that may be objects, without any learning.

    Args:
        image: (H, W, 3) uint8, RGB.
        source: `mcg`, `selective-search` or `gop`.
        boxes: (M, 4) xyxy pixels of the objects, if known: each box then gets an equal share of segments that fit it.
        count: Maximum number of segments.

    Returns:
        The candidate segments, best first; holes are filled.

    Raises:
        BoxelError: There is no such source, or the count is not positive.

    Examples:
        >>> image = np.zeros((40, 60, 3), np.uint8)
        >>> image[10:30, 20:50] = (200, 40, 40)
        >>> candidates = propose(image, boxes=[[20, 10, 50, 30]], count=10)
        >>> bool(candidates.mask(0)[12:28, 22:48].all())
        True
    """
    ProposalConfig(source, count)  # which checks them
    height, width = image.shape[:2]
    scale = min(1.0, MAX_SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = image
    if scale < 1:
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    lab = rgb2lab(small).astype(np.float32)
    regions = superpixels(lab)
    pool = GENERATORS[source](small, lab, regions)
    if boxes is None:
        sets = select_best(pool, count)
    else:
        ratio = np.array([size[0] / width, size[1] / height] * 2)
        scaled = np.asarray(boxes, dtype=np.float64).reshape(-1, 4) * ratio
        sets = select_fitting(pool, regions, scaled, count)
    labels = regions.labels.astype(np.uint16)
    if scale < 1:
        whole = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
        labels = whole.astype(np.uint16)
    return Candidates.from_sets(labels, fill_holes(regions, sets))
