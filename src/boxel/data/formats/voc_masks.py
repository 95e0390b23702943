"""VOC's segmentation PNGs: masks for the boxes of the XML files, and back.

``SegmentationObject`` has the value k for the k-th object, ``SegmentationClass`` that of its class; in both 0 is
background and 255 void.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from boxel.data.annotations import Annotations
from boxel.data.formats.builder import Builder
from boxel.data.formats.layout import MAX_MASKS, Export
from boxel.data.images import MAX_PIXELS
from boxel.data.label_maps import pixel_values
from boxel.masks.boxes import box_iou, tight_boxes
from boxel.masks.rle import encode
from boxel.utils.errors import one_line

VOID = 255

_MIN_IOU = 0.25
"""Minimum IoU of a mask's tight box with its XML box, which also contains the void border of small objects."""


def match_masks(
    stem: str,
    boxed: Sequence[tuple[str, Sequence[float]]] | None,
    folder: Path,
    order: list[str] | None,
    size: tuple[int, int],
    rows: Builder,
) -> list[tuple[str, Sequence[float], bytes | None]]:
    """Match the objects of an image with their masks.

    Args:
        stem: Stem of the image's files.
        boxed: Class and xyxy box of each object; None if the masks alone are the objects.
        folder: Folder of the dataset.
        order: Classes by their value in ``SegmentationClass``; None if not known for certain.
        size: (width, height) of the image.
        rows: Receives the issues.

    Returns:
        Class, box and segmentation (JSON bytes, or None without a mask) of each object.
    """
    instances: list[tuple[str, Sequence[float], bytes | None]] = [(*item, None) for item in boxed or []]
    file = folder / "SegmentationObject" / f"{stem}.png"
    objects = _read_png(file, size, stem, rows)
    if objects is None:
        return instances
    classes = _read_png(folder / "SegmentationClass" / f"{stem}.png", objects.shape[::-1], stem, rows)
    values = [v for v in np.unique(objects).tolist() if v not in (0, VOID)]
    masks = [objects == value for value in values]
    boxes = tight_boxes(masks).tolist()
    names = [_find_class(mask, classes, order) for mask in masks]
    if boxed is None:
        return [
            (name, box, msgspec.json.encode(encode(mask)))
            for name, box, mask in zip(names, boxes, masks, strict=True)
            if name is not None
        ]
    score = box_iou(np.reshape(boxes, (-1, 4)), np.reshape([box for _, box in boxed], (-1, 4)))
    for m, value in enumerate(values):
        for k, (name, _, _) in enumerate(instances):
            if names[m] not in (None, name):
                score[m, k] = 0
            elif value == k + 1:  # the files' own order breaks ties
                score[m, k] += 1e-6
    matched = set()
    while score.size and score.max() >= _MIN_IOU:  # the best pair first
        m, k = divmod(int(score.argmax()), score.shape[1])
        score[m], score[:, k] = 0, 0
        matched.add(m)
        instances[k] = (*instances[k][:2], msgspec.json.encode(encode(masks[m])))
    for m, value in enumerate(values):
        if m not in matched:
            what = f"object {value} matches no box of {stem}.xml; its mask is left out."
            rows.report("mask-without-box", file, what, stem, repair="", box=boxes[m])
    return instances


def _read_png(file: Path, size: tuple[int, ...], stem: str, rows: Builder) -> NDArray[np.uint8] | None:
    """Read the (H, W) palette indices of a segmentation; None if there is none that can be used."""
    if not file.is_file():
        return None
    try:
        with Image.open(file, formats=["PNG"]) as image:
            if image.mode not in ("P", "L"):
                raise ValueError(f"its mode is {image.mode}, not palette")
            if min(size) > 0 and image.size != tuple(size):
                raise ValueError(f"its size is {image.size}, not {tuple(size)}")
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"its size is {image.size}")
            return pixel_values(image)
    except Exception as error:  # Pillow's decoders raise many kinds of errors
        what = f"cannot be read as a segmentation ({one_line(error)}); the boxes are kept."
        rows.report("bad-file", file, what, stem)
        return None


def _find_class(
    mask: NDArray[np.bool_], classes: NDArray[np.uint8] | None, order: list[str] | None
) -> str | None:
    if classes is None or order is None:
        return None
    counts = np.bincount(classes[mask], minlength=256)
    counts[[0, VOID]] = 0
    value = int(counts.argmax())
    return order[value - 1] if counts[value] and value <= len(order) else None


def write_pngs(export: Export, image: int, values: list[int], lost_maps: list[str]) -> bool:
    """Write the masks of an image, smaller ones on top, and its label map where there is no mask.

    Args:
        export: The dataset.
        image: Index of the image; its k-th instance, from 1, has the value k in ``SegmentationObject``.
        values: Value of each category in ``SegmentationClass``.
        lost_maps: Receives a sentence about a label map that cannot be kept whole.

    Returns:
        Whether anything is written.
    """
    data, name = export.data, f"{export.stems[image]}.png"
    size = data.image_size(image)
    masks = export.masks(image)
    label_map = _read_label_map(data, image, size, lost_maps)
    if not masks and label_map is None:
        return False
    objects = export.paint(masks, size[::-1] if label_map is None else label_map.shape)
    value_of = np.zeros(256, dtype=np.uint8)  # of each object
    own = np.array(values)[data.labels[data.instances_in(image)]][:MAX_MASKS]
    value_of[1 : len(own) + 1] = np.minimum(own, VOID)
    classes = value_of[objects]
    if label_map is not None:
        bare = objects == 0
        objects[bare & (label_map == VOID)] = VOID
        # As read from VOC, categories have the numbers of the map as their ids; others may have been selected since.
        same = values == [category.id for category in data.categories] == list(range(1, len(values) + 1))
        if label_map[bare & (label_map != VOID)].max(initial=0) > (len(values) if same else 0):
            file = data.root / str(data.label_maps[image])
            what = "its values stand for other classes than those written; only void is kept."
            lost_maps.append(f"{file}: {what}")
            label_map = np.where(label_map == VOID, label_map, 0)
        classes[bare] = label_map[bare]
    if masks:
        _save(export.folder / "SegmentationObject" / name, objects)
    _save(export.folder / "SegmentationClass" / name, classes)
    return True


def _read_label_map(
    data: Annotations, image: int, size: tuple[int, int], lost_maps: list[str]
) -> NDArray[np.uint8] | None:
    if data.label_maps[image] is None:
        return None
    file, rows = data.root / str(data.label_maps[image]), Builder()
    values = _read_png(file, size, str(data.image_ids[image]), rows)
    if values is None:
        lost_maps.append(rows.issues[0].message if rows.issues else f"{file}: there is no such file.")
        return None
    return np.where(values == data.void, VOID, values).astype(np.uint8)


def _save(file: Path, pixels: NDArray[np.uint8]) -> None:
    file.parent.mkdir(exist_ok=True)
    image = Image.fromarray(pixels, mode="P")
    image.putpalette(palette())
    image.save(file)


def palette() -> list[int]:
    """Return VOC's colors of 256 values: bits of the index go to red, green and blue in turn, high bits first."""
    index = np.arange(256)
    colors = np.zeros((256, 3), dtype=np.int64)
    for bit in range(8):
        for channel in range(3):
            if 3 * bit + channel < 8:
                colors[:, channel] |= (index >> (3 * bit + channel) & 1) << (7 - bit)
    return colors.ravel().tolist()
