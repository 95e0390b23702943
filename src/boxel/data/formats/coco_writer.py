"""Write COCO JSON; see :mod:`boxel.data.formats.coco`."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import Raw

from boxel.data.annotations import Annotations, Category, ImageId
from boxel.data.formats.builder import MALFORMED
from boxel.data.formats.extras import decode_json
from boxel.data.formats.layout import file_stems, lost_label_maps
from boxel.data.formats.names import guess_root, has_images
from boxel.data.image_names import to_integer
from boxel.utils.errors import BoxelError
from boxel.utils.files import atomic_path

_CHUNK = 4096  # annotations that are written together


def write(data: Annotations, path: Path) -> list[str]:
    """Write a COCO JSON file.

    File names stay as they are, since every tool that reads COCO takes them relative to a folder that it is given. If
    that folder would not be found from the new file, ``info`` names it.

    Ids are whole numbers, as COCO's own tools expect: an id that is a text gets a free number, and stays as
    ``original_id`` unless boxel has made it from the stem of a file, as readers of formats without ids do. ``area`` is
    that of the mask, or of the box if there is none. ``quality``, ``source``, ``trusted`` and ``split`` are written
    only if they differ from the defaults.
    """
    stems = file_stems(data.paths)
    image_ids, ids = numeric_ids(data.image_ids), numeric_ids(data.ids)
    encode = msgspec.json.Encoder().encode
    extras = _decode_extras(data.dataset_extras)
    info = _info(extras.pop("info", None), name_root(data, path))
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(b"{" + (b'"info": ' + encode(info) + b",\n" if info is not None else b"") + b'"images": [')
        for i in range(len(data)):
            image = _image(data, i, image_ids[i], data.image_ids[i] != stems[i])
            file.write((b",\n" if i else b"\n") + encode(image))
        file.write(b'],\n"annotations": [')
        for start in range(0, len(data.labels), _CHUNK):
            some = range(start, min(start + _CHUNK, len(data.labels)))
            rows = map(encode, _annotations(data, some, ids, image_ids, stems))
            file.write((b",\n" if start else b"\n") + b",\n".join(rows))
        file.write(b'],\n"categories": ' + encode(list(map(_category, data.categories))))
        for name, value in extras.items():
            file.write(b",\n" + encode(name) + b": " + encode(value))
        file.write(b"}\n")
    return [*lost_label_maps(data, "COCO"), *describe_outside(data, data.paths)]


def describe_outside(data: Annotations, paths: Iterable[str | None]) -> list[str]:
    """Return a sentence on written paths that are named outside the folder of the images, if there are any."""
    root = os.path.abspath(data.root)
    named = [path for path in paths if path is not None]
    # Few names can lead out: the paths of all the others need not be worked out.
    unsafe = [os.path.abspath(data.root / path) for path in named if ".." in path or os.path.isabs(path)]
    outside = [path for path in unsafe if not Path(path).is_relative_to(root)]
    if not outside:
        return []
    return [
        f"{len(outside)} of {len(named)} files are named outside of {data.root}, e.g. {outside[0]}, where other "
        "machines do not find them; give a folder that holds them all as `images`."
    ]


def name_root(data: Annotations, path: Path) -> str:
    """Return the folder of the images relative to the file; empty if it is found without being named."""
    root = data.root.resolve()
    if not has_images(root, data.paths) or root == guess_root(path, data.paths).folder.resolve():
        return ""
    with contextlib.suppress(ValueError):  # on another drive
        return Path(os.path.relpath(root, path.parent.resolve())).as_posix()
    return root.as_posix()


def _decode_extras(extras: bytes | None) -> dict[str, Raw]:
    return {} if extras is None else msgspec.json.decode(extras, type=dict[str, Raw])


def with_original(extras: bytes | None, original: ImageId, id: ImageId) -> bytes | None:
    """Add an id that was replaced by a number to the extras of its row."""
    if id == original:
        return extras
    return msgspec.json.encode(_decode_extras(extras) | {"original_id": original})


def _info(info: Raw | None, root: str) -> Any:
    """Return the info to write, with the folder of the images if it is to be named; None if there is none."""
    value = None if info is None else decode_json(info)
    if not root:
        return value
    return {"images": root} | (value if isinstance(value, dict) else {})


def _image(data: Annotations, i: int, id: int, keep_id: bool) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": id,
        "file_name": data.paths[i],
        "width": int(data.widths[i]),
        "height": int(data.heights[i]),
    }
    if data.splits[i] is not None:
        row["split"] = data.splits[i]
    if id != data.image_ids[i] and keep_id:
        row["original_id"] = data.image_ids[i]
    return row if data.image_extras[i] is None else row | _others(data.image_extras[i], row)


def _category(category: Category) -> dict[str, Any]:
    row: dict[str, Any] = {"id": category.id, "name": category.name}
    if category.supercategory:
        row["supercategory"] = category.supercategory
    return row | _others(category.extras, row)


def _others(extras: bytes | None, row: Mapping[str, Any]) -> dict[str, Raw]:
    """Return the unknown fields of a row that has some already."""
    return {name: value for name, value in _decode_extras(extras).items() if name not in row}


def _annotations(
    data: Annotations, some: range, ids: Sequence[int], image_ids: Sequence[int], stems: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Yield the rows of some instances, whose columns are taken together."""
    part = slice(some.start, some.stop)
    category_ids = [category.id for category in data.categories]
    corners, sides = data.boxes[part, :2], data.boxes[part, 2:] - data.boxes[part, :2]
    # Rounding removes what xywh -> xyxy -> xywh adds in the last bits.
    boxes = np.concatenate([corners, sides.round(9)], axis=1).tolist()
    areas, quality = data.areas[part].tolist(), data.quality[part].tolist()
    flags = data.iscrowd[part].tolist(), data.trusted[part].tolist()
    indices = data.image_index[part].tolist(), data.labels[part].tolist()
    columns = zip(some, boxes, areas, quality, *flags, *indices, strict=True)
    for i, box, area, score, iscrowd, trusted, image, label in columns:
        row: dict[str, Any] = {
            "id": ids[i],
            "image_id": image_ids[image],
            "category_id": category_ids[label],
            "bbox": box,
            "area": area if math.isfinite(area) else _area(data, i, box),
            "iscrowd": int(iscrowd),
        }
        if data.segmentations[i] is not None:
            row["segmentation"] = Raw(data.segmentations[i])
        if not math.isnan(score):
            row["quality"] = round(score, 6)
        if data.source[i] is not None:
            row["source"] = data.source[i]
        if not trusted:
            row["trusted"] = False
        if ids[i] != data.ids[i] and str(data.ids[i]).rpartition(":")[0] != stems[image]:
            row["original_id"] = data.ids[i]
        yield row if data.extras[i] is None else row | _others(data.extras[i], row)


def _area(data: Annotations, i: int, box: Sequence[float]) -> float:
    with contextlib.suppress(BoxelError, *MALFORMED):  # a malformed segmentation stays as it is
        return data.area(i)
    return box[2] * box[3]


def numeric_ids(ids: Sequence[ImageId]) -> list[int]:
    """Return whole numbers for ids: themselves, the number that a text spells if it is free, else a free one.

    Examples:
        >>> numeric_ids([7, "8", "a", "7"])
        [7, 8, 1, 2]
    """
    if all(isinstance(id, int) for id in ids):
        return list(ids)  # type: ignore[arg-type]  # just checked
    taken = {id for id in ids if isinstance(id, int)}
    stated = {id: to_integer(id) for id in ids if isinstance(id, str)}
    spelled = {id: number for id, number in stated.items() if isinstance(number, int) and str(number) == id}
    taken |= set(spelled.values())
    free = itertools.filterfalse(taken.__contains__, itertools.count(1))
    used = {id for id in ids if isinstance(id, int)}
    numbers = []
    for id in ids:
        number = id if isinstance(id, int) else spelled.get(id)
        if number is None or (isinstance(id, str) and number in used):
            number = next(free)
        used.add(number)
        numbers.append(number)
    return numbers
