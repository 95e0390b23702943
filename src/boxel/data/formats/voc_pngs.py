"""Segmentations of Pascal VOC: PNGs with a palette, whose pixels are numbers of objects or classes."""

from __future__ import annotations

import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from boxel.data.formats.builder import Builder
from boxel.data.label_maps import checked, pixel_values
from boxel.utils.errors import one_line

VOID = 255


def read_png(file: Path, size: tuple[int, ...], stem: str, rows: Builder) -> NDArray[Any] | None:
    """Read the (H, W) palette indices of a segmentation; None if there is none that can be used."""
    if not file.is_file():
        return None
    try:
        with Image.open(file, formats=["PNG"]) as image:
            if min(size) > 0 and image.size != tuple(size):
                raise ValueError(f"its size is {image.size}, not {tuple(size)}")
            return pixel_values(checked(image))
    except Exception as error:  # Pillow's decoders raise many kinds of errors
        what = f"cannot be read as a segmentation ({one_line(error)}); the boxes are kept."
        rows.report("bad-file", file, what, stem)
        return None


def write_png(file: Path, pixels: NDArray[np.uint8]) -> None:
    """Write (H, W) numbers with VOC's palette."""
    file.parent.mkdir(exist_ok=True)
    image = Image.fromarray(pixels, mode="P")
    image.putpalette(palette())
    image.save(file, compress_type=zlib.Z_RLE)  # as small as by default, in a third of the time


@cache
def palette() -> list[int]:
    """Return VOC's colors of 256 values: bits of the index go to red, green and blue in turn, high bits first."""
    index = np.arange(256)
    colors = np.zeros((256, 3), dtype=np.int64)
    for bit in range(8):
        for channel in range(3):
            if 3 * bit + channel < 8:
                colors[:, channel] |= (index >> (3 * bit + channel) & 1) << (7 - bit)
    return colors.ravel().tolist()
