"""Darknet's YOLO: ``obj.data``, ``obj.names``, lists of images, and a text beside each image with its boxes.

The format: https://github.com/AlexeyAB/darknet. CVAT ("YOLO 1.1") and FiftyOne ("YOLOv4") write it too, the latter
without ``obj.data``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from boxel.data.annotations import Annotations
from boxel.data.formats.builder import Builder, read_text
from boxel.data.formats.identity import Ids
from boxel.data.formats.layout import Export, clean_name, file_stems, write_lines
from boxel.data.formats.names import ImageFinder, files_below, in_either_case, list_files
from boxel.data.formats.yolo import build
from boxel.data.formats.yolo_files import Pair, Place, find_pairs, label_folder, read_list
from boxel.data.formats.yolo_names import read_class_list, yaml_in
from boxel.data.formats.yolo_writer import NO_SPLIT, add_boxes, format_row
from boxel.data.image_names import split_path
from boxel.data.splits import split_name
from boxel.utils.errors import BoxelError
from boxel.utils.files import is_file

_LISTS = {"train": "train", "valid": "val", "val": "val", "test": "test", "images": None, NO_SPLIT: None}
"""Keys of ``obj.data``, and stems of lists without one, with the split that each stands for."""

_MAX_CONFIG = 1 << 20  # bytes; other programs have files of this suffix too

_OTHER_KEYS = {"classes", "names", "backup", "eval", "results", "labels", "top", "map", "difficult"}
"""Keys of ``obj.data`` that name no list of images."""

_NAMES = ("obj.names", "classes.names")


def recognize(path: Path) -> bool:
    """Return whether this is an ``obj.data``, or a folder with one or with ``obj.names``."""
    if path.is_file():
        return path.suffix.lower() == ".data"
    return yaml_in(path) is None and (_config_in(path) or _names_in(path)) is not None


def _config_in(folder: Path) -> Path | None:
    for file in list_files(folder, ".data"):
        if file.stat().st_size < _MAX_CONFIG:
            with contextlib.suppress(BoxelError):  # of another kind
                if "names" in _read_config(file):
                    return file
    return None


def _names_in(folder: Path) -> Path | None:
    return next(filter(is_file, (in_either_case(folder / name) for name in _NAMES)), None)


def read(path: Path, images: Path | None = None) -> Annotations:
    """Read a Darknet dataset, or its ``obj.data``: the images of its lists, with the boxes of the texts beside them."""
    folder = path.parent if path.is_file() else path
    config_file = path if path.is_file() else _config_in(folder)
    config = _read_config(config_file) if config_file else {}
    rows = Builder()
    finder = ImageFinder(folder)
    pairs: list[Pair] = []
    for key, file in _lists(config, folder, rows):
        listed = list(read_list(file, [folder, folder.parent], finder))
        pairs += [_pair(image, images, _LISTS.get(key, key)) for image in listed]
    if not pairs:
        texts = sorted({image.parent for image in files_below(folder) if is_file(_text_beside(image))})
        pairs = find_pairs([Place(f, f, split_name(f.name)) for f in texts], rows)
    if not pairs:
        what = "there are no images and no lists of images; a Darknet dataset has train.txt."
        raise BoxelError(f"{path}: {what}")
    stated = config.get("names", "")
    names_file = next(filter(is_file, _candidates(folder, stated)), None) if stated else None
    names_file = names_file or _names_in(folder)
    if names_file is None and stated:
        raise BoxelError(f"{config_file}: its `names`, {stated}, does not exist; correct it.")
    names = None if names_file is None else read_class_list(names_file, rows)
    unique = {pair.image: pair for pair in reversed(pairs)}
    ordered = [unique.pop(pair.image) for pair in pairs if pair.image in unique]
    return build(path, images or folder, ordered, names, rows, Ids(folder, rows), {"task": "detect"})


def _read_config(file: Path) -> dict[str, str]:
    """Read lines of ``key = value``."""
    lines = [line.strip() for line in read_text(file).splitlines()]
    pairs = [line.partition("=") for line in lines if not line.startswith("#")]
    return {key.strip(): value.strip() for key, sign, value in pairs if sign}


def _candidates(folder: Path, stated: str) -> list[Path]:
    """Return where a stated file may be: Darknet names it from where it is run, mostly as ``data/...``."""
    parts = split_path(stated)
    return [folder / "/".join(parts[k:]) for k in range(len(parts))]


def _lists(config: dict[str, str], folder: Path, rows: Builder) -> Iterator[tuple[str, Path]]:
    stated = {key: value for key, value in config.items() if key not in _OTHER_KEYS and value}
    for key, value in stated.items():
        file = next(filter(is_file, _candidates(folder, value)), None)
        if file is None:
            rows.report("bad-file", folder, f"its list `{key}`, {value}, does not exist; it is left out.")
        else:
            yield key, file
    for key in {} if stated else _LISTS:
        if is_file(file := in_either_case(folder / f"{key}.txt")):
            yield key, file


def _pair(image: Path, images: Path | None, split: str | None) -> Pair:
    beside = _text_beside(image)
    labels = beside if is_file(beside) else _text_beside(label_folder(image))
    return Pair(images / image.name if images else image, labels if is_file(labels) else None, split)


def _text_beside(image: Path) -> Path:
    return in_either_case(image.with_suffix(".txt"))


def write(data: Annotations, path: Path) -> list[str]:
    """Write ``obj.data``, ``obj.names``, a list per split, and the images with their texts in ``obj_SPLIT_data/``.

    Paths are relative to the folder, in which Darknet is to be run.
    """
    rest = NO_SPLIT if any(data.splits) else "train"
    splits = [clean_name(split or rest) for split in data.splits]
    stems = [f"obj_{s}_data/{stem}" for s, stem in zip(splits, file_stems(data.paths), strict=True)]
    export = Export(data, path, "Darknet", stems=stems)
    listed: dict[str, list[str]] = {}
    for image, (stem, name, split) in enumerate(zip(export.stems, export.names, splits, strict=True)):
        rows = [format_row(int(data.labels[i]), numbers) for i, numbers in add_boxes(export, image)]
        write_lines(path / f"{stem}.txt", rows)
        listed.setdefault(split, []).append(name)
    config = {"classes": str(len(data.categories))}
    for split, names in listed.items():
        key = {"val": "valid"}.get(split, f"{split}_split" if split in _OTHER_KEYS else split)
        write_lines(path / f"{key}.txt", names)
        config[key] = f"{key}.txt"
    config |= {"names": "obj.names", "backup": "backup/"}
    write_lines(path / "obj.names", export.name_classes(lambda name: " ".join(name.split())))
    write_lines(path / "obj.data", (f"{key} = {value}" for key, value in config.items()))
    export.stems = file_stems(data.paths)  # without the folders of splits
    export.write_ids()
    masks, others = int(data.has_segmentation.sum()), []
    if any(data.splits) and None in data.splits:
        count, file = data.splits.count(None), export.folder / f"{NO_SPLIT}.txt"
        others.append(
            f"Darknet: {count} images belong to no split; {file}, which nothing trains on, lists them."
        )
    if masks:
        others.append(f"Darknet holds boxes only: {masks} masks are left out.")
    needs = "Darknet boxes need an image of known size and some area inside it"
    return export.losses("", needs, others=others, held=())
