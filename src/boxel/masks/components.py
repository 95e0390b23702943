"""Connected components of masks, found by their outlines, which are short even if the mask is huge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray


class Components(NamedTuple):
    """The 8-connected components of a mask.

    Attributes:
        areas: (C,) pixels of each.
        outer: (C,) indices of their outer outlines.
        outlines: Outlines of the components and of their holes, as OpenCV's `findContours` returns them.
        hierarchy: How they are nested, likewise.
    """

    areas: NDArray[np.int64]
    outer: NDArray[np.int64]
    outlines: Sequence[NDArray[Any]]
    hierarchy: NDArray[Any]


def find_components(mask: NDArray[np.bool_]) -> Components:
    """Find the 8-connected components of an (h, w) mask.

    Their areas follow from Pick's theorem: a closed walk of n steps from pixel to pixel that encloses the area A has
    A + n / 2 + 1 pixels on and inside it, and A - n / 2 + 1 inside it.

    Examples:
        >>> find_components(np.array([[True, True, False, True]])).areas.tolist()
        [1, 2]
    """
    outlines, hierarchy = cv2.findContours(mask.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if hierarchy is None:
        return Components(*np.zeros((2, 0), dtype=np.int64), (), np.zeros((1, 0, 4), dtype=np.int32))
    parents = hierarchy[0, :, 3]
    is_outer = parents < 0  # the others are of holes
    steps = np.array([len(walk) if len(walk) > 1 else 0 for walk in outlines])
    enclosed = np.array([cv2.contourArea(walk) for walk in outlines]) + 1
    pixels = np.where(is_outer, enclosed, -enclosed) + steps / 2
    areas = np.bincount(np.where(is_outer, np.arange(len(outlines)), parents), pixels)
    outer = np.flatnonzero(is_outer)
    return Components(areas[outer].round().astype(np.int64), outer, outlines, hierarchy)


def remove_small_components(mask: NDArray[np.bool_], min_share: float) -> NDArray[np.bool_]:
    """Remove the 8-connected components of a mask below a share of its area, but never the largest; holes are kept.

    Examples:
        >>> remove_small_components(np.array([[True, True, False, True]]), min_share=0.5).tolist()
        [[True, True, False, False]]
    """
    areas, outer, outlines, hierarchy = find_components(mask)
    small = outer[areas < min(min_share * areas.sum(), areas.max(initial=0))].tolist()
    if not small:
        return mask
    kept = mask.astype(np.uint8)
    for outline in small:  # with the outlines of its holes, whose inside is left as it is
        cv2.drawContours(kept, outlines, outline, 0, cv2.FILLED, cv2.LINE_8, hierarchy, maxLevel=1)
    return kept.view(bool)
