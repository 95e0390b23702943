"""The class of each pixel of an image: read from a label map, or painted from masks."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from boxel.data.annotations import BACKGROUND, MAX_VALUE, VOID, Annotations, Category
from boxel.data.images import MAX_PIXELS, open_as
from boxel.data.matlab import mat_shape, read_mat
from boxel.masks.rle import decode, decode_in_box, to_rle
from boxel.utils.errors import BoxelError, one_line

logger = logging.getLogger(__name__)

IGNORE_INDEX = 255
"""The label of pixels whose class is unknown."""

BACKGROUND_NAME = "background"
"""The name of the class of pixels that belong to no instance."""

UNDECIDED = "undecided_pixels"
"""The extra field of an instance with the run-length code of pixels that may be part of it or not."""

NO_INSTANCE, UNKNOWN = -1, -2
"""Pixels of an instance map that belong to no instance, and those that may belong to one without a mask."""


def pixel_classes(data: Annotations) -> tuple[Category, ...]:
    """Return the classes of a dataset's pixels: its categories, after a background if pixels may belong to none.

    The background has the id 0, or if a category has that, as YOLO's first one, the lowest that is free.

    Raises:
        BoxelError: There are more than 255 classes, or a category is called background too.

    Examples:
        >>> from boxel.data.samples import sample_images
        >>> [category.name for category in pixel_classes(sample_images().select_categories(["cat"]))]
        ['background', 'cat']
    """
    classes = data.categories
    if has_background(data):
        taken = {category.id for category in classes}
        free = next(id for id in range(len(taken) + 1) if id not in taken)
        classes = (Category(free, BACKGROUND_NAME), *classes)
    if len(classes) > IGNORE_INDEX:
        raise BoxelError(
            f"{data.file}: {len(classes)} classes are more than the {IGNORE_INDEX} that a label map can hold; select "
            "some with `categories`."
        )
    if len({category.name for category in classes}) < len(classes):
        raise BoxelError(f"{data.file}: two classes are called {BACKGROUND_NAME}; rename the category.")
    return classes


def has_background(data: Annotations) -> bool:
    """Return whether pixels may belong to no category: not if there are only label maps without a background."""
    return not any(data.label_maps) or len(data.labels) > 0 or BACKGROUND in data.map_labels


def with_plain_background(data: Annotations) -> Annotations:
    """Return the dataset without a category for background, so that its label maps have it as instances and VOC do."""
    names = [category.name for category in data.categories]
    if not any(data.label_maps) or BACKGROUND_NAME not in names:
        return data
    label = names.index(BACKGROUND_NAME)
    if (data.labels == label).any():
        return data
    map_labels = np.where(data.map_labels == label, BACKGROUND, data.map_labels)
    return replace(data, map_labels=map_labels).select_categories([n for n in names if n != BACKGROUND_NAME])


def label_map_values(classes: Sequence[Category]) -> NDArray[np.uint16]:
    """Return the (K,) value of each class in a label map, its id; a `BoxelError` if the ids cannot be values."""
    ids = [category.id for category in classes]
    if len(set(ids)) < len(ids) or not 0 <= min(ids, default=0) <= max(ids, default=0) <= MAX_VALUE:
        raise BoxelError(
            f"the ids of the classes, {', '.join(map(str, ids[:10]))}, cannot be the values of a label map; give each "
            f"a distinct number from 0 to {MAX_VALUE}."
        )
    return np.array(ids, dtype=np.uint16)


def has_pixel_labels(data: Annotations) -> NDArray[np.bool_]:
    """(I,) bool: the image has a label map, or a mask, or no instance; an image with boxes only has no pixel labels."""
    images = np.arange(len(data))
    masked = np.isin(images, data.image_index[data.has_mask])
    empty = ~np.isin(images, data.image_index)
    return data.has_label_map | masked | (empty & has_background(data))


def has_pixel_truth(data: Annotations) -> NDArray[np.bool_]:
    """(I,) bool: a semantic segmenter can be evaluated on the image, which has a label map or a mask."""
    return data.has_label_map | np.isin(np.arange(len(data)), data.image_index[data.has_mask & ~data.iscrowd])


def build_class_lookup(data: Annotations, classes: Sequence[Category]) -> NDArray[np.uint8]:
    """Return the (256,) index into ``classes`` of each of a dataset's pixel classes, by name; `IGNORE_INDEX` stays.

    Classes that are not among them become background if there is one, else ignored.

    Raises:
        BoxelError: No class except the background is in both.
    """
    names = [category.name for category in classes]
    own = [category.name for category in pixel_classes(data)]
    if not set(own) & set(names) - {BACKGROUND_NAME}:
        raise BoxelError(
            f"{data.file}: none of its classes ({', '.join(own[:10])}) is among the expected ones "
            f"({', '.join(names[:10])})."
        )
    other = names.index(BACKGROUND_NAME) if BACKGROUND_NAME in names else IGNORE_INDEX
    table = np.full(256, IGNORE_INDEX, dtype=np.uint8)
    table[: len(own)] = [names.index(name) if name in names else other for name in own]
    return table


def make_label_map(
    data: Annotations,
    image: int,
    size: tuple[int, int] | None = None,
    guesses: Mapping[int, NDArray[np.bool_]] | None = None,
) -> NDArray[np.uint8]:
    """Return the class of each pixel of an image.

    If the dataset has no label map of the image, its masks are painted, see :func:`make_instance_map`.

    Args:
        data: The dataset.
        image: Index of the image.
        size: (height, width) of the image; as recorded if None.
        guesses: Masks that replace those of some instances.

    Returns:
        (H, W) uint8, index into :func:`pixel_classes`, or `IGNORE_INDEX`.

    Raises:
        BoxelError: The label map cannot be read or is of another size.

    Examples:
        >>> from boxel.data.samples import sample_images
        >>> data = sample_images().select_categories(["cat"])
        >>> np.unique(make_label_map(data, int(data.image_index[0]))).tolist()
        [0, 1]
    """
    size = size or data.image_size(image)[::-1]
    first = int(has_background(data))
    if data.label_maps[image] is None:
        labels = data.labels[data.instances_in(image)] + first
        table = np.zeros(max(len(labels) + 2, 256), dtype=np.uint8)
        table[: len(labels)], table[UNKNOWN] = labels, IGNORE_INDEX
        painted = make_instance_map(data, image, size, guesses)
        return look_up(painted.astype(np.uint8), table) if len(table) == 256 else table[painted]
    file = data.root / str(data.label_maps[image])
    values = read_label_map(file)
    if values.shape != tuple(size):
        raise BoxelError(
            f"{file}: the label map is {values.shape[1]} x {values.shape[0]} pixels and its image {size[1]} x "
            f"{size[0]}; make them the same size."
        )
    table = np.full(MAX_VALUE + 1, IGNORE_INDEX, dtype=np.uint8)
    known = np.where(data.map_labels == BACKGROUND, 0, data.map_labels + first)
    table[: len(known)] = np.where(data.map_labels == VOID, IGNORE_INDEX, known)
    return table[values]


def make_instance_map(
    data: Annotations,
    image: int,
    size: tuple[int, int],
    guesses: Mapping[int, NDArray[np.bool_]] | None = None,
) -> NDArray[np.int16]:
    """Return which instance each pixel belongs to; smaller instances are painted last.

    A box is unknown, except where masks cover it, if its instance has no mask, or one that cannot be read (which is
    logged); of an instance with a mask, its `UNDECIDED` pixels are.

    Args:
        data: The dataset.
        image: Index of the image.
        size: (height, width) of the image.
        guesses: (H, W) masks that replace those of some instances, by instance.

    Returns:
        (H, W) int16: position among the instances in the image, `NO_INSTANCE` or `UNKNOWN`.

    Examples:
        >>> from boxel.data.samples import sample_images
        >>> data = sample_images().select_categories(["cat"])
        >>> image = int(data.image_index[0])
        >>> np.unique(make_instance_map(data, image, data.image_size(image)[::-1])).tolist()
        [-1, 0]
    """
    painted = np.full(size, NO_INSTANCE, dtype=np.int16)
    masks = []
    for position, instance in enumerate(data.instances_in(image).tolist()):
        mask: NDArray[np.bool_] | NDArray[np.uint8] | None = (guesses or {}).get(instance)
        x = y = 0
        if mask is None and data.trusted[instance]:
            try:
                rle = data.rle(instance, size)
                mask, x, y = (None, 0, 0) if rle is None else decode_in_box(rle)
            except BoxelError as error:
                logger.warning("%s Its box is ignored.", error)
        if mask is not None:
            masks.append((np.count_nonzero(mask), position, mask != 0, x, y))
            undecided = find_undecided(data, instance, size)
            if undecided is not None:
                painted[undecided] = UNKNOWN
        elif np.isfinite(data.boxes[instance]).all():
            x0, y0, x1, y1 = data.boxes[instance].clip(0)
            painted[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))] = UNKNOWN
    for _, position, mask, x, y in sorted(masks, key=lambda entry: -entry[0]):
        h, w = mask.shape
        np.copyto(painted[y : y + h, x : x + w], np.int16(position), where=mask)
    return painted


def find_undecided(data: Annotations, instance: int, size: tuple[int, int]) -> NDArray[np.bool_] | None:
    """Return the (H, W) pixels that may be part of an instance or not; None without any that can be read."""
    extras = data.extras[instance]
    if extras is None or UNDECIDED.encode() not in extras:
        return None
    try:
        return decode(to_rle(msgspec.json.decode(extras)[UNDECIDED], *size)) > 0
    except Exception as error:  # pycocotools raises bare Exception and TypeError too
        logger.warning(
            "%s: `%s` of annotation %s is ignored (%s)", data.file, UNDECIDED, data.ids[instance], error
        )
        return None


def read_label_map(file: Path) -> NDArray[np.uint16]:
    """Read the values of a label map as they are in its file.

    Args:
        file: A gray or paletted PNG or TIFF, or a MATLAB file with a `LabelMap`, the format of PASCAL-Context.

    Returns:
        (H, W) uint16; what is not in 0..`MAX_VALUE` becomes that.

    Raises:
        BoxelError: The file cannot be read as a label map.

    Examples:
        >>> from boxel.data import example_scenes
        >>> file = example_scenes().root / "a.png"
        >>> Image.fromarray(np.array([[0, 7]], dtype=np.uint8)).save(file)
        >>> read_label_map(file).tolist()
        [[0, 7]]
    """
    with _as_boxel_error(file):
        if file.suffix.lower() == ".mat":
            return read_mat(file, "LabelMap").astype(np.uint16)
        with open_as(file, ("PNG", "TIFF")) as image:
            values = pixel_values(checked(image))
    if values.dtype.itemsize > 2:  # 32 bits; without this 65537 would become 1
        values = np.where((values >= 0) & (values <= MAX_VALUE), values, MAX_VALUE)
    return values.astype(np.uint16)


def pixel_values(image: Image.Image) -> NDArray[Any]:
    """Return the values of a paletted or gray PNG or TIFF as the file has them.

    Pillow stretches 2 and 4 bits of gray to 8, and inverts up to 8 bits of a TIFF whose 0 is white.
    """
    stored = image.tile[0][3]  # type: ignore[attr-defined]  # e.g. "L;4", or ("L;4I", ...) for an inverted TIFF
    layout = (stored if isinstance(stored, str) else stored[0]).partition(";")[2]
    values = np.array(image)
    if image.mode == "1":
        return values ^ ("I" in layout)
    if image.mode == "L":
        values = 255 - values if "I" in layout else values
        return values // {"2": 85, "4": 17}.get(layout[:1], 1)
    return values


def look_up(indices: NDArray[np.uint8], table: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the entry of a table of 256 for each index; faster than NumPy's indexing.

    Examples:
        >>> look_up(np.array([[3]], dtype=np.uint8), np.arange(256).astype(np.uint8)[::-1].copy()).tolist()
        [[252]]
    """
    return np.asarray(cv2.LUT(indices, table), dtype=np.uint8)


def write_gray(file: Path, pixels: NDArray[np.uint8]) -> None:
    """Write (H, W) values as a gray PNG."""
    file.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())


def label_map_size(file: Path) -> tuple[int, int]:
    """Read the (width, height) of a label map from its header alone; raises as `read_label_map` does."""
    with _as_boxel_error(file):
        if file.suffix.lower() == ".mat":
            height, width = mat_shape(file, "LabelMap")
            return width, height
        with open_as(file, ("PNG", "TIFF")) as image:
            return checked(image).size


def checked(image: Image.Image) -> Image.Image:
    """Return an opened image whose pixels may be classes; raise a `ValueError` if they are none, or too many."""
    if image.mode == "F":
        raise ValueError(
            "its values are fractions: write the value of its class into each pixel as a whole number"
        )
    if image.mode not in ("1", "L", "P", "I", "I;16", "I;16B"):
        raise ValueError(f"it is in color ({image.mode}): write the value of its class into each pixel")
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"it has more than {MAX_PIXELS} pixels")
    return image


@contextmanager
def _as_boxel_error(file: Path) -> Iterator[None]:
    """Turn any error inside the block into a sentence about the file."""
    try:
        yield
    except Exception as error:  # Pillow's decoders and scipy raise many kinds of errors
        raise BoxelError(f"{file}: cannot be read as a label map ({one_line(error, 160)}).") from error
