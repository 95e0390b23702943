"""Write COCO JSON; see :mod:`boxel.data.formats.coco`."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import Raw

from boxel.data.annotations import Annotations, Category, ImageId
from boxel.data.formats.coco_rows import MALFORMED
from boxel.data.formats.layout import file_stems, lost_label_maps
from boxel.data.formats.names import guess_root, has_images
from boxel.utils.errors import BoxelError
from boxel.utils.files import atomic_path


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
    info = _info(extras.pop("info", None), _root_to_name(data, path))
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(b"{" + (b'"info": ' + encode(info) + b",\n" if info is not None else b"") + b'"images": [')
        for i in range(len(data)):
            image = _image(data, i, image_ids[i], data.image_ids[i] != stems[i])
            file.write((b",\n" if i else b"\n") + encode(image))
        file.write(b'],\n"annotations": [')
        for i in range(len(data.labels)):
            image_index = int(data.image_index[i])
            is_own = str(data.ids[i]).rpartition(":")[0] == stems[image_index]
            row = _annotation(data, i, ids[i], image_ids[image_index], not is_own)
            file.write((b",\n" if i else b"\n") + encode(row))
        file.write(b'],\n"categories": ' + encode(list(map(_category, data.categories))))
        for name, value in extras.items():
            file.write(b",\n" + encode(name) + b": " + encode(value))
        file.write(b"}\n")
    return lost_label_maps(data, "COCO")


def _root_to_name(data: Annotations, path: Path) -> str:
    """Return the folder of the images relative to the file; empty if it is found without being named."""
    if not has_images(data.root, data.paths) or data.root.samefile(guess_root(path, data.paths)):
        return ""
    with contextlib.suppress(ValueError):  # on another drive
        return Path(os.path.relpath(data.root.resolve(), path.parent.resolve())).as_posix()
    return data.root.resolve().as_posix()


def _decode_extras(extras: bytes | None) -> dict[str, Raw]:
    return {} if extras is None else msgspec.json.decode(extras, type=dict[str, Raw])


def with_original(extras: bytes | None, original: ImageId, id: int) -> bytes | None:
    """Add an id that was replaced by a number to the extras of its row."""
    if id == original:
        return extras
    return msgspec.json.encode(_decode_extras(extras) | {"original_id": original})


def _info(info: Raw | None, root: str) -> Any:
    """Return the info to write, with the folder of the images if it is to be named; None if there is none."""
    value = None if info is None else msgspec.json.decode(info)
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


def _annotation(data: Annotations, i: int, id: int, image_id: int, keep_id: bool) -> dict[str, Any]:
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
    with contextlib.suppress(BoxelError, *MALFORMED):  # a malformed segmentation stays as it is
        row["area"] = data.area(i)
    if not np.isnan(data.quality[i]):
        row["quality"] = round(float(data.quality[i]), 6)
    if data.source[i] is not None:
        row["source"] = data.source[i]
    if not data.trusted[i]:
        row["trusted"] = False
    if id != data.ids[i] and keep_id:
        row["original_id"] = data.ids[i]
    return row if data.extras[i] is None else row | _others(data.extras[i], row)


def numeric_ids(ids: Sequence[ImageId]) -> list[int]:
    """Return whole numbers for ids: themselves, the number that a text spells if it is free, else a free one.

    Examples:
        >>> numeric_ids([7, "8", "a", "7"])
        [7, 8, 1, 2]
    """
    if all(isinstance(id, int) for id in ids):
        return list(ids)  # type: ignore[arg-type]  # just checked
    taken = {id for id in ids if isinstance(id, int)}
    spelled = {id: int(id) for id in ids if isinstance(id, str) and id.isdecimal() and str(int(id)) == id}
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
