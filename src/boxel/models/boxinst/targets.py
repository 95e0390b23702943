"""Which location of the feature pyramid is responsible for which box (FCOS: Tian et al., ICCV 2019)."""

from __future__ import annotations

import torch
from torch import Tensor

STRIDES = (8, 16, 32, 64, 128)
SIZE_RANGES = ((-1.0, 64.0), (64.0, 128.0), (128.0, 256.0), (256.0, 512.0), (512.0, float("inf")))
"""Ranges of the largest distance from a location to its box's sides, in pixels, for P3 to P7."""


def locations(height: int, width: int, stride: int, device: torch.device | None = None) -> Tensor:
    """Centers of a feature map's cells in the image.

    Args:
        height: cells.
        width: cells.
        stride: pixels to a cell.
        device: of the result.

    Returns:
        (height * width, 2) float, x and y in pixels, row by row: ``j * stride + stride // 2``.
    """
    x = torch.arange(width, device=device, dtype=torch.float32) * stride + stride // 2
    y = torch.arange(height, device=device, dtype=torch.float32) * stride + stride // 2
    grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([grid_x.flatten(), grid_y.flatten()], dim=1)


def side_distances(points: Tensor, boxes: Tensor) -> Tensor:
    """Distances from points to the left, top, right and bottom side of boxes; negative outside.

    Args:
        points: (..., 2) x and y.
        boxes: (..., 4) xyxy, broadcast against the points.

    Returns:
        (..., 4) l, t, r, b.
    """
    return torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], dim=-1)


def match(points: Tensor, strides: Tensor, ranges: Tensor, boxes: Tensor, radius: float = 1.5) -> Tensor:
    """The box each location is to predict.

    A location is positive for a box if it lies inside it, within ``radius`` strides of its center, and the box's
    size suits its level. Among several boxes the smallest wins.

    Args:
        points: (L, 2) locations of all levels.
        strides: (L,) stride of each location's level.
        ranges: (L, 2) lowest and highest of ``max(l, t, r, b)`` for each location's level.
        boxes: (N, 4) xyxy pixels.
        radius: strides around the center.

    Returns:
        (L,) int64, index of the box or -1.
    """
    if len(boxes) == 0:
        return torch.full((len(points),), -1, dtype=torch.int64, device=points.device)
    distances = side_distances(points[:, None], boxes[None])
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    near = (points[:, None] - centers[None]).abs().amax(-1) < radius * strides[:, None]
    farthest = distances.amax(-1)
    fits = (farthest >= ranges[:, :1]) & (farthest <= ranges[:, 1:])
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(-1).expand(len(points), -1)
    areas = areas.masked_fill(~(near & fits & (distances.amin(-1) > 0)), float("inf"))
    smallest, index = areas.min(dim=1)
    return index.masked_fill(smallest.isinf(), -1)


def centerness(distances: Tensor) -> Tensor:
    """Center-ness of locations inside their boxes: 1 in the middle, 0 at a side (FCOS, Eq. 3).

    Args:
        distances: (P, 4) positive l, t, r, b.

    Returns:
        (P,) in (0, 1].
    """
    horizontal, vertical = distances[:, [0, 2]], distances[:, [1, 3]]
    ratio = horizontal.amin(1) / horizontal.amax(1) * vertical.amin(1) / vertical.amax(1)
    return ratio.sqrt()


def in_crowd(points: Tensor, crowd_boxes: Tensor) -> Tensor:
    """Which locations lie in a crowd region, where nothing may be called background.

    Args:
        points: (L, 2) locations.
        crowd_boxes: (C, 4) xyxy pixels.

    Returns:
        (L,) bool.
    """
    return (side_distances(points[:, None], crowd_boxes[None]).amin(-1) > 0).any(dim=1)


def share_out(boxes_of: Tensor, scores: Tensor, most: int) -> Tensor:
    """Choose positive locations for the mask loss so that every box gets its turn before any gets a second one.

    Args:
        boxes_of: (P,) box of each positive location.
        scores: (P,) in [0, 1]; a box's best locations come first.
        most: how many to choose.

    Returns:
        (min(P, most),) int64 indices. Where there are more boxes than turns, which of them is left out is random.
    """
    if len(boxes_of) <= most:
        return torch.arange(len(boxes_of), device=boxes_of.device)
    by_score = scores.argsort(descending=True)
    order = by_score[boxes_of[by_score].argsort(stable=True)]
    grouped = boxes_of[order]
    _, counts = grouped.unique_consecutive(return_counts=True)
    starts = (counts.cumsum(0) - counts).repeat_interleave(counts)
    turn = torch.arange(len(order), device=order.device) - starts
    within_turn = torch.rand_like(scores) if len(counts) > most else 1 - scores[order]
    return order[(turn + within_turn / 2).topk(most, largest=False).indices]
