"""Why detections are wrong and instances are missed, in the manner of TIDE."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FOREGROUND_IOU, BACKGROUND_IOU = 0.5, 0.1
"""TIDE's thresholds t_f, from which a detection is correct, and t_b, up to which it overlaps nothing."""

ERRORS = {
    "classification": "on an object, of another class",
    "localization": "on an object of the class, but overlaps it too little",
    "mask": "the box fits an object of the class that nothing else finds, the mask does not",
    "both": "overlaps an object of another class too little",
    "duplicate": "on an object that a higher score has found",
    "background": "on no object",
    "missed": "an object that no detection finds or nearly finds",
}
"""The kinds of errors, and what each means."""


def error_types(
    iou: NDArray[np.float64],
    same_class: NDArray[np.bool_],
    found: NDArray[np.bool_],
    box_iou: NDArray[np.float64] | None = None,
) -> tuple[list[str], NDArray[np.bool_]]:
    """Name the kind of each wrong detection of an image, and find the objects that were missed.

    Args:
        iou: (D, G) IoU of the wrong detections and all objects, of masks if these are compared.
        same_class: (D, G) bool, whether they are of one class.
        found: (G,) bool, whether a correct detection matches the object.
        box_iou: (D, G) IoU of their boxes if masks are compared. None: the kind `mask` does not occur.

    Returns:
        The kind of each detection, a key of `ERRORS`: the first that applies of `mask`, `localization`,
        `classification`, `duplicate`, `background` and `both`. And (G,) bool, whether an object is missed: it is
        neither found nor would be if the kind of a detection (`mask`, `localization` or `classification`) were
        corrected.

    Examples:
        >>> iou = np.array([[0.3, 0.0], [0.6, 0.0], [0.0, 0.0]])
        >>> same_class = np.array([[True, False], [False, True], [True, False]])
        >>> kinds, missed = error_types(iou, same_class, np.array([True, False]))
        >>> kinds, missed.tolist()
        (['localization', 'classification', 'background'], [False, True])

    References:
        Bolya et al., TIDE: A General Toolbox for Identifying Object Detection Errors, ECCV 2020, Section 2.2; the order
        is that of its public code. `mask` is an addition.
    """
    if not iou.shape[1]:
        return ["background"] * len(iou), ~found
    own, other = np.where(same_class, iou, 0), np.where(same_class, 0, iou)
    by_box = np.zeros_like(iou) if box_iou is None else np.where(same_class & ~found, box_iou, 0)
    best = own.max(axis=1)
    cases = {
        "mask": by_box.max(axis=1) >= FOREGROUND_IOU,
        "localization": (best >= BACKGROUND_IOU) & (best < FOREGROUND_IOU),
        "classification": other.max(axis=1) >= FOREGROUND_IOU,
        "duplicate": best >= FOREGROUND_IOU,
        "background": iou.max(axis=1) <= BACKGROUND_IOU,
    }
    kinds = np.select(list(cases.values()), list(cases), "both")
    missed = ~found
    for kind, overlap in (("mask", by_box), ("localization", own), ("classification", other)):
        missed[overlap[kinds == kind].argmax(axis=1)] = False
    return kinds.tolist(), missed
