"""How boxes lie to one another and to pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def box_overlap(boxes: NDArray[np.integer], box: NDArray[np.floating]) -> NDArray[np.float64]:
    """(N,) IoU of (N, 4) boxes with one, xyxy."""
    sides = np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2])
    common = sides.clip(min=0).prod(1)
    return common / ((boxes[:, 2:] - boxes[:, :2]).prod(1) + (box[2:] - box[:2]).prod() - common)


def from_middle(
    box: NDArray[np.floating], x: NDArray[np.floating], y: NDArray[np.floating]
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Where points lie in a box.

    Args:
        box: (4,) xyxy.
        x: (w,) columns.
        y: (h,) rows.

    Returns:
        (w,) and (h, 1), how far columns and rows are from the box's middle: 1 at its sides. The points with
        `u**2 + v**2 <= 1` are those of the ellipse that touches its sides.
    """
    u = np.abs(2 * x - box[0] - box[2]) / max(box[2] - box[0], 1e-6)
    v = np.abs(2 * y - box[1] - box[3]) / max(box[3] - box[1], 1e-6)
    return u, v[:, None]
