"""COCO JSON: polygons, run-length codes in both forms, crowds, any category ids.

The format: Lin et al., "Microsoft COCO: Common Objects in Context", 2014, and https://cocodataset.org/#format-data.
Beyond it, an annotation may have ``quality``, ``source`` and ``trusted`` (see `Annotations`), and ``info`` may name the
folder of the ``images``, relative to the file.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta, Raw, Struct
from pycocotools import mask as coco_mask

from boxel.data.annotations import Annotations, Category, ImageId
from boxel.data.formats.builder import Builder, explain_json_error, read_bytes
from boxel.data.formats.layout import lost_label_maps
from boxel.masks.rle import to_rle
from boxel.utils.errors import BoxelError
from boxel.utils.files import atomic_path, is_file

Pixels = Annotated[int, Meta(ge=0, lt=2**31)] | Annotated[float, Meta(ge=0, lt=2**31)] | None
_MALFORMED = (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError)


class _File(Struct):
    """The file; its rows stay raw, so that an invalid row costs only itself."""

    images: list[Raw]
    info: Raw = Raw(b"")
    annotations: list[Raw] | None = None
    categories: list[Raw] | None = None


class _Info(Struct):
    images: str = ""


class _Image(Struct, gc=False):
    id: int | float | str
    file_name: str
    width: Pixels = None
    height: Pixels = None


class _Category(Struct, gc=False):
    id: int | float
    name: str
    supercategory: str | None = None


class _Annotation(Struct, gc=False):
    image_id: int | float | str
    category_id: int | float
    bbox: list[float | None] | None = None
    id: int | float | str | None = None
    segmentation: Raw = Raw(b"")
    iscrowd: int | bool | None = None
    quality: float | None = None
    source: str | None = None
    trusted: int | bool | None = None
    area: float | None = None


def recognize(path: Path) -> bool:
    """Return whether this is a JSON file, or a folder of some; LabelMe's are recognized before."""
    return path.suffix.lower() == ".json" if path.is_file() else bool(_files_in(path))


def _files_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.json")) or sorted(folder.glob("annotations/*.json"))


def read(path: Path, images: Path | None = None) -> Annotations:
    """Read a COCO JSON file.

    Keypoints and captions are ignored; a segmentation that is missing, null or empty means "only a box"; a missing box
    is taken from the segmentation. Non-finite numbers, inverted boxes and duplicate ids are kept as they are for
    `boxel check`. If the file has no categories, each category id becomes one.

    Args:
        path: The file, or a folder with no other JSON file in it or in its ``annotations/``.
        images: Folder that its file names are relative to. If None, the first that has them of: the folder that the
            file itself names, its own folder, ``images/``, and one named like the split (``train2017/`` for
            ``instances_train2017.json``).
    """
    if path.is_dir():
        files = _files_in(path)
        if len(files) != 1:
            names = ", ".join(file.name for file in files[:4]) or "none"
            raise BoxelError(f"{path}: this is a folder; name one of its JSON files ({names}).")
        path = files[0]
    file = _decode_file(path)
    rows = Builder()
    index_of = _read_images(file.images, rows, path)
    annotations = file.annotations or []
    categories, label_of = _read_categories(file.categories, annotations, rows, path)
    decoder = msgspec.json.Decoder(_Annotation)
    for position, raw in enumerate(annotations):
        try:
            row = _decode_row(raw, decoder)
            id = None if row.id is None else _to_id(row.id)
            image = index_of.get(_to_id(row.image_id))
            label = label_of.get(_to_id(row.category_id))
            if image is None or label is None:
                _report_unknown("image" if image is None else "category", path, id, row, rows)
                continue
            segmentation = _copy_segmentation(row.segmentation)
            box = _xyxy(row.bbox, segmentation, rows.heights[image], rows.widths[image])
            trusted = row.trusted in (None, True)
            mask = segmentation, bool(row.iscrowd), row.quality, row.source, trusted, row.area
            rows.add(_UNNUMBERED if id is None else id, image, label, box, *mask)
        except _MALFORMED as error:
            _report_bad("annotation", path, position, raw, error, rows)
    _number(rows.ids)
    return rows.build(images or _guess_root(path, rows.paths, _named_root(file.info)), categories, path)


_EMPTY = frozenset({b"", b"null", b"[]", b"{}", b'""'})


def _copy_segmentation(raw: Raw) -> bytes | None:
    """Copy the JSON of a segmentation, so that the file's text can be freed; None if there is none."""
    text = bytes(raw)
    return None if len(text) < 9 and b"".join(text.split()) in _EMPTY else text


def _xyxy(
    bbox: list[float | None] | None, segmentation: bytes | None, height: int, width: int
) -> Sequence[float]:
    if bbox is None or len(bbox) != 4:
        if bbox or segmentation is None:
            raise ValueError("its bbox is not four numbers")
        return _extent(msgspec.json.decode(segmentation), height, width)
    x, y, w, h = (math.nan if v is None else v for v in bbox)
    return x, y, x + w, y + h


def _extent(segmentation: Any, height: int, width: int) -> Sequence[float]:
    """Return the tight xyxy box of a segmentation."""
    if isinstance(segmentation, dict):
        try:
            x, y, w, h = coco_mask.toBbox(to_rle(segmentation, height, width)).tolist()
        except Exception as error:  # pycocotools raises bare Exception
            raise ValueError(f"neither a bbox nor a segmentation that can be read: {error}") from error
        return x, y, x + w, y + h
    points = np.concatenate([np.asarray(polygon, dtype=float).reshape(-1, 2) for polygon in segmentation])
    return *points.min(axis=0).tolist(), *points.max(axis=0).tolist()


def _to_id(id: int | float | str) -> int | str:
    """Return an id as it was meant: some tools write 7 as 7.0."""
    if isinstance(id, float):
        if not id.is_integer():
            raise ValueError(f"{id} is not an id")
        return int(id)
    return id


# A JSON string, or a number that Python writes and JSON forbids.
_NON_FINITE = re.compile(rb'"(?:[^"\\]|\\.)*"|NaN|Infinity', re.DOTALL)


def _decode_file(path: Path) -> _File:
    content = read_bytes(path)
    try:
        try:
            return msgspec.json.decode(content, type=_File)
        except msgspec.DecodeError:
            valid = {b"NaN": b"null", b"Infinity": b"1e999"}
            text = content.removeprefix(b"\xef\xbb\xbf")
            repaired = _NON_FINITE.sub(lambda match: valid.get(match[0], match[0]), text)
            if repaired == content:
                raise
            return msgspec.json.decode(repaired, type=_File)
    except _MALFORMED as error:
        raise BoxelError(
            f"{path}: this is not a COCO dataset ({explain_json_error(error, content)}); check that it is complete."
        ) from error


def _decode_row(raw: Raw, decoder: msgspec.json.Decoder[Any]) -> Any:
    try:
        return decoder.decode(raw)
    except msgspec.MsgspecError:
        # Python's parser accepts numbers too large for a float (as infinite).
        fields = msgspec.json.decode(raw, type=dict[str, Raw])
        segmentation = fields.pop("segmentation", Raw(b""))
        names = fields.keys() & set(decoder.type.__struct_fields__)
        row = msgspec.convert({name: json.loads(bytes(fields[name])) for name in names}, decoder.type)
        if hasattr(row, "segmentation"):
            row.segmentation = segmentation
        return row


def _read_images(raws: list[Raw], rows: Builder, path: Path) -> dict[ImageId, int]:
    """Append the images; return the index of each id (of the first image with it)."""
    index_of: dict[ImageId, int] = {}
    decoder = msgspec.json.Decoder(_Image)
    for position, raw in enumerate(raws):
        try:
            image = _decode_row(raw, decoder)
            id = _to_id(image.id)
            index = rows.add_image(id, image.file_name, int(image.width or 0), int(image.height or 0))
            index_of.setdefault(id, index)
        except _MALFORMED as error:
            _report_bad("image", path, position, raw, error, rows)
    return index_of


def _read_categories(
    raws: list[Raw] | None, annotations: list[Raw], rows: Builder, path: Path
) -> tuple[list[Category], dict[int | str, int]]:
    """Return the categories, and the label of each category id."""
    categories: list[Category] = []
    label_of: dict[int | str, int] = {}
    decoder = msgspec.json.Decoder(_Category)
    for position, raw in enumerate(raws or []):
        try:
            row = _decode_row(raw, decoder)
            id = _to_id(row.id)
            if id in label_of:
                raise ValueError(f"id {id} is taken by {categories[label_of[id]].name!r}")
            label_of[id] = len(categories)
            categories.append(Category(int(id), row.name, row.supercategory or ""))
        except _MALFORMED as error:
            _report_bad("category", path, position, raw, error, rows)
    if not raws and annotations:
        for id in sorted(_category_ids(annotations)):
            label_of[id] = len(categories)
            categories.append(Category(id, str(id)))
        rows.report("no-categories", path, "there are no categories; their ids are used as names.", repair="")
    return categories, label_of


class _CategoryId(Struct, gc=False):
    category_id: int | float


def _category_ids(annotations: list[Raw]) -> set[int]:
    ids = set()
    decoder = msgspec.json.Decoder(_CategoryId)
    for raw in annotations:
        with contextlib.suppress(*_MALFORMED):  # reported when the annotation itself is read
            ids.add(int(_to_id(decoder.decode(raw).category_id)))
    return ids


def _report_bad(what: str, path: Path, position: int, raw: Raw, error: BaseException, rows: Builder) -> None:
    why = explain_json_error(error, bytes(raw))
    reason = f"{what} {position} of the list cannot be read ({why}); it is left out."
    rows.report(f"bad-{what}", path, reason, position=position)


def _report_unknown(what: str, path: Path, id: ImageId | None, row: _Annotation, rows: Builder) -> None:
    wanted = row.image_id if what == "image" else row.category_id
    reason = f"annotation {id} refers to {what} {wanted}, which the file does not list; it is left out."
    values: dict[str, Any] = {"image_id": row.image_id, "category_id": row.category_id, "bbox": row.bbox}
    rows.report(f"unknown-{what}", path, reason, _to_id(row.image_id), id, **values)


_UNNUMBERED = ""  # stands for a missing annotation id until all are read


def _number(ids: list[ImageId]) -> None:
    """Give every annotation without an id the next free number."""
    following = max((id for id in ids if isinstance(id, int)), default=0)
    for i, id in enumerate(ids):
        if id == _UNNUMBERED:
            following += 1
            ids[i] = following


def _named_root(info: Raw) -> str:
    try:
        return msgspec.json.decode(info, type=_Info).images
    except _MALFORMED:  # it is another tool's, or absent
        return ""


def _guess_root(path: Path, paths: Sequence[str], named: str = "") -> Path:
    """Guess the folder that has the images of a file: the one it names, or one near it; its own folder if none has."""
    parent = path.parent
    split = path.stem.split("_")[-1]
    names = ["images", path.stem, split, f"images/{split}"]
    candidates = [parent, *(parent / n for n in names), parent.parent, *(parent.parent / n for n in names)]
    if named:
        candidates.insert(0, parent / named)
    return next((candidate for candidate in candidates if _has_images(candidate, paths)), parent)


def _has_images(folder: Path, paths: Sequence[str]) -> bool:
    return any(is_file(folder / path) for path in paths[:3])


def write(data: Annotations, path: Path) -> list[str]:
    """Write a COCO JSON file.

    File names stay as they are, since every tool that reads COCO takes them relative to a folder that it is given. If
    that folder would not be found from the new file, ``info`` names it.

    Ids that are whole numbers are kept. Readers of formats without ids name an image by the stem of its file and its
    instances ``stem:1``, ``stem:2``: these get numbers, since COCO's own tools expect numbers; other text ids are kept.
    ``area`` is that of the mask, or of the box if there is none. ``quality``, ``source`` and ``trusted`` are written
    only if they differ from the defaults.
    """
    stems = [Path(p).stem for p in data.paths]
    image_ids = _numeric_ids(data.image_ids, stems)
    ids = _numeric_ids(data.ids, [f"{stems[i]}:" for i in data.image_index])
    encode = msgspec.json.Encoder().encode
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        root = _root_to_name(data, path)
        file.write(b"{" + (b'"info": ' + encode({"images": root}) + b",\n" if root else b"") + b'"images": [')
        for i in range(len(data)):
            size = {"width": int(data.widths[i]), "height": int(data.heights[i])}
            image = {"id": image_ids[i], "file_name": data.paths[i], **size}
            file.write((b",\n" if i else b"\n") + encode(image))
        file.write(b'],\n"annotations": [')
        for i in range(len(data.labels)):
            row = _annotation(data, i, ids[i], image_ids[data.image_index[i]])
            file.write((b",\n" if i else b"\n") + encode(row))
        categories = [
            {"id": c.id, "name": c.name} | ({"supercategory": c.supercategory} if c.supercategory else {})
            for c in data.categories
        ]
        file.write(b'],\n"categories": ' + encode(categories) + b"}\n")
    return lost_label_maps(data, "COCO")


def _root_to_name(data: Annotations, path: Path) -> str:
    """Return the folder of the images relative to the file; empty if it is found without being named."""
    if not _has_images(data.root, data.paths) or data.root.samefile(_guess_root(path, data.paths)):
        return ""
    with contextlib.suppress(ValueError):  # on another drive
        return Path(os.path.relpath(data.root.resolve(), path.parent.resolve())).as_posix()
    return data.root.resolve().as_posix()


def _annotation(data: Annotations, i: int, id: ImageId, image_id: ImageId) -> dict[str, Any]:
    x0, y0, x1, y1 = data.boxes[i].tolist()
    # Rounding removes what xywh -> xyxy -> xywh adds in the last bits.
    bbox = [x0, y0, round(x1 - x0, 9), round(y1 - y0, 9)]
    row: dict[str, Any] = {
        "id": id,
        "image_id": image_id,
        "category_id": data.categories[data.labels[i]].id,
        "bbox": bbox,
        "area": bbox[2] * bbox[3],
        "iscrowd": int(data.iscrowd[i]),
    }
    if data.segmentations[i] is not None:
        row["segmentation"] = Raw(data.segmentations[i])
    with contextlib.suppress(BoxelError, *_MALFORMED):  # a malformed segmentation stays as it is
        row["area"] = data.area(i)
    if not np.isnan(data.quality[i]):
        row["quality"] = round(float(data.quality[i]), 6)
    if data.source[i] is not None:
        row["source"] = data.source[i]
    if not data.trusted[i]:
        row["trusted"] = False
    return row


def _numeric_ids(ids: Sequence[ImageId], own: Sequence[str]) -> list[ImageId]:
    """Return ids for COCO: text made from the stem of a file, or from a stem with a colon, becomes a free number."""
    taken = {id for id in ids if isinstance(id, int)}
    free = itertools.filterfalse(taken.__contains__, itertools.count(1))
    pairs = zip(ids, own, strict=True)
    return [next(free) if isinstance(id, str) and _is_own(id, stem) else id for id, stem in pairs]


def _is_own(id: str, stem: str) -> bool:
    return id.startswith(stem) and id[len(stem) :].isdigit() if stem.endswith(":") else id == stem
