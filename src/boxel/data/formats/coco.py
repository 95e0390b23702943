"""COCO JSON: polygons, run-length codes in both forms, crowds, any category ids.

The format: Lin et al., "Microsoft COCO: Common Objects in Context", 2014, and https://cocodataset.org/#format-data.
LVIS is read too. Beyond COCO, an annotation may have ``quality``, ``source`` and ``trusted`` (see `Annotations`), an
image its ``split``, and ``info`` may name the folder of the ``images``, relative to the file. Other fields are carried
along, see `Annotations.extras`.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
from msgspec import Raw

from boxel.data.annotations import Annotations, Category, ImageId, fresh_ids
from boxel.data.formats.builder import MALFORMED, Builder, explain_json_error, parse_json, read_utf8
from boxel.data.formats.coco_rows import (
    STRICT_ANNOTATION,
    STRICT_IMAGE,
    CategoryRow,
    Row,
    RowDecoder,
    join_fields,
    read_annotation,
    read_category,
    read_image,
)
from boxel.data.formats.coco_videos import find_frames
from boxel.data.formats.coco_writer import numeric_ids, with_original, write
from boxel.data.formats.geometry import find_code_box
from boxel.data.formats.identity import IDS_FILE
from boxel.data.formats.names import ImageFinder, guess_root, list_files
from boxel.data.image_names import to_integer, to_posix
from boxel.data.splits import find_splits
from boxel.masks.rle import to_rle
from boxel.utils.errors import BoxelError, one_line

__all__ = ["read", "recognize", "write"]

T = TypeVar("T")

_LISTS = ("images", "annotations", "categories")
_NULL = Raw(b"null")
_CHUNK = 4096  # annotations that are decoded together


def recognize(path: Path) -> bool:
    """Return whether this is a JSON file, or a folder of some; LabelMe's are recognized before."""
    return path.suffix.lower() == ".json" if path.is_file() else bool(_files_in(path))


def _files_in(folder: Path) -> list[Path]:
    own = [file for file in list_files(folder, ".json") if file.name != IDS_FILE]
    return own or list_files(folder / "annotations", ".json")


def read(path: Path, images: Path | None = None) -> Annotations:
    """Read a COCO JSON file.

    A segmentation that is missing, null or empty means "only a box"; a missing box is taken from the segmentation.
    Non-finite numbers, inverted boxes and duplicate ids are kept as they are for `boxel check`. If the file has no
    categories, each category id becomes one. A field that is not needed and cannot be understood costs only itself.

    Args:
        path: The file, or a folder with no other JSON file in it or in its ``annotations/``.
        images: Folder that its file names are relative to. If None, the first that has them of: the folder that the
            file itself names, its own folder, ``images/``, and one named like the split (``train2017/`` for
            ``instances_train2017.json``). Images that are not there under the names as written are searched for in
            that folder; see :class:`~boxel.data.formats.names.ImageFinder`.
    """
    if path.is_dir():
        files = _files_in(path)
        if len(files) != 1:
            names = ", ".join(file.name for file in files[:4]) or "none"
            raise BoxelError(f"{path}: this is a folder; name one of its JSON files ({names}).")
        path = files[0]
    content = read_utf8(path)
    others, categories, rows = _read_at_once(content, path) or _read_parts(content, path)
    if _UNNUMBERED in rows.ids:
        free = fresh_ids(id for id in rows.ids if isinstance(id, int))
        rows.ids = [next(free) if id == _UNNUMBERED else id for id in rows.ids]
    if videos := others.get("videos"):
        rows.paths = find_frames(path, images, rows.paths, rows.image_extras, bytes(videos)) or rows.paths
    named, extras = _dataset_extras(others)
    if not any(rows.splits):
        rows.splits = find_splits(rows.paths)
    finder = ImageFinder(images) if images else guess_root(path, rows.paths, named)
    rows.find_images(finder, path, stay=False)
    return rows.build(finder.folder, categories, path, extras)


def _make_file_type(row: type) -> type:
    """Return the type of a file with the fields that nearly every one has."""
    fields = [("images", list[Raw]), ("annotations", list[row]), ("categories", list[Raw])]  # type: ignore[valid-type]
    others = [(name, Raw, Raw(b"")) for name in ("info", "licenses")]
    return msgspec.defstruct("_StrictFile", [*fields, *others], forbid_unknown_fields=True)


def _read_at_once(content: bytes, path: Path) -> tuple[dict[str, Raw], list[Category], Builder] | None:
    """Read a file that is as nearly every one is, in one pass over its text; None if it is another."""
    decoder = RowDecoder(STRICT_ANNOTATION, _make_file_type)
    file = decoder.decode_text(content)
    if file is None or not file.categories:
        return None
    rows = Builder()
    index_of = _read_images(file.images, rows, path)
    categories, label_of = _read_categories(file.categories, [], rows, path)
    found = file.annotations
    is_known = {row.image_id for row in found} <= index_of.keys()
    if not is_known or not {row.category_id for row in found} <= label_of.keys():
        return None
    for start in range(0, len(found), _CHUNK):
        chunk = found[start : start + _CHUNK]
        found[start : start + _CHUNK] = [None] * len(chunk)  # so that memory does not grow
        _extend(rows, chunk, index_of, label_of, decoder)
    return {"info": file.info, "licenses": file.licenses}, categories, rows


def _read_parts(content: bytes, path: Path) -> tuple[dict[str, Raw], list[Category], Builder]:
    """Read a file whose rows may be unusual: an invalid one costs only itself."""
    if content.lstrip().startswith(b"["):
        raise BoxelError(
            f"{path}: this is a list, as COCO results are, and not a COCO dataset; give the file that has `images`, "
            "`annotations` and `categories`."
        )
    (images, annotations, found), others = parse_json(content, path, _decode_lists, "a COCO dataset")
    rows = Builder()
    index_of = _read_images(images, rows, path)
    categories, label_of = _read_categories(found, annotations, rows, path)
    _read_annotations(annotations, index_of, label_of, rows, path)
    _report_numbering(label_of, rows, path)
    return others, categories, rows


def _decode_lists(content: bytes) -> tuple[list[list[Raw]], dict[str, Raw]]:
    """Return the rows of images, annotations and categories, and the other fields."""
    fields = msgspec.json.decode(content, type=dict[str, Raw])
    if "images" not in fields:
        raise ValueError("it has no images")
    return [_as_list(name, fields.pop(name, _NULL)) for name in _LISTS], fields


def _as_list(name: str, raw: Raw) -> list[Raw]:
    try:
        rows = msgspec.json.decode(raw, type=list[Raw] | None)
        if rows is None and name == "images":
            raise ValueError("it is null")
    except MALFORMED as error:
        value = one_line(bytes(memoryview(raw)[:100]).decode(errors="replace"), 60)
        raise ValueError(f"{name} is {value}") from error
    return rows or []


def _read_images(raws: list[Raw], rows: Builder, path: Path) -> dict[ImageId, int]:
    """Append the images; return the index of each id (of the first image with it)."""
    index_of: dict[ImageId, int] = {}
    decoder = RowDecoder(STRICT_IMAGE)
    for start in range(0, len(raws), _CHUNK):
        chunk = raws[start : start + _CHUNK]
        for row in decoder.decode(chunk) or ():
            name, extras = to_posix(row.file_name), decoder.extras(row)
            index = rows.add_image(row.id, name, row.width, row.height, split=row.split, extras=extras)
            _note_id(row.id, index, index_of, rows, path)
            chunk = []
        for position, raw in enumerate(chunk, start=start):
            try:
                image = read_image(raw)
                name, size = to_posix(image.file_name), (image.width, image.height)
                index = rows.add_image(image.id, name, *size, split=image.split, extras=image.extras)
                _note_id(image.id, index, index_of, rows, path)
                _report_ignored(f"image {image.id}", image.ignored, path, rows, image.id)
            except MALFORMED as error:
                _report_bad("image", path, position, raw, error, rows)
    return index_of


def _note_id(id: ImageId, index: int, index_of: dict[ImageId, int], rows: Builder, path: Path) -> None:
    """Note the index of an image by its id, if it is the first with it."""
    first = rows.paths[index_of.setdefault(id, index)]
    if first != rows.paths[index]:
        what = f"image id {id} is that of {first}, to which its annotations go, and of {rows.paths[index]}; "
        rows.report("ambiguous-image", path, what + "give each image an id of its own.", id, repair="")


def _read_categories(
    raws: list[Raw], annotations: list[Raw], rows: Builder, path: Path
) -> tuple[list[Category], dict[ImageId, int]]:
    """Return the categories, and the label of each category id."""
    found: list[CategoryRow] = []
    label_of: dict[ImageId, int] = {}
    for position, raw in enumerate(raws):
        try:
            bytes(raw).decode()
        except UnicodeDecodeError as error:
            raise BoxelError(
                f"{path}: the names of its categories are not UTF-8; save the file as UTF-8."
            ) from error
        try:
            row = read_category(raw)
            if row.id in label_of:
                raise ValueError(f"id {row.id} is taken by {found[label_of[row.id]].name!r}")
            label_of[row.id] = len(found)
            found.append(row)
            if not row.is_named and not row.ignored:
                what = f"category {row.id} has no name and is named by its id; write its name."
                rows.report("bad-field", path, what, repair="named by its id")
            _report_ignored(f"category {row.id}", row.ignored, path, rows)
        except MALFORMED as error:
            _report_bad("category", path, position, raw, error, rows)
    ids = numeric_ids([row.id for row in found])
    categories = [
        Category(id, row.name, row.supercategory, with_original(row.extras, row.id, id))
        for id, row in zip(ids, found, strict=True)
    ]
    if not raws and annotations:
        known = sorted(_category_ids(annotations), key=lambda id: (isinstance(id, str), id))
        label_of = {id: label for label, id in enumerate(known)}
        categories = [Category(n, str(id)) for n, id in zip(numeric_ids(known), known, strict=True)]
        rows.report("no-categories", path, "there are no categories; their ids are used as names.", repair="")
    return categories, label_of


def _category_ids(annotations: list[Raw]) -> set[ImageId]:
    ids = set()
    for raw in annotations:
        with contextlib.suppress(*MALFORMED):  # reported when the annotation itself is read
            ids.add(read_annotation(raw).category_id)
    return ids


def _read_annotations(
    raws: list[Raw],
    index_of: Mapping[ImageId, int],
    label_of: Mapping[ImageId, int],
    rows: Builder,
    path: Path,
) -> None:
    """Append the annotations: many at once if they are as nearly every file has them, else one by one."""
    decoder = RowDecoder(STRICT_ANNOTATION)
    for start in range(0, len(raws), _CHUNK):
        chunk = raws[start : start + _CHUNK]
        found = decoder.decode(chunk)
        if found is not None and _extend(rows, found, index_of, label_of, decoder):
            continue
        for position, raw in enumerate(chunk, start=start):
            try:
                _add_annotation(read_annotation(raw), index_of, label_of, rows, path)
            except MALFORMED as error:
                _report_bad("annotation", path, position, raw, error, rows)


def _extend(
    rows: Builder,
    found: Sequence[Any],
    index_of: Mapping[ImageId, int],
    label_of: Mapping[ImageId, int],
    decoder: RowDecoder,
) -> bool:
    """Append many rows at once; none, and return False, if the image or the category of one is not known."""
    names = [name for name, *_ in STRICT_ANNOTATION]
    columns = dict(zip(names, zip(*map(msgspec.structs.astuple, found), strict=True), strict=False))
    images = [index_of.get(id, -1) for id in columns["image_id"]]
    labels = [label_of.get(id, -1) for id in columns["category_id"]]
    if min(images) < 0 or min(labels) < 0:
        return False
    boxes = np.fromiter(chain.from_iterable(columns["bbox"]), dtype=np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    areas = np.array(columns["area"], dtype=float)  # None is NaN
    areas[~((areas >= 0) & (areas < np.inf))] = np.nan
    # An id of its own instead of one among what is decoded, whose memory can then be freed.
    rows.ids += [_UNNUMBERED if id is None else id + 0 for id in columns["id"]]
    rows.image_index.extend(images)
    rows.labels.extend(labels)
    rows.boxes.frombytes(boxes.tobytes())
    texts = list(map(bytes, columns["segmentation"]))
    rows.segmentations += map(_drop_empty, texts) if min(map(len, texts)) < _MAX_EMPTY else texts
    rows.iscrowd.extend(map(bool, columns["iscrowd"]))
    rows.quality.frombytes(np.array(columns["quality"], dtype=np.float32).tobytes())
    rows.source += [source if source is None else sys.intern(source) for source in columns["source"]]
    rows.trusted.extend(columns["trusted"])
    rows.areas.frombytes(areas.tobytes())
    rows.extras += [decoder.extras(row) for row in found] if decoder.unknown else [None] * len(found)
    return True


def _add_annotation(
    row: Row, index_of: Mapping[ImageId, int], label_of: Mapping[ImageId, int], rows: Builder, path: Path
) -> None:
    image, label = _look_up(index_of, row.image_id), _look_up(label_of, row.category_id)
    if image is None or label is None:
        _report_unknown("image" if image is None else "category", path, row, rows)
        return
    segmentation = _drop_empty(bytes(row.segmentation))
    box = _xyxy(row.bbox, segmentation, rows.heights[image], rows.widths[image])
    mask = segmentation, row.iscrowd, row.quality, row.source, row.trusted, row.area
    rows.add(_UNNUMBERED if row.id is None else row.id, image, label, box, *mask, extras=row.extras)
    _report_ignored(f"annotation {row.id}", row.ignored, path, rows, row.image_id, row.id)


def _look_up(known: Mapping[ImageId, T], id: ImageId) -> T | None:
    """Return what an id stands for, which one of the lists may have as a text and the other as a number."""
    if id not in known:
        id = to_integer(id) if isinstance(id, str) else str(id)
    return known.get(id)


_EMPTY = frozenset({b"", b"null", b"[]", b"{}", b'""'})
_MAX_EMPTY = 9  # characters, with spaces


def _drop_empty(text: bytes) -> bytes | None:
    """Return the JSON of a segmentation; None if there is none in it."""
    return None if len(text) < _MAX_EMPTY and b"".join(text.split()) in _EMPTY else text


def _xyxy(
    bbox: Sequence[float] | None, segmentation: bytes | None, height: int, width: int
) -> Sequence[float]:
    if bbox is None:
        if segmentation is None:
            raise ValueError("its bbox is not four numbers")
        return _extent(msgspec.json.decode(segmentation), height, width)
    x, y, w, h = bbox
    return x, y, x + w, y + h


def _extent(segmentation: Any, height: int, width: int) -> Sequence[float]:
    """Return the tight xyxy box of a segmentation."""
    if isinstance(segmentation, dict):
        try:
            return find_code_box(to_rle(segmentation, height, width))
        except Exception as error:  # pycocotools raises bare Exception
            raise ValueError(f"neither a bbox nor a segmentation that can be read: {error}") from error
    points = np.concatenate([np.asarray(polygon, dtype=float).reshape(-1, 2) for polygon in segmentation])
    return *points.min(axis=0).tolist(), *points.max(axis=0).tolist()


def _report_ignored(
    what: str, ignored: Sequence[str], path: Path, rows: Builder, image_id: Any = None, id: Any = None
) -> None:
    for reason in ignored:
        rows.report("bad-field", path, f"{what}: {reason}.", image_id, id, repair="field ignored")


def _report_bad(what: str, path: Path, position: int, raw: Raw, error: BaseException, rows: Builder) -> None:
    why = explain_json_error(error, bytes(raw))
    reason = f"{what} {position} of the list cannot be read ({why}); it is left out."
    rows.report(f"bad-{what}", path, reason, position=position)


def _report_unknown(what: str, path: Path, row: Row, rows: Builder) -> None:
    wanted = row.image_id if what == "image" else row.category_id
    reason = f"annotation {row.id} refers to {what} {wanted}, which the file does not list; it is left out."
    values: dict[str, Any] = {"image_id": row.image_id, "category_id": row.category_id, "bbox": row.bbox}
    rows.report(f"unknown-{what}", path, reason, row.image_id, row.id, **values)


def _report_numbering(label_of: Mapping[ImageId, int], rows: Builder, path: Path) -> None:
    """Report that category ids seem to count from another number: some are not listed, but all would be one further."""
    unknown = {issue.values["category_id"] for issue in rows.issues if issue.kind == "unknown-category"}
    listed = list(label_of)
    used = unknown | {listed[label] for label in set(rows.labels)}
    for shift, words in ((1, "1 is added to each"), (-1, "1 is subtracted from each")):
        if unknown and all(isinstance(id, int) and id + shift in label_of for id in used):
            rows.report_numbering(path, sorted(map(str, unknown)), words)


_UNNUMBERED = ""  # stands for a missing annotation id until all are read


def _dataset_extras(fields: Mapping[str, Raw]) -> tuple[str, bytes | None]:
    """Return the folder of the images that the file names, if any, and its other fields."""
    extras = {name: value for name, value in fields.items() if bytes(value)}
    named = ""
    with contextlib.suppress(*MALFORMED):  # info is another tool's, or absent
        info = msgspec.json.decode(extras.get("info", _NULL), type=dict[str, Any])
        if isinstance(info.get("images"), str):
            named = info.pop("images")
            extras["info"] = Raw(msgspec.json.encode(info))
            if not info:
                del extras["info"]
    return named, join_fields(extras)
