"""Boxes and the pixels they cover, as NumPy arrays; `boxel.masks.spans` has what tensors need."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from boxel.utils.errors import UsageError


class Region(NamedTuple):
    """A rectangle of whole pixels; `right` and `bottom` are not included.

    Examples:
        >>> Region(2, 5, 10, 6).shape
        (1, 8)
    """

    left: int
    top: int
    right: int
    bottom: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.bottom - self.top, self.right - self.left

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of the region in an image."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


def pixel_region(box: ArrayLike, height: int, width: int, margin: float = 0.0) -> Region:
    """Find the pixels of an image whose centers lie in a box and its margin.

    Args:
        box: (4,) xyxy pixels.
        height: Height of the image.
        width: Width of the image.
        margin: Margin on each side, as a share of the box's width and height; a negative one shrinks the box.

    Returns:
        A region of at least one pixel; the one nearest the middle of the box if the box holds no center.

    Examples:
        >>> pixel_region([2.4, 1.5, 4.6, 3.5], height=8, width=10)
        Region(left=2, top=1, right=5, bottom=3)
    """
    corners = np.asarray(box, dtype=np.float64)
    corners = corners + margin * np.tile(corners[2:] - corners[:2], 2) * [-1, -1, 1, 1]
    left, top, right, bottom = box_to_pixels(corners, height, width).tolist()
    x, y = np.floor((corners[:2] + corners[2:]) / 2).clip(0, [width - 1, height - 1]).astype(int).tolist()
    left, right = (left, right) if left < right else (x, x + 1)
    top, bottom = (top, bottom) if top < bottom else (y, y + 1)
    return Region(left, top, right, bottom)


def box_to_pixels(boxes: ArrayLike, height: int, width: int) -> NDArray[np.int64]:
    """Find the pixels of an image whose centers lie in boxes.

    Args:
        boxes: (..., 4) xyxy pixels.
        height: Height of the image.
        width: Width of the image.

    Returns:
        (..., 4) left, top, right and bottom, the latter two not included; empty for a box without a center.

    Examples:
        >>> box_to_pixels([2.4, 1.5, 99.0, 3.5], height=8, width=10)
        array([ 2,  1, 10,  3])
    """
    limits = [width, height, width, height]
    return np.ceil(np.asarray(boxes, dtype=np.float64) - 0.5).clip(0, limits).astype(np.int64)


def to_corners(boxes: ArrayLike) -> NDArray[np.float64]:
    """Return boxes that a user gives, or a single one, as (N, 4) xyxy pixels.

    Raises:
        UsageError: They do not have four columns.

    Examples:
        >>> to_corners([1, 2, 3, 4])
        array([[1., 2., 3., 4.]])
    """
    corners = np.asarray(boxes, dtype=np.float64)
    corners = corners.reshape(-1, 4) if corners.size == 0 or corners.shape == (4,) else corners
    if corners.ndim != 2 or corners.shape[1] != 4:
        raise UsageError(f"`boxes` has shape {corners.shape}; give (N, 4), xyxy in pixels.")
    return corners


def box_iou(boxes: NDArray[np.number], others: NDArray[np.number]) -> NDArray[np.float64]:
    """Compute the IoU of each box with each of the others.

    Args:
        boxes: (N, 4) xyxy.
        others: (M, 4) xyxy.

    Returns:
        (N, M) in [0, 1]; 0 if either box has no area.

    Examples:
        >>> box_iou(np.array([[0, 0, 10, 10]]), np.array([[5, 0, 15, 10], [10, 0, 20, 10]])).round(2)
        array([[0.33, 0.  ]])
    """
    return paired_box_iou(boxes[:, None], others[None])


def paired_box_iou(boxes: NDArray[np.number], others: NDArray[np.number]) -> NDArray[np.float64]:
    """Compute the IoU of boxes pair by pair: (...,) of (..., 4) and (..., 4), which may broadcast."""
    sides = np.minimum(boxes[..., 2:], others[..., 2:]) - np.maximum(boxes[..., :2], others[..., :2])
    intersection = sides.clip(min=0).prod(-1).astype(np.float64)
    areas = ((b[..., 2:] - b[..., :2]).clip(min=0).prod(-1) for b in (boxes, others))
    union = sum(areas) - intersection
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)


def xywh_to_xyxy(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the corners (..., 4) of boxes that are given by their upper left corner and their size."""
    return np.concatenate([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], axis=-1)


def tight_boxes(masks: Iterable[NDArray[np.bool_ | np.uint8]]) -> NDArray[np.float64]:
    """Find the smallest box around each mask.

    Args:
        masks: N masks (h, w), bool or uint8.

    Returns:
        (N, 4) xyxy pixels; a box ends where its last pixel does, and is all zeros for an empty mask.

    Examples:
        >>> tight_boxes(np.array([[[0, 1, 1], [0, 1, 0]]], dtype=np.uint8))
        array([[1., 0., 3., 2.]])
    """
    spans = np.array([cv2.boundingRect(np.asarray(mask).view(np.uint8)) for mask in masks], dtype=np.float64)
    return xywh_to_xyxy(spans.reshape(-1, 4))


def normalized_box_coords(
    box: NDArray[np.floating], x: NDArray[np.floating], y: NDArray[np.floating]
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Compute how far points are from the middle of a box, in half widths and half heights.

    Args:
        box: (4,) xyxy.
        x: (w,) columns.
        y: (h,) rows.

    Returns:
        u (w,) and v (h, 1), 1 at the sides of the box. The points with ``u**2 + v**2 <= 1`` are those of the ellipse
        that touches its sides.

    Examples:
        >>> u, v = normalized_box_coords(np.array([0.0, 0, 4, 2]), np.array([2.0, 4]), np.array([1.0]))
        >>> u.tolist(), v.tolist()
        ([0.0, 1.0], [[0.0]])
    """
    u = np.abs(2 * x - box[0] - box[2]) / max(box[2] - box[0], 1e-6)
    v = np.abs(2 * y - box[1] - box[3]) / max(box[3] - box[1], 1e-6)
    return u, v[:, None]
