"""Write images and sheets of images."""

from __future__ import annotations

import io
import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from boxel.utils.errors import BoxelError, UsageError
from boxel.utils.files import atomic_path, not_written
from boxel.utils.frames import frame_stem

logger = logging.getLogger(__name__)

# Thin lines keep their colors; other formats ignore these.
_JPEG: dict[str, Any] = {"quality": 92, "subsampling": 0}
_MAX_NAME = 120  # characters of a file or folder


def contact_sheet(images: Sequence[NDArray[np.uint8]], columns: int, cell: int) -> NDArray[np.uint8]:
    """Lay images out row by row on white, each fitted into a square; each row is as high as its highest image.

    Args:
        images: (H, W, 3) uint8 RGB, of any sizes.
        columns: Images per row.
        cell: Side of the square, in pixels.

    Returns:
        (height, columns * cell, 3) uint8 RGB; one white row of ``cell`` pixels for no images.

    Examples:
        >>> contact_sheet([np.zeros((10, 20, 3), np.uint8)] * 3, columns=2, cell=40).shape
        (40, 80, 3)
    """
    fitted = [ImageOps.contain(Image.fromarray(i), (cell, cell), Image.Resampling.BILINEAR) for i in images]
    rows = [fitted[at : at + columns] for at in range(0, len(fitted), columns)]
    heights = [max(image.height for image in row) for row in rows]
    sheet = Image.new("RGB", (columns * cell, sum(heights) or cell), "white")
    top = 0
    for row, height in zip(rows, heights, strict=True):
        for column, image in enumerate(row):
            place = column * cell + (cell - image.width) // 2, top + (height - image.height) // 2
            sheet.paste(image, place)
        top += height
    return np.asarray(sheet)


def save_image(image: NDArray[np.uint8], path: str | os.PathLike[str]) -> None:
    """Write an image; its folder is created if needed.

    Args:
        image: (H, W, 3) RGB or (H, W), uint8.
        path: The file; its suffix decides the format.

    Raises:
        BoxelError: The file cannot be written or its suffix is not that of an image format.

    Examples:
        >>> from boxel.data import example_scenes
        >>> save_image(np.zeros((48, 64, 3), np.uint8), example_scenes().root / "black.png")
    """
    with writing_file(path) as file:
        Image.fromarray(np.ascontiguousarray(image)).save(file, **_JPEG)


def encode_image(image: NDArray[np.uint8], format: str = "PNG", **options: int) -> bytes:
    """Encode an image, e.g. for a page or a notebook; ``options`` are those of Pillow's format."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(file, format, **options)
    return file.getvalue()


class Drawable:
    """Base class of results that a notebook shows as pictures."""

    def plot(self) -> NDArray[np.uint8]:
        """Draw the result over its image."""
        raise NotImplementedError

    def _repr_png_(self) -> bytes | None:
        """Draw the result for a notebook; None, which shows its text, if there is no image to draw it over."""
        try:
            return encode_image(self.plot())
        except BoxelError:
            return None


@contextmanager
def writing_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path for a file; errors name the file itself."""
    try:
        with atomic_path(Path(path)) as file:
            yield file
    except ValueError as error:
        what = f"{Path(path).suffix!r} is not an image format; end the name on .png or .jpg."
        raise BoxelError(f"{path}: {what}") from error
    except OSError as error:
        raise not_written(Path(path), error) from error


def mirror_names(paths: Sequence[str]) -> list[str]:
    """Return a distinct relative path of a JPEG file per image, in the folders that the image is in.

    No path leads out of the folder it is put in, whatever the paths hold; of absolute paths, the folders that all share
    are left out. Names that differ in case only count as the same.

    Examples:
        >>> mirror_names(["a/1.png", "a/1.tif", "../b/1.jpg"])
        ['a/1.jpg', 'a/1.tif.jpg', 'b/1.jpg']
        >>> mirror_names(["/data/a/1.png", "/data/b/1.png"])
        ['a/1.jpg', 'b/1.jpg']
    """
    split = [
        [_clean(part) for part in re.split(r"[/\\]", path) if part not in ("", ".", "..")] for path in paths
    ]
    if paths and all(re.match(r"[/\\]|[A-Za-z]:", path) for path in paths):
        # What the first and the last in order share, all share.
        ends = zip(min(split)[:-1], max(split)[:-1], strict=False)
        shared = len(list(takewhile(lambda pair: pair[0] == pair[1], ends)))
        split = [parts[shared:] for parts in split]
    taken: dict[str, str] = {}  # by the name in lower case, in order
    for parts in split:
        path = PurePosixPath(*parts) if parts else PurePosixPath("image")
        frame = frame_stem(path.name)
        name, number = f"{path.with_name(frame) if frame else path.with_suffix('')}.jpg", 1
        while name.casefold() in taken:
            name = f"{path}.jpg" if number == 1 else f"{path}_{number}.jpg"
            number += 1
        taken[name.casefold()] = name
    return list(taken.values())


def _clean(part: str) -> str:
    return re.sub(r'[\x00-\x1f\x7f<>:"|?*\ud800-\udfff]', "_", part)[-_MAX_NAME:].lstrip(".") or "_"


def refuse_folder_of_images(folder: Path, images: Iterable[Path], setting: str = "out") -> None:
    """Raise a `UsageError` if images are in a folder, or in folders within it, that is going to be written to."""
    target = folder.resolve()
    for place in sorted({image.parent for image in images}):
        if place.resolve().is_relative_to(target) and place.is_dir():
            raise UsageError(f"{folder} holds the images ({place}); give another folder as `{setting}`.")


def warn_of_other_drawings(folder: Path, names: Sequence[str]) -> None:
    """Log a warning if a folder has other JPEG files than those that are going to be drawn into it."""
    others = {file.relative_to(folder).as_posix() for file in folder.rglob("*.jpg")} - set(names)
    if others:
        logger.warning(
            "%s has %d other drawings, e.g. %s, which stay there; name a new folder to have these alone",
            *(folder, len(others), min(others)),
        )


def same_file(one: Path, other: Path) -> bool:
    """Return whether two paths are one file that exists, e.g. by a link."""
    try:
        return one.samefile(other)
    except (OSError, ValueError):
        return False
