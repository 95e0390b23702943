"""YOLO: ``images/``, ``labels/*.txt`` with one line per object, and a ``data.yaml`` that names the classes.

The format is that of Ultralytics, https://docs.ultralytics.com/datasets/segment/: ``class cx cy w h`` for a box and
``class x1 y1 x2 y2 ...`` for a polygon, all as shares of the image's width and height. If a file has a polygon,
Ultralytics takes every line for one; so a box there is written as its corners from the upper left clockwise, and such a
rectangle is read as a box.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import yaml
from numpy.typing import NDArray

from boxel.data.annotations import Annotations, Category
from boxel.data.formats.builder import Builder, read_bytes
from boxel.data.formats.identity import Ids
from boxel.data.formats.layout import Export, file_stems
from boxel.data.formats.yolo_files import Place, files_in, folder_places, listed_places
from boxel.data.issues import Issue
from boxel.masks.rle import polygon_area
from boxel.utils.errors import BoxelError, one_line

_YAML = (".yaml", ".yml")


class _Line(NamedTuple):
    """An object of a label file: index of its image, class number, and the numbers that follow."""

    image: int
    file: Path
    class_id: int
    numbers: list[float]


def recognize(path: Path) -> bool:
    """Return whether this is a ``data.yaml``, a folder with one or with ``labels/``, or ``images/`` beside labels."""
    if path.is_file():
        return path.suffix.lower() in _YAML
    return _yaml_in(path) is not None or any(True for _ in folder_places(path))


def read(path: Path, images: Path | None = None, split: str | None = None) -> Annotations:
    """Read a YOLO dataset.

    An image without a label file has no objects. A category's id is its number in the label files. Of pose labels
    (``kpt_shape`` in ``data.yaml``) the boxes are read.

    Args:
        path: ``data.yaml``, the folder of the dataset, or one ``images/...`` folder of it to read only that split.
        images: Folder of the images, instead of ``images/``.
        split: ``train``, ``val`` or ``test``, to read what ``data.yaml`` lists under it; all if None. Ignored if no
            ``data.yaml`` lists any, or if the path is a folder within the dataset.
    """
    folder = path.parent if path.is_file() else path
    config_file = path if path.is_file() else _find_yaml(path)
    config = _read_yaml(config_file) if config_file else {}
    base = config_file.parent if config_file else folder
    rows = Builder()
    places: list[Place] = []
    if config_file and (path.is_file() or (split is not None and config_file.parent == folder)):
        places = listed_places(config, config_file, images, split, rows)
    places = places or _default_places(folder, images)
    root = images or folder
    files = [pair for pair in files_in(places) if rows.has_valid_name(os.path.relpath(pair[0], root))]
    if not files:
        raise BoxelError(
            f"{path}: there are no images and no labels; a YOLO dataset has images/ and labels/."
        )
    names = _class_names(config, config_file, [base, *(labels for _, labels in places)])
    paths = [str(image.relative_to(root)) if image.is_relative_to(root) else str(image) for image, _ in files]
    stems = file_stems(paths)
    ids = Ids(base, rows)
    pose = isinstance(config.get("kpt_shape"), list)
    lines: list[_Line] = []
    for (image, label_file), relative, stem in zip(files, paths, stems, strict=True):
        index = rows.add_image(stem, relative, *ids.image_size(image, stem))
        if label_file is not None:
            lines += _read_lines(label_file, index, pose, rows)
    if names is None:
        names = {k: str(k) for k in sorted({line.class_id for line in lines})}
    _add_instances(rows, lines, {class_id: label for label, class_id in enumerate(names)})
    categories = [Category(class_id, name) for class_id, name in names.items()]
    return ids.restore(rows.build(root, categories, path), stems)


def _default_places(folder: Path, images: Path | None) -> list[Place]:
    if images is None:
        return list(folder_places(folder))
    labels = folder / "labels"
    return [(images, labels if labels.is_dir() else folder)]


def _add_instances(rows: Builder, lines: Sequence[_Line], label_of: dict[int, int]) -> None:
    """Append an instance per line; lines of unknown classes and sizes become issues."""
    count = Counter[int]()
    for image, file, class_id, numbers in lines:
        count[image] += 1
        stem = rows.image_ids[image]
        id = f"{stem}:{count[image]}"
        width, height = rows.widths[image], rows.heights[image]
        if class_id not in label_of:
            what = f"annotation {id} is of class {class_id}, which has no name; it is left out."
            rows.report("unknown-category", file, what, stem, id)
        elif not (width and height):
            what = f"the image of annotation {id} cannot be opened, so its size is unknown; it is left out."
            rows.report("unknown-image", file, what, stem, id)
        else:
            rows.add(id, image, label_of[class_id], *_to_pixels(numbers, width, height))


def _yaml_in(folder: Path) -> Path | None:
    files = (folder / f"{name}{suffix}" for name in ("data", "dataset") for suffix in _YAML)
    return next((file for file in files if file.is_file()), None)


def _find_yaml(folder: Path) -> Path | None:
    """Find the ``data.yaml`` of the dataset that a folder is, or is a split of."""
    return next(filter(None, map(_yaml_in, [folder, *list(folder.resolve().parents)[:3]])), None)


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(read_bytes(file))
    except (yaml.YAMLError, ValueError, RecursionError, TypeError, AttributeError, KeyError) as error:
        raise BoxelError(
            f"{file}: cannot be read as YAML ({one_line(error)}); repair or remove it."
        ) from error
    if not isinstance(config, dict):
        raise BoxelError(
            f"{file}: this is not a YOLO dataset; it should state where `train` is and list `names`."
        )
    return config


def _class_names(config: dict[str, Any], file: Path | None, folders: Sequence[Path]) -> dict[int, str] | None:
    """Return the class names by number; None if they are not listed anywhere."""
    names = config.get("names")
    if names is None:
        for folder in folders:
            if (folder / "classes.txt").is_file():
                lines = read_bytes(folder / "classes.txt").decode("utf-8", "replace").splitlines()
                return {k: line.strip() for k, line in enumerate(lines) if line.strip()}
        return None
    pairs: list[tuple[Any, Any]] = []
    if isinstance(names, list | dict):
        pairs = list(enumerate(names) if isinstance(names, list) else names.items())
    scalar = (str, int, float)
    if not pairs or not all(isinstance(k, int) and isinstance(name, scalar) for k, name in pairs):
        raise BoxelError(f"{file}: `names` must list the classes, or give each class number a name.")
    return {int(k): str(name) for k, name in pairs}


def _read_lines(file: Path, image: int, pose: bool, rows: Builder) -> Iterator[_Line]:
    """Yield each valid line of a label file; of its numbers only those of the box if key points follow it."""
    stem = rows.image_ids[image]
    try:
        lines = read_bytes(file).decode("utf-8", "replace").splitlines()
    except BoxelError as error:
        rows.issues.append(Issue("bad-file", str(error), str(file), image_id=stem, repair="left out"))
        return
    for number, line in enumerate(lines, start=1):
        if not line.split():
            continue
        try:
            class_id, *numbers = map(float, line.split())
            if not class_id.is_integer() or class_id < 0:
                raise ValueError("its class is not a whole number")
            if pose:
                del numbers[4:]
            if len(numbers) % 2 and len(numbers) >= 5:  # predictions end in a confidence
                numbers.pop()
            if len(numbers) < 4 or len(numbers) % 2:
                raise ValueError(f"{len(numbers)} numbers are neither a box nor a polygon")
        except ValueError as error:
            what = f"line {number} cannot be read ({one_line(error)}); it is left out."
            rows.report("bad-annotation", file, what, stem, line=number)
            continue
        yield _Line(image, file, int(class_id), numbers)


def _to_pixels(numbers: list[float], width: int, height: int) -> tuple[Sequence[float], bytes | None]:
    """Return the xyxy box and, of a polygon, the segmentation."""
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
    """Return the corners of an xyxy box from the upper left clockwise."""
    x0, y0, x1, y1 = box
    return [x0, y0, x1, y0, x1, y1, x0, y1]


def write(data: Annotations, path: Path) -> list[str]:
    """Write ``labels/``, ``data.yaml``, and the images linked into ``images/``.

    Classes are numbered from 0 as Ultralytics requires, and boxes and polygons are clipped to the image, since it
    refuses images with others. The parts of a mask are joined into one ring; holes are filled.
    """
    export = Export(data, path, "YOLO", "images")
    (path / "labels").mkdir(exist_ok=True)
    for image, stem in enumerate(export.stems):
        size = data.image_size(image)
        own = data.instances_in(image).tolist()
        rings = [export.rings(instance, image, joined=True) for instance in own]
        lines = [
            _format_line(data, instance, size, ring[0] if ring else None, any(rings))
            for instance, ring in zip(own, rings, strict=True)
        ]
        for instance, ring, line in zip(own, rings, lines, strict=True):
            if line:
                export.add(image, instance, *_as_read(data.boxes[instance], ring[0] if ring else None, size))
        text = "".join(f"{line}\n" for line in lines if line)
        (path / "labels" / f"{stem}.txt").write_text(text, encoding="utf-8")
    config = {"train": "images", "val": "images", "names": {k: c.name for k, c in enumerate(data.categories)}}
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    (path / "data.yaml").write_text(text, encoding="utf-8")
    export.write_ids()
    needs = "YOLO boxes need an image of known size and some area inside it"
    return export.losses("holds one ring per mask, without holes or parts", needs)


def _as_read(
    box: NDArray[np.float64], ring: list[float] | None, size: tuple[int, int]
) -> tuple[list[float], float | None]:
    """Return the box and the mask area that a row will be read with."""
    points = np.reshape(box if ring is None else ring, (-1, 2)).clip(0, size)
    extent = [*points.min(axis=0).tolist(), *points.max(axis=0).tolist()]
    return extent, None if ring is None else polygon_area(points)


def _format_line(
    data: Annotations, instance: int, size: tuple[int, int], ring: list[float] | None, as_polygon: bool
) -> str | None:
    """Return the line of an instance; None if it cannot be written."""
    box, sides = data.boxes[instance], np.array(size, dtype=float)
    if not min(size) or not np.isfinite(box).all():
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
