"""What lies where: proposals in crowds, the cells of a proposal's mask, and the rows of a box among them."""

from __future__ import annotations

import torch
from torch import Tensor

from boxel.masks.spans import box_spans

GRID = 28
"""Cells along each side of a proposal's mask."""


def in_crowd(boxes: Tensor, crowds: Tensor) -> Tensor:
    """Which boxes lie in a crowd region by more than half of their area; they are no background.

    Args:
        boxes: (N, 4) xyxy pixels.
        crowds: (C, 4) xyxy pixels.

    Returns:
        (N,) bool.
    """
    corner = torch.maximum(boxes[:, None, :2], crowds[:, :2])
    extent = (torch.minimum(boxes[:, None, 2:], crowds[:, 2:]) - corner).clamp(min=0)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    return (extent.prod(-1) > area[:, None] / 2).any(1)


def grid_windows(rois: Tensor) -> Tensor:
    """The pixels that the cells of each proposal's mask cover.

    torchvision's RoIAlign takes a pixel's index for its middle, so that what the mask head learns of a true
    mask lies half a pixel right of the proposal and below. All else that has to do with the cells goes by
    these windows too.

    Args:
        rois: (N, 4) proposals or detections, xyxy pixels.

    Returns:
        (N, 4) xyxy pixels.
    """
    return rois + 0.5


def spans_in(windows: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns of each window's cells whose middles lie in a box; where none does, the nearest one.

    Args:
        windows: (N, 4) xyxy pixels, each of `GRID` x `GRID` cells.
        boxes: (N, 4) xyxy pixels, one a window.

    Returns:
        rows (N, GRID) bool and columns (N, GRID) bool, as :func:`~boxel.masks.spans.box_spans` gives them.
    """
    cell = (windows[:, 2:] - windows[:, :2]) / GRID
    in_cells = (boxes - windows[:, :2].repeat(1, 2)) / cell.repeat(1, 2)
    return box_spans(in_cells, GRID, GRID, stride=1)
