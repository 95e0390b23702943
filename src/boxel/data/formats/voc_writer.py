"""Write Pascal VOC."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from boxel.data.annotations import Annotations
from boxel.data.formats.extras import decode_extras
from boxel.data.formats.layout import MAX_MASKS, Export, write_lines
from boxel.data.formats.semantic_classes import load_class_table
from boxel.data.formats.voc_pngs import VOID, write_png
from boxel.data.formats.voc_xml import IMAGE_TAGS, add_fields, clean_text, write_object
from boxel.data.label_maps import MAX_VALUE, look_up, read_label_map, with_plain_background
from boxel.utils.errors import BoxelError

CLASSES = tuple(name for name in load_class_table("voc").values() if name != "background")
"""The challenge's classes; class k has the value k + 1 in ``SegmentationClass``."""


def class_order(names: Sequence[str]) -> list[str]:
    """Return the classes in the order of their values in ``SegmentationClass``: the challenge's, or alphabetical."""
    return list(CLASSES) if set(names) <= set(CLASSES) else sorted(set(names))


def write(data: Annotations, path: Path) -> list[str]:
    """Write a VOC folder.

    Boxes keep their fractions, as in some of VOC's own files. Object k of an XML file has the value k in
    ``SegmentationObject``; if masks overlap the smaller one lies on top. Void pixels of a label map, and those that no
    mask covers, go into ``SegmentationClass``.
    """
    (path / "Annotations").mkdir(parents=True, exist_ok=True)
    data = with_plain_background(data)
    export = Export(data, path, "VOC", "JPEGImages")
    names = export.name_classes(clean_text)
    order = class_order(names)
    values = [order.index(name) + 1 for name in names]
    segmented: list[int] = []
    lost_maps: list[str] = []
    for image, stem in enumerate(export.stems):
        export.rows[image] = data.instances_in(image).tolist()
        has_masks = _write_pngs(export, image, values, lost_maps)
        segmented += [image] if has_masks else []
        tree = _tree(export, image, names, has_masks)
        tree.write(path / "Annotations" / f"{stem}.xml", encoding="utf-8")
    for kind, listed in (("Main", range(len(data))), ("Segmentation", segmented)):
        stems = [export.stems[image] for image in listed]
        write_splits(path / "ImageSets" / kind, stems, [data.splits[image] for image in listed])
    export.write_ids()
    losses = []
    if lost_maps:
        losses.append(f"VOC: {len(lost_maps)} label maps are not kept whole, the first: {lost_maps[0]}")
    return export.losses("holds one object per pixel", others=losses, has_label_maps=True)


def write_splits(folder: Path, stems: Sequence[str], splits: Sequence[str | None]) -> None:
    """Write a list per split, and ``trainval.txt`` with all images but those of test and other splits."""
    lists: dict[str, list[str]] = {"trainval": []}
    for stem, split in zip(stems, splits, strict=True):
        if split is not None:
            lists.setdefault(re.sub(r"[^\w.-]", "_", split), []).append(stem)
        if split in (None, "train", "val"):
            lists["trainval"].append(stem)
    for name, listed in lists.items():
        write_lines(folder / f"{name}.txt", listed)


def _tree(export: Export, image: int, names: Sequence[str], segmented: bool) -> ElementTree.ElementTree:
    data = export.data
    width, height = data.image_size(image)
    root = ElementTree.Element("annotation")
    add_fields(root, {"folder": "JPEGImages", "filename": export.names[image]})
    add_fields(root, decode_extras(data.image_extras[image]), IMAGE_TAGS)
    size = {"width": width, "height": height, "depth": 3}
    add_fields(root, {"size": size, "segmented": int(segmented)})
    for i in data.instances_in(image).tolist():
        write_object(root, names[data.labels[i]], data.boxes[i].tolist(), decode_extras(data.extras[i]))
    ElementTree.indent(root, "\t")
    return ElementTree.ElementTree(root)


def _write_pngs(export: Export, image: int, values: list[int], lost_maps: list[str]) -> bool:
    """Write the masks of an image, smaller ones on top, and its label map where there is not a mask, if it has either.

    The k-th instance, from 1, has the value k in ``SegmentationObject``, and in ``SegmentationClass`` that of its
    category in ``values``. ``lost_maps`` receives a sentence about a label map that cannot be kept whole.
    """
    data, name = export.data, f"{export.stems[image]}.png"
    size = data.image_size(image)
    masks = export.masks(image)
    label_map = _read_label_map(data, image, values, lost_maps)
    if not masks and label_map is None:
        return False
    objects, visible = export.paint(masks, size[::-1] if label_map is None else label_map.shape)
    for k, shown in visible.items():
        if shown.any():
            export.mask_areas[data.instances_in(image)[k - 1]] = np.count_nonzero(shown)
    if masks and label_map is None:  # else readers would take the other objects for background
        others = [i for k, i in enumerate(data.instances_in(image), start=1) if k not in masks]
        _paint_void(objects, data.boxes[others])
    value_of = np.zeros(256, dtype=np.uint8)  # of each object
    own = np.array(values)[data.labels[data.instances_in(image)]][:MAX_MASKS]
    value_of[1 : len(own) + 1] = np.minimum(own, VOID)
    value_of[VOID] = VOID
    classes = look_up(objects, value_of)
    if label_map is not None:
        bare = objects == 0
        objects[bare & (label_map == VOID)] = VOID
        classes[bare] = label_map[bare]
    if masks:
        write_png(export.folder / "SegmentationObject" / name, objects)
    write_png(export.folder / "SegmentationClass" / name, classes)
    return True


def _paint_void(objects: NDArray[np.uint8], boxes: NDArray[np.float64]) -> None:
    """Mark what is inside boxes and belongs to no object as void, in place."""
    height, width = objects.shape
    for box in boxes[np.isfinite(boxes).all(axis=1)]:
        x0, y0 = np.floor(box[:2].clip(0, (width, height))).astype(int)
        x1, y1 = np.ceil(box[2:].clip(0, (width, height))).astype(int)
        inside = objects[y0:y1, x0:x1]
        inside[inside == 0] = VOID


def _read_label_map(
    data: Annotations, image: int, values: list[int], lost_maps: list[str]
) -> NDArray[np.uint8] | None:
    """Return the label map of an image with the values of VOC's classes; None if there is none that can be used."""
    if data.label_maps[image] is None:
        return None
    file = data.root / str(data.label_maps[image])
    try:
        read = read_label_map(file)
    except BoxelError as error:
        lost_maps.append(str(error))
        return None
    width, height = data.image_size(image)
    if min(width, height) > 0 and read.shape != (height, width):
        lost_maps.append(f"{file}: its size is {read.shape[::-1]}, not {(width, height)}.")
        return None
    table = np.full(MAX_VALUE + 1, VOID, dtype=np.uint8)
    # Background is the label -2, and void is -1.
    table[: len(data.map_labels)] = np.array([*values, 0, VOID])[data.map_labels]
    return table[read]
