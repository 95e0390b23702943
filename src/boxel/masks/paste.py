"""Paste low-resolution mask logits into images of any size, as run-length codes.

Only pixels inside an instance's box are sampled, and only a strip of them is floating point at any time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from boxel.masks.rle import Rle, encode_in_box


def paste_windows(
    logits: Tensor,
    boxes: Tensor,
    windows: Tensor,
    size: tuple[int, int],
    threshold: float = 0.5,
    chunk: int = 2**20,
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
    grid = logits.detach().float()
    mask = torch.empty(columns[1] - columns[0], rows[1] - rows[0], dtype=torch.bool)
    if mask.numel():
        x0, y0, x1, y1 = window
        above, below, down = _neighbors(rows, y0, y1, grid.shape[0], grid.device)
        left, right, across = _neighbors(columns, x0, x1, grid.shape[1], grid.device)
        first = int(left[0])  # only the cells that the box reaches
        cells = grid[:, first : int(right[-1]) + 1].T
        tall = torch.lerp(cells[:, above], cells[:, below], down)
        strip = max(1, chunk // tall.shape[1])
        for start in range(0, len(left), strip):
            part = slice(start, start + strip)
            sampled = torch.lerp(tall[left[part] - first], tall[right[part] - first], across[part, None])
            mask[part] = (sampled > level).cpu()
    return encode_in_box(mask.numpy().T, columns[0], rows[0], *size)


def _neighbors(
    pixels: tuple[int, int], start: float, end: float, cells: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the cell before the center of each pixel, the one after it, and the weight of the latter.

    The cells divide [start, end) evenly.
    """
    centers = (torch.arange(*pixels, device=device) + (0.5 - start)) * (cells / (end - start)) - 0.5
    centers = centers.clamp(0, cells - 1)
    before = centers.long()
    return before, (before + 1).clamp(max=cells - 1), centers - before
