"""Faults of the image files: all are decoded, by as many threads as there are cores."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from boxel.data.check import exif
from boxel.data.check.repair_state import Work
from boxel.data.images import ImageError, read_image, stored_size
from boxel.data.label_maps import label_map_size
from boxel.utils.errors import BoxelError


@dataclass(frozen=True)
class Photo:
    """What a file holds.

    Attributes:
        stored: (width, height) of the pixels as they lie in the file.
        orientation: EXIF, 1..8.
    """

    stored: tuple[int, int]
    orientation: int

    @property
    def upright(self) -> tuple[int, int]:
        """(width, height) of the image as it is shown."""
        return self.stored[::-1] if self.orientation >= 5 else self.stored


def files(work: Work) -> None:
    """The five kinds of `ImageError`, `image-size` and the faults of `exif`.

    An image that can't be read is left out with its instances. Where no image at all is found, this is one
    fault of the set, `images-missing`, and nothing is left out: the folder is wrong, not the images.
    """
    paths = [work.data.image_path(image) for image in range(len(work.data))]
    found = _look(paths)
    if len(set(paths)) > 1 and all(isinstance(f, ImageError) and f.kind == "image-missing" for f in found):
        work.about_set(
            "images-missing",
            f"none of the {len(found)} images is under {work.data.root}; name their folder with --images",
            values={"images": len(found), "first": str(paths[0])},
        )
        return
    instances = np.bincount(work.image_index, minlength=len(paths))
    photos: dict[int, Photo] = {}
    for image, photo in enumerate(found):
        if isinstance(photo, Photo):
            photos[image] = photo
            continue
        count = int(instances[image])
        repair = f"left out with its {count} annotation{'' if count == 1 else 's'}"
        work.about_image(image, photo.kind, str(photo), repair, photo.values | {"annotations": count})
        work.keep_images[image] = False
    _sizes(work, photos)
    exif.frames(
        work, {image: p.stored for image, p in photos.items()}, {i: p.orientation for i, p in photos.items()}
    )
    for image, photo in photos.items():
        work.widths[image], work.heights[image] = photo.upright


def label_maps(work: Work) -> None:
    """`label-map-...`: one that can't be read or is of another size than its image; it is left out."""
    for image, name in enumerate(work.label_maps):
        if name is None:
            continue
        path = work.data.root / name
        try:
            size = label_map_size(path)
        except BoxelError as error:
            kind = "label-map-unreadable" if path.is_file() else "label-map-missing"
            work.about_image(image, kind, str(error), "label map left out", {"label_map": str(path)})
            work.label_maps[image] = None
            continue
        expected = (int(work.widths[image]), int(work.heights[image]))
        if min(expected) > 0 and size != expected:
            message = f"{path}: the label map is {_by(size)} pixels and its image {_by(expected)}."
            values = {"label_map": str(path), "found": list(size), "image": list(expected)}
            work.about_image(image, "label-map-size", message, "label map left out", values)
            work.label_maps[image] = None


def _look(paths: list[Path]) -> list[Photo | ImageError]:
    slices = [paths[start : start + 64] for start in range(0, len(paths), 64)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(chain.from_iterable(pool.map(lambda some: [_look_at(path) for path in some], slices)))


def _look_at(path: Path) -> Photo | ImageError:
    try:
        photo = Photo(*stored_size(path))
        read_image(path)
        return photo
    except ImageError as error:
        return error


def _sizes(work: Work, photos: dict[int, Photo]) -> None:
    for image, photo in photos.items():
        recorded = (int(work.widths[image]), int(work.heights[image]))
        if min(recorded) > 0 and recorded != photo.upright:
            note = " before it is turned upright" if recorded == photo.stored else ""
            message = (
                f"{work.data.image_path(image)}: the image is {_by(photo.upright)} pixels, "
                f"and {_by(recorded)}{note} by {work.data.file}."
            )
            values = {
                "recorded": list(recorded),
                "found": list(photo.upright),
                "orientation": photo.orientation,
            }
            work.about_image(image, "image-size", message, f"size set to {_by(photo.upright)}", values)


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
