"""Pascal VOC: a folder with ``Annotations/*.xml``, ``JPEGImages/`` and, for some images, segmentation PNGs.

The format: Everingham et al., "The PASCAL Visual Object Classes Challenge 2012 Development Kit", sections 4 and 5.
Boxes in its files are 1-based and include their last pixel, so that xyxy = (xmin - 1, ymin - 1, xmax, ymax). Objects
marked difficult are ordinary instances. ``SegmentationObject`` has the value k for the k-th object,
``SegmentationClass`` that of its class; in both 0 is background and 255 void.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from boxel.data.annotations import BACKGROUND, Annotations, Category, values_to_labels
from boxel.data.formats.builder import Builder, read_bytes, read_text
from boxel.data.formats.extras import encode_extras
from boxel.data.formats.identity import Held, Ids
from boxel.data.formats.names import in_either_case, list_files, pair_labels, stay_inside
from boxel.data.formats.voc_pngs import VOID, read_png
from boxel.data.formats.voc_writer import CLASSES as CLASSES
from boxel.data.formats.voc_writer import class_order
from boxel.data.formats.voc_writer import write as write
from boxel.data.formats.voc_xml import VocFile, VocObject, hold_image, hold_object, read_voc_xml
from boxel.data.formats.xml_files import find_root
from boxel.data.image_names import to_posix
from boxel.data.images import SUFFIXES
from boxel.data.splits import SPLITS, find_split, split_name
from boxel.masks.boxes import box_iou, tight_boxes
from boxel.masks.rle import encode
from boxel.utils.errors import BoxelError
from boxel.utils.files import is_file

logger = logging.getLogger(__name__)

_CHANGED_CLASS = 0.6
"""Factor on the IoU of a box with the mask of another class that has its place."""

_MIN_IOU = 0.25
"""Minimum IoU of a mask's tight box with its XML box, which also contains the void border of small objects."""


def recognize(path: Path) -> bool:
    """Return whether this is a VOC folder (or the parent of a ``VOC2012``), an image set of one, or an XML file."""
    if path.is_file():
        return path.suffix.lower() == ".xml" or (path.suffix.lower() == ".txt" and "ImageSets" in path.parts)
    folder = _find_folder(path)
    if folder is None or (folder / "Annotations").is_dir():
        return folder is not None
    return any(find_root(file) in ("annotation", "") for file in islice(_xml_files(folder), 8))


def _find_folder(path: Path) -> Path | None:
    for folder in (path, *sorted(path.glob("VOC*")), *sorted(path.glob("VOCdevkit/VOC*"))):
        if any(_xml_files(folder / "Annotations")):
            return folder
    if list_files(path, ".xml"):
        return path.parent if path.name == "Annotations" else path
    # A folder per split, each with images and XML files.
    return path if not list_files(path, ".json") and any(_xml_files(path)) else None


def _xml_files(folder: Path) -> Iterator[Path]:
    """Yield the XML files in a folder and those a few levels below."""
    for level in ("", "*/", "*/*/"):
        for file in folder.glob(f"{level}*.[xX][mM][lL]"):
            if not any(part.startswith(".") for part in file.relative_to(folder).parts) and file.is_file():
                yield file


def _files_by_stem(folder: Path) -> dict[str, Path]:
    """Return the XML files of a dataset by their path without suffix."""
    source = _xml_folder(folder)
    return {file.relative_to(source).with_suffix("").as_posix(): file for file in sorted(_xml_files(source))}


def read(path: Path, images: Path | None = None) -> Annotations:
    """Read a VOC dataset.

    A mask of ``SegmentationObject`` belongs to the XML object that its tight box overlaps most, of the class that
    ``SegmentationClass`` states; without an XML file the masks alone are the instances. A ``polygon`` of an object is
    its mask, a ``robndbox`` is a rotated box. If an ``xmin`` or ``ymin`` is 0, the dataset counts pixels from 0. The
    image of an XML file is the one that it names, or of its own stem. ``ImageSets`` states the splits.

    Args:
        path: The folder, an image set of it (``ImageSets/Segmentation/train.txt``) to read only that, or one XML file.
        images: Folder of the images, if it is not ``JPEGImages``.
    """
    folder, stems = _locate(path)
    rows = Builder()
    ids = Ids(folder, rows)
    parsed = _parse_files(path, folder, stems, rows)
    names = [one.name for xml in parsed for one in xml.objects or ()]
    has_maps = any((folder / name).is_dir() for name in ("SegmentationClass", "SegmentationObject"))
    order = class_order([*names, *ids.names]) if names or ids.names or has_maps else []
    known_order = class_order(ids.names) if ids.names else order if order == list(CLASSES) else None
    root, subfolder = (images, ".") if images else (folder, _image_folder(folder))
    paths = _find_images(parsed, root / subfolder, folder, rows)
    counts_from_zero = not ids.names and _counts_from_zero(path, folder, parsed)
    splits = read_splits([folder / "ImageSets" / kind for kind in ("Main", "Segmentation", ".")], rows)
    for xml, name in zip(parsed, paths, strict=True):
        relative = str(PurePosixPath(subfolder) / name)
        size = xml.size if all(xml.size) else ids.image_size(root / relative, xml.stem)
        label_map = _find_png(folder / "SegmentationClass", xml.stem)
        map_path = os.path.relpath(label_map, root) if label_map.is_file() else None
        extras = encode_extras(xml.extras)
        parts = PurePosixPath(xml.stem).parts
        split = splits.get(parts[-1], find_split(parts[:-1]))
        index = rows.add_image(xml.stem, relative, *size, map_path, split, extras)
        written = ids.mask_areas(xml.stem)
        instances = _match_masks(xml, counts_from_zero, folder, known_order, size, written, rows)
        for k, (one, box, segmentation) in enumerate(instances, start=1):
            text = None if segmentation is None else msgspec.json.encode(segmentation)
            more = encode_extras(one.extras)
            rows.add(f"{xml.stem}:{k}", index, order.index(one.name), box, text, extras=more)
    categories = [Category(k, name) for k, name in enumerate(order, start=1)]
    built = rows.build(root, categories, path)
    data = ids.restore(built, [xml.stem for xml in parsed], Held(hold_object, hold_image))
    names = [category.name for category in data.categories]  # restored in their own order
    # The maps of a folder that was written from masks show no more than these.
    if names != order and data.has_segmentation.any():
        return replace(data, label_maps=[None] * len(data))
    values = {k: names.index(name) for k, name in enumerate(order, start=1) if name in names}
    return replace(data, map_labels=values_to_labels({0: BACKGROUND} | values))


def _parse_files(path: Path, folder: Path, stems: Sequence[str], rows: Builder) -> list[VocFile]:
    """Parse the XML files; an image without one must at least have a segmentation."""
    files = _files_by_stem(folder)
    below: dict[str, list[str]] = {}
    for stem in files:
        below.setdefault(PurePosixPath(stem).name, []).append(stem)
    parsed: list[VocFile | None] = []
    for stem in stems:
        if stem not in files and len(below.get(stem, [])) == 1:  # a list names it without its folder
            (stem,) = below[stem]
        if stem in files:
            parsed.append(read_voc_xml(files[stem], stem, rows))
        elif any(_find_png(folder / f"Segmentation{kind}", stem).is_file() for kind in ("Object", "Class")):
            parsed.append(VocFile(stem))
        else:
            file = _xml_folder(folder) / f"{stem}.xml"
            what = f"it lists {stem}, but there is no {file}; its image is left out."
            rows.report("bad-file", path, what, stem)
    found = [xml for xml in parsed if xml is not None]
    if not found:
        raise BoxelError(rows.issues[0].message if rows.issues else f"{path}: it lists no image.")
    return found


def _xml_folder(folder: Path) -> Path:
    return folder / "Annotations" if (folder / "Annotations").is_dir() else folder


def _find_images(parsed: Sequence[VocFile], images: Path, folder: Path, rows: Builder) -> list[str]:
    """Return the path of each image relative to the folder of the images."""
    stated = []
    for xml in parsed:
        name = stay_inside(xml.filename) or f"{xml.stem}.jpg"
        stated.append(name if is_file(images / name) else PurePosixPath(name).name)
    paths, problems = pair_labels(images, stated, [xml.stem for xml in parsed])
    for i, what in problems.items():
        file = _xml_folder(folder) / f"{parsed[i].stem}.xml"
        rows.report("ambiguous-image", file, what, parsed[i].stem, repair="")
    return paths


_ZERO = re.compile(rb"<[xy]min>\s*0(?:\.0*)?\s*</")


def _counts_from_zero(path: Path, folder: Path, parsed: Sequence[VocFile]) -> bool:
    """Return whether any box of the whole dataset begins at 0, which is logged."""
    first = next((xml.stem for xml in parsed if any(0 in one.bounds[:2] for one in xml.objects or ())), None)
    if first is None and path.is_file():
        others = (file for file in _xml_files(_xml_folder(folder)) if _ZERO.search(read_bytes(file)))
        first = next((file.stem for file in others), None)
    if first is not None:
        logger.warning("%s: its boxes count pixels from 0, e.g. in %s.xml, and are read so.", path, first)
    return first is not None


def read_splits(folders: Sequence[Path], rows: Builder) -> dict[str, str]:
    """Return the split of each stem that the first folder with lists, e.g. ``train.txt`` or ``valid.txt``, states."""
    splits: dict[str, str] = {}
    for folder in folders:
        files = [(split, file) for file in list_files(folder, ".txt") if (split := split_name(file.stem))]
        for split, file in sorted(files, key=lambda pair: SPLITS.index(pair[0])):
            try:
                stems = read_image_set(file)
            except BoxelError as error:
                rows.report("bad-file", file, f"{error} Its split is not known.", repair="")
                continue
            twice = [stem for stem in stems if splits.setdefault(stem, split) != split]
            if twice:
                what = f"{len(twice)} images are in {splits[twice[0]]} too, e.g. {twice[0]}; remove them from one."
                rows.report("several-splits", file, what, twice[0], repair="", count=len(twice))
        if splits:
            break
    return splits


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
    return found, list(_files_by_stem(found))


_NUMBER = re.compile(r"\s+-?[01]$")
_SECOND_FILE = re.compile(
    r"(?<=\.(?:jpg|png|bmp|tif))\s+\S.*|(?<=\.(?:jpeg|tiff|webp))\s+\S.*", re.IGNORECASE
)


def read_image_set(path: Path) -> list[str]:
    """Read the stems listed in an image-set file, each once, in its order.

    A line may be the path of an image on any machine. A second column, as in ``ImageSets/Main/dog_train.txt``, or the
    path of a label map after that of an image, is ignored.
    """
    lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if all(map(_NUMBER.search, lines)):
        lines = [_NUMBER.sub("", line) for line in lines]
    names = [PurePosixPath(to_posix(_SECOND_FILE.sub("", line))) for line in lines]
    known = {*SUFFIXES, ".xml", ".mat"}
    stems = [name.stem if name.suffix.lower() in known else name.name for name in names]
    return list(dict.fromkeys(filter(None, stems)))


def _image_folder(folder: Path) -> str:
    return next((name for name in ("JPEGImages", "images", "Images") if (folder / name).is_dir()), ".")


def _find_png(folder: Path, stem: str) -> Path:
    return in_either_case(folder / f"{stem}.png")


def _match_masks(
    xml: VocFile,
    counts_from_zero: bool,
    folder: Path,
    order: list[str] | None,
    size: tuple[int, int],
    written: set[float | None],
    rows: Builder,
) -> list[tuple[VocObject, Sequence[float], Any]]:
    """Return each object of an image with its xyxy box and its segmentation, None without a mask.

    Masks find the objects of the XML file that they belong to; without one, the masks alone are the objects. ``order``
    lists the classes by their value in ``SegmentationClass``; None if it is not known for certain. ``written`` has the
    areas of masks that boxel has written.
    """
    stem, boxed = xml.stem, xml.objects
    instances: list[tuple[VocObject, Sequence[float], Any]] = [
        (one, one.box(counts_from_zero), one.rings or None) for one in boxed or []
    ]
    file = _find_png(folder / "SegmentationObject", stem)
    objects = read_png(file, size, stem, rows)
    if objects is None:
        return instances
    classes = read_png(_find_png(folder / "SegmentationClass", stem), objects.shape[::-1], stem, rows)
    values = [v for v in np.unique(objects).tolist() if v not in (0, VOID)]
    masks = [objects == value for value in values]
    boxes = tight_boxes(masks).tolist()
    names = [_find_class(mask, classes, order) for mask in masks]
    if boxed is None:
        return [
            (VocObject(name, box, False, [], {}), box, encode(mask))
            for name, box, mask in zip(names, boxes, masks, strict=True)
            if name is not None
        ]
    score = box_iou(np.reshape(boxes, (-1, 4)), np.reshape([box for _, box, _ in instances], (-1, 4)))
    for m, value in enumerate(values):
        for k, (one, _, _) in enumerate(instances):
            has_place = value == k + 1
            if names[m] not in (None, one.name):  # another object, or its class was changed in the XML file
                score[m, k] *= _CHANGED_CLASS if has_place else 0
            elif has_place:  # the files' own order breaks ties
                score[m, k] += 1e-6
    matched = set()
    while score.size and score.max() >= _MIN_IOU:  # the best pair first
        m, k = divmod(int(score.argmax()), score.shape[1])
        score[m], score[:, k] = 0, 0
        matched.add(m)
        instances[k] = (*instances[k][:2], encode(masks[m]))
    for m, value in enumerate(values):
        if m not in matched:
            what = f"object {value} matches no box of {stem}.xml; its mask is left out."
            # If the object was deleted in the XML file alone, nothing is lost; if it was drawn since, its mask is.
            repair = "" if float(masks[m].sum()) in written else "left out"
            rows.report("mask-without-box", file, what, stem, repair=repair, box=boxes[m])
    return instances


def _find_class(mask: NDArray[np.bool_], classes: NDArray[Any] | None, order: list[str] | None) -> str | None:
    if classes is None or order is None:
        return None
    counts = np.bincount(classes[mask], minlength=256)
    counts[[0, VOID]] = 0
    value = int(counts.argmax())
    return order[value - 1] if counts[value] and value <= len(order) else None
