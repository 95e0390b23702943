"""Images that are read a window at a time: large TIFFs are never held as a whole where rasterio is installed."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from boxel.data.images import ImageError, announce_bands, is_tiff
from boxel.data.sources import ImageLike, to_image
from boxel.masks.boxes import Region
from boxel.utils.errors import one_line

_MAX_BLOCK = 1 << 24  # pixels that a file may compress together, all of which are decoded for a window
_BITS, _PHOTOMETRIC, _ORIENTATION = 258, 262, 274  # tags; GDAL does not turn images upright
_GRAY_OR_RGB = (1, 2, 6)  # YCbCr too, which GDAL converts as JPEG's decoder does


class ImageWindows(Protocol):
    """An image of which parts are read.

    Attributes:
        shape: (height, width) in pixels.
    """

    shape: tuple[int, int]

    def read(self, region: Region) -> NDArray[np.uint8]:
        """Return the (h, w, 3) RGB pixels of a part."""
        ...


class ArrayWindows:
    """The windows of an image in memory, (H, W, 3) uint8 RGB."""

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self.pixels = pixels
        self.shape: tuple[int, int] = (pixels.shape[0], pixels.shape[1])

    def read(self, region: Region) -> NDArray[np.uint8]:
        """Return the (h, w, 3) RGB pixels of a part, as a view."""
        return self.pixels[region.slices]


class RasterWindows:
    """The windows of a file that rasterio has opened."""

    def __init__(self, raster: Any) -> None:
        self._raster = raster
        announce_bands(raster.name, raster.count)
        self.shape: tuple[int, int] = (raster.height, raster.width)

    def read(self, region: Region) -> NDArray[np.uint8]:
        """Return the (h, w, 3) RGB pixels of a part; values are scaled as by `read_image`."""
        bands = [1, 2, 3] if self._raster.count >= 3 else [1]
        pixels = self._raster.read(bands, window=tuple(zip(region[:2][::-1], region[2:][::-1], strict=True)))
        if pixels.dtype == np.uint16:
            pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
        return np.ascontiguousarray(np.broadcast_to(pixels, (3, *pixels.shape[1:])).transpose(1, 2, 0))


@contextmanager
def open_windows(source: ImageLike, in_parts: bool = True) -> Iterator[ImageWindows]:
    """Open an image of any supported kind for reading parts of it.

    A TIFF is read from its file part by part if rasterio is installed, and may be of any size; any other image is
    decoded as a whole.

    Args:
        source: The image; see :func:`~boxel.data.sources.to_image`.
        in_parts: If not, the image is decoded as a whole anyway.

    Raises:
        BoxelError: As of :func:`~boxel.data.sources.to_image`.

    Examples:
        >>> from boxel.data import example_scenes
        >>> with open_windows(example_scenes().image_path(0)) as image:
        ...     image.shape, image.read(Region(8, 4, 40, 20)).shape
        ((64, 96), (16, 32, 3))
    """
    raster = open_raster(source) if in_parts and isinstance(source, str | os.PathLike) else None
    if raster is None:
        yield ArrayWindows(to_image(source))
        return
    with raster:
        try:
            yield RasterWindows(raster)
        except raster_errors() as error:
            reason = one_line(error)
            message = f"{source}: the image cannot be decoded ({reason}); replace it or leave the image out."
            raise ImageError("image-unreadable", message, reason=reason) from error


def open_raster(path: str | os.PathLike[str]) -> Any | None:
    """Open a TIFF with rasterio; None if this is not installed, or for a file whose pixels Pillow knows better."""
    rasterio, photometric = import_rasterio(), _photometric(path)
    if rasterio is None or photometric not in _GRAY_OR_RGB:
        return None
    try:
        raster = rasterio.open(path, driver="GTiff")
    except raster_errors():
        return None
    height, width = raster.block_shapes[0]
    if {*raster.dtypes} in ({"uint8"}, {"uint16"}) and height * width <= _MAX_BLOCK:
        return raster
    raster.close()
    return None


def _photometric(path: str | os.PathLike[str]) -> int | None:
    """Return how the values of a TIFF are meant; None for another file, other bits than 8 or 16, and to be turned."""
    try:
        with Path(path).open("rb") as file:
            head = file.read(16)
            if not is_tiff(head):
                return None
            tags = ImageFileDirectory_v2(head if 43 in head[2:4] else head[:8])
            file.seek(tags.next)
            tags.load(file)
        whole = set(np.atleast_1d(tags.get(_BITS, 1)).tolist()) <= {8, 16}
        return tags.get(_PHOTOMETRIC) if whole and tags.get(_ORIENTATION, 1) == 1 else None
    except Exception:  # a damaged file; Pillow raises many kinds of errors here
        return None


def is_tiff_file(path: str | os.PathLike[str]) -> bool:
    """Return whether a file begins like a TIFF."""
    try:
        with Path(path).open("rb") as file:
            return is_tiff(file.read(4))
    except (OSError, ValueError):  # ValueError: a null byte in the name
        return False


def raster_errors() -> tuple[type[Exception], ...]:
    """Return the errors that rasterio raises for a file."""
    from rasterio.errors import RasterioError

    return RasterioError, OSError


@cache
def import_rasterio() -> Any | None:
    """Return the module rasterio; None if it is not installed."""
    try:
        import rasterio
    except ImportError:
        return None
    # Most TIFFs have no place on the earth, and need none.
    warnings.filterwarnings("ignore", category=rasterio.errors.NotGeoreferencedWarning)
    return rasterio
