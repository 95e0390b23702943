"""LabelMe: one JSON file per image, with polygons, rectangles, circles and masks.

The format: https://github.com/wkentaro/labelme. Shapes of one label that share a ``group_id`` are parts of one
instance; a rectangle is only a box, and in a group it is the box of the whole.
"""

from __future__ import annotations

import base64
import io
import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import numpy as np
from msgspec import Raw, Struct
from PIL import Image
from pycocotools import mask as coco_mask

from boxel.data.annotations import Annotations, Category
from boxel.data.formats.builder import Builder, explain_json_error, read_bytes
from boxel.data.formats.identity import IDS_FILE, Ids
from boxel.data.formats.layout import Export, file_stems
from boxel.data.images import MAX_PIXELS
from boxel.masks.rle import Rle, encode_in_box, to_rle
from boxel.utils.errors import BoxelError, one_line

_CIRCLE_VERTICES = 64
_HEAD = 1 << 16
# A JSON string (with the colon that makes it a key), or what opens or closes a list or an object.
_TOKEN = re.compile(rb'("[^"\\]*(?:\\.[^"\\]*)*")(\s*:)?|[\[\]{}]', re.DOTALL)


class _File(Struct):
    shapes: list[Raw]
    imagePath: str | None = None
    imageWidth: int | float | None = None
    imageHeight: int | float | None = None

    @property
    def size(self) -> tuple[int, int] | None:
        """(width, height) of the image; None unless the file states one that is possible."""
        width, height = self.imageWidth or 0, self.imageHeight or 0
        return (int(width), int(height)) if 0 < width < 2**31 and 0 < height < 2**31 else None


class _Shape(Struct):
    label: str
    points: list[list[float]]
    shape_type: str = "polygon"
    group_id: int | str | None = None
    mask: str | None = None


def recognize(path: Path) -> bool:
    """Return whether this is a LabelMe file, or a folder of such files."""
    files = [path] if path.is_file() else [file for file in sorted(path.glob("*.json")) if file.is_file()][:3]
    return any(file.suffix.lower() == ".json" and _has_shapes(file) for file in files)


def _has_shapes(file: Path) -> bool:
    text = b""
    with open(file, "rb") as stream:
        # The start of a file mostly shows what it is; but a LabelMe image may come first, in base64.
        for size in (_HEAD, -1):
            text += stream.read(size)
            for key in _keys(text):
                if key in (b'"shapes"', b'"images"', b'"annotations"'):
                    return key == b'"shapes"'
    return False


def _keys(text: bytes) -> Iterator[bytes]:
    """Yield the keys of the outermost object of a JSON text, quoted, as far as the text goes."""
    depth = 0
    for token in _TOKEN.finditer(text):
        string, colon = token.groups()
        if string is None:
            depth += 1 if token[0] in b"[{" else -1
        elif colon and depth == 1:
            yield string


def read(path: Path, images: Path | None = None) -> Annotations:
    """Read a LabelMe file, or a folder that is searched recursively for JSON files.

    Points and lines enclose nothing and are left out; a circle becomes a polygon. Categories are numbered from 1 in
    alphabetical order. The folder of the images, if given, replaces the one that ``imagePath`` states.
    """
    folder = path.parent if path.is_file() else path
    files = [path] if path.is_file() else sorted(folder.rglob("*.json"))
    rows = Builder()
    parsed = [(file, _decode(file, rows)) for file in files if file.name != IDS_FILE]
    readable = [(file, content) for file, content in parsed if content is not None]
    if not readable:
        reason = rows.issues[0].message if rows.issues else f"{path}: there are no JSON files."
        raise BoxelError(reason)
    ids = Ids(folder, rows)
    stems = file_stems([str(file.relative_to(folder)) for file, _ in readable])
    instances: list[tuple[int, str, list[float], bytes | None]] = []
    for (file, content), stem in zip(readable, stems, strict=True):
        stated = PurePosixPath((content.imagePath or f"{file.stem}.jpg").replace("\\", "/"))
        relative = stated.name if images else str(PurePosixPath(file.parent.relative_to(folder)) / stated)
        size = content.size or ids.image_size((images or folder) / relative, stem)
        index = rows.add_image(stem, relative, *size)
        for k, shapes in enumerate(_groups(content.shapes, file, stem, rows), start=1):
            try:
                instances.append((index, shapes[0].label, *_instance(shapes, size)))
            except Exception as error:  # Pillow and pycocotools have errors of many kinds
                what = f"annotation {stem}:{k} cannot be read ({one_line(error)}); it is left out."
                rows.report("bad-annotation", file, what, stem, f"{stem}:{k}")
    names = sorted({label for _, label, _, _ in instances})
    count = Counter[int]()
    for index, name, box, segmentation in instances:
        count[index] += 1
        rows.add(f"{stems[index]}:{count[index]}", index, names.index(name), box, segmentation)
    categories = [Category(k, name) for k, name in enumerate(names, start=1)]
    return ids.restore(rows.build(images or folder, categories, path), stems)


def _decode(file: Path, rows: Builder) -> _File | None:
    content = b""
    try:
        content = read_bytes(file)
        return msgspec.json.decode(content, type=_File)
    except (BoxelError, msgspec.MsgspecError, ValueError, RecursionError) as error:
        why = explain_json_error(error, content)
        what = f"cannot be read as a LabelMe file ({why}); its annotations are left out."
        rows.report("bad-file", file, what, file.stem)
        return None


def _groups(raws: list[Raw], file: Path, stem: str, rows: Builder) -> list[list[_Shape]]:
    """Group the shapes by instance."""
    groups: dict[Any, list[_Shape]] = {}
    for position, raw in enumerate(raws):
        try:
            shape = msgspec.json.decode(raw, type=_Shape)
            if shape.shape_type not in _PARSERS and shape.shape_type != "rectangle":
                raise ValueError(f"a {shape.shape_type!r:.40} encloses nothing")
            if not all(len(point) == 2 and all(map(math.isfinite, point)) for point in shape.points):
                raise ValueError("its points are not pairs of numbers")
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            what = (
                f"shape {position} cannot be used ({explain_json_error(error, bytes(raw))}); it is left out."
            )
            rows.report("bad-annotation", file, what, stem, position=position)
            continue
        group = ("alone", position) if shape.group_id is None else (shape.group_id, shape.label)
        groups.setdefault(group, []).append(shape)
    return list(groups.values())


def _instance(shapes: list[_Shape], size: tuple[int, int]) -> tuple[list[float], bytes | None]:
    """Return the xyxy box of an instance and, unless it has only rectangles, its segmentation."""
    rectangles = [_extent(shape.points) for shape in shapes if shape.shape_type == "rectangle"]
    parts = [_PARSERS[shape.shape_type](shape, size) for shape in shapes if shape.shape_type != "rectangle"]
    polygons = [part for part in parts if isinstance(part, list)]
    codes = [part for part in parts if isinstance(part, dict)]
    segmentation: Any = polygons
    if codes:
        codes += [to_rle([polygon], size[1], size[0]) for polygon in polygons]
        merged = coco_mask.merge(codes)
        segmentation = {"size": merged["size"], "counts": merged["counts"].decode("ascii")}
    boxes = rectangles or [
        _extent(np.array(part).reshape(-1, 2).tolist()) if isinstance(part, list) else _mask_box(part)
        for part in parts
    ]
    corners = np.array(boxes)
    box = [*corners[:, :2].min(axis=0).tolist(), *corners[:, 2:].max(axis=0).tolist()]
    return box, msgspec.json.encode(segmentation) if parts else None


def _extent(points: list[list[float]]) -> list[float]:
    if len(points) < 2:
        raise ValueError("it has fewer than two points")
    xs, ys = [point[0] for point in points], [point[1] for point in points]
    return [min(xs), min(ys), max(xs), max(ys)]


def _mask_box(rle: Rle) -> list[float]:
    x, y, w, h = coco_mask.toBbox(rle).tolist()
    return [x, y, x + w, y + h]


def _polygon(shape: _Shape, size: tuple[int, int]) -> list[float]:
    if len(shape.points) < 3:
        raise ValueError("a polygon of fewer than three points")
    return [v for point in shape.points for v in point]


def _circle(shape: _Shape, size: tuple[int, int]) -> list[float]:
    """Convert a circle, given by its center and a point on it, to a polygon."""
    (x, y), (edge_x, edge_y) = shape.points
    radius = math.hypot(edge_x - x, edge_y - y)
    turns = [2 * math.pi * k / _CIRCLE_VERTICES for k in range(_CIRCLE_VERTICES)]
    return [round(v, 3) for t in turns for v in (x + radius * math.cos(t), y + radius * math.sin(t))]


def _mask(shape: _Shape, size: tuple[int, int]) -> Rle:
    """Encode a mask, given as a PNG in base64 that fills the box of the two points."""
    width, height = size
    x0, y0 = (int(v) for v in _extent(shape.points)[:2])
    with Image.open(io.BytesIO(base64.b64decode(shape.mask or "")), formats=["PNG"]) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError("its mask is too large")
        mask = np.array(image.convert("L"))
    if x0 < 0 or y0 < 0 or x0 + mask.shape[1] > width or y0 + mask.shape[0] > height:
        raise ValueError("its mask extends past the image")
    return encode_in_box(mask, x0, y0, height, width)


_PARSERS: dict[str, Any] = {"polygon": _polygon, "circle": _circle, "mask": _mask}


def write(data: Annotations, path: Path) -> list[str]:
    """Write one JSON file per image, with the images linked beside them.

    The parts of a mask become polygons of one group; a run-length code becomes outlines, its holes filled.
    """
    export = Export(data, path, "LabelMe")
    for image, (stem, name) in enumerate(zip(export.stems, export.names, strict=True)):
        width, height = data.image_size(image)
        shapes: list[dict[str, Any]] = []
        for k, instance in enumerate(data.instances_in(image).tolist(), start=1):
            label = data.categories[data.labels[instance]].name
            rings = export.rings(instance, image)
            if rings:
                group = k if len(rings) > 1 else None
                shapes += [_shape(label, ring, "polygon", group) for ring in rings]
            elif np.isfinite(data.boxes[instance]).all():
                shapes.append(_shape(label, data.boxes[instance].tolist(), "rectangle", None))
            else:
                continue
            export.add(image, instance)
        content: dict[str, Any] = {
            "version": "5.0.0",
            "flags": {},
            "shapes": shapes,
            "imagePath": name,
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        }
        text = json.dumps(content, indent=2, ensure_ascii=False)
        (path / f"{stem}.json").write_text(text, encoding="utf-8")
    export.write_ids()
    return export.losses("holds polygons without holes", needs="LabelMe shapes need finite numbers")


def _shape(label: str, numbers: list[float], kind: str, group: int | None) -> dict[str, Any]:
    points = np.reshape(numbers, (-1, 2)).tolist()
    return {"label": label, "points": points, "group_id": group, "shape_type": kind, "flags": {}}
