"""Semantic datasets: images and, for each, a label map whose values are the classes of its pixels.

The layouts, recognized by their folders: ``images/`` and ``labels/``; Cityscapes (``leftImg8bit/`` and ``gtFine/``);
CamVid as it is commonly distributed (``train/`` and ``trainannot/``); or any folder of label maps, with its images
named or in a usual place. Label maps are gray or paletted PNGs or TIFFs, or PASCAL-Context's MATLAB files. Background
is a class like others.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from boxel.data.annotations import Annotations, Category
from boxel.data.formats.builder import Builder
from boxel.data.formats.layout import (
    file_stems,
    list_fields,
    name_classes,
    name_images,
    place_images,
    write_lines,
)
from boxel.data.formats.names import files_below, is_hidden, named_folder
from boxel.data.formats.semantic_classes import CLASS_LISTS, LABEL_IDS, TRAIN_IDS, load_classes
from boxel.data.formats.voc import read_image_set, read_splits
from boxel.data.formats.voc_writer import write_splits
from boxel.data.formats.yolo_files import swap_folder
from boxel.data.images import ImageError, image_size
from boxel.data.issues import Issue
from boxel.data.label_maps import (
    IGNORE_INDEX,
    has_pixel_labels,
    label_map_size,
    look_up,
    make_label_map,
    pixel_classes,
    write_gray,
)
from boxel.data.splits import SPLITS, find_split, split_name
from boxel.utils.errors import BoxelError

_SUFFIXES = (".png", ".mat", ".tif", ".tiff")
_OF_OTHER_FORMATS = (".txt", ".json", ".xml")  # YOLO, LabelMe and COCO, VOC
_ENDINGS = (LABEL_IDS, TRAIN_IDS, "_leftImg8bit", "_L")  # in which an image and its label map may differ

# A folder of label maps, and the folder of their images beside it.
_HALVES = (("gtFine", "leftImg8bit"), ("labels", "images"))

_Place = tuple[Path, Path | None]  # a folder of label maps, and that of its images if it is known


class _Layout(NamedTuple):
    """The folders of a dataset: their root, where a class list may be, and a text that lists the images to read."""

    root: Path
    places: list[_Place]
    listed: Path | None = None


def recognize(path: Path) -> bool:
    """Return whether this is a root, or a folder of label maps whose images are in a usual place.

    It is not if other annotations, e.g. YOLO's texts, are among the label maps.
    """
    if not path.is_dir() or any(path.glob("data*.y*ml")):  # YOLO's
        return False
    return any(
        images is not None and not _has_other_annotations(labels) and bool(label_files(labels))
        for labels, images in _find_layout(path).places
    )


def _has_other_annotations(folder: Path) -> bool:
    return any(
        file.name not in (*CLASS_LISTS, *(f"{split}.txt" for split in SPLITS))
        and not file.stem.endswith("_gtFine_polygons")
        for file in files_below(folder, _OF_OTHER_FORMATS)
    )


def holds_label_maps(folder: Path) -> bool:
    """Return whether label maps are in a folder or not far below it, wherever their images are."""
    found = (file for pattern in ("*", "*/*", "*/*/*") for file in folder.glob(pattern))
    # A few are enough: Cityscapes has a color picture beside each of its label maps.
    return any(map(_is_label_map, islice(filter(_may_be_label_map, found), 3)))


def _may_be_label_map(file: Path) -> bool:
    return file.suffix.lower() in _SUFFIXES and not is_hidden(file) and file.is_file()


def _is_label_map(file: Path) -> bool:
    try:
        label_map_size(file)
    except BoxelError:
        return False
    return True


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
    """
    layout = _find_layout(path, split)
    preferred = TRAIN_IDS if class_list == "cityscapes-train-ids" else LABEL_IDS
    labels = {folder: label_files(folder, preferred) for folder, _ in layout.places}
    first = next((file for files in labels.values() for file in files), None)
    if first is None:
        raise BoxelError(f"{path}: there are no label maps; put one PNG per image into it.")
    categories, map_labels = load_classes([*labels, path, layout.root], first, class_list)
    rows = Builder()
    pairs: list[tuple[Path, Path]] = []
    for folder, beside in layout.places:
        image_folder = beside if images is None else _split_folder(images, split)
        if image_folder is None or not image_folder.is_dir():
            raise BoxelError(f"{image_folder or path}: there is no folder of images; name it with `images`.")
        pairs += _match(labels[folder], folder, image_folder, layout.listed, rows)
    root = images or layout.root
    _add(rows, root, pairs, read_splits([path, layout.root], rows))
    if not rows.paths:
        raise BoxelError(f"{path}: none of its label maps can be used, the first: {rows.issues[0].message}")
    return replace(rows.build(root, categories, path), map_labels=map_labels)


def _find_layout(path: Path, split: str | None = None) -> _Layout:
    """Find the folders that a path stands for; of a split its own folder, else what ``SPLIT.txt`` lists, else all."""
    splits, places = _splits(path)
    if split in splits:
        return _Layout(path, splits[split])
    if split is not None and splits:
        raise BoxelError(f"{path}: it has no split {split!r}, but {', '.join(splits)}.")
    text = path / f"{split}.txt"
    listed = text if split is not None and text.is_file() else None
    if places:
        return _Layout(path, places, listed)
    images = _guess_images(path)
    root = path.parent if images is None else Path(os.path.commonpath((os.path.abspath(path), images)))
    return _Layout(root, [(path, images)], listed)


def _splits(path: Path) -> tuple[dict[str, list[_Place]], list[_Place]]:
    """Return the places of a root by split, and all of them."""
    for labels, images in ([named_folder(path, name) for name in halves] for halves in _HALVES):
        if labels.is_dir() and images.is_dir():
            return _pair_splits(labels, images), [(labels, images)]
    annotated = _pair_splits(path, path, "annot")
    return annotated, list(itertools.chain.from_iterable(annotated.values()))


def _pair_splits(labels: Path, images: Path, suffix: str = "") -> dict[str, list[_Place]]:
    """Return the folders of splits that two folders both have, whatever they are called; see `split_name`."""
    found: dict[str, list[_Place]] = {split: [] for split in SPLITS}
    for folder in sorted(images.iterdir()) if images.is_dir() else ():
        split, beside = split_name(folder.name), labels / f"{folder.name}{suffix}"
        if split and folder.is_dir() and beside.is_dir():
            found[split].append((beside, folder))
    return {split: places for split, places in found.items() if places}


def _guess_images(labels: Path) -> Path | None:
    """Return the usual folder of the images for a folder of label maps, if it exists."""
    labels = Path(os.path.abspath(labels))
    candidates = [
        *(swap_folder(labels, *names) for names in _HALVES),
        labels.parent / (labels.name.removesuffix("annot") or labels.name),
        labels.parent / "JPEGImages",
    ]
    return next((folder for folder in candidates if folder != labels and folder.is_dir()), None)


def _split_folder(images: Path, split: str | None) -> Path:
    folders = [folder for folder in images.glob("*/") if split_name(folder.name) == split] if split else []
    return folders[0] if len(folders) == 1 and folders[0].is_dir() else images


def label_files(folder: Path, preferred: str = LABEL_IDS) -> list[Path]:
    """Find label maps, recursively: one of Cityscapes' two kinds if there are any, else PNGs and TIFFs, else all.

    A TIFF with the stem of a PNG is taken for its image.
    """
    files = files_below(folder, _SUFFIXES)
    pngs = {_bare_stem(p) for p in files if p.suffix.lower() == ".png"}
    kinds = [
        *([p for p in files if p.stem.endswith(kind)] for kind in (preferred, LABEL_IDS, TRAIN_IDS)),
        [
            p
            for p in files
            if p.suffix.lower() == ".png" or (_bare_stem(p) not in pngs and p.suffix.lower() != ".mat")
        ],
    ]
    return next(filter(None, kinds), files)


def _match(
    labels: list[Path], folder: Path, image_folder: Path, text: Path | None, rows: Builder
) -> list[tuple[Path, Path]]:
    """Match images with their label maps; what has no counterpart becomes an issue."""
    beside = set(labels)
    images = [file for file in files_below(image_folder) if file not in beside]
    if text is not None:
        listed = _read_listed(text)
        labels, images = ([p for p in files if _bare_stem(p) in listed] for files in (labels, images))
        for name in sorted(listed - {_bare_stem(label) for label in labels}):
            what = f"it lists {name}, which has no label map in {folder}; add it."
            rows.report("no-label-map", text, what)
    found = _find_images(labels, folder, images, image_folder)
    for label in sorted({*labels} - found.keys()):
        what = f"the label map has no image in {image_folder} and is left out; add it."
        rows.report("no-image", label, what)
    if image_folder.name != "JPEGImages":  # VOC's, which other tasks share: many images have no label map
        for image in sorted({*images} - set(found.values())):
            what = f"the image has no label map in {folder} and is left out; draw it."
            rows.report("no-label-map", image, what)
    return _drop_contradictions(found, images, rows)


def _drop_contradictions(
    found: dict[Path, Path], images: Sequence[Path], rows: Builder
) -> list[tuple[Path, Path]]:
    """Return each image with its label map, but none that several images or label maps are candidates for."""
    twins = Counter(image.with_suffix("") for image in images)
    taken: dict[Path, Path] = {}
    pairs = []
    for label, image in sorted(found.items(), key=lambda pair: pair[0].stem != pair[1].stem):
        if twins[image.with_suffix("")] > 1:
            what = f"several images are called {image.stem} in {image.parent}; remove all but one."
            rows.report("ambiguous-image", label, what)
        elif taken.setdefault(image, label) != label:
            what = f"its image {image} has the label map {taken[image]} already; it is left out."
            rows.report("ambiguous-image", label, what)
        else:
            pairs.append((image, label))
    return sorted(pairs, key=lambda pair: pair[1])


def _read_listed(text: Path) -> set[str]:
    """Read the images that the list of a split names, each as `_bare_stem`."""
    names = read_image_set(text)
    if not names:
        raise BoxelError(f"{text}: it lists no image; write one name per line, or remove it.")
    return {_bare_stem(Path(f"{name}.png")) for name in names}


def _bare_stem(file: Path) -> str:
    """Return the stem of an image or its label map, the same for both."""
    ending = next((ending for ending in _ENDINGS if file.stem.endswith(ending)), "")
    return file.stem.removesuffix(ending)


def _find_images(
    labels: Sequence[Path], label_folder: Path, images: Sequence[Path], image_folder: Path
) -> dict[Path, Path]:
    """Return the image of each label map, that of its stem, if there is one.

    An ending that only one of the two has, e.g. ``_gtFine_labelIds``, is ignored. If stems are not unique, their
    folders must be the same too.
    """
    by_path = any(len({file.stem for file in files}) < len(files) for files in (labels, images))

    def names(file: Path, folder: Path) -> list[Path]:
        parent = file.relative_to(folder).parent if by_path else Path()
        return [parent / file.stem, parent / _bare_stem(file)]

    known: dict[Path, Path] = {}
    for which in (1, 0):  # whole stems come before bare ones, and of several images the first
        known |= {names(image, image_folder)[which]: image for image in reversed(images)}
    candidates = {label: [known.get(name) for name in names(label, label_folder)] for label in labels}
    return {label: image for label, found in candidates.items() if (image := next(filter(None, found), None))}


def _add(rows: Builder, root: Path, pairs: Sequence[tuple[Path, Path]], splits: Mapping[str, str]) -> None:
    """Add the pairs whose sizes agree; their splits are those of their folders, else as listed."""
    names = [image.with_name(_bare_stem(image) + image.suffix) for image, _ in pairs]
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
            listed = splits.get(image.stem) or splits.get(_bare_stem(image))
            split = find_split(Path(path).parts[:-1]) or listed
            rows.add_image(id, path, *size, label_map, split)


def write(data: Annotations, path: Path) -> list[str]:
    """Write images, label maps and ``classes.txt``.

    The values are the ids of the categories, 255 is void. If the dataset has no label map of an image, its masks are
    painted, smaller ones on top, and what none covers is background, 0.
    """
    classes = pixel_classes(data)
    values, losses = _values(classes)
    class_names, numbered = name_classes(classes, _to_line)
    stems = file_stems(data.paths)
    names = name_images(stems, data.paths)
    (path / "labels").mkdir(parents=True, exist_ok=True)
    known, unreadable, written = has_pixel_labels(data), list[str](), list[int]()
    for image in np.flatnonzero(known).tolist():
        try:
            labels = make_label_map(data, image)
        except BoxelError as error:
            unreadable.append(str(error))
            continue
        write_gray(path / "labels" / f"{stems[image]}.png", look_up(labels, values))
        written.append(image)
    lines = (f"{values[label]} {name}" for label, name in enumerate(class_names))
    write_lines(path / "classes.txt", lines)
    if any(data.splits):
        write_splits(path, [stems[image] for image in written], [data.splits[image] for image in written])
    missing = place_images(data.select_images(written), path / "images", [names[image] for image in written])
    if unreadable:
        losses.append(f"{len(unreadable)} images have no label map, the first: {unreadable[0]}")
    if not known.all():
        what = "images have boxes only, from which no label map can be made; they are left out."
        losses.append(f"{int((~known).sum())} {what}")
    if len(data.labels):
        painted = int(data.has_mask[np.isin(data.image_index, written)].sum())
        rest = ", the others are left out" if painted < len(data.labels) else ""
        losses.append(
            f"a semantic dataset has no instances: {painted} are painted as pixels of their classes{rest}."
        )
    if lost := list_fields(data.select_instances([])):  # those of objects are lost with them
        losses.append(f"a semantic dataset has no place for {lost}: they are left out.")
    return losses + numbered + missing


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
    return " ".join("".join(c if c.isprintable() else " " for c in name).split())
