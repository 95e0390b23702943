"""Resize images bit for bit as PyTorch does on CPUs: its antialiased bilinear interpolation of 8-bit pixels, in NumPy.

Networks are sensitive: where pixels differ by one of 255 steps, as Pillow's do here and there, a box that is fitted to
a faint mask moves by several pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_MAX_WEIGHT = 1 << 15  # PyTorch's weights are 16-bit integers
_MAX_BITS = 22
_ROWS = 64  # rows that are resized at once, which stay in the cache


def resize_image(image: NDArray[np.uint8], factor: float) -> NDArray[np.uint8]:
    """Resize (H, W, 3) pixels by a factor; each side has at least a pixel.

    Examples:
        >>> resize_image(np.array([[[0, 0, 0], [255, 255, 255]]], dtype=np.uint8), 2)[0, :, 0].tolist()
        [0, 64, 191, 255]
    """
    height, width = (max(round(side * factor), 1) for side in image.shape[:2])
    if width != image.shape[1]:
        first, weights, bits = _weigh(image.shape[1], width)
        parts = (image[top : top + _ROWS] for top in range(0, len(image), _ROWS))
        image = np.concatenate(
            [_mix(part.transpose(1, 0, 2), first, weights, bits).transpose(1, 0, 2) for part in parts]
        )
    if height != image.shape[0]:
        first, weights, bits = _weigh(image.shape[0], height)
        spans = (slice(top, top + _ROWS) for top in range(0, height, _ROWS))
        image = np.concatenate([_mix(image, first[span], weights[span], bits) for span in spans])
    return np.ascontiguousarray(image)


def _weigh(before: int, after: int) -> tuple[NDArray[np.int64], NDArray[np.int32], int]:
    """Return the first pixel (after,) that each new one is a mean of, the weights (after, taps), and their bits."""
    scale = before / after
    support = max(scale, 1.0)
    center = scale * (np.arange(after) + 0.5)
    first = np.maximum((center - support + 0.5).astype(np.int64), 0)
    count = np.minimum((center + support + 0.5).astype(np.int64), before) - first
    taps = np.arange(count.max())
    distance = np.abs((taps + first[:, None] - center[:, None] + 0.5) / support)
    weights = np.where(taps < count[:, None], np.maximum(1 - distance, 0), 0)
    weights /= weights.sum(axis=1, keepdims=True)
    largest, bits = weights.max(), 0
    while bits < _MAX_BITS and int(0.5 + largest * (1 << (bits + 1))) < _MAX_WEIGHT:
        bits += 1
    return first, (0.5 + weights * (1 << bits)).astype(np.int32), bits


def _mix(
    pixels: NDArray[np.uint8], first: NDArray[np.int64], weights: NDArray[np.int32], bits: int
) -> NDArray[np.uint8]:
    """Return the weighted means (M, ...) of some of the (N, ...) pixels."""
    total = np.full((len(first), *pixels.shape[1:]), 1 << (bits - 1), dtype=np.int32)
    for tap in range(weights.shape[1]):
        index = np.minimum(first + tap, len(pixels) - 1)
        total += weights[:, tap, None, None] * pixels[index]
    return (total >> bits).clip(0, 255).astype(np.uint8)
