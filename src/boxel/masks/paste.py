"""Paste low-resolution mask logits into images of any size, as run-length codes.

Only pixels that an instance can reach, inside its box and beside a cell of foreground, are sampled, and only a strip of
them is floating point at any time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from boxel.masks.rle import Rle, encode_in_box


def paste_windows(
    logits: Tensor,
    boxes: Tensor,
    windows: Tensor,
    size: tuple[int, int],
    threshold: float = 0.5,
    chunk: int = 2**17,
) -> list[Rle]:
    """Sample masks bilinearly from grids that each cover a window; zero outside their boxes.

    Args:
        logits: (N, h, w) float; constant beyond the centers of the outer cells.
        boxes: (N, 4) float, xyxy pixels of the output image; rounded outwards to whole pixels and clipped.
        windows: (N, 4) float, the xyxy pixels that each grid covers from edge to edge; they may reach past the image.
        size: (H, W) of the output image, in pixels.
        threshold: Probability in (0, 1) above which a pixel is foreground.
        chunk: Maximum number of pixels sampled at once, but at least one column of a box.

    Returns:
        N run-length codes of size (H, W); an empty code for a box without a pixel in the image.

    Examples:
        >>> box = torch.tensor([[1.0, 0, 3, 2]])
        >>> [rle] = paste_windows(torch.ones(1, 2, 2), box, box, size=(2, 4))
        >>> rle["size"]
        [2, 4]
    """
    height, width = size
    level = math.log(threshold / (1 - threshold))
    limits = torch.tensor([width, height, width, height])
    corners = boxes.detach().cpu().double()
    corners = torch.cat([corners[:, :2].floor(), corners[:, 2:].ceil()], dim=1).nan_to_num()
    spans = torch.minimum(corners.clamp(min=0), limits).long().tolist()
    places = windows.detach().cpu().double().tolist()
    return [
        _paste(grid, (x0, max(x0, x1)), (y0, max(y0, y1)), place, size, level, chunk)
        for grid, (x0, y0, x1, y1), place in zip(logits, spans, places, strict=True)
    ]


def _paste(
    logits: Tensor,
    columns: tuple[int, int],
    rows: tuple[int, int],
    window: Sequence[float],
    size: tuple[int, int],
    level: float,
    chunk: int,
) -> Rle:
    """Paste one instance; its mask is made transposed, since run-length codes run down the columns."""
    if columns[0] == columns[1] or rows[0] == rows[1]:
        return encode_in_box(np.zeros((0, 0)), 0, 0, *size)
    grid = logits.detach().float()
    foreground = grid > level
    x0, y0, x1, y1 = window
    across = _place(columns, x0, x1, grid.shape[1], grid.device)
    down = _place(rows, y0, y1, grid.shape[0], grid.device)
    xs, ys = across.reach(foreground.any(0)), down.reach(foreground.any(1))
    across, down = across.part(xs), down.part(ys)
    mask = torch.zeros(len(across.before), len(down.before), dtype=torch.bool)
    strip = max(1, chunk // max(1, mask.shape[1]))
    for start in range(0, len(mask), strip):
        part = slice(start, start + strip)
        left, right, weight = across.part(part)
        first, end = int(left[0]), int(right[-1]) + 1  # only the cells that the strip reaches
        height = down.reach(foreground[:, first:end].any(1))
        above, below, share = down.part(height)
        cells = grid[:, first:end].T
        tall = torch.lerp(cells[:, above], cells[:, below], share)
        sampled = torch.lerp(tall[left - first], tall[right - first], weight[:, None])
        mask[part, height] = (sampled > level).cpu()
    return encode_in_box(mask.numpy().T, columns[0] + xs.start, rows[0] + ys.start, *size)


class _Places(NamedTuple):
    """Where the centers of n pixels lie between the cells of a row or a column of the grid."""

    before: Tensor  # (n,) the cell before the center of each pixel
    after: Tensor  # (n,) the one after it
    weight: Tensor  # (n,) of the latter, in [0, 1]

    def part(self, pixels: slice) -> _Places:
        return _Places(*(values[pixels] for values in self))

    def reach(self, foreground: Tensor) -> slice:
        """Return the pixels from the first to the last beside a foreground cell; all others are background.

        A pixel is a weighted mean of its cells, (cells,) bool, and so never above all of them.
        """
        beside = (foreground[self.before] | foreground[self.after]).nonzero()
        return slice(int(beside[0]), int(beside[-1]) + 1) if len(beside) else slice(0, 0)


def _place(pixels: tuple[int, int], start: float, end: float, cells: int, device: torch.device) -> _Places:
    """Place the centers of pixels between cells that divide [start, end) evenly."""
    centers = (torch.arange(*pixels, device=device) + (0.5 - start)) * (cells / (end - start)) - 0.5
    centers = centers.clamp(0, cells - 1)
    before = centers.long()
    return _Places(before, (before + 1).clamp(max=cells - 1), centers - before)
