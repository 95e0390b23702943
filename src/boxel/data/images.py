"""Read image files of unknown origin: upright, as RGB, and without endangering the machine.

The policy on EXIF rotation: pixels are shown upright, and sizes and boxes refer to the upright image.
"""

from __future__ import annotations

import importlib
import io
import logging
import os
import stat
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from boxel.data.video import read_frame
from boxel.utils.errors import BoxelError
from boxel.utils.frames import split_frame, stored_in
from boxel.utils.tars import member_size, read_member, split_member

logger = logging.getLogger(__name__)

MAX_PIXELS = 178_956_970
"""Images of more pixels are refused unread; Pillow too takes such an image for a decompression bomb."""

MAX_SHARED_PIXELS = 1 << 26
"""Images of more pixels are worked on one at a time, so that their memory does not multiply by the threads."""

_large = threading.Lock()

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000")
"""The formats that Pillow may decode; PostScript, which it hands to another program, is not among them."""

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".avif", ".heic"}
    | {".heif", ".jp2", ".ppm", ".pgm", ".pbm"}
)
"""Suffixes, in lower case, of the files that are taken for images when a folder is searched."""

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two of more than 4 GB
_PHOTOMETRIC, _SAMPLES = 262, 277  # tags of a TIFF: what 0 is, 0 for white, and the number of bands
_announced: set[int] = set()

_BAND_PIXELS = 1 << 22  # that are converted at once

_ORIENTATION = 0x0112  # the EXIF tag

# EXIF 2.32, section 4.6.4: what turns the stored image upright, for each orientation but 1.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageError(BoxelError):
    """An image that cannot be used.

    Attributes:
        kind: `image-missing`, `image-empty`, `image-truncated`, `image-unreadable` or `image-too-large`.
        values: Measured values by name.
    """

    def __init__(self, kind: str, message: str, **values: object) -> None:
        super().__init__(message)
        self.kind = kind
        self.values = values


def read_image(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Read the pixels of an image file, upright by its EXIF orientation.

    Gray, palette and CMYK images become RGB, an alpha channel is dropped, 16-bit values are divided by 257, and the
    first frame of an animation is read.

    Args:
        path: The file; its content, not its suffix, decides the format.

    Returns:
        (H, W, 3) uint8 RGB, C-contiguous.

    Raises:
        ImageError: The file is missing, empty, truncated, not a readable image, or larger than `MAX_PIXELS`.

    Examples:
        >>> from boxel.data import example_scenes
        >>> read_image(example_scenes().image_path(0)).shape
        (64, 96, 3)
    """
    with opened(path) as image:
        return decode_image(image)


def decode_image(image: Image.Image) -> NDArray[np.uint8]:
    """Return the upright pixels of a Pillow image as `read_image` does, (H, W, 3) uint8 RGB.

    Raises:
        ValueError: The range of its pixels is unknown. A damaged image raises Pillow's errors, of many kinds.
    """
    upright = UPRIGHT.get(read_orientation(image))
    image.load()
    if upright is not None:
        image = image.transpose(upright)
    pixels = np.empty((image.height, image.width, 3), dtype=np.uint8)
    for top, band in rgb_bands(image, _BAND_PIXELS // image.width):
        pixels[top : top + len(band)] = band
    return pixels


def rgb_bands(image: Image.Image, rows: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Yield the first row and the RGB pixels of each band of rows, so that a large image is never held twice."""
    # Pillow inverts a TIFF whose 0 is white, but not one of 16 bits.
    inverts = image.mode.startswith("I") and getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0
    for top in range(0, image.height, max(rows, 1)):
        whole = rows >= image.height
        band = image if whole else image.crop((0, top, image.width, min(top + rows, image.height)))
        pixels = np.asarray(_as_rgb(band))
        yield top, 255 - pixels if inverts else pixels


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Read the (width, height) of the upright image in pixels from the header alone.

    Raises:
        ImageError: As of `read_image`, except for damage that only decoding shows.

    Examples:
        >>> from boxel.data import example_scenes
        >>> image_size(example_scenes().image_path(0))
        (96, 64)
    """
    return read_header(path).upright


class ImageHeader(NamedTuple):
    """What the header of an image states: (width, height) of the pixels as stored, and EXIF orientation in 1..8."""

    stored: tuple[int, int]
    orientation: int

    @property
    def upright(self) -> tuple[int, int]:
        """(width, height) of the upright image."""
        return self.stored[::-1] if self.orientation >= 5 else self.stored


def read_header(path: str | os.PathLike[str]) -> ImageHeader:
    """Read the header of an image file; raises as `image_size` does."""
    with opened(path) as image:
        return ImageHeader(image.size, read_orientation(image))


def read_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation in 1..8 of an opened, not yet decoded image; 1 if there is no valid one."""
    if image.format == "TIFF":  # Pillow turns these upright by itself, and gives their upright size
        return 1
    # Pillow would decode a whole PNG to look for EXIF behind its pixels.
    if image.format == "PNG" and not {"exif", "Raw profile type exif"} & image.info.keys():
        return 1
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a damaged EXIF block must not cost the image; Pillow raises many kinds of errors here
        return 1
    return orientation if orientation in UPRIGHT else 1


def describe_missing(paths: Iterable[Path]) -> str:
    """State in one sentence which images of a dataset do not exist; return an empty text if all do."""
    paths = list(paths)
    missing = [path for path in paths if not os.path.exists(stored_in(path))]
    if not missing:
        return ""
    count = f"{len(missing):,} of {len(paths):,}"
    return f"images are missing ({count}), the first is {missing[0]}; name their folder with `images`."


def leads_out(path: Path, root: Path) -> bool:
    """Return whether a path goes through a link to a place outside a folder."""
    try:
        real = path.resolve()
    except (OSError, ValueError, RuntimeError):  # a name that cannot be, or links in a circle
        return False
    return real != Path(os.path.abspath(path)) and not real.is_relative_to(root)


@contextmanager
def in_turn(path: Path) -> Iterator[None]:
    """Wait until no other thread works on an image of more than `MAX_SHARED_PIXELS`, if this one is as large."""
    try:
        width, height = image_size(path)
    except ImageError:  # which reading it reports
        width = height = 0
    with _large if width * height > MAX_SHARED_PIXELS else nullcontext():
        yield


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[Image.Image]:
    """Open an image and read its header; any error inside the block becomes an `ImageError`."""
    size = _checked_size(path)
    try:
        with _open(path) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise Image.DecompressionBombError(f"{width} x {height} pixels")
            yield image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        message = (
            f"{path}: the image has more than {MAX_PIXELS} pixels ({error}); cut it into tiles or shrink it."
        )
        raise ImageError("image-too-large", message, max_pixels=MAX_PIXELS) from error
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        truncated = isinstance(error, EOFError) or "truncated" in str(error).lower()
        kind = "image-truncated" if truncated else "image-unreadable"
        what = "is truncated" if truncated else "cannot be decoded"
        reason = "not a known image format" if isinstance(error, Image.UnidentifiedImageError) else str(error)
        message = f"{path}: the image {what} ({reason}); replace it or leave the image out."
        raise ImageError(kind, message, bytes=size, reason=reason) from error


def is_tiff(head: bytes) -> bool:
    """Return whether the first bytes of a file are those of a TIFF."""
    return head[:4] in _TIFF


def announce_bands(path: str | os.PathLike[str], count: int) -> None:
    """Warn once of images of so many bands that not all of them are used, alpha channels apart."""
    if count > 4 and count not in _announced:
        _announced.add(count)
        logger.warning(
            "%s: of its %d bands the first three are taken for red, green and blue, as of all images like it",
            *(path, count),
        )


def _open(path: str | os.PathLike[str]) -> Image.Image:
    if frame := split_frame(path):
        return Image.fromarray(read_frame(*frame))
    member = split_member(path)
    source = io.BytesIO(read_member(*member)) if member else path
    try:
        image = open_as(source, FORMATS)
        announce_bands(path, getattr(image, "tag_v2", {}).get(_SAMPLES, 1))
        return image
    except Image.UnidentifiedImageError:
        if isinstance(source, io.BytesIO):
            head = source.getvalue()[:12]
        else:
            with open(source, "rb") as file:
                head = file.read(12)
        if is_tiff(head) and not member:
            return _open_raster(path)
        if head[4:8] != b"ftyp":
            raise
    # AVIF comes with newer versions of Pillow, HEIC with a package of its own.
    name, package, plugin = (
        ("AVIF", "pillow>=11.3", "PIL.AvifImagePlugin")
        if head[8:11] == b"avi"
        else ("HEIF", "pillow-heif", "pillow_heif")
    )
    try:
        module = importlib.import_module(plugin)
    except ImportError as error:
        raise OSError(f"{name} needs another package: pip install '{package}'") from error
    if name == "HEIF":
        module.register_heif_opener()
    return Image.open(source, formats=[name])


def open_as(source: str | os.PathLike[str] | io.BytesIO, formats: tuple[str, ...]) -> Image.Image:
    """Open an image of some formats with Pillow, but do not let it map a TIFF that it turns: it mixes up the sides."""
    image = Image.open(source, formats=formats)
    if getattr(image, "tag_v2", {}).get(_ORIENTATION, 1) >= 5:
        image.filename = ""
    return image


def _open_raster(path: str | os.PathLike[str]) -> Image.Image:
    """Read a TIFF that Pillow cannot read, e.g. one of 16 bits and several bands."""
    from boxel.data.windows import RasterWindows, open_raster
    from boxel.masks.boxes import Region

    raster = open_raster(path)
    if raster is None:
        raise OSError("a TIFF of unknown bands; with 8 or 16 bits, pip install 'boxel[geo]' may read it")
    with raster:
        if raster.height * raster.width > MAX_PIXELS:
            raise Image.DecompressionBombError(f"{raster.width} x {raster.height} pixels")
        return Image.fromarray(RasterWindows(raster).read(Region(0, 0, raster.width, raster.height)))


def _checked_size(path: str | os.PathLike[str]) -> int:
    """Return the bytes of a regular file that is not empty, or raise an `ImageError`."""
    try:
        status = os.stat(stored_in(path))
        size = member_size(*member) if (member := split_member(path)) else status.st_size
    except (OSError, ValueError) as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        kind = "image-missing" if missing else "image-unreadable"
        what = "is missing" if missing else f"cannot be opened ({error})"
        message = f"{path}: the image {what}; put the file there or leave the image out."
        raise ImageError(kind, message) from error
    if not stat.S_ISREG(status.st_mode):
        raise ImageError("image-unreadable", f"{path}: this is not a file; name an image file.")
    if size == 0:
        message = f"{path}: the file has zero bytes; replace it or leave the image out."
        raise ImageError("image-empty", message, bytes=0)
    return size


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits; Pillow's own conversion to RGB would clip them at 255
        values = np.asarray(image)
        if values.min(initial=0) < 0 or values.max(initial=0) > 65535:
            raise ValueError("32-bit pixels of unknown range: save them with 8 or 16 bits")
        return Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point pixels of unknown range: save them with 8 or 16 bits")
    if "transparency" in image.info and image.mode in ("1", "L", "P", "RGB"):
        image = image.convert("RGBA")
    return image.convert("RGB")
