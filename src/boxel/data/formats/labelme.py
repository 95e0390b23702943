"""LabelMe: one JSON file per image, with polygons, rectangles, circles and masks.

The format: https://github.com/wkentaro/labelme. Shapes of one label that share a ``group_id`` are parts of one
instance; a rectangle is only a box, and in a group it is the box of the whole.
"""

from __future__ import annotations

import base64
import contextlib
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import numpy as np
from msgspec import Raw, Struct
from PIL import Image
from pycocotools import mask as coco_mask

from boxel.data.annotations import Annotations, Category, ImageId, fresh_ids
from boxel.data.formats.builder import (
    JSON_TOKEN,
    MALFORMED,
    Builder,
    decode_loosely,
    explain_json_error,
    read_head,
    read_utf8,
)
from boxel.data.formats.coco_rows import to_id
from boxel.data.formats.extras import encode_extras
from boxel.data.formats.geometry import ellipse_points, enclose, encode_visible, find_code_box, to_polygons
from boxel.data.formats.identity import IDS_FILE, Held, Ids, hold_keys
from boxel.data.formats.labelme_writer import CORNERED, SHAPE_DEFAULTS, SHAPE_FIELDS, VERSION, compute_digest
from boxel.data.formats.labelme_writer import OPTIONS as OPTIONS
from boxel.data.formats.labelme_writer import write as write
from boxel.data.formats.layout import file_stems
from boxel.data.formats.names import files_below, is_hidden, pair_labels
from boxel.data.image_names import to_posix
from boxel.data.images import MAX_PIXELS
from boxel.masks.rle import Rle, to_rle
from boxel.utils.errors import BoxelError, one_line
from boxel.utils.files import is_file

_HEAD = 1 << 16
_MAX_TRIES = 16  # files of a level that are looked into
_FILE_DEFAULTS = {"flags": {}, "version": VERSION}


def recognize(path: Path) -> bool:
    """Return whether this is a LabelMe file, or a folder of such files, which may be some levels deep."""
    if path.is_file():
        return path.suffix.lower() == ".json" and _has_shapes(path) is True
    for level in ("", "*/", "*/*/", "**/"):
        files = islice(filter(_is_json, path.glob(f"{level}*.[jJ][sS][oO][nN]")), _MAX_TRIES)
        answers = {_has_shapes(file) for file in sorted(files)}
        if answers & {True, False}:
            return True in answers
    return False


def _is_json(file: Path) -> bool:
    return file.suffix.lower() == ".json" and file.name != IDS_FILE and not is_hidden(file) and file.is_file()


def _has_shapes(file: Path) -> bool | None:
    """Return whether this is a LabelMe file: False if it is another dataset, None if it is none."""
    # The start of a file mostly shows what it is; but a LabelMe image may come first, in base64.
    for size in (_HEAD, -1):
        for key in _keys(read_head(file, size)):
            if key in (b'"shapes"', b'"images"', b'"annotations"'):
                return key == b'"shapes"'
    return None


def _keys(text: bytes) -> Iterator[bytes]:
    """Yield the keys of the outermost object of a JSON text, quoted, as far as the text goes."""
    depth = 0
    for token in JSON_TOKEN.finditer(text):
        string, colon = token.groups()
        if string is None:
            depth += 1 if token[0] in b"[{" else -1
        elif colon and depth == 1:
            yield string


def read(path: Path, images: Path | None = None) -> Annotations:
    """Read a LabelMe file, or a folder that is searched recursively for JSON files.

    Points and lines enclose nothing and are left out; a circle becomes a polygon, and so do X-AnyLabeling's rotated
    boxes and quadrilaterals. Categories are numbered from 1 in alphabetical order. An instance keeps the id that its
    shape holds; if it has been edited since boxel wrote it, its mask is the user's: trusted, without quality and
    source. The image is the one that ``imagePath`` states, else one of that name, or of the stem of the JSON file,
    beside it.

    Args:
        path: The file or folder.
        images: Folder of the images, if they are not where the files state.
    """
    folder = path.parent if path.is_file() else path
    files = [path] if path.is_file() else _find_files(folder)
    rows = Builder()
    readable = [(file, content) for file in files if (content := _decode(file, rows)) is not None]
    if not readable:
        raise BoxelError(rows.issues[0].message if rows.issues else f"{path}: there are no JSON files.")
    ids = Ids(folder, rows)
    stems = file_stems([str(file.relative_to(folder)) for file, _ in readable])
    _add_images(rows, readable, folder, images, ids, stems)
    found: list[_Instance] = []
    for index, (file, content) in enumerate(readable):
        size = rows.widths[index], rows.heights[index]
        for k, shapes in enumerate(_groups(content.shapes, file, stems[index], rows), start=1):
            name = f"{stems[index]}:{k}"
            try:
                found.append(_read_instance(index, name, shapes, size))
            except Exception as error:  # Pillow and pycocotools have errors of many kinds
                stem, why = stems[index], one_line(error)
                if any(shape.shape_type == "mask" for shape in shapes):
                    found.append(_read_box(index, name, shapes, size))
                    what = f"the mask of annotation {name} cannot be read ({why}); its box is kept."
                    rows.report("mask-invalid", file, what, stem, name, repair="mask left out, box kept")
                else:
                    what = f"annotation {name} cannot be read ({why}); it is left out."
                    rows.report("bad-annotation", file, what, stem, name)
    held = _settle_ids(found, stems, ids)
    names = sorted({instance.label for instance in found})
    for one in found:
        rows.add(one.id, one.image, names.index(one.label), one.box, one.segmentation, **one.fields)
    categories = [Category(k, name) for k, name in enumerate(names, start=1)]
    data = rows.build(images or folder, categories, path)
    own = Held(hold_keys("flags", "description", "group_id", "shape_type"), _hold_image)
    return ids.restore(data, stems, own, held)


def _hold_image(extras: dict[str, Any], source: str | None) -> dict[str, Any]:
    """Return what a file holds of the extras of its image, if no tool removes the keys that it does not know."""
    return _carry({key: extras[key] for key in _FILE_DEFAULTS if key in extras}, _FILE_DEFAULTS)


def _find_files(folder: Path) -> list[Path]:
    return [file for file in files_below(folder, {".json"}) if file.name != IDS_FILE]


class _File:
    """The fields of a file; those that boxel does not use are its extras."""

    def __init__(self, content: bytes) -> None:
        fields = msgspec.json.decode(content, type=dict[str, Raw])
        if "shapes" not in fields:
            raise ValueError("it has no shapes")
        self.shapes: list[Raw] = msgspec.json.decode(fields.pop("shapes"), type=list[Raw])
        self.image: str = _take(fields, "imagePath", str, "")
        width, height = (_take(fields, name, float, 0) for name in ("imageWidth", "imageHeight"))
        known = 0 < width < 2**31 and 0 < height < 2**31
        self.size = (int(width), int(height)) if known else (0, 0)
        self.pixels = bytes(fields.pop("imageData", b"")).strip(b'"')
        self.id = _take_id(fields)
        self.split: str | None = _take(fields, "split", str)
        self.extras = _carry(_decode_all(fields), _FILE_DEFAULTS)


def _decode(file: Path, rows: Builder) -> _File | None:
    content = b""
    try:
        content = read_utf8(file)
        return decode_loosely(content, _File)
    except (BoxelError, *MALFORMED) as error:
        why = explain_json_error(error, content)
        what = f"cannot be read as a LabelMe file ({why}); its annotations are left out."
        rows.report("bad-file", file, what, file.stem)
        return None


def _take(fields: dict[str, Raw], name: str, kind: Any, default: Any = None) -> Any:
    """Take a field as a type; its default if it is missing or of another type."""
    raw = fields.pop(name, Raw(b"null"))
    with contextlib.suppress(*MALFORMED):
        value = msgspec.json.decode(raw, type=kind, strict=False)
        return default if value is None else value
    return default


def _take_id(fields: dict[str, Raw]) -> ImageId | None:
    with contextlib.suppress(*MALFORMED):
        return to_id(msgspec.json.decode(fields.pop("id", b"null")))
    return None


def _decode_all(fields: Mapping[str, Raw]) -> dict[str, Any]:
    return {name: msgspec.json.decode(raw) for name, raw in fields.items()}


def _carry(fields: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that do not have the values that LabelMe gives every file or shape."""
    return {
        name: value
        for name, value in fields.items()
        if name not in defaults or (value is not None and value != defaults[name])
    }


def _add_images(
    rows: Builder,
    readable: Sequence[tuple[Path, _File]],
    folder: Path,
    images: Path | None,
    ids: Ids,
    stems: Sequence[str],
) -> None:
    root = images or folder
    labels = [file.relative_to(folder).with_suffix("").as_posix() for file, _ in readable]
    stated = [
        _place(content.image, label, root, images)
        for (_, content), label in zip(readable, labels, strict=True)
    ]
    paths, problems = pair_labels(root, stated, labels)
    known = ids.image_ids
    taken = {known[stem] for stem in stems if stem in known}
    for i, (file, content) in enumerate(readable):
        if i in problems:
            rows.report("ambiguous-image", file, problems[i], stems[i], repair="")
        if content.pixels not in (b"", b"null") and not is_file(root / paths[i]):
            what = f"its image is not at {root / paths[i]}, but inside it (imageData); write it into a file of its own."
            rows.report("image-in-json", file, what, stems[i], repair="")
        own = content.id is not None and content.id not in taken
        id = known.get(stems[i], content.id if own else stems[i])
        taken.add(id)  # type: ignore[arg-type]  # not None
        size = content.size if all(content.size) else ids.image_size(root / paths[i], stems[i])
        size = size if all(size) else _embedded_size(content.pixels)
        extras = encode_extras(content.extras)
        rows.add_image(id, paths[i], *size, split=content.split, extras=extras)  # type: ignore[arg-type]


def _place(name: str, label: str, root: Path, images: Path | None) -> str:
    """Return the stated name of an image, relative to the root if it can be."""
    parent, _, stem = label.rpartition("/")
    name = to_posix(name) or f"{stem}.jpg"
    stated, beside = (str(PurePosixPath(parent) / part) for part in (name, PurePosixPath(name).name))
    if images is None and is_file(root / stated):
        return stated
    is_absolute = re.match(r"/|[A-Za-z]:", name) is not None
    return beside if images is not None or is_absolute or is_file(root / beside) else stated


def _embedded_size(pixels: bytes) -> tuple[int, int]:
    """Return the (width, height) of an image in base64 by its header; zeros if it has none."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(pixels[:_HEAD])), formats=("JPEG", "PNG")) as image:
            return image.size
    except Exception:  # Pillow's decoders raise many kinds of errors
        return 0, 0


class _Shape(Struct):
    label: str
    points: list[list[float]]
    shape_type: str = "polygon"
    group_id: int | str | None = None
    mask: str | None = None
    others: dict[str, Raw] = msgspec.field(default_factory=dict, name="(others)")  # filled below


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
            if len(shape.points) < 2:
                raise ValueError("it has fewer than two points")
            fields = msgspec.json.decode(raw, type=dict[str, Raw])
            shape.others = {name: value for name, value in fields.items() if name not in SHAPE_FIELDS}
        except MALFORMED as error:
            why = explain_json_error(error, bytes(raw))
            what = f"shape {position} cannot be used ({why}); it is left out."
            rows.report("bad-annotation", file, what, stem, position=position)
            continue
        group = ("alone", position) if shape.group_id is None else (shape.group_id, shape.label)
        groups.setdefault(group, []).append(shape)
    return list(groups.values())


@dataclass
class _Instance:
    """An instance; ``held`` if a shape holds its id, ``edited`` if that is not as boxel wrote it."""

    image: int
    label: str
    box: Sequence[float]
    segmentation: bytes | None
    id: ImageId
    held: bool
    edited: bool
    fields: dict[str, Any]


def _read_instance(image: int, name: str, shapes: list[_Shape], size: tuple[int, int]) -> _Instance:
    box, segmentation = _outline(shapes, size)
    others = {key: value for shape in reversed(shapes) for key, value in shape.others.items()}
    id = _take_id(others)
    edited = _take(others, "written", str) != compute_digest([shape.points for shape in shapes])
    fields: dict[str, Any] = {"iscrowd": bool(_take(others, "iscrowd", int, 0))}
    kinds = {"quality": (float, None), "source": (str, None), "trusted": (bool, True), "area": (float, None)}
    own = {key: _take(others, key, *kind) for key, kind in kinds.items()}
    stated = _take(others, "bbox", tuple[float, float, float, float])
    if not edited:
        fields |= own
        box = box if stated is None else [*stated[:2], stated[0] + stated[2], stated[1] + stated[3]]
    hidden = _take(others, "own", dict[str, Any], {})
    extras = hidden | _carry(_decode_all(others), SHAPE_DEFAULTS)
    if len(shapes) == 1:
        lone = {} if shapes[0].group_id is None else {"group_id": shapes[0].group_id}
        kind = shapes[0].shape_type
        extras |= lone | ({"shape_type": kind} if kind in CORNERED else {})
    fields["extras"] = encode_extras(extras)
    own_id, held = (name, False) if id is None else (id, True)
    return _Instance(image, shapes[0].label, box, segmentation, own_id, held, edited, fields)


def _read_box(image: int, name: str, shapes: list[_Shape], size: tuple[int, int]) -> _Instance:
    """Return an instance with the box of its shapes alone."""
    boxes = [msgspec.structs.replace(shape, shape_type="rectangle") for shape in shapes]
    instance = _read_instance(image, name, boxes, size)
    instance.fields = {key: instance.fields[key] for key in ("iscrowd", "extras")}
    return instance


def _settle_ids(found: Sequence[_Instance], stems: Sequence[str], ids: Ids) -> list[bool]:
    """Leave each id to one of the instances that hold it, and return for each whether it holds its own.

    It is the one in the image that the id was written in, if there is a choice the one that has not been edited, and
    else the first. The others are copies: new instances, like those without an id.
    """
    stems_by_id = ids.stems_by_id
    claims: dict[ImageId, list[_Instance]] = {}
    for one in found:
        if one.held:
            claims.setdefault(one.id, []).append(one)
    for id, several in claims.items():
        several.sort(key=lambda one: (stems[one.image] != stems_by_id.get(id), one.edited))
        for copy in several[1:]:
            copy.held = False
            copy.fields = {key: copy.fields[key] for key in ("iscrowd", "extras")}
    if claims or stems_by_id:
        fresh = fresh_ids([*claims, *stems_by_id])
        for one in found:
            if not one.held:
                one.id = next(fresh)
    return [one.held for one in found]


def _outline(shapes: list[_Shape], size: tuple[int, int]) -> tuple[list[float], bytes | None]:
    """Return the xyxy box of an instance and, unless it has only rectangles, its segmentation."""
    rectangles = [enclose(shape.points) for shape in shapes if shape.shape_type == "rectangle"]
    parts = [_PARSERS[shape.shape_type](shape, size) for shape in shapes if shape.shape_type != "rectangle"]
    polygons = [part for part in parts if isinstance(part, list)]
    codes = [part for part in parts if isinstance(part, dict)]
    segmentation: Any = polygons
    if codes:
        codes += [to_rle([polygon], size[1], size[0]) for polygon in polygons]
        merged = coco_mask.merge(codes)
        segmentation = {"size": merged["size"], "counts": merged["counts"].decode("ascii")}
    corners = np.array(rectangles or list(map(_find_box, parts)))
    box = [*corners[:, :2].min(axis=0).tolist(), *corners[:, 2:].max(axis=0).tolist()]
    return box, msgspec.json.encode(segmentation) if parts else None


def _find_box(part: list[float] | Rle) -> list[float]:
    return enclose(np.reshape(part, (-1, 2)).tolist()) if isinstance(part, list) else find_code_box(part)


def _polygon(shape: _Shape, size: tuple[int, int]) -> list[float]:
    _, (polygon,) = to_polygons([shape.points])
    return polygon


def _circle(shape: _Shape, size: tuple[int, int]) -> list[float]:
    """Convert a circle, given by its center and a point on it, to a polygon."""
    (x, y), edge = shape.points
    radius = math.dist((x, y), edge)
    _, (polygon,) = to_polygons([ellipse_points(x, y, radius, radius)])
    return polygon


def _mask(shape: _Shape, size: tuple[int, int]) -> Rle:
    """Encode a mask, given as a PNG in base64 that fills the box of the two points."""
    if not all(size):
        raise ValueError("the size of its image is unknown")
    x0, y0 = (int(v) for v in enclose(shape.points)[:2])
    with Image.open(io.BytesIO(base64.b64decode(shape.mask or "")), formats=["PNG"]) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError("its mask is too large")
        mask = np.array(image.convert("L"))
    return encode_visible(mask, x0, y0, size)


_PARSERS: dict[str, Any] = {"polygon": _polygon, "circle": _circle, "mask": _mask}
_PARSERS |= dict.fromkeys(CORNERED, _polygon)
