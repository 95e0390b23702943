"""Boxes as the rows and columns of a grid, for tensors.

The mask of a box is an outer product, so a grid of h x w needs only h + w values per instance, and full-size masks of
boxes are never made.
"""

from __future__ import annotations

import torch
from torch import Tensor


def box_spans(boxes: Tensor, height: int, width: int, stride: int) -> tuple[Tensor, Tensor]:
    """Find the rows and columns of a grid whose cells lie in each box.

    Cell j of an axis is centered at ``stride * j + stride / 2`` pixels and lies in a box if ``start <= center < end``.
    A box that holds no center (it is small, or off the grid) gets the cell nearest its middle, so that every box has at
    least one row and one column.

    Args:
        boxes: (N, 4) float, xyxy pixels.
        height: Rows of the grid.
        width: Columns of the grid.
        stride: Pixels from one cell to the next.

    Returns:
        rows (N, height) bool and columns (N, width) bool.

    Examples:
        >>> rows, columns = box_spans(torch.tensor([[0.0, 0, 8, 4]]), height=2, width=3, stride=4)
        >>> box_masks(rows, columns).int().tolist()
        [[[1, 1, 0], [0, 0, 0]]]
    """
    return (_span(boxes[:, 1], boxes[:, 3], height, stride), _span(boxes[:, 0], boxes[:, 2], width, stride))


def box_masks(rows: Tensor, columns: Tensor) -> Tensor:
    """Expand boxes from rows and columns to masks.

    Args:
        rows: (N, h) bool.
        columns: (N, w) bool.

    Returns:
        (N, h, w) bool.

    Examples:
        >>> box_masks(torch.tensor([[True, False]]), torch.tensor([[False, True, True]])).int().tolist()
        [[[0, 1, 1], [0, 0, 0]]]
    """
    return rows[:, :, None] & columns[:, None, :]


def span_ends(spans: Tensor) -> tuple[Tensor, Tensor]:
    """Find the first true index of each of (N, n) rows and one past the last, (N,) int64; both 0 if none is true."""
    size = spans.shape[1]
    index = torch.arange(size, device=spans.device)
    ends = ((index + 1) * spans).amax(1)
    starts = torch.where(spans, index, size).amin(1)
    return torch.minimum(starts, ends), ends


def _span(start: Tensor, end: Tensor, size: int, stride: int) -> Tensor:
    index = torch.arange(size, device=start.device)
    center = stride * index + stride / 2
    inside = (center >= start[:, None]) & (center < end[:, None])
    nearest = ((start + end) / 2 / stride).floor().clamp(0, size - 1).long()
    return inside | (~inside.any(1, keepdim=True) & (index == nearest[:, None]))
