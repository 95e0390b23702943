"""Non-maximum suppression of the boxes or the masks of one image, in NumPy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from boxel.masks.boxes import box_iou
from boxel.masks.rle import Rle


def box_nms(
    boxes: NDArray[np.floating], scores: NDArray[np.floating], labels: NDArray[np.integer], threshold: float
) -> NDArray[np.intp]:
    """Suppress boxes greedily by IoU: the best is kept, boxes of its class that overlap it are dropped, and so on.

    Args:
        boxes: (N, 4) xyxy.
        scores: (N,); of equal scores the first ranks higher.
        labels: (N,) classes.
        threshold: IoU in [0, 1] above which the lower of two boxes is dropped.

    Returns:
        Indices of the boxes kept, best first.

    Examples:
        >>> boxes = np.array([[0, 0, 4, 4], [0, 0, 4, 3]])
        >>> box_nms(boxes, np.array([0.6, 0.9]), np.array([0, 0]), threshold=0.5)
        array([1])
    """
    order = np.argsort(-scores, kind="stable")
    return order[_suppress(box_iou(boxes[order], boxes[order]), labels[order], threshold)]


def mask_nms(
    rles: Sequence[Rle], scores: NDArray[np.floating], labels: NDArray[np.integer], threshold: float
) -> NDArray[np.intp]:
    """Suppress masks like :func:`box_nms` suppresses boxes; they are compressed run-length codes of one image.

    Examples:
        >>> from boxel.masks.rle import encode
        >>> rles = [encode(np.array([row])) for row in ([1, 1, 0], [0, 1, 1])]
        >>> mask_nms(rles, np.array([0.6, 0.9]), np.array([0, 0]), threshold=0.3)
        array([1])
    """
    order = np.argsort(-scores, kind="stable")
    ranked = [rles[index] for index in order]
    iou = np.reshape(coco_mask.iou(ranked, ranked, [0] * len(ranked)), (len(ranked), len(ranked)))
    return order[_suppress(iou, labels[order], threshold)]


def _suppress(iou: NDArray[np.floating], labels: NDArray[np.integer], threshold: float) -> NDArray[np.bool_]:
    """Return (N,) bool, which ranks are kept if each that is kept drops the worse ones of its class that overlap it."""
    clashes = np.triu((iou > threshold) & (labels[:, None] == labels), 1)
    kept = np.ones(len(labels), dtype=bool)
    for rank in range(len(labels)):
        if kept[rank]:
            kept &= ~clashes[rank]
    return kept
