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
from boxel.data.formats.layout import Export
from boxel.data.images import MAX_PIXELS
from boxel.data.issues import Issue
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
    issues: list[Issue],
) -> list[tuple[str, Sequence[float], bytes | None]]:
    """Match the objects of an image with their masks.

    Args:
        stem: Stem of the image's files.
        boxed: Class and xyxy box of each object; None if the masks alone are the objects.
        folder: Folder of the dataset.
        order: Classes by their value in ``SegmentationClass``; None if not known for certain.
        size: (width, height) of the image.
        issues: What is wrong is appended.

    Returns:
        Class, box and segmentation (JSON bytes, or None without a mask) of each object.
    """
    instances: list[tuple[str, Sequence[float], bytes | None]] = [
        (name, box, None) for name, box in boxed or []
    ]
    objects = _read_png(folder / "SegmentationObject" / f"{stem}.png", size, stem, issues)
    if objects is None:
        return instances
    classes = _read_png(folder / "SegmentationClass" / f"{stem}.png", objects.shape[::-1], stem, issues)
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
            file = folder / "SegmentationObject" / f"{stem}.png"
            message = f"{file}: object {value} matches no box of {stem}.xml; its mask is left out."
            issues.append(Issue("mask-without-box", message, str(file), stem, values={"box": boxes[m]}))
    return instances


def _read_png(file: Path, size: tuple[int, ...], stem: str, issues: list[Issue]) -> NDArray[np.uint8] | None:
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
        message = f"{file}: cannot be read as a segmentation ({one_line(error)}); the boxes are kept."
        issues.append(Issue("bad-file", message, str(file), image_id=stem, repair="left out"))
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
        export: Receives the IoU of each mask with its visible part.
        image: Index of the image; its k-th instance, from 1, has the value k in ``SegmentationObject``.
        values: Value of each category in ``SegmentationClass``.
        lost_maps: Receives a sentence about a label map that cannot be read, or that numbers the classes differently,
            of which only void is kept.

    Returns:
        Whether anything is written.
    """
    data, path, stem = export.data, export.folder, export.stems[image]
    size = data.image_size(image)
    instances = data.instances_in(image).tolist()
    read = {k: export.mask(i, size) for k, i in enumerate(instances, start=1)}
    masks = {k: mask for k, mask in read.items() if mask is not None}
    label_map = _read_label_map(data, image, size, lost_maps)
    if not masks and label_map is None:
        return False
    objects = np.zeros((size[1], size[0]) if label_map is None else label_map.shape, dtype=np.uint8)
    classes = np.zeros_like(objects)
    for k in sorted(masks, key=lambda k: -int(masks[k].sum())):
        value = values[data.labels[instances[k - 1]]]
        if k < VOID and value < VOID:
            objects[masks[k] != 0] = k
            classes[masks[k] != 0] = value
    if label_map is not None:
        _add_label_map(data, image, values, label_map, objects, classes, lost_maps)
    if masks:
        _save(path / "SegmentationObject" / f"{stem}.png", objects)
    _save(path / "SegmentationClass" / f"{stem}.png", classes)
    export.ious += [
        float((objects == k).sum() / max(mask.sum(), 1)) if k < VOID else 0.0 for k, mask in masks.items()
    ]
    return True


def _add_label_map(
    data: Annotations,
    image: int,
    values: list[int],
    label_map: NDArray[np.uint8],
    objects: NDArray[np.uint8],
    classes: NDArray[np.uint8],
    lost_maps: list[str],
) -> None:
    """Fill what no mask covers from the label map."""
    bare = classes == 0
    objects[bare & (label_map == VOID)] = VOID
    # As read from VOC, categories have the numbers of the map as their ids; others may have been selected since.
    same = values == [category.id for category in data.categories] == list(range(1, len(values) + 1))
    if label_map[bare & (label_map != VOID)].max(initial=0) > (len(values) if same else 0):
        name = data.root / str(data.label_maps[image])
        lost_maps.append(f"{name}: its values stand for other classes than those written; only void is kept.")
        label_map = np.where(label_map == VOID, label_map, 0)
    classes[bare] = label_map[bare]


def _read_label_map(
    data: Annotations, image: int, size: tuple[int, int], lost_maps: list[str]
) -> NDArray[np.uint8] | None:
    name = data.label_maps[image]
    if name is None:
        return None
    issues: list[Issue] = []
    values = _read_png(data.root / name, size, str(data.image_ids[image]), issues)
    if values is None:
        lost_maps.append(issues[0].message if issues else f"{data.root / name}: there is no such file.")
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
