"""Semantic datasets: images and, for each, a label map whose values are the classes of its pixels.

The layouts, recognized by their folders: ``images/`` and ``labels/``; Cityscapes (``leftImg8bit/`` and ``gtFine/``);
CamVid as it is commonly distributed (``train/`` and ``trainannot/``); or any folder of label maps, with its images
named or in a usual place. Label maps are gray or paletted PNGs, or PASCAL-Context's MATLAB files. Background is a class
like others.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from boxel.data.annotations import Annotations, Category
from boxel.data.formats.builder import Builder
from boxel.data.formats.layout import file_stems, image_names, place_images
from boxel.data.formats.semantic_classes import CLASS_LISTS, list_categories, load_tables, table_to_labels
from boxel.data.formats.semantic_files import (
    LABEL_IDS,
    TRAIN_IDS,
    bare_stem,
    find_layout,
    image_files,
    label_files,
    match_images,
    read_listed,
)
from boxel.data.formats.yolo_files import SPLITS
from boxel.data.images import ImageError, image_size
from boxel.data.issues import Issue
from boxel.data.label_maps import (
    IGNORE_INDEX,
    has_pixel_labels,
    label_map_size,
    make_label_map,
    pixel_classes,
)
from boxel.utils.errors import BoxelError

_OF_OTHER_FORMATS = (".txt", ".json", ".xml")  # YOLO, LabelMe and COCO, VOC


def recognize(path: Path) -> bool:
    """Return whether this is a root, or a folder of label maps whose images are in a usual place.

    It is not if other annotations, e.g. YOLO's texts, are among the label maps.
    """
    if not path.is_dir() or any(path.glob("data*.y*ml")):  # YOLO's
        return False
    return any(
        images is not None and not _has_other_annotations(labels) and bool(label_files(labels))
        for labels, images in find_layout(path).places
    )


def _has_other_annotations(folder: Path) -> bool:
    return any(
        file.suffix.lower() in _OF_OTHER_FORMATS
        and file.name not in (*CLASS_LISTS, *(f"{split}.txt" for split in SPLITS))
        and not file.stem.endswith("_gtFine_polygons")
        for file in folder.rglob("*")
    )


def read(
    path: Path, images: Path | None = None, class_list: str | Path | None = None, split: str | None = None
) -> Annotations:
    """Read a semantic dataset; of label maps and images only the headers.

    A category's id is its value in the label maps, the first of several. A label map without an image, an image without
    a label map, and a pair of different sizes are left out and become issues.

    Args:
        path: A root, or a folder of label maps.
        images: Folder of the images, if it is not beside that of the label maps.
        class_list: See :func:`boxel.data.formats.semantic_classes.load_class_table`. If None, ``classes.txt`` in the
            folder or the root, else that of Pascal VOC, Cityscapes or PASCAL-Context if the files are named like
            theirs.
        split: ``train``, ``val`` or ``test``, to read only that folder of the root, or what a text of that name in the
            path lists, e.g. ``train.txt``; all if None, or if there is neither.

    Raises:
        BoxelError: There is no such dataset or split, its classes are unknown, or nothing of it can be used.
    """
    layout = find_layout(path, split)
    preferred = TRAIN_IDS if class_list == "cityscapes-train-ids" else LABEL_IDS
    labels = {folder: label_files(folder, preferred) for folder, _ in layout.places}
    first = next((file for files in labels.values() for file in files), None)
    if first is None:
        raise BoxelError(f"{path}: there are no label maps; put one PNG per image into it.")
    numbers, values = load_tables([*labels, path, layout.root], first, class_list)
    rows = Builder()
    pairs: list[tuple[Path, Path]] = []
    for folder, beside in layout.places:
        image_folder = beside if images is None else _split_folder(images, split)
        if image_folder is None or not image_folder.is_dir():
            raise BoxelError(f"{image_folder or path}: there is no folder of images; name it with `images`.")
        pairs += _match(labels[folder], folder, image_folder, layout.listed, rows.issues)
    root = images or layout.root
    _add(rows, root, pairs)
    if not rows.paths:
        raise BoxelError(f"{path}: none of its label maps can be used, the first: {rows.issues[0].message}")
    categories = list_categories(numbers)
    return replace(rows.build(root, categories, path), map_labels=table_to_labels(values, categories))


def _split_folder(images: Path, split: str | None) -> Path:
    return images / split if split is not None and (images / split).is_dir() else images


def _match(
    labels: list[Path], folder: Path, image_folder: Path, text: Path | None, issues: list[Issue]
) -> list[tuple[Path, Path]]:
    """Match images with their label maps; what has no counterpart becomes an issue."""

    def report(kind: str, name: object, message: str) -> None:
        issues.append(Issue(kind, f"{name}: {message}", str(name), repair="left out"))

    images = image_files(image_folder, labels)
    if text is not None:
        listed = read_listed(text)
        labels, images = ([file for file in files if bare_stem(file) in listed] for files in (labels, images))
        for name in sorted(listed - {bare_stem(label) for label in labels}):
            report("no-label-map", text, f"it lists {name}, which has no label map in {folder}; add it.")
    found = match_images(labels, folder, images, image_folder)
    for label, image in found:
        if image is None:
            report(
                "no-image", label, f"the label map has no image in {image_folder} and is left out; add it."
            )
    if (
        image_folder.name != "JPEGImages"
    ):  # VOC's, which other tasks share: most of its images have no label map
        for image in sorted({*images} - {image for _, image in found}):
            report("no-label-map", image, f"the image has no label map in {folder} and is left out; draw it.")
    return [(image, label) for label, image in found if image is not None]


def _add(rows: Builder, root: Path, pairs: Sequence[tuple[Path, Path]]) -> None:
    """Add the pairs whose sizes agree."""
    names = [image.with_name(bare_stem(image) + image.suffix) for image, _ in pairs]
    ids = file_stems([os.path.relpath(name, root) for name in names])
    for id, (image, label) in zip(ids, pairs, strict=True):
        try:
            size, own = image_size(image), label_map_size(label)
            if size != own:
                raise BoxelError(
                    f"{label}: the label map is {own[0]} x {own[1]} pixels and its image {size[0]} x {size[1]}; "
                    "make them the same size."
                )
        except BoxelError as error:
            kind = error.kind if isinstance(error, ImageError) else "bad-label-map"
            rows.issues.append(Issue(kind, f"{error} It is left out.", str(label), id, repair="left out"))
            continue
        path, label_map = (Path(os.path.relpath(file, root)).as_posix() for file in (image, label))
        if rows.has_valid_name(path) and rows.has_valid_name(label_map):
            rows.add_image(id, path, *size, label_map)


def write(data: Annotations, path: Path) -> list[str]:
    """Write images, label maps and ``classes.txt``.

    The values are the ids of the categories, 255 is void. If the dataset has no label map of an image, its masks are
    painted, smaller ones on top, and what none covers is background, 0.

    Returns:
        What the layout cannot hold.
    """
    classes = pixel_classes(data)
    values, losses = _values(classes)
    stems, names = image_names(data.paths)
    (path / "labels").mkdir(parents=True, exist_ok=True)
    known, unreadable, written = has_pixel_labels(data), list[str](), list[int]()
    for image in np.flatnonzero(known).tolist():
        try:
            labels = make_label_map(data, image, data.image_size(image)[::-1])
        except BoxelError as error:
            unreadable.append(str(error))
            continue
        Image.fromarray(values[labels]).save(path / "labels" / f"{stems[image]}.png")
        written.append(image)
    lines = (f"{values[label]} {_to_line(category.name)}\n" for label, category in enumerate(classes))
    (path / "classes.txt").write_text("".join(lines), encoding="utf-8")
    missing = place_images(data.select_images(written), path / "images", [names[image] for image in written])
    if unreadable:
        losses.append(f"{len(unreadable)} images have no label map, the first: {unreadable[0]}")
    if not known.all():
        losses.append(
            f"{int((~known).sum())} images have boxes only, from which no label map can be made; they are left out."
        )
    if len(data.labels):
        losses.append(
            f"a semantic dataset has no instances: {len(data.labels)} are painted as pixels of their classes."
        )
    return losses + missing


def _values(classes: Sequence[Category]) -> tuple[NDArray[np.uint8], list[str]]:
    """Return the value of each label, with 255 for void, and a sentence if these are not the ids."""
    ids = [category.id for category in classes]
    losses = []
    if len(set(ids)) < len(ids) or not 0 <= min(ids, default=0) <= max(ids, default=0) < IGNORE_INDEX:
        losses.append(
            f"a label map has values from 0 to {IGNORE_INDEX - 1}, each once: its classes are renumbered."
        )
        ids = list(range(len(ids)))
    values = np.full(IGNORE_INDEX + 1, IGNORE_INDEX, dtype=np.uint8)
    values[: len(ids)] = ids
    return values, losses


def _to_line(name: str) -> str:
    """Return a name that a line of a class list can hold."""
    return " ".join("".join(c if c.isprintable() else " " for c in name).split()) or "unnamed"
