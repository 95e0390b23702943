"""Candidate segments of one image, from any source."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from boxel.proposals.candidates import Candidates, from_sets
from boxel.proposals.config import check_source
from boxel.proposals.gop import gop
from boxel.proposals.mcg import mcg
from boxel.proposals.selection import Pool, best, fill_holes, fitting
from boxel.proposals.selective_search import selective_search
from boxel.proposals.superpixels import Pixels, Regions, superpixels, to_lab

GENERATORS: dict[str, Callable[[NDArray[np.uint8], Pixels, Regions], Pool]] = {
    "mcg": mcg,
    "selective-search": selective_search,
    "gop": gop,
}

LONG_SIDE = 500
"""Of what is looked at, in pixels; larger photos are made smaller, and their segments larger again."""


def propose(
    image: NDArray[np.uint8],
    source: str = "mcg",
    boxes: ArrayLike | None = None,
    count: int = 2000,
) -> Candidates:
    """Segments that may be objects, found with nothing learned.

    Args:
        image: (H, W, 3) uint8 RGB.
        source: one of `SOURCES`.
        boxes: (M, 4) xyxy pixels of objects, where they are known: every box then gets an equal share of segments that
            fit it.
        count: how many segments at most.

    Raises:
        BoxelError: there is no such source.
    """
    check_source(source)
    height, width = image.shape[:2]
    scale = min(1.0, LONG_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = (
        image if scale == 1 else np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    )
    lab = to_lab(small)
    regions = superpixels(lab)
    pool = GENERATORS[source](small, lab, regions)
    if boxes is None:
        sets = best(pool, count)
    else:
        ratio = np.array([size[0] / width, size[1] / height] * 2)
        sets = fitting(pool, regions, np.asarray(boxes, dtype=np.float64).reshape(-1, 4) * ratio, count)
    labels = regions.labels.astype(np.uint16)
    if scale < 1:
        labels = np.asarray(
            cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST_EXACT), np.uint16
        )
    return from_sets(labels, fill_holes(regions, sets))
