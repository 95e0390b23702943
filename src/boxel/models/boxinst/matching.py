"""Match ground-truth boxes to locations of the feature pyramid (FCOS: Tian et al., ICCV 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

STRIDES = (8, 16, 32, 64, 128)
"""Pixels per cell of P3 to P7."""

SIZE_RANGES = ((-1.0, 64.0), (64.0, 128.0), (128.0, 256.0), (256.0, 512.0), (512.0, float("inf")))
"""Ranges of the largest distance from a location to the sides of its box, in pixels, for P3 to P7."""

TOPK_CANDIDATES = 1000
"""Maximum number of locations per pyramid level before NMS."""

CENTER_RADIUS = 1.5
"""Strides around the center of an instance within which locations are positive."""


class Locations(NamedTuple):
    """The locations of all levels, P3 first, each level row by row."""

    points: Tensor  # (L, 2) x and y in pixels
    strides: Tensor  # (L,) pixels per cell of the level
    size_ranges: Tensor  # (L, 2) minimum and maximum of max(l, t, r, b) of boxes that belong to the level
    level_sizes: list[int]  # number of locations of each level


def make_locations(
    sizes: Sequence[Sequence[int]], device: torch.device | None = None, scale: float = 1.0
) -> Locations:
    """Return the locations of P3 to P7, or of the first of them, from their (height, width) in cells.

    `SIZE_RANGES` are multiplied by `scale`.
    """
    levels = list(zip(sizes, STRIDES, SIZE_RANGES, strict=False))
    points = [cell_centers(height, width, stride, device) for (height, width), stride, _ in levels]
    counts = [len(level) for level in points]
    repeats = torch.tensor(counts, device=device)
    strides = torch.tensor([stride for _, stride, _ in levels], dtype=torch.float32, device=device)
    ranges = scale * torch.tensor([size_range for *_, size_range in levels], device=device)
    return Locations(
        torch.cat(points), strides.repeat_interleave(repeats), ranges.repeat_interleave(repeats, 0), counts
    )


def cell_centers(height: int, width: int, stride: int, device: torch.device | None = None) -> Tensor:
    """Return the centers of a feature map's cells, (height * width, 2) x and y in pixels, row by row."""
    y, x = (
        torch.arange(n, device=device, dtype=torch.float32) * stride + stride // 2 for n in (height, width)
    )
    grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([grid_x.flatten(), grid_y.flatten()], dim=1)


def side_distances(points: Tensor, boxes: Tensor) -> Tensor:
    """Return the (..., 4) distances from (..., 2) points to the left, top, right and bottom of (..., 4) xyxy boxes.

    They are negative outside.
    """
    return torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], dim=-1)


def boxes_around(points: Tensor, distances: Tensor) -> Tensor:
    """Return the (N, 4) xyxy boxes whose sides have these distances; the inverse of :func:`side_distances`."""
    return torch.cat([points - distances[:, :2], points + distances[:, 2:]], dim=1)


def instance_centers(gt_boxes: Tensor, masks: Tensor, has_mask: Tensor) -> Tensor:
    """Return the (N, 2) centers of mass, x and y, of instances with a mask, and those of the boxes of the others.

    Args:
        gt_boxes: (N, 4) xyxy pixels.
        masks: (N, H, W), 1 in the instance and 0 elsewhere.
        has_mask: (N,) bool; an instance whose mask is empty counts as one without.

    Examples:
        >>> mask = torch.zeros(1, 4, 4)
        >>> mask[0, 0, :2] = mask[0, 1, 0] = 1
        >>> instance_centers(torch.tensor([[0.0, 0.0, 2.0, 2.0]]), mask, torch.tensor([True]))
        tensor([[0.8333, 0.8333]])

    References:
        Tian et al., Conditional Convolutions for Instance Segmentation, ECCV 2020, section 3.2 ("mass center").
    """
    centers = (gt_boxes[:, :2] + gt_boxes[:, 2:]) / 2
    known = has_mask & (masks.flatten(1).amax(1) > 0)
    mass = masks[known].float()  # (M, H, W)
    y, x = (torch.arange(side, device=mass.device) + 0.5 for side in mass.shape[1:])
    moments = torch.stack([(mass.sum(1) * x).sum(1), (mass.sum(2) * y).sum(1)], 1)  # (M, 2)
    centers[known] = moments / mass.sum((1, 2))[:, None]
    return centers


def match_locations(locations: Locations, gt_boxes: Tensor, centers: Tensor) -> Tensor:
    """Return the index of the box, of (N, 4), that each location must predict, (L,) int64; -1 for background.

    A location is positive for a box if it lies inside it, within `CENTER_RADIUS` strides of the (N, 2) center of its
    instance, and the size of the box suits its level. The smallest of several boxes wins.
    """
    points, strides, ranges, _ = locations
    if len(gt_boxes) == 0:
        return torch.full((len(points),), -1, dtype=torch.int64, device=points.device)
    distances = side_distances(points[:, None], gt_boxes[None])  # (L, N, 4)
    near = (points[:, None] - centers[None]).abs().amax(-1) < CENTER_RADIUS * strides[:, None]
    largest = distances.amax(-1)
    fits = (largest >= ranges[:, :1]) & (largest <= ranges[:, 1:])
    areas = (gt_boxes[:, 2:] - gt_boxes[:, :2]).prod(-1).expand(len(points), -1)
    areas = areas.masked_fill(~(near & fits & (distances.amin(-1) > 0)), float("inf"))
    smallest, matched_idxs = areas.min(dim=1)
    return matched_idxs.masked_fill(smallest.isinf(), -1)


def centerness(distances: Tensor) -> Tensor:
    """Return the (P,) center-ness of (P, 4) positive l, t, r, b: 1 in the middle, 0 at a side (FCOS, Eq. 3)."""
    horizontal, vertical = distances[:, [0, 2]], distances[:, [1, 3]]
    ratio = horizontal.amin(1) / horizontal.amax(1) * vertical.amin(1) / vertical.amax(1)
    return ratio.sqrt()


def inside_any_box(points: Tensor, boxes: Tensor) -> Tensor:
    """Return (L,) bool, whether each of (L, 2) points lies inside at least one of (C, 4) xyxy boxes."""
    return (side_distances(points[:, None], boxes[None]).amin(-1) > 0).any(dim=1)


def sample_locations_per_box(matched_idxs: Tensor, scores: Tensor, max_samples: int) -> Tensor:
    """Sample positive locations for the mask loss round-robin over their (P,) boxes, highest (P,) score first.

    Returns (min(P, max_samples),) indices. With more boxes than samples, the boxes left out are random.
    """
    if len(matched_idxs) <= max_samples:
        return torch.arange(len(matched_idxs), device=matched_idxs.device)
    by_score = scores.argsort(descending=True)
    order = by_score[matched_idxs[by_score].argsort(stable=True)]
    grouped = matched_idxs[order]
    _, counts = grouped.unique_consecutive(return_counts=True)
    starts = (counts.cumsum(0) - counts).repeat_interleave(counts)
    turn = torch.arange(len(order), device=order.device) - starts
    within_turn = torch.rand_like(scores) if len(counts) > max_samples else 1 - scores[order]
    return order[(turn + within_turn / 2).topk(max_samples, largest=False).indices]
