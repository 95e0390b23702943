"""What one decoding of an image shows: whether it is whole, how bright it is, and what it looks like from afar."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from boxel.data.checks.near_duplicates import SIDE
from boxel.data.images import UPRIGHT, ImageHeader, opened, read_orientation, rgb_bands
from boxel.utils.frames import stored_in

# JPEG files are decoded at a fraction of their size, which finds the same damage and is up to three times as fast.
_SCALES = (8, 4, 2)
_MIN_SIDE = 2 * SIDE  # of the decoded image
_BAND_ROWS = 256
_REDUCIBLE = ("L", "LA", "RGB", "RGBA", "CMYK", "YCbCr")
_COLOR = 12  # maximum difference of the channels of a gray pixel, in levels of 255, whatever the compression
_COLORED_SHARE = 0.05  # minimum share of the pixels of a colored image that are not gray


@dataclass(frozen=True, eq=False)
class ImageFacts:
    """Facts about an image that can be read.

    Attributes:
        header: Size as stored, and EXIF orientation.
        bytes: Size of the file.
        bits: Bits per channel, 8 or 16.
        brightness: Mean luminance in [0, 255].
        colored: The channels differ visibly.
        thumbnail: (27, 27) uint8 luminance of the upright image.
    """

    header: ImageHeader
    bytes: int
    bits: int
    brightness: float
    colored: bool
    thumbnail: NDArray[np.uint8]


def read_facts(path: Path) -> ImageFacts:
    """Decode an image file.

    Raises:
        ImageError: It cannot be used; see `read_image`.

    Examples:
        >>> from boxel.data import example_scenes
        >>> facts = read_facts(example_scenes().image_path(0))
        >>> facts.header.upright, facts.bits, facts.thumbnail.shape
        ((96, 64), 8, (27, 27))
    """
    with opened(path) as image:
        header = ImageHeader(image.size, read_orientation(image))
        deep = image.mode.startswith("I") or any(";16" in str(tile[3]) for tile in getattr(image, "tile", []))
        pixels = _decode_small(image, header.orientation)
    return ImageFacts(header, os.stat(stored_in(path)).st_size, 16 if deep else 8, *_measure(pixels))


def _decode_small(image: Image.Image, orientation: int) -> NDArray[np.uint8]:
    """Decode a whole image, and return it as upright RGB pixels, but fewer."""
    scale = next((scale for scale in _SCALES if min(image.size) >= scale * _MIN_SIDE), 1)
    if image.format == "JPEG" and scale > 1:
        image.draft("RGB", (image.width // scale, image.height // scale))
    image.load()
    factor = max(min(image.size) // _MIN_SIDE, 1)
    if image.mode in _REDUCIBLE and "transparency" not in image.info:
        small = np.asarray(image.reduce(factor).convert("RGB"))
    else:
        bands = rgb_bands(image, factor * max(_BAND_ROWS // factor, 1))
        small = np.concatenate([np.asarray(Image.fromarray(band).reduce(factor)) for _, band in bands])
    upright = UPRIGHT.get(orientation)
    return small if upright is None else np.asarray(Image.fromarray(small).transpose(upright))


def _measure(pixels: NDArray[np.uint8]) -> tuple[float, bool, NDArray[np.uint8]]:
    """Return the brightness of RGB pixels, whether they are colored, and their thumbnail."""
    gray = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    red, green, blue = cv2.split(pixels)
    spread = cv2.subtract(cv2.max(cv2.max(red, green), blue), cv2.min(cv2.min(red, green), blue))
    thumbnail = np.asarray(cv2.resize(gray, (SIDE, SIDE), interpolation=cv2.INTER_AREA), dtype=np.uint8)
    colored = bool(np.count_nonzero(np.asarray(spread) > _COLOR) > _COLORED_SHARE * gray.size)
    return float(gray.mean()), colored, thumbnail
