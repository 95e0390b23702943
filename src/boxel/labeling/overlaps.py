"""Resolve overlaps of masks, and compare masks with their boxes.

Wang et al., "Weakly-supervised Instance Segmentation via Class-agnostic Learning with Salient Images" (BoxCaseg), CVPR
2021, Section 3.4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from boxel.masks.boxes import Region, paired_box_iou, tight_boxes


class PlacedMask(NamedTuple):
    """The mask of an instance on a region of its image."""

    box: NDArray[np.float64]  # (4,) xyxy pixels; its area is the size of the object
    region: Region  # the pixels that the mask covers
    mask: NDArray[np.bool_]  # (rows, columns) of the region


def resolve_by_size(placed: Sequence[PlacedMask], height: int, width: int) -> list[NDArray[np.bool_]]:
    """Give each pixel to the smallest object: masks are painted in order of box area, the largest first.

    Of two boxes with the same area the later one lies on top.

    Args:
        placed: N masks with their boxes.
        height: Height of the image in pixels.
        width: Width of the image in pixels.

    Returns:
        N masks (rows, columns) bool of the same regions, without overlaps.

    Examples:
        >>> sofa = PlacedMask(np.array([0.0, 0, 3, 1]), Region(0, 0, 3, 1), np.ones((1, 3), bool))
        >>> dog = PlacedMask(np.array([1.0, 0, 2, 1]), Region(1, 0, 2, 1), np.ones((1, 1), bool))
        >>> resolve_by_size([sofa, dog], height=1, width=3)[0].tolist()
        [[True, False, True]]
    """
    owner = np.zeros((height, width), dtype=np.int32)  # pages that are never painted take no memory
    for index in np.argsort(-_box_areas(placed), kind="stable"):
        owner[placed[index].region.slices][placed[index].mask] = index + 1
    return [owner[one.region.slices] == index for index, one in enumerate(placed, start=1)]


def resolve_by_confidence(
    placed: Sequence[PlacedMask], confidence: Sequence[Callable[[Region], NDArray[np.floating]]]
) -> list[NDArray[np.bool_]]:
    """Take pixels from a mask that belong to the mask of a smaller, at least equally confident object.

    "Smaller object better" is right for a dog on a sofa, and wrong if the mask of the smaller object is. If the larger
    object is more confident of a pixel, both keep it: taking it from the smaller one does more harm than good.

    Masks are painted in order of box area, the smallest first, so that the time grows with their pixels and not with
    the number of pairs.

    Args:
        placed: N masks with their boxes.
        confidence: N functions that return the probabilities (rows, columns) in (0, 1] in a part of each region; they
            are compared in half precision.

    Returns:
        N masks (rows, columns) bool of the same regions; those that lose nothing are those that were given.

    Examples:
        >>> sofa = PlacedMask(np.array([0.0, 0, 3, 1]), Region(0, 0, 3, 1), np.ones((1, 3), bool))
        >>> dog = PlacedMask(np.array([0.0, 0, 2, 1]), Region(0, 0, 2, 1), np.ones((1, 2), bool))
        >>> confidence = [lambda part: np.full(part.shape, 0.7), lambda part: np.array([[0.9, 0.6]])]
        >>> resolve_by_confidence([sofa, dog], confidence)[0].tolist()
        [[False, True, True]]
    """
    remaining = [one.mask for one in placed]
    areas = _box_areas(placed)
    regions = np.array([one.region for one in placed], dtype=np.int64).reshape(-1, 4)
    right, bottom = regions[:, 2:].max(axis=0, initial=0)
    best = np.zeros((bottom, right), dtype=np.float16)  # of the smaller objects; unused pages take no memory
    order = np.argsort(areas, kind="stable")
    for equals in np.split(order, np.flatnonzero(np.diff(areas[order])) + 1):
        for index in equals.tolist():
            remaining[index] = _yield_pixels(placed[index], confidence[index], best)
        for index in equals.tolist():
            shared = np.c_[
                np.maximum(regions[index, :2], regions[:, :2]), np.minimum(regions[index, 2:], regions[:, 2:])
            ]
            meets = shared[(shared[:, 2:] > shared[:, :2]).all(axis=1) & (areas > areas[index])]
            if len(meets):
                part = Region(*meets[:, :2].min(axis=0).tolist(), *meets[:, 2:].max(axis=0).tolist())
                own = _crop(placed[index].mask, placed[index].region, part)
                painted = best[part.slices]
                np.maximum(painted, confidence[index](part).astype(np.float16), out=painted, where=own)
    return remaining


def _yield_pixels(
    one: PlacedMask, confidence: Callable[[Region], NDArray[np.floating]], best: NDArray[np.float16]
) -> NDArray[np.bool_]:
    """Return a mask without the pixels that smaller objects are at least as confident of, given their best there."""
    # The bits of positive numbers are positive whole numbers, which are compared faster.
    contested = one.mask & (best[one.region.slices].view(np.int16) > 0)
    if not contested.any():
        return one.mask
    left, top, right, bottom = tight_boxes([contested])[0].astype(int).tolist()
    x, y = one.region[:2]
    part = Region(left + x, top + y, right + x, bottom + y)
    lost = best[part.slices] >= confidence(part).astype(np.float16)
    mask = one.mask.copy()
    mask[top:bottom, left:right] &= ~(lost & contested[top:bottom, left:right])
    return mask


def box_agreement(placed: PlacedMask, slack: float = 0.0) -> float:
    """Compute the proxy box agreement: the IoU of the mask's tight box with the box it was made from.

    The paper calls it a lower bound of the IoU of the mask with the ground truth, which it is not: a cross that touches
    all four sides agrees perfectly.

    Args:
        placed: The mask and its box.
        slack: By how much each side of the box may be off, as a share of its width and height; the tight box is
            compared with the nearest box within it.

    Returns:
        A number in [0, 1]; 0 for an empty mask.

    Examples:
        >>> mask = np.array([[True, True, False, False]])
        >>> box_agreement(PlacedMask(np.array([0.0, 0, 4, 1]), Region(0, 0, 4, 1), mask))
        0.5
    """
    tight = tight_boxes([placed.mask])[0]
    if not tight.any():
        return 0.0
    tight += np.tile(placed.region[:2], 2)
    tolerance = slack * np.tile(placed.box[2:] - placed.box[:2], 2)
    nearest_box = np.clip(tight, placed.box - tolerance, placed.box + tolerance)
    return float(paired_box_iou(tight, nearest_box))


def _box_areas(placed: Sequence[PlacedMask]) -> NDArray[np.float64]:
    """(N,) areas of the boxes."""
    boxes = np.array([one.box for one in placed]).reshape(-1, 4)
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _crop(grid: NDArray[Any], region: Region, part: Region) -> NDArray[Any]:
    """Return a view of the part of a region's grid; the part must lie within the region."""
    rows, columns = part.slices
    left, top = region[:2]
    return grid[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
