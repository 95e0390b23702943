"""What class each pixel of an image is of: read from a label map, or painted from masks."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from boxel.data.annotations import BACKGROUND, MAX_VALUE, VOID, Annotations, Category
from boxel.data.images import MAX_PIXELS
from boxel.utils.errors import BoxelError

IGNORE = 255
"""The label of pixels of which nothing is known."""

GROUND = "background"
"""The name of the class of pixels that are of no instance."""

INNER_BOX = "inner-box"
"""The source of masks that are only the middle of their box."""

NO_INSTANCE, UNKNOWN = -1, -2
"""Pixels of an instance map that are of none, and those that may be of one that has no mask."""


def classes_of(data: Annotations) -> tuple[Category, ...]:
    """The classes of a set's pixels: its categories, after a background where pixels may be of none.

    The background has the id 0, or where a category has that, as YOLO's first one, the lowest that is free.

    Raises:
        BoxelError: there are more than 255, or a category is called background too.
    """
    classes = data.categories
    if has_background(data):
        taken = {category.id for category in classes}
        free = next(id for id in range(len(taken) + 1) if id not in taken)
        classes = (Category(free, GROUND), *classes)
    if len(classes) > IGNORE:
        raise BoxelError(
            f"{data.file}: {len(classes)} classes are more than the {IGNORE} that a label map can hold; choose some "
            "with data.categories."
        )
    if len({category.name for category in classes}) < len(classes):
        raise BoxelError(f"{data.file}: two classes are called {GROUND}; rename the category.")
    return classes


def has_background(data: Annotations) -> bool:
    """Whether pixels may be of no category of the set: unless it has label maps alone, and these know no background."""
    return not any(data.label_maps) or len(data.labels) > 0 or BACKGROUND in data.map_labels


def values_of(classes: Sequence[Category]) -> NDArray[np.uint16]:
    """(K,) the value of each class in a label map, which is its id.

    Raises:
        BoxelError: an id is no value of a pixel, or two classes have the same.
    """
    ids = [category.id for category in classes]
    if len(set(ids)) < len(ids) or not 0 <= min(ids, default=0) <= max(ids, default=0) <= MAX_VALUE:
        raise BoxelError(
            f"the ids of the classes, {', '.join(map(str, ids[:10]))}, can't be the values of a label map; give each a "
            f"number of its own from 0 to {MAX_VALUE}."
        )
    return np.array(ids, dtype=np.uint16)


def has_labels(data: Annotations) -> NDArray[np.bool_]:
    """(I,) bool: an image has a label map, or a mask, or nothing in it; with boxes alone, little is known of it."""
    counts, masks = np.zeros((2, len(data)), dtype=np.int64)
    np.add.at(counts, data.image_index, 1)
    np.add.at(masks, data.image_index, data.has_mask)
    return data.has_label_map | (masks > 0) | ((counts == 0) & has_background(data))


def has_truth(data: Annotations) -> NDArray[np.bool_]:
    """(I,) bool: a segmenter of classes can be measured on an image, which has a label map or a mask."""
    masked = np.zeros(len(data), dtype=bool)
    masked[data.image_index[data.has_mask & ~data.iscrowd]] = True
    return data.has_label_map | masked


def translation(data: Annotations, classes: Sequence[Category]) -> NDArray[np.uint8]:
    """What a set's classes are among others of the same names.

    Args:
        data: the set.
        classes: the others. What the set has besides is background to them where they have one, else ignored.

    Returns:
        (256,) index into ``classes`` by that into :func:`classes_of`; `IGNORE` stays.

    Raises:
        BoxelError: no class but the background is in both.
    """
    names = [category.name for category in classes]
    own = [category.name for category in classes_of(data)]
    if not set(own) & set(names) - {GROUND}:
        raise BoxelError(
            f"{data.file}: none of its classes ({', '.join(own[:10])}) is one of those to tell "
            f"({', '.join(names[:10])})."
        )
    other = names.index(GROUND) if GROUND in names else IGNORE
    table = np.full(256, IGNORE, dtype=np.uint8)
    table[: len(own)] = [names.index(name) if name in names else other for name in own]
    return table


def label_map(
    data: Annotations,
    image: int,
    size: tuple[int, int] | None = None,
    guesses: Mapping[int, NDArray[np.bool_]] | None = None,
) -> NDArray[np.uint8]:
    """The class of each pixel of an image.

    Where the set has no label map of the image, its masks are painted, see :func:`instance_map`.

    Args:
        data: the set.
        image: index of the image.
        size: its (height, width); that of the annotations if not given.
        guesses: masks that stand for those of some instances.

    Returns:
        (H, W) uint8, index into :func:`classes_of`, or `IGNORE`.

    Raises:
        BoxelError: the label map can't be read or is of another size.
    """
    size = size or (int(data.heights[image]), int(data.widths[image]))
    first = int(has_background(data))
    if data.label_maps[image] is None:
        labels = data.labels[data.instances_of(image)] + first
        table = np.array([*labels, IGNORE, 0], dtype=np.uint8)  # -2 and -1 are the last two
        return table[instance_map(data, image, size, guesses)]
    file = data.root / str(data.label_maps[image])
    values = read_values(file)
    if values.shape != tuple(size):
        raise BoxelError(
            f"{file}: the label map is {values.shape[1]} x {values.shape[0]} pixels and its image {size[1]} x "
            f"{size[0]}; make them of one size."
        )
    table = np.full(MAX_VALUE + 1, IGNORE, dtype=np.uint8)
    known = np.where(data.map_labels == BACKGROUND, 0, data.map_labels + first)
    table[: len(known)] = np.where(data.map_labels == VOID, IGNORE, known)
    return table[values]


def instance_map(
    data: Annotations,
    image: int,
    size: tuple[int, int],
    guesses: Mapping[int, NDArray[np.bool_]] | None = None,
) -> NDArray[np.int16]:
    """Which instance each pixel is of, smaller ones on top.

    Under all masks lie the boxes of instances without one, or with one that can't be read, which a warning tells, or
    with one of `inner-box`, which is but a part of the object: what else is in them is not known.

    Args:
        data: the set.
        image: index of the image.
        size: its (height, width).
        guesses: (H, W) masks that stand for those of some instances, by the instance.

    Returns:
        (H, W) int16: position among `instances_of` the image, `NO_INSTANCE` or `UNKNOWN`.
    """
    painted = np.full(size, NO_INSTANCE, dtype=np.int16)
    masks = []
    for position, instance in enumerate(data.instances_of(image).tolist()):
        mask: NDArray[np.bool_] | NDArray[np.uint8] | None = (guesses or {}).get(instance)
        if mask is None and data.trusted[instance]:
            try:
                mask = data.mask(instance, size)
            except BoxelError as error:
                warnings.warn(f"{error} Its box is not learned from.", stacklevel=2)
        if mask is not None:
            masks.append((int(mask.sum()), position, mask))
        if (mask is None or data.source[instance] == INNER_BOX) and np.isfinite(data.boxes[instance]).all():
            x0, y0, x1, y1 = data.boxes[instance].clip(0)
            painted[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))] = UNKNOWN
    for _, position, mask in sorted(masks, key=lambda entry: -entry[0]):
        painted[mask > 0] = position
    return painted


def read_values(file: Path) -> NDArray[np.uint16]:
    """The values of a label map, as they are in its file.

    Args:
        file: a gray or paletted PNG, or a MATLAB file with a `LabelMap`, as PASCAL-Context comes.

    Returns:
        (H, W) uint16.

    Raises:
        BoxelError: it can't be read as one.
    """
    with _told(file):
        if file.suffix.lower() == ".mat":
            from scipy.io import loadmat  # only MATLAB files need SciPy

            return loadmat(file, variable_names=["LabelMap"])["LabelMap"].astype(np.uint16)
        with Image.open(file, formats=["PNG"]) as image:
            # Pillow stretches gray values of 2 and 4 bits to 8.
            stretch = {"L;2": 85, "L;4": 17}.get(image.tile[0].args if image.mode == "L" else "", 1)
            return np.array(_checked(image)).astype(np.uint16) // stretch


def label_map_size(file: Path) -> tuple[int, int]:
    """(width, height) of a label map, from its header alone.

    Raises:
        BoxelError: it can't be read as one.
    """
    with _told(file):
        if file.suffix.lower() == ".mat":
            from scipy.io import whosmat

            height, width = {name: shape for name, shape, _ in whosmat(file)}["LabelMap"]
            return width, height
        with Image.open(file, formats=["PNG"]) as image:
            return _checked(image).size


def _checked(image: Image.Image) -> Image.Image:
    if image.mode not in ("1", "L", "P", "I", "I;16"):
        raise ValueError(f"it is in color ({image.mode}): write the value of its class into each pixel")
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"it has more than {MAX_PIXELS} pixels")
    return image


@contextmanager
def _told(file: Path) -> Iterator[None]:
    """Whatever goes wrong inside comes out as a sentence on the file."""
    try:
        yield
    except Exception as error:  # Pillow's decoders and scipy raise many kinds of errors
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise BoxelError(f"{file}: can't be read as a label map ({reason[:160]}).") from error
