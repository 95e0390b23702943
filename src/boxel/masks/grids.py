"""Paste grids of mask logits into images, as run-length codes, in NumPy; `boxel.masks.paste` does so for tensors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from boxel.masks.crops import neighbor_cells, resample_at
from boxel.masks.rle import Rle, encode_in_box

_CHUNK = 1 << 18  # pixels that are sampled at once, but at least a row


def paste_grids(
    logits: NDArray[np.float32],
    boxes: NDArray[np.floating],
    windows: NDArray[np.floating],
    size: tuple[int, int],
) -> list[Rle]:
    """Sample masks bilinearly from grids that each cover a window; zero outside their boxes.

    Args:
        logits: (N, h, w), above 0 in the object; constant beyond the centers of the outer cells.
        boxes: (N, 4) xyxy pixels of the output image; rounded outwards to whole pixels and clipped.
        windows: (N, 4) xyxy pixels that each grid covers from edge to edge; they may reach past the image.
        size: (H, W) of the output image, in pixels.

    Returns:
        N run-length codes of size (H, W).

    Examples:
        >>> box = np.array([[1, 0, 3, 2]], dtype=np.float32)
        >>> paste_grids(np.ones((1, 2, 2), dtype=np.float32), box, box, size=(2, 4))
        [{'size': [2, 4], 'counts': '242'}]
    """
    corners = np.concatenate([np.floor(boxes[:, :2]), np.ceil(boxes[:, 2:])], axis=1)
    spans = np.nan_to_num(corners).clip(0, np.tile(size[::-1], 2)).astype(int)
    return [
        _paste(grid, span, window, size) for grid, span, window in zip(logits, spans, windows, strict=True)
    ]


def _paste(
    grid: NDArray[np.float32], span: NDArray[np.int64], window: NDArray[np.floating], size: tuple[int, int]
) -> Rle:
    """Paste one instance: only the pixels beside a cell of the object are sampled, as all others are background."""
    left, top, right, bottom = span.tolist()
    x0, y0, x1, y1 = window.astype(float).tolist()
    ys, xs = np.nonzero(grid > 0)
    columns = _reach(np.arange(left, right), x0, x1, xs, grid.shape[1])
    rows = _reach(np.arange(top, bottom), y0, y1, ys, grid.shape[0])
    mask = np.zeros((len(rows), len(columns)), dtype=bool)
    if not mask.size:
        return encode_in_box(np.zeros((0, 0)), 0, 0, *size)
    step = max(1, _CHUNK // len(columns))
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        mask[part] = resample_at(grid, window, rows[part], columns) > 0
    return encode_in_box(mask, int(columns[0]), int(rows[0]), *size)


def _reach(
    pixels: NDArray[np.int64], start: float, end: float, cells: NDArray[np.intp], count: int
) -> NDArray[np.int64]:
    """Return the pixels from the first to the last beside one of some cells, of `count` that divide [start, end)."""
    if not len(pixels) or not len(cells):
        return pixels[:0]
    before, after, _ = neighbor_cells(pixels, start, end, count)
    beside = np.flatnonzero(np.isin(before, cells) | np.isin(after, cells))
    return pixels[beside[0] : beside[-1] + 1] if len(beside) else pixels[:0]
