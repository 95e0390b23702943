"""YOLO: ``images/``, ``labels/*.txt`` with one line per object, and a ``data.yaml`` that names classes and splits.

The formats are those of Ultralytics, https://docs.ultralytics.com/datasets/: ``class cx cy w h`` for a box, ``class x1
y1 x2 y2 ...`` for a polygon or the four corners of an oriented box, and keypoints behind a box for a pose, all as
shares of the image's width and height. If a file has a polygon, Ultralytics takes every line for one; so other tools
write a box there as its corners from the upper left clockwise, and such a rectangle is read as a box.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from boxel.data.annotations import Annotations, Category
from boxel.data.formats.builder import Builder
from boxel.data.formats.extras import decode_extras, encode_extras, get_list
from boxel.data.formats.identity import Held, Ids, hold_keys
from boxel.data.formats.layout import file_stems
from boxel.data.formats.names import named_folder
from boxel.data.formats.rotated import CORNERS
from boxel.data.formats.yolo_files import (
    Pair,
    Place,
    assign_splits,
    below_folder,
    find_pairs,
    folder_places,
    listed_places,
)
from boxel.data.formats.yolo_names import (
    YAML_SUFFIXES,
    find_class_names,
    find_yaml,
    keypoint_shape,
    read_yaml,
    yaml_in,
)
from boxel.data.formats.yolo_rows import (
    Row,
    Shape,
    as_oriented,
    find_oriented,
    interpret,
    judge_layout,
    judge_rows,
    read_rows,
)
from boxel.data.formats.yolo_writer import OPTIONS, write
from boxel.utils.errors import BoxelError

__all__ = ["OPTIONS", "read", "recognize", "write"]

logger = logging.getLogger(__name__)


def recognize(path: Path) -> bool:
    """Return whether this is a ``data.yaml``, a folder with one or with ``labels/``, or ``images/`` beside labels."""
    if path.is_file():
        return path.suffix.lower() in YAML_SUFFIXES
    return yaml_in(path) is not None or any(True for _ in folder_places(path))


def read(path: Path, images: Path | None = None, split: str | None = None) -> Annotations:
    """Read a YOLO dataset.

    An image without a label file has no objects. A category's id is its number in the label files. Oriented boxes are
    read as the boxes around them, and poses as their boxes; corners and keypoints stay as extras.

    Args:
        path: ``data.yaml``, the folder of the dataset, or one ``images/...`` folder of it to read only that split.
        images: Folder of the images, instead of ``images/``.
        split: ``train``, ``val`` or ``test``, to read what ``data.yaml`` lists under it; all if None. Ignored if no
            ``data.yaml`` lists any, or if the path is a folder within the dataset.
    """
    folder = path.parent if path.is_file() else path
    config_file = path if path.is_file() else find_yaml(path, _dataset_in(path))
    config = read_yaml(config_file) if config_file else {}
    rows = Builder()
    pairs = _find_files(path, images, split, config, config_file, rows)
    if not pairs:
        raise BoxelError(
            f"{path}: there are no images and no labels; a YOLO dataset has images/ and labels/."
        )
    top = config_file.parent if config_file else folder
    if not config_file and (below := below_folder(folder)) is not None:
        top = folder.parents[len(below.parts)]
    folders = [pair.labels.parent for pair in pairs if pair.labels is not None]
    names = find_class_names(config, config_file, folders, top, rows)
    return build(path, images or folder, pairs, names, rows, Ids(top, rows), config)


def _dataset_in(folder: Path) -> Path | None:
    """Return the folder in which all images and labels of a folder lie, if it is one."""
    tops = {place.labels.parent for place in folder_places(folder)}
    return tops.pop() if len(tops) == 1 else None


def _find_files(
    path: Path,
    images: Path | None,
    split: str | None,
    config: Mapping[str, Any],
    config_file: Path | None,
    rows: Builder,
) -> list[Pair]:
    """Return the images and labels to read, with their splits."""
    if config_file and (path.is_file() or (split is not None and config_file.parent == path)):
        listed = listed_places(config, config_file, images, split, rows)
        if listed:
            return find_pairs(listed, rows)
    folder = path.parent if path.is_file() else path
    # The folder is read whole; the lists only name the splits.
    listed = listed_places(config, config_file, images, None, Builder()) if config_file else []
    labels = named_folder(folder, "labels")
    places = [Place(images, labels if labels.is_dir() else folder)] if images else list(folder_places(folder))
    return assign_splits(find_pairs(places, rows), listed)


def build(
    path: Path,
    root: Path,
    pairs: Sequence[Pair],
    names: dict[int, str] | None,
    rows: Builder,
    ids: Ids,
    config: Mapping[str, Any],
) -> Annotations:
    """Read the label files of images, and return the dataset.

    Args:
        path: What was asked for, for messages.
        root: Folder that the paths of images are relative to.
        pairs: The images and their label files.
        names: The class names by number; made from the numbers if None.
        rows: The issues so far.
        ids: The ids of the dataset.
        config: Content of ``data.yaml``.
    """
    pairs = [pair for pair in pairs if rows.has_valid_name(os.path.relpath(pair.image, root))]
    paths = [
        str(pair.image.relative_to(root)) if pair.image.is_relative_to(root) else str(pair.image)
        for pair in pairs
    ]
    found: list[Row] = []
    for pair, relative, stem in zip(pairs, paths, file_stems(paths), strict=True):
        size = ids.image_size(pair.image, pair.key)
        index = rows.add_image(stem, relative, *size, split=pair.split)
        if pair.labels is not None:
            found += read_rows(pair.labels, index, rows)
    if names is None:
        if found:
            what = "no list names its classes, which are called by their numbers; add a data.yaml or a classes.txt."
            rows.report("no-class-names", path, what, repair="named by their numbers")
        names = {k: str(k) for k in sorted({row.class_id for row in found})}
    used, count = {row.class_id for row in found}, len(names)
    if count and used == set(range(1, count + 1)) and names.keys() == set(range(count)):
        rows.report_numbering(path, [str(count)], "1 is subtracted from each")
    held = _add_instances(rows, found, {class_id: k for k, class_id in enumerate(names)}, config, path)
    categories = [Category(class_id, name) for class_id, name in names.items()]
    kept = {key: config[key] for key in ("kpt_shape", "flip_idx") if key in config}
    data = rows.build(root, categories, path, encode_extras({"yolo": kept} if kept else {}))
    data = ids.restore(data, [pair.key for pair in pairs], Held(hold_keys(*held)))
    if "keypoints" in held:
        data.extras[:] = [_count_keypoints(extras) for extras in data.extras]
    return data


def _count_keypoints(extras: bytes | None) -> bytes | None:
    """Correct the number of labeled keypoints, which may have been edited since it was written."""
    fields = decode_extras(extras)
    if "num_keypoints" not in fields:
        return extras
    fields["num_keypoints"] = sum(v > 0 for v in get_list(fields, "keypoints")[2::3])
    return encode_extras(fields)


def _correct_layout(rows: Builder, found: Sequence[Row], path: Path) -> Sequence[Row]:
    """Turn boxes that are written in pixels, or not by their center, into shares; this becomes an issue."""
    boxes = [row for row in found if len(row.numbers) in (4, 5)]
    if not boxes:
        return found
    numbers = np.array([row.numbers[:4] for row in boxes])
    sizes = np.array([(rows.widths[row.image], rows.heights[row.image]) for row in boxes], dtype=float)
    layout = judge_layout(numbers, sizes)
    if layout == "shares":
        return found
    words = {"pixels": "in pixels", "corners": "as x0, y0, x1, y1", "corner": "as left, top, width, height"}
    what = f"its {len(boxes):,} boxes are written {words[layout]}, not as center and size in shares of the image."
    rows.report("boxes-layout", path, what, repair="read as they are meant", layout=layout)
    if layout == "pixels":
        numbers /= np.tile(sizes.clip(1), 2)
    elif layout == "corner":
        numbers[:, :2] += numbers[:, 2:] / 2
    else:
        low, high = numbers[:, :2], numbers[:, 2:]
        numbers = np.concatenate([(low + high) / 2, high - low], axis=1)
    new = iter(numbers.tolist())
    return [
        row._replace(numbers=[*next(new), *row.numbers[4:]]) if len(row.numbers) in (4, 5) else row
        for row in found
    ]


def _add_instances(
    rows: Builder, found: Sequence[Row], label_of: dict[int, int], config: Mapping[str, Any], path: Path
) -> Sequence[str]:
    """Append an instance per row; rows of unknown classes and sizes become issues.

    Returns:
        Names of the extras that rows of this kind hold: an instance without them has none.
    """
    task = str(config.get("task", ""))
    meaning = judge_rows(found, keypoint_shape(config), task)
    if meaning.keypoints and keypoint_shape(config) is None:
        logger.info(
            "%s: its rows are poses, boxes with keypoints (%d) of %d numbers, and are read so; state "
            "`kpt_shape: [%d, %d]` in data.yaml",
            *(path, *meaning[:2], *meaning[:2]),
        )
    found = _correct_layout(rows, found, path)
    count = Counter[int]()
    shapes: list[tuple[str, Row, Shape]] = []
    for row in found:
        count[row.image] += 1
        stem = rows.image_ids[row.image]
        id = f"{stem}:{count[row.image]}"
        width, height = rows.widths[row.image], rows.heights[row.image]
        if row.class_id not in label_of:
            what = f"annotation {id} is of class {row.class_id}, which has no name; it is left out."
            rows.report("unknown-category", row.file, what, stem, id)
        elif not (width and height):
            what = f"the image of annotation {id} cannot be opened, so its size is unknown; it is left out."
            rows.report("unknown-image", row.file, what, stem, id)
        else:
            try:
                shapes.append((id, row, interpret(row.numbers, meaning, width, height)))
            except ValueError as error:
                what = f"line {row.line} cannot be read ({error}); it is left out."
                rows.report("bad-annotation", row.file, what, stem, line=row.line)
    oriented = find_oriented([shape for _, _, shape in shapes], task)
    if oriented:
        logger.info("%s: all its polygons are turned rectangles: oriented boxes, which are not masks", path)
    for id, row, shape in shapes:
        box, ring, extras = as_oriented(shape) if oriented else shape
        code = None if ring is None else msgspec.json.encode([ring])
        rows.add(id, row.image, label_of[row.class_id], box, code, extras=encode_extras(extras))
    return [CORNERS] if oriented else ["keypoints"] if meaning.keypoints else []
