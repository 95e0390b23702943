"""Reading images that strangers made: upright, as RGB, and never at the cost of the machine.

The policy on EXIF rotation: pixels are shown upright, and sizes and boxes refer to the upright image.
"""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from boxel.utils.errors import BoxelError

MAX_PIXELS = 178_956_970
"""Images of more pixels are refused unread; where Pillow too takes an image for a decompression bomb."""

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000")
"""The formats Pillow may decode; PostScript, which it hands to another program, is not among them."""

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm", ".jp2")
)
"""What the files of a folder must end on to be taken for images, in lower case."""

_ORIENTATION = 0x0112  # the EXIF tag

# EXIF 2.32, section 4.6.4: what turns the stored image upright, for each orientation but 1.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageError(BoxelError):
    """An image that can't be used.

    Attributes:
        kind: `image-missing`, `image-empty`, `image-truncated`, `image-unreadable` or `image-too-large`.
        values: what was measured, by name.
    """

    def __init__(self, kind: str, message: str, **values: Any) -> None:
        super().__init__(message)
        self.kind = kind
        self.values = values


def read_image(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """The pixels of an image file, upright by its EXIF orientation.

    Gray, palette and CMYK images become RGB, an alpha channel is dropped, 16-bit values are divided by 257,
    and of an animation the first frame is read.

    Args:
        path: the file; its content, not its suffix, decides the format.

    Returns:
        (H, W, 3) uint8 RGB, contiguous.

    Raises:
        ImageError: the file is missing, empty, truncated, not an image that can be read, or of more than
            `MAX_PIXELS`.
    """
    with _opened(path) as image:
        orientation = orientation_of(image)
        image.load()
        upright = _UPRIGHT.get(orientation)
        rgb = _as_rgb(image)
        return np.array(rgb if upright is None else rgb.transpose(upright), dtype=np.uint8)


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """(width, height) in pixels of the upright image, from the header alone.

    Raises:
        ImageError: as `read_image`, but for damage that only decoding shows.
    """
    (width, height), orientation = stored_size(path)
    return (height, width) if orientation >= 5 else (width, height)


def stored_size(path: str | os.PathLike[str]) -> tuple[tuple[int, int], int]:
    """(width, height) of the pixels as stored, and the EXIF orientation in 1..8, from the header alone.

    Raises:
        ImageError: as `image_size`.
    """
    with _opened(path) as image:
        return image.size, orientation_of(image)


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation in 1..8 of an opened, not yet decoded image; 1 where none makes sense."""
    if image.format == "TIFF":  # Pillow turns these upright by itself, and gives their upright size
        return 1
    # Pillow would decode a whole PNG to look for EXIF behind its pixels.
    if image.format == "PNG" and not {"exif", "Raw profile type exif"} & image.info.keys():
        return 1
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a damaged EXIF block must not cost the image; Pillow raises many kinds of errors here
        return 1
    return orientation if orientation in _UPRIGHT else 1


def iter_images(
    sources: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    report: Callable[[str], None] = print,
) -> list[Path]:
    """The image files meant by files, folders and globs.

    Args:
        sources: one or more files (taken whatever their suffix), folders (searched to their depth for
            `SUFFIXES`) and glob patterns (`**` goes into folders).
        report: is told of each source that is none of these, or has no image in it.

    Returns:
        The files, sorted, each once.

    Raises:
        BoxelError: no source has an image.
    """
    found: dict[Path, Path] = {}
    faults: list[str] = []
    for source in [sources] if isinstance(sources, str | os.PathLike) else sources:
        path = Path(source)
        if path.is_file():
            files = [path]
        elif path.is_dir():
            files = _images_in(path)
        else:
            matches = sorted(map(Path, glob.glob(os.fspath(source), recursive=True)))
            files = [p for p in matches if p.is_file() and p.suffix.lower() in SUFFIXES]
        if not files:
            what = (
                f"no image ({', '.join(sorted(SUFFIXES))}) is in it"
                if path.is_dir()
                else "no such image, folder or pattern"
            )
            faults.append(f"{source}: {what}; name an image file, a folder of images or a glob pattern.")
        for file in files:
            found.setdefault(file.resolve(), file)
    if faults and not found:
        raise BoxelError(faults[0])
    for fault in faults:
        report(f"skipped: {fault}")
    return sorted(found.values())


def _images_in(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.rglob("*")) if p.suffix.lower() in SUFFIXES and p.is_file()]


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[Image.Image]:
    """The image, its header read; whatever goes wrong inside the block comes out as an `ImageError`."""
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        kind, what = (
            ("image-missing", "is missing") if missing else ("image-unreadable", f"can't be opened ({error})")
        )
        raise ImageError(
            kind, f"{path}: the image {what}; put the file there or leave the image out."
        ) from error
    if not stat.S_ISREG(status.st_mode):
        raise ImageError("image-unreadable", f"{path}: this is not a file; name an image file.")
    if status.st_size == 0:
        raise ImageError(
            "image-empty", f"{path}: the file has zero bytes; replace it or leave the image out.", bytes=0
        )
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise Image.DecompressionBombError(f"{width} x {height} pixels")
            yield image
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(
            "image-too-large",
            f"{path}: the image has more than {MAX_PIXELS} pixels ({error}); cut it into tiles or shrink it.",
            max_pixels=MAX_PIXELS,
        ) from error
    except (
        Exception
    ) as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and more
        truncated = isinstance(error, EOFError) or "truncated" in str(error).lower()
        kind, what = (
            ("image-truncated", "is cut short") if truncated else ("image-unreadable", "can't be decoded")
        )
        reason = "no image format that is known" if isinstance(error, Image.UnidentifiedImageError) else error
        raise ImageError(
            kind,
            f"{path}: the image {what} ({reason}); replace it or leave the image out.",
            bytes=status.st_size,
            reason=str(reason),
        ) from error


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits; Pillow's own conversion to RGB would clip them at 255
        values = np.asarray(image)
        if values.min(initial=0) < 0 or values.max(initial=0) > 65535:
            raise ValueError("32-bit pixels of unknown range: save them with 8 or 16 bits")
        return Image.fromarray(np.round(values / 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point pixels of unknown range: save them with 8 or 16 bits")
    if "transparency" in image.info and image.mode in ("1", "L", "P", "RGB"):
        image = image.convert("RGBA")
    return image.convert("RGB")
