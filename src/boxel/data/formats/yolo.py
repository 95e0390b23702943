"""YOLO: ``images/``, ``labels/*.txt`` with a line an object, and a ``data.yaml`` that names the classes.

The format is that of Ultralytics, https://docs.ultralytics.com/datasets/segment/: ``class cx cy w h`` for a box and
``class x1 y1 x2 y2 ...`` for a polygon, all in fractions of the image's width and height. Where a file has a polygon,
Ultralytics takes every line for one; so a box there is written as its corners from the upper left clockwise, and
such a rectangle is read as a box.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import yaml

from boxel.data.annotations import Annotations, Category
from boxel.data.formats.builder import Builder, read_bytes
from boxel.data.formats.layout import (
    Ids,
    file_stems,
    iou_lost,
    lost_flags,
    lost_label_maps,
    lost_masks,
    place_images,
    readable_rle,
    size_of,
    suffix_of,
    write_ids,
)
from boxel.data.formats.outlines import join_rings, outlines, overlap
from boxel.data.formats.yolo_files import files_in, folder_places, listed_places
from boxel.data.images import image_size
from boxel.data.issues import Issue
from boxel.utils.errors import BoxelError, one_line

_YAML = (".yaml", ".yml")


def recognize(path: Path) -> bool:
    """Whether this is a ``data.yaml``, a folder with one or with ``labels/``, or ``images/`` beside labels."""
    if path.is_file():
        return path.suffix.lower() in _YAML
    return _yaml_in(path) is not None or any(True for _ in folder_places(path))


def read(path: Path, images: Path | None = None, split: str | None = None) -> Annotations:
    """Read a YOLO set.

    An image without a label file has no objects. A category's id is its number in the label files. Of pose labels
    (``kpt_shape`` in ``data.yaml``) the boxes are read.

    Args:
        path: ``data.yaml``, the folder of the set, or one ``images/...`` folder of it to read only that split.
        images: the folder of the images, in place of ``images/``.
        split: ``train``, ``val`` or ``test``, to read what ``data.yaml`` lists under it; all if not given. It means
            nothing where no ``data.yaml`` lists any, or the path is a folder within the set.

    Raises:
        BoxelError: there is no such set or split, or its ``data.yaml`` cannot be read.
    """
    folder = path.parent if path.is_file() else path
    config_file = path if path.is_file() else _find_yaml(path)
    config = _read_yaml(config_file) if config_file else {}
    base = config_file.parent if config_file else folder
    rows = Builder()
    places = []
    if config_file and (path.is_file() or (split is not None and config_file.parent == folder)):
        places = listed_places(config, config_file, images, split, rows.issues)
    if not places:
        labels = folder / "labels"
        places = (
            list(folder_places(folder))
            if images is None
            else [(images, labels if labels.is_dir() else folder)]
        )
    root = images or folder
    files = [pair for pair in files_in(places) if rows.can_name(os.path.relpath(pair[0], root))]
    if not files:
        raise BoxelError(f"{path}: there are no images and no labels; a YOLO set has images/ and labels/.")
    names = _names(config, config_file, [base, *(labels for _, labels in places)])
    pose = isinstance(config.get("kpt_shape"), list)
    paths = [str(image.relative_to(root)) if image.is_relative_to(root) else str(image) for image, _ in files]
    stems = file_stems(paths)
    ids = Ids(base)
    lines: list[tuple[int, str, Path, int, list[float]]] = []
    for (image, label_file), relative, stem in zip(files, paths, stems, strict=True):
        width, height = _size(image, ids, stem)
        index = rows.add_image(stem, relative, width, height)
        if label_file is not None:
            lines += [
                (index, stem, label_file, *line) for line in _lines(label_file, stem, pose, rows.issues)
            ]
    if names is None:
        names = {k: str(k) for k in sorted({class_id for _, _, _, class_id, _ in lines})}
    label_of = {class_id: label for label, class_id in enumerate(names)}
    count: dict[int, int] = {}
    for index, stem, file, class_id, numbers in lines:
        count[index] = count.get(index, 0) + 1
        id = f"{stem}:{count[index]}"
        width, height = rows.widths[index], rows.heights[index]
        if class_id not in label_of:
            message = f"{file}: annotation {id} is of class {class_id}, which has no name; it is left out."
            rows.issues.append(Issue("unknown-category", message, str(file), stem, id, repair="left out"))
        elif not (width and height):
            message = f"{file}: the image of annotation {id} cannot be opened, so its size is unknown; it is left out."
            rows.issues.append(Issue("unknown-image", message, str(file), stem, id, repair="left out"))
        else:
            box, segmentation = _in_pixels(numbers, width, height)
            rows.add(id, index, label_of[class_id], box, segmentation)
    categories = [Category(class_id, name) for class_id, name in names.items()]
    return ids.restore(rows.build(root, categories, path), stems)


def _yaml_in(folder: Path) -> Path | None:
    for name in ("data", "dataset"):
        for suffix in _YAML:
            if (folder / (name + suffix)).is_file():
                return folder / (name + suffix)
    return None


def _find_yaml(folder: Path) -> Path | None:
    """The ``data.yaml`` of the set that a folder is, or is a split of."""
    return next(filter(None, map(_yaml_in, [folder, *list(folder.resolve().parents)[:3]])), None)


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(read_bytes(file))
    except (yaml.YAMLError, ValueError, RecursionError, TypeError, AttributeError, KeyError) as error:
        raise BoxelError(f"{file}: cannot be read as YAML ({one_line(error)}); mend or remove it.") from error
    if not isinstance(config, dict):
        raise BoxelError(
            f"{file}: this is no YOLO data set; it should say where `train` is and list `names`."
        )
    return config


def _names(config: dict[str, Any], file: Path | None, folders: Sequence[Path]) -> dict[int, str] | None:
    """The class names by number; None where nothing names them."""
    names = config.get("names")
    if names is None:
        for folder in folders:
            if (folder / "classes.txt").is_file():
                lines = read_bytes(folder / "classes.txt").decode("utf-8", "replace").splitlines()
                return {k: line.strip() for k, line in enumerate(lines) if line.strip()}
        return None
    pairs = (
        list(enumerate(names))
        if isinstance(names, list)
        else list(names.items())
        if isinstance(names, dict)
        else []
    )
    scalar = (str, int, float)
    if not pairs or not all(isinstance(k, int) and isinstance(name, scalar) for k, name in pairs):
        raise BoxelError(f"{file}: `names` must list the classes, or give each class number a name.")
    return {int(k): str(name) for k, name in pairs}


def _size(image: Path, ids: Ids, stem: str) -> tuple[int, int]:
    try:
        return image_size(image)
    except BoxelError:
        return ids.size(stem)


def _lines(file: Path, stem: str, pose: bool, issues: list[Issue]) -> Iterator[tuple[int, list[float]]]:
    """Class and numbers of each line that can be understood; only the box's where key points follow it."""
    try:
        lines = read_bytes(file).decode("utf-8", "replace").splitlines()
    except BoxelError as error:
        issues.append(Issue("bad-file", str(error), str(file), image_id=stem, repair="left out"))
        return
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if not fields:
            continue
        try:
            class_id, numbers = float(fields[0]), [float(field) for field in fields[1:]]
            if not class_id.is_integer() or class_id < 0:
                raise ValueError("its class is no whole number")
            if pose:
                del numbers[4:]
            if len(numbers) % 2 and len(numbers) >= 5:  # predictions end in a confidence
                numbers.pop()
            if len(numbers) < 4 or len(numbers) % 2:
                raise ValueError(f"{len(numbers)} numbers are neither a box nor a polygon")
        except ValueError as error:
            message = f"{file}: line {number} cannot be read ({one_line(error)}); it is left out."
            issues.append(
                Issue("bad-annotation", message, str(file), stem, values={"line": number}, repair="left out")
            )
            continue
        yield int(class_id), numbers


def _in_pixels(numbers: list[float], width: int, height: int) -> tuple[Sequence[float], bytes | None]:
    """The xyxy box and, of a polygon, the segmentation."""
    if len(numbers) == 4:
        x, y, w, h = numbers
        box = [(x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height]
        return [round(v, 6) for v in box], None
    xs, ys = ([round(v * side, 6) for v in numbers[k::2]] for k, side in ((0, width), (1, height)))
    box = [min(xs), min(ys), max(xs), max(ys)]
    if _corners(box) == [v for point in zip(xs, ys, strict=True) for v in point]:
        return box, None
    return box, msgspec.json.encode([[v for point in zip(xs, ys, strict=True) for v in point]])


def _corners(box: Sequence[float]) -> list[float]:
    """The corners of an xyxy box from the upper left clockwise."""
    x0, y0, x1, y1 = box
    return [x0, y0, x1, y0, x1, y1, x0, y1]


def write(data: Annotations, path: Path) -> list[str]:
    """Write a YOLO set into a folder: ``labels/``, ``data.yaml``, and the images linked into ``images/``.

    Classes are numbered from 0 as Ultralytics wants them, and boxes and polygons are cut off at the image's border,
    beyond which it refuses the image. The parts of a mask are joined into one ring; holes are filled.

    Args:
        data: the data set.
        path: the folder.

    Returns:
        What YOLO could not hold.
    """
    stems = file_stems(data.paths)
    names = [stem + suffix_of(p) for stem, p in zip(stems, data.paths, strict=True)]
    missing = place_images(data, path / "images", names)
    (path / "labels").mkdir(exist_ok=True)
    rows: list[list[int]] = []
    ious: list[float] = []
    unreadable: list[str] = []
    masks = 0
    for i, stem in enumerate(stems):
        size = size_of(data, i)
        instances = data.instances_in(i).tolist()
        rings = {}
        for instance in instances:
            ring = _ring(data, instance, size, ious, unreadable)
            if ring:
                rings[instance] = ring
        masks += len(rings)
        lines = {
            instance: line
            for instance in instances
            if (line := _line(data, instance, size, rings.get(instance), bool(rings))) is not None
        }
        rows.append(list(lines))
        (path / "labels" / f"{stem}.txt").write_text(
            "".join(f"{line}\n" for line in lines.values()), encoding="utf-8"
        )
    config = {"train": "images", "val": "images", "names": {k: c.name for k, c in enumerate(data.categories)}}
    (path / "data.yaml").write_text(
        yaml.safe_dump(config, sort_keys=False, allow_unicode=True), encoding="utf-8"
    )
    write_ids(data, path, stems, rows)
    left_out = len(data.labels) - sum(map(len, rows))
    unwritten = "YOLO boxes need an image of known size and some area inside it"
    return [
        *iou_lost(ious, masks, "YOLO", "holds one ring a mask, without holes or parts"),
        *lost_masks(data, unreadable, "YOLO"),
        *lost_flags(data, "YOLO"),
        *lost_label_maps(data, "YOLO"),
        *([f"{unwritten}: {left_out} of {len(data.labels)} instances are left out."] if left_out else []),
        *missing,
    ]


def _ring(
    data: Annotations, instance: int, size: tuple[int, int], ious: list[float], unreadable: list[str]
) -> list[float] | None:
    """The instance's mask as one ring in pixels; appends its IoU with the mask where that may be below 1."""
    rle = readable_rle(data, instance, size, unreadable)
    if rle is None:
        return None
    segmentation: Any = data.segmentation(instance)
    if isinstance(segmentation, list):
        rings = [list(map(float, polygon)) for polygon in segmentation if len(polygon) >= 6]
        if len(rings) == 1:
            return rings[0]
    else:
        rings = outlines(rle)
    ring = join_rings(rings) if rings else None
    ious.append(overlap([ring], rle) if ring else 0.0)
    return ring


def _line(
    data: Annotations, instance: int, size: tuple[int, int], ring: list[float] | None, as_polygon: bool
) -> str | None:
    """The line of an instance; None where there is nothing that can be written."""
    if not min(size):
        return None
    sides = np.array(size, dtype=float)
    box = data.boxes[instance]
    if not all(map(math.isfinite, box)):
        return None
    corners = box.reshape(2, 2).clip(0, sides) / sides
    if ring is not None:
        points = (np.array(ring).reshape(-1, 2).clip(0, sides) / sides).ravel()
        written = [*points[2:], *points[:2]] if _is_box(points.tolist()) else points
    elif (corners[1] <= corners[0]).any():
        return None
    elif as_polygon:
        written = _corners(corners.ravel().tolist())
    else:
        written = [*(corners.sum(axis=0) / 2), *(corners[1] - corners[0])]
    return " ".join([str(int(data.labels[instance])), *(f"{v:.12g}" for v in written)])


def _is_box(points: list[float]) -> bool:
    xs, ys = points[::2], points[1::2]
    return points == _corners([min(xs), min(ys), max(xs), max(ys)])
