"""Mean IoU near true boundaries and away from them, by the width of the band between (BoxSup, Section 5, Figure 4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from boxel.evaluation.semantic import confusion, semantic_figures

WIDTHS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 40)
"""Widths at which figures are told, in pixels."""


def boundary_distance(truth: NDArray[np.uint8]) -> NDArray[np.float32]:
    """How far each pixel's center is from the nearest boundary.

    A boundary runs between two pixels, side by side or one above the other, of different labels. Void is such a label
    too: Pascal VOC marks its boundaries with a rim of it.

    Args:
        truth: (H, W) labels.

    Returns:
        (H, W) float32 in pixels: 0.5 on both sides of a boundary, and more than any image's size where there is none.
    """
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    beside = cv2.morphologyEx(truth, cv2.MORPH_GRADIENT, cross) > 0
    away: Any = cv2.distanceTransform((~beside).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return away + np.float32(0.5)


def ring_confusions(
    found: NDArray[np.integer], truth: NDArray[np.uint8], widths: Sequence[int], classes: int, void: int = 255
) -> NDArray[np.int64]:
    """The confusion matrix of an image in parts, by the distance from its true boundaries.

    The first part has the pixels up to the first width away, each other one those from the width before to its own,
    and the last part those beyond all widths. The parts of several images add up to those of all.

    Args:
        found: (H, W) labels in [0, classes).
        truth: (H, W) labels in [0, classes), or void: such pixels do not count.
        widths: W of them, rising, in pixels on either side of a boundary.
        classes: how many there are.
        void: the label of pixels without one.

    Returns:
        (W + 1, classes, classes) matrices as of :func:`~boxel.evaluation.semantic.confusion`.

    Raises:
        ValueError: there are other labels.
    """
    if not widths:  # spares the distances, which take longer than the matrix
        return confusion(found, truth, classes, void)[None]
    ring = np.searchsorted(widths, boundary_distance(truth))
    parts = (ring == part for part in range(len(widths) + 1))
    return np.stack([confusion(found[part], truth[part], classes, void) for part in parts])


def trimap_figures(
    rings: NDArray[np.int64], widths: Sequence[int], names: Sequence[str]
) -> dict[str, list[Any]]:
    """Mean IoU inside and outside the band around true boundaries (Figure 4).

    Args:
        rings: (W + 1, K, K), sum of :func:`ring_confusions` over images; or with one more class at the end for what is
            none of those named.
        widths: W of them, as there.
        names: K names of the classes.

    Returns:
        W values each of `width`, in pixels on either side of a boundary; `boundary`, the mean IoU of pixels at most so
        far from one; and `interior`, that of all others. In [0, 1], NaN where there is no such pixel.
    """
    band = rings.cumsum(0)[:-1]
    matrices = {"boundary": band, "interior": rings.sum(0) - band}
    ious = {
        part: [semantic_figures(matrix, names)["mean_iou"] for matrix in of_widths]
        for part, of_widths in matrices.items()
    }
    return {"width": list(widths), **ious}
