"""Merge and drop: larger objects give way to smaller ones, and a mask that does not fill its box is not trusted.

Wang et al., "Weakly-supervised Instance Segmentation via Class-agnostic Learning with Salient Images" (BoxCaseg), CVPR
2021, Section 3.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from boxel.masks.boxes import Region, paired_box_iou, tight_boxes


class Piece(NamedTuple):
    """A mask in its part of an image, and the box that tells how large its object is.

    Attributes:
        box: (4,) float64 xyxy pixels.
        region: the pixels that the mask is of.
        mask: (rows, columns) bool of the region.
    """

    box: NDArray[np.float64]
    region: Region
    mask: NDArray[np.bool_]


def merge(pieces: Sequence[Piece], height: int, width: int) -> list[NDArray[np.bool_]]:
    """Masks of which no two overlap: "smaller object better".

    They are painted in the order of their boxes' areas, the largest first and each in its own region only; of two
    boxes of one area the later lies on top.

    Args:
        pieces: N masks with their boxes.
        height: of the image, in pixels.
        width: of the image, in pixels.

    Returns:
        N masks (rows, columns) bool of the same regions: what is left of each.
    """
    owner = np.zeros((height, width), dtype=np.int32)  # memory that is never painted is never taken
    image = Region(0, 0, width, height)
    for index in np.argsort(-_areas(pieces), kind="stable"):
        _part(owner, image, pieces[index].region)[pieces[index].mask] = index + 1
    return [_part(owner, image, piece.region) == index for index, piece in enumerate(pieces, start=1)]


def yield_to_surer(pieces: Sequence[Piece], sure: Sequence[NDArray[np.floating]]) -> list[NDArray[np.bool_]]:
    """Masks that lose a pixel to each smaller object whose mask has it too, and is as sure of it or surer.

    "Smaller object better" is right of a dog on a sofa, and wrong where the mask of the smaller object is. Where the
    larger object is the surer one, both keep the pixel: taking it from the smaller one does more harm than good.

    Args:
        pieces: N masks with their boxes.
        sure: N probabilities of the objects (rows, columns), of the same regions.

    Returns:
        N masks (rows, columns) bool of the same regions: what is left of each.
    """
    left = [piece.mask.copy() for piece in pieces]
    areas = _areas(pieces)
    regions = np.array([piece.region for piece in pieces]).reshape(-1, 4)
    for small, piece in enumerate(pieces):
        shared = np.c_[
            np.maximum(piece.region[:2], regions[:, :2]), np.minimum(piece.region[2:], regions[:, 2:])
        ]
        meets = (shared[:, 2:] > shared[:, :2]).all(axis=1)
        for large in np.flatnonzero(meets & (areas > areas[small])).tolist():
            region, other = Region(*shared[large].tolist()), pieces[large]
            both = _part(piece.mask, piece.region, region) & _part(other.mask, other.region, region)
            if both.any():
                surer = _part(sure[small], piece.region, region) >= _part(sure[large], other.region, region)
                _part(left[large], other.region, region)[both & surer] = False
    return left


def _areas(pieces: Sequence[Piece]) -> NDArray[np.float64]:
    """(N,) areas of the boxes."""
    boxes = np.array([piece.box for piece in pieces]).reshape(-1, 4)
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _part(grid: NDArray[Any], of: Region, region: Region) -> NDArray[Any]:
    """A view of the part of a grid, the pixels of one region, that lies in another within it."""
    return grid[region.top - of.top : region.bottom - of.top, region.left - of.left : region.right - of.left]


def box_agreement(piece: Piece, slack: float = 0.0) -> float:
    """Proxy box agreement: IoU of the mask's tight box with the box it was made from.

    The paper calls it a lower bound of the mask's IoU with the truth. It is none: a cross that touches all four sides
    agrees perfectly.

    Args:
        piece: the mask and the box.
        slack: by how much each side of the box may be off, as a share of its width and height; the tight box is
            compared with the nearest box within it.

    Returns:
        A number in [0, 1]; 0 for an empty mask.
    """
    tight = tight_boxes([piece.mask])[0]
    if not tight.any():
        return 0.0
    tight += np.tile(piece.region[:2], 2)
    room = slack * np.tile(piece.box[2:] - piece.box[:2], 2)
    return float(paired_box_iou(tight, np.clip(tight, piece.box - room, piece.box + room)))
