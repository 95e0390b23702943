"""Salient sets: photos of one thing each, with its mask as a black-and-white image.

The layout: a folder ``images`` and a folder ``masks`` with files of the same stems. What is brighter than half in a
mask is the thing; each mask becomes one instance of the category ``salient``.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from boxel.data.annotations import Annotations, Category
from boxel.data.formats.builder import Builder
from boxel.data.formats.layout import (
    file_stems,
    find_image,
    lost_label_maps,
    lost_masks,
    place_images,
    readable_mask,
    size_of,
    suffix_of,
)
from boxel.data.images import SUFFIXES, image_size, read_image
from boxel.data.issues import Issue
from boxel.masks.rle import encode
from boxel.utils.errors import BoxelError

CATEGORY = Category(1, "salient")


def recognize(path: Path) -> bool:
    """Whether this is a folder of images with a folder of masks beside them."""
    return (path / "images").is_dir() and (path / "masks").is_dir()


def read(path: Path, images: Path | None = None) -> Annotations:
    """A salient set, one instance an image.

    Images without a mask, and masks without foreground or of another size than their image, are told in the issues.

    Args:
        path: the folder that has `images` and `masks`.
        images: the folder of the images, where they are elsewhere.

    Raises:
        BoxelError: there is no mask.
    """
    root, masks = images or path / "images", path / "masks"
    files = _image_files(masks)
    if not files:
        raise BoxelError(f"{masks}: no masks are here; put a black-and-white image a photo into it.")
    rows = Builder()
    masked = {file.stem for file in files}
    for file in _image_files(root):
        if file.stem not in masked:
            message = (
                f"{file}: the image has no mask in {masks} and is left out; draw it, or remove the image."
            )
            rows.issues.append(Issue("no-mask", message, str(file)))
    for file in files:
        try:
            _add(rows, root, file)
        except BoxelError as error:
            rows.issues.append(Issue("bad-mask", f"{error} The image is left out.", str(file)))
    return rows.build(root, [CATEGORY], path)


def _image_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.glob("*") if file.suffix.lower() in SUFFIXES)


def _add(rows: Builder, root: Path, file: Path) -> None:
    name = find_image(root, file.stem)
    width, height = image_size(root / name)
    mask = read_image(file)[..., 0] > 127
    if mask.shape != (height, width):
        raise BoxelError(
            f"{file}: the mask is {mask.shape[1]} x {mask.shape[0]} pixels and its image {width} x {height}; "
            "make them of one size."
        )
    if not mask.any():
        raise BoxelError(f"{file}: the mask is black all over; draw it, or remove it.")
    image = rows.add_image(file.stem, name, width, height)
    code = msgspec.json.encode(encode(mask))
    rows.add(f"{file.stem}:1", image, 0, _tight_box(mask), code, area=float(mask.sum()))


def _tight_box(mask: NDArray[np.bool_]) -> list[int]:
    y, x = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [int(x[0]), int(y[0]), int(x[-1]) + 1, int(y[-1]) + 1]


def write(data: Annotations, path: Path) -> list[str]:
    """Write the set as photos and black-and-white masks, all instances of an image in one.

    Args:
        data: the data set.
        path: the folder to write.

    Returns:
        What the layout could not hold.
    """
    stems = file_stems(data.paths)
    names = [stem + suffix_of(file) for stem, file in zip(stems, data.paths, strict=True)]
    losses = place_images(data, path / "images", names)
    (path / "masks").mkdir(parents=True, exist_ok=True)
    lost = int((~data.has_mask).sum())
    unreadable: list[str] = []
    for image, stem in enumerate(stems):
        size = size_of(data, image)
        read = [readable_mask(data, i, size, unreadable) for i in data.instances_in(image).tolist()]
        masks = [mask for mask in read if mask is not None]
        if masks:
            Image.fromarray(np.max(masks, axis=0) * 255).save(path / "masks" / f"{stem}.png")
    losses += [*lost_masks(data, unreadable, "a salient set"), *lost_label_maps(data, "a salient set")]
    if lost:
        losses.append(f"a salient set has masks only: {lost} instances without one are left out.")
    if len(data.categories) > 1 or len(data.labels) > len(data):
        losses.append("a salient set knows neither categories nor instances: those of an image are one mask.")
    return losses


def select_single_objects(data: Annotations, least: float = 0.02, connected: float = 0.9) -> Annotations:
    """The images that show a single object: BoxCaseg's DUTS-Single (section 4).

    Args:
        data: one instance an image, with its mask; other instances are left out.
        least: smallest share of the image that the object covers.
        connected: smallest share of its mask that is one piece.

    Returns:
        The images with exactly one trusted mask of those sizes, and that instance alone.
    """
    keep = np.zeros(len(data.labels), dtype=bool)
    alone = np.bincount(data.image_index, minlength=len(data))[data.image_index] == 1
    for instance in np.flatnonzero(alone & data.has_mask & ~data.iscrowd).tolist():
        try:
            mask = data.mask(instance)
        except BoxelError as error:
            warnings.warn(f"{error} Its image is left out.", stacklevel=2)
            continue
        if mask is not None and mask.any() and mask.mean() >= least:
            sizes = np.bincount(cv2.connectedComponents(mask)[1].ravel())[1:]
            keep[instance] = sizes.max() >= connected * sizes.sum()
    single = data.select_instances(keep)
    return single.select_images(np.unique(single.image_index))
