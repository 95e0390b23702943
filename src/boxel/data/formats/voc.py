"""Pascal VOC: a folder with ``Annotations/*.xml``, ``JPEGImages/`` and, for some images, segmentation PNGs.

The format: Everingham et al., "The PASCAL Visual Object Classes Challenge 2012 Development Kit", sections 4 and 5.
Boxes in its files are 1-based and include their last pixel, so that xyxy = (xmin - 1, ymin - 1, xmax, ymax). Objects
marked difficult are ordinary instances. ``SegmentationObject`` has the value k for the k-th object,
``SegmentationClass`` that of its class; in both 0 is background and 255 void.
"""

from __future__ import annotations

import os
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import defusedxml.ElementTree
import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from boxel.data.annotations import BACKGROUND, Annotations, Category, values_to_labels
from boxel.data.formats.builder import Builder, read_bytes
from boxel.data.formats.identity import Ids
from boxel.data.formats.layout import MAX_MASKS, Export, find_image
from boxel.data.formats.semantic_classes import load_class_table
from boxel.data.images import MAX_PIXELS
from boxel.data.label_maps import pixel_values
from boxel.masks.boxes import box_iou, tight_boxes
from boxel.masks.rle import encode
from boxel.utils.errors import BoxelError, one_line

CLASSES = tuple(name for name in load_class_table("voc").values() if name != "background")
"""The challenge's classes; class k has the value k + 1 in ``SegmentationClass``."""

VOID = 255

_MIN_IOU = 0.25
"""Minimum IoU of a mask's tight box with its XML box, which also contains the void border of small objects."""


def recognize(path: Path) -> bool:
    """Return whether this is a VOC folder (or the parent of a ``VOC2012``), an image set of one, or an XML file."""
    if path.is_file():
        return path.suffix.lower() == ".xml" or (path.suffix == ".txt" and "ImageSets" in path.parts)
    return _find_folder(path) is not None


def _find_folder(path: Path) -> Path | None:
    for folder in (path, *sorted(path.glob("VOC*")), *sorted(path.glob("VOCdevkit/VOC*"))):
        if any((folder / "Annotations").glob("*.xml")):
            return folder
    if any(path.glob("*.xml")):
        return path.parent if path.name == "Annotations" else path
    return None


def read(path: Path, images: Path | None = None) -> Annotations:
    """Read a VOC dataset.

    A mask of ``SegmentationObject`` belongs to the XML object that its tight box overlaps most, of the class that
    ``SegmentationClass`` states; without an XML file the masks alone are the instances.

    Args:
        path: The folder, an image set of it (``ImageSets/Segmentation/train.txt``) to read only that, or one XML file.
        images: Folder of the images, if it is not ``JPEGImages``.
    """
    folder, stems = _locate(path)
    xml_folder = folder / "Annotations" if (folder / "Annotations").is_dir() else folder
    rows = Builder()
    ids = Ids(folder, rows)
    parsed = [_Xml(stem, xml_folder / f"{stem}.xml", rows) for stem in stems]
    if parsed and all(xml.is_foreign for xml in parsed):
        raise BoxelError(
            f"{parsed[0].file}: this is XML of another program, not VOC's; export it as VOC, COCO or CVAT for images."
        )
    order = class_order([*(name for xml in parsed for name, _ in xml.objects), *ids.names])
    known_order = order if ids.names or order == list(CLASSES) else None
    root, subfolder = (images, ".") if images else (folder, _image_folder(folder))
    for xml in parsed:
        relative = str(PurePosixPath(subfolder) / find_image(root / subfolder, xml.stem, xml.filename))
        size = xml.size if all(xml.size) else ids.image_size(root / relative, xml.stem)
        label_map = folder / "SegmentationClass" / f"{xml.stem}.png"
        map_path = os.path.relpath(label_map, root) if label_map.is_file() else None
        index = rows.add_image(xml.stem, relative, *size, map_path)
        boxed = xml.objects if xml.file.is_file() else None
        instances = _match_masks(xml.stem, boxed, folder, known_order, size, rows)
        for k, (class_name, box, segmentation) in enumerate(instances, start=1):
            rows.add(f"{xml.stem}:{k}", index, order.index(class_name), box, segmentation)
    categories = [Category(k, name) for k, name in enumerate(order, start=1)]
    values = {0: BACKGROUND} | {k: k - 1 for k in range(1, len(order) + 1)}
    built = replace(rows.build(root, categories, path), map_labels=values_to_labels(values))
    data = ids.restore(built, [xml.stem for xml in parsed])
    # The values of label maps would mean other classes.
    if [category.name for category in data.categories] != order:
        data = replace(data, label_maps=[None] * len(data))
    return data


def class_order(names: Sequence[str]) -> list[str]:
    """Return the classes in the order of their values in ``SegmentationClass``: the challenge's, or alphabetical."""
    return list(CLASSES) if set(names) <= set(CLASSES) else sorted(set(names))


def _locate(path: Path) -> tuple[Path, list[str]]:
    """Return the dataset's folder and the stems to read."""
    if path.is_file() and path.suffix.lower() == ".xml":
        return (path.parent.parent if path.parent.name == "Annotations" else path.parent), [path.stem]
    if path.is_file():
        folder = next((p.parent for p in path.parents if p.name == "ImageSets"), path.parent)
        return folder, read_image_set(path)
    found = _find_folder(path) if path.is_dir() else None
    if found is None:
        raise BoxelError(f"{path}: there is no VOC dataset; it should be a folder with Annotations/*.xml.")
    source = found / "Annotations" if (found / "Annotations").is_dir() else found
    return found, sorted(file.stem for file in source.glob("*.xml"))


def read_image_set(path: Path) -> list[str]:
    """Read the stems listed in an image-set file, each once, in its order.

    A second column, as in ``ImageSets/Main/dog_train.txt``, is ignored.
    """
    lines = read_bytes(path).decode("utf-8", "replace").splitlines()
    names = [line.split()[0] for line in lines if line.split()]
    return list(
        dict.fromkeys(PurePosixPath(name.replace("\\", "/")).name.replace("\0", "_") for name in names)
    )


class _Xml:
    """One XML file: the name and the (width, height) of its image, and the name and box of each object."""

    def __init__(self, stem: str, file: Path, rows: Builder) -> None:
        self.stem, self.file = stem, file
        self.filename, self.size, self.is_foreign = "", (0, 0), False
        self.objects: list[tuple[str, tuple[float, ...]]] = []
        if not file.is_file():
            return
        try:
            tree = defusedxml.ElementTree.fromstring(read_bytes(file))
        except Exception as error:  # expat, defusedxml and codecs each have their own errors
            what = f"cannot be read as XML ({one_line(error)}); its annotations are left out."
            rows.report("bad-file", file, what, stem)
            return
        if tree.tag != "annotation":
            what = f"this is not VOC's XML (its outermost element is <{tree.tag}>); its annotations are left out."
            rows.report("bad-file", file, what, stem)
            self.is_foreign = True
            return
        named = (tree.findtext("filename") or "").strip().replace("\\", "/")
        self.filename = PurePosixPath(named).name.replace("\0", "_")
        self.size = _pixels(tree.findtext("size/width")), _pixels(tree.findtext("size/height"))
        for k, element in enumerate(tree.findall("object"), start=1):
            try:
                name = (element.findtext("name") or "").strip()
                if not name:
                    raise ValueError("it has no name")
                x0, y0, x1, y1 = (_number(element, key) for key in ("xmin", "ymin", "xmax", "ymax"))
                self.objects.append((name, (x0 - 1, y0 - 1, x1, y1)))
            except ValueError as error:
                what = f"object {k} cannot be read ({one_line(error)}); it is left out."
                rows.report("bad-annotation", file, what, stem, f"{stem}:{k}")


def _number(element: ElementTree.Element, key: str) -> float:
    text = element.findtext(f"bndbox/{key}")
    if text is None:
        raise ValueError(f"its bndbox has no {key}")
    return float(text)


def _pixels(text: str | None) -> int:
    try:
        value = float(text or 0)
    except ValueError:
        return 0
    return int(value) if 0 <= value < 2**31 else 0


def _image_folder(folder: Path) -> str:
    return next((name for name in ("JPEGImages", "images", "Images") if (folder / name).is_dir()), ".")


def _match_masks(
    stem: str,
    boxed: Sequence[tuple[str, Sequence[float]]] | None,
    folder: Path,
    order: list[str] | None,
    size: tuple[int, int],
    rows: Builder,
) -> list[tuple[str, Sequence[float], bytes | None]]:
    """Return class, xyxy box and segmentation (JSON bytes, or None without a mask) of each object of an image.

    Of ``boxed``, the class and box of each object, masks find theirs; if it is None, the masks alone are the objects.
    ``order`` lists the classes by their value in ``SegmentationClass``; None if it is not known for certain.
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


def write(data: Annotations, path: Path) -> list[str]:
    """Write a VOC folder.

    Boxes keep their fractions, as in some of VOC's own files. Object k of an XML file has the value k in
    ``SegmentationObject``; if masks overlap the smaller one lies on top. Void pixels of a label map, and those that no
    mask covers, go into ``SegmentationClass``.
    """
    for sub in ("Annotations", "ImageSets/Main", "ImageSets/Segmentation"):
        (path / sub).mkdir(parents=True, exist_ok=True)
    export = Export(data, path, "VOC", "JPEGImages")
    order = class_order([_to_text(category.name) for category in data.categories])
    values = [order.index(_to_text(category.name)) + 1 for category in data.categories]
    segmented: list[str] = []
    lost_maps: list[str] = []
    for image, stem in enumerate(export.stems):
        export.rows[image] = data.instances_in(image).tolist()
        has_masks = _write_pngs(export, image, values, lost_maps)
        segmented += [stem] if has_masks else []
        tree = _tree(data, image, export.names[image], has_masks)
        tree.write(path / "Annotations" / f"{stem}.xml", encoding="utf-8")
    for kind, listed in (("Main", export.stems), ("Segmentation", segmented)):
        text = "".join(f"{stem}\n" for stem in listed)
        (path / "ImageSets" / kind / "trainval.txt").write_text(text, encoding="utf-8")
    export.write_ids()
    losses = []
    if lost_maps:
        losses.append(f"VOC: {len(lost_maps)} label maps are not kept whole, the first: {lost_maps[0]}")
    return export.losses("holds one object per pixel", others=losses, has_label_maps=True)


def _tree(data: Annotations, image: int, name: str, segmented: bool) -> ElementTree.ElementTree:
    size = data.image_size(image)
    root = ElementTree.Element("annotation")
    _add_fields(root, folder="JPEGImages", filename=name)
    _add_fields(ElementTree.SubElement(root, "size"), width=size[0], height=size[1], depth=3)
    _add_fields(root, segmented=int(segmented))
    for instance in data.instances_in(image).tolist():
        element = ElementTree.SubElement(root, "object")
        _add_fields(element, name=_to_text(data.categories[data.labels[instance]].name))
        _add_fields(element, pose="Unspecified", truncated=0, difficult=0)
        x0, y0, x1, y1 = (f"{round(v, 9):.15g}" for v in data.boxes[instance] + [1, 1, 0, 0])
        _add_fields(ElementTree.SubElement(element, "bndbox"), xmin=x0, ymin=y0, xmax=x1, ymax=y1)
    ElementTree.indent(root, "\t")
    return ElementTree.ElementTree(root)


def _add_fields(parent: ElementTree.Element, **texts: str | int) -> None:
    for tag, text in texts.items():
        ElementTree.SubElement(parent, tag).text = str(text)


def _to_text(name: str) -> str:
    """Remove from a name what XML forbids and what readers strip."""
    return re.sub(r"[\x00-\x1f\ud800-\udfff\ufffe\uffff]", " ", name).strip() or "unnamed"


def _write_pngs(export: Export, image: int, values: list[int], lost_maps: list[str]) -> bool:
    """Write the masks of an image, smaller ones on top, and its label map where there is no mask, if it has either.

    The k-th instance, from 1, has the value k in ``SegmentationObject``, and in ``SegmentationClass`` that of its
    category in ``values``. ``lost_maps`` receives a sentence about a label map that cannot be kept whole.
    """
    data, name = export.data, f"{export.stems[image]}.png"
    size = data.image_size(image)
    masks = export.masks(image)
    label_map = _read_label_map(data, image, size, lost_maps)
    if not masks and label_map is None:
        return False
    objects = export.paint(masks, size[::-1] if label_map is None else label_map.shape)
    visible = np.bincount(objects.ravel(), minlength=256)
    for k in masks:
        if k <= MAX_MASKS and visible[k]:
            export.mask_areas[data.instances_in(image)[k - 1]] = visible[k]
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
