"""Label Studio's code of brush masks: runs of the bytes of an RGBA image, packed into bits.

The code is the one of https://github.com/thi-ng/umbrella/tree/develop/packages/rle-pack: 32 bits for the number of
values, 5 for the bits of a value (less 1), and four times 4 for the bits of a length (less 1). Then come parts: a bit
that is set for a run of one value, 2 bits that choose how many bits the length has, the length (less 1), and the value,
or the values. A pixel belongs to the mask if its alpha is not 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_CHANNELS = 4
_VALUE_BITS = 8
_LENGTH_BITS = (3, 4, 8, 16)
_FOREGROUND = 255


class _Bits:
    """Bits that are read from the first to the last, the high bits of a byte first."""

    def __init__(self, content: bytes) -> None:
        self.content, self.place = content, 0

    def read(self, count: int) -> int:
        """Return the next 32 bits or fewer as a number."""
        start, first = divmod(self._advance(count), 8)
        window = self.content[start : start + 5].ljust(5, b"\0")
        return int.from_bytes(window, "big") >> (40 - first - count) & ((1 << count) - 1)

    def read_nonzero(self, values: int, count: int) -> NDArray[np.bool_]:
        """Return for each of the next values of so many bits whether it is not 0."""
        start, first = divmod(self._advance(values * count), 8)
        content = self.content[start : start + (first + values * count + 7) // 8]
        bits = np.unpackbits(np.frombuffer(content, dtype=np.uint8))
        return np.any(bits[first : first + values * count].reshape(values, count), axis=1)

    def _advance(self, count: int) -> int:
        place = self.place
        self.place += count
        if self.place > 8 * len(self.content):
            raise ValueError("its brush code ends too early")
        return place


def decode_brush(code: Sequence[int], height: int, width: int) -> NDArray[np.bool_]:
    """Decode a brush mask.

    Args:
        code: The bytes of the code.
        height: Height of the image in pixels.
        width: Width of the image in pixels.

    Returns:
        (H, W) bool.

    Raises:
        ValueError: The code is damaged, or is that of an image of another size.

    Examples:
        >>> decode_brush(encode_brush(np.eye(3)), 3, 3).astype(int).tolist()
        [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    """
    bits = _Bits(bytes(code))
    total = bits.read(32)
    if total != _CHANNELS * height * width:
        raise ValueError(
            f"its brush code has {total} values, which are not the {width} x {height} pixels of its image"
        )
    value_bits = bits.read(5) + 1
    length_bits = [bits.read(4) + 1 for _ in range(4)]
    mask = np.zeros(height * width, dtype=bool)
    place = 0
    while place < total:
        is_run = bits.read(1)
        end = place + bits.read(length_bits[bits.read(2)]) + 1
        if end > total:
            raise ValueError("its brush code is longer than its image")
        # The alpha of pixel k is value 4 k + 3.
        pixels = slice(place // _CHANNELS, end // _CHANNELS)
        if not is_run:
            mask[pixels] = bits.read_nonzero(end - place, value_bits)[3 - place % _CHANNELS :: _CHANNELS]
        elif bits.read(value_bits):
            mask[pixels] = True
        place = end
    return mask.reshape(height, width)


def encode_brush(mask: NDArray[Any]) -> list[int]:
    """Encode an (H, W) mask as Label Studio's own converter does: white and opaque where it is not 0.

    Examples:
        >>> encode_brush(np.ones((1, 1)))
        [0, 0, 0, 4, 57, 27, 252, 127, 224]
    """
    return encode_brush_in_box(mask, 0, 0, *mask.shape)


def encode_brush_in_box(mask: NDArray[Any], x0: int, y0: int, height: int, width: int) -> list[int]:
    """Encode an image that is zero except for an (h, w) mask at (x0, y0); see `encode_brush`."""
    h, w = mask.shape
    # A zero behind each row keeps its last run apart from the next one's first, and one more in front lets the first
    # run begin with an edge.
    padded = np.zeros(1 + h * (w + 1), dtype=bool)
    padded[1:].reshape(h, w + 1)[:, :w] = mask != 0
    edges = np.flatnonzero(padded[1:] != padded[:-1])
    edges = (y0 + edges // (w + 1)) * width + x0 + edges % (w + 1)
    # If the mask is as wide as the image, a run continues in the next row: join the two.
    touching = np.flatnonzero(edges[1:] == edges[:-1])
    edges = np.delete(edges, np.r_[touching, touching + 1])
    lengths = _CHANNELS * np.diff(edges, prepend=0, append=height * width)
    values = np.arange(len(lengths)) % 2 == 1
    lengths, values = lengths[lengths > 0], values[lengths > 0]
    longest = 1 << _LENGTH_BITS[-1]
    pieces = -(-lengths // longest)  # of a run that is too long for one part
    parts = np.full(pieces.sum(), longest)
    parts[np.cumsum(pieces) - 1] = lengths - (pieces - 1) * longest
    choice = np.searchsorted([1 << bits for bits in _LENGTH_BITS], parts)
    bits = np.array(_LENGTH_BITS)[choice]
    colors = np.repeat(values, pieces) * _FOREGROUND
    words = (((4 + choice) << bits | (parts - 1)) << _VALUE_BITS) | colors
    header = [
        (_CHANNELS * height * width, 32),
        (_VALUE_BITS - 1, 5),
        *((bits - 1, 4) for bits in _LENGTH_BITS),
    ]
    numbers = np.concatenate([[number for number, _ in header], words])
    sizes = np.concatenate([[size for _, size in header], 3 + bits + _VALUE_BITS])
    ends = np.cumsum(sizes)
    shifts = np.repeat(ends, sizes) - 1 - np.arange(ends[-1])
    return np.packbits((np.repeat(numbers, sizes) >> shifts & 1).astype(np.uint8)).tolist()
