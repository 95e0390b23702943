"""Input images from anywhere: paths, folders, globs, list files, videos, Pillow images and arrays."""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from boxel.data.images import SUFFIXES, decode_image, read_image
from boxel.data.video import list_frames
from boxel.utils.errors import BoxelError, UsageError, one_line
from boxel.utils.files import is_file
from boxel.utils.frames import VIDEO_SUFFIXES, is_video

logger = logging.getLogger(__name__)

ImageLike: TypeAlias = str | os.PathLike[str] | Image.Image | NDArray[Any]
"""One image: a file, a Pillow image, or an array; see `to_image`."""


def find_images(
    sources: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    on_skip: Callable[[str], None] = logger.warning,
    every: int = 1,
) -> list[Path]:
    """Find the images that paths, folders, glob patterns and list files stand for; those of a video are its frames.

    Args:
        sources: One or more files (of any suffix), folders (searched recursively for `SUFFIXES` and videos), glob
            patterns (``**`` descends into folders) and list files: ``.txt`` files with one path per line, relative to
            the list's folder.
        on_skip: Receives a sentence about each source without images, which is skipped, and about each video that is
            damaged.
        every: Take only every so many frames of a video, from the first.

    Returns:
        The files, sorted, each once; instead of a video its frames in order, e.g. ``clip.mp4#000123``.

    Raises:
        BoxelError: No source has an image.

    Examples:
        >>> from boxel.data import example_scenes
        >>> [path.name for path in find_images(example_scenes(2).root)]
        ['000000.png', '000001.png']
    """
    found: dict[Path, Path] = {}
    problems: list[str] = []
    for source in [sources] if isinstance(sources, str | os.PathLike) else sources:
        path = Path(source)
        if is_file(path):
            files = _listed_in(path) if path.suffix.lower() == ".txt" else [path]
        else:
            pattern = os.path.join(glob.escape(os.fspath(path)), "**") if path.is_dir() else os.fspath(source)
            matches = sorted(map(Path, _glob(pattern)))
            files = [
                p
                for p in matches
                if (p.suffix.lower() in SUFFIXES or is_video(p)) and p.name[:2] != "._" and p.is_file()
            ]
        if not files:
            kinds = ", ".join(sorted(SUFFIXES | VIDEO_SUFFIXES))
            what = f"contains no image ({kinds})" if path.exists() else "does not exist"
            problems.append(
                f"skipped: {source} {what}; name an image file, a folder of images or a glob pattern."
            )
        for file in files:
            found.setdefault(file.resolve(), file)
    images: list[Path] = []
    for file in sorted(found.values()):
        frames, problem = list_frames(file, every) if is_video(file) else ([file], "")
        images += frames
        problems += [problem] if problem else []
    if problems and not images:
        raise BoxelError(problems[0].removeprefix("skipped: "))
    for problem in problems:
        on_skip(problem)
    return images


def _glob(pattern: str) -> Iterator[str]:
    """Find what a pattern matches; `glob.glob` would follow links that lead in a circle again and again."""
    parts = Path(pattern).parts
    if "**" not in parts:
        yield from glob.iglob(pattern)
        return
    at = parts.index("**")
    rest = parts[at + 1 :] or ("*",)
    for base in glob.iglob(os.path.join(*parts[:at])) if at else ["."]:
        seen = set()
        for folder, folders, _ in os.walk(base, followlinks=True):
            if (real := os.path.realpath(folder)) in seen:
                folders.clear()
                continue
            seen.add(real)
            folders[:] = [name for name in folders if not name.startswith(".")]
            yield from _glob(os.path.join(glob.escape(folder), *rest))


def _listed_in(file: Path) -> list[Path]:
    """Return the paths in a list file; blank lines and lines that begin with ``#`` are skipped."""
    from boxel.data.formats.builder import read_text  # it imports all formats

    lines = [line.strip() for line in read_text(file).splitlines()]
    paths = [file.parent / line for line in lines if line and not line.startswith("#")]
    return [
        path if is_file(path) or "\\" not in str(path) else Path(str(path).replace("\\", "/"))
        for path in paths
    ]


def to_image(image: ImageLike) -> NDArray[np.uint8]:
    """Convert an image of any supported kind to RGB pixels.

    Args:
        image: The path of a file; a Pillow image; or an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), gray, RGB or
            RGBA, of uint8, uint16, bool, or float in [0, 1]. An alpha channel is dropped.

    Returns:
        (H, W, 3) uint8 RGB, C-contiguous; the array itself if it is one already.

    Raises:
        BoxelError: The file cannot be read, or the array has another shape, type or range.

    Examples:
        >>> to_image(np.full((1, 1), 0.5))
        array([[[128, 128, 128]]], dtype=uint8)
    """
    if isinstance(image, str | os.PathLike):
        return read_image(image)
    if isinstance(image, Image.Image):
        try:
            return decode_image(image)
        except Exception as error:  # Pillow's decoders raise many kinds of errors
            raise BoxelError(f"the image cannot be decoded: {one_line(error)}.") from error
    if not hasattr(image, "__array__"):
        raise UsageError(
            f"an image cannot be of type {type(image).__name__}; give a path, a Pillow image or an array."
        )
    return _array_to_rgb(np.asarray(image))


def _array_to_rgb(array: NDArray[Any]) -> NDArray[np.uint8]:
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or not array.size:
        hint = (
            " (channels come last: transpose it)" if array.ndim == 3 and array.shape[0] in (1, 3, 4) else ""
        )
        raise UsageError(
            f"an image has shape {array.shape}; give (height, width) or (height, width, channels){hint}."
        )
    pixels = _to_uint8(array[..., :3] if array.shape[2] == 4 else array)
    return np.ascontiguousarray(pixels if pixels.shape[2] == 3 else pixels.repeat(3, axis=2))


def _to_uint8(array: NDArray[Any]) -> NDArray[np.uint8]:
    """Scale pixels to 0..255 by the range of their type."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype == np.uint16:
        return np.round(array / 257).astype(np.uint8)
    if array.dtype.kind == "f":
        if not (array.min() >= 0 and array.max() <= 1):  # NaN is refused too
            raise UsageError(
                f"an image has float values from {array.min():g} to {array.max():g}; float images must be in [0, 1]: "
                "divide by 255, or convert to uint8."
            )
        return np.round(array * 255).astype(np.uint8)
    raise UsageError(f"an image has pixels of type {array.dtype}; give uint8, or float in [0, 1].")
