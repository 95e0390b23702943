"""Parquet: a table with one row per image and its objects in a list, for datasets that are read in parts.

It holds all that `Annotations` does. pandas, DuckDB, Ray Data and Hugging Face's datasets read it as it is; categories
and the other facts about the whole dataset are in the metadata of its schema, as JSON under the key ``boxel``. Tables
with one row per box are read too; see `box_table`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from msgspec import Raw, Struct
from numpy.typing import NDArray

from boxel.data.annotations import Annotations, Category, ImageId
from boxel.data.formats.box_table import BoxTable, import_pyarrow, is_box_table
from boxel.data.formats.builder import Builder
from boxel.data.formats.coco_writer import describe_outside, name_root
from boxel.data.formats.names import ImageFinder, guess_root
from boxel.data.splits import standard_split
from boxel.utils.errors import BoxelError, one_line
from boxel.utils.files import atomic_path
from boxel.utils.urls import is_url

if TYPE_CHECKING:
    import pyarrow

SUFFIX = ".parquet"

_MAGIC = b"PAR1"
_KEY = b"boxel"
_IMAGES_PER_GROUP = 1024
_MAX_ROWS = 1_000_000_000
_OBJECTS = "objects"
_NULL = Raw(b"null")


class _Dataset(Struct):
    """What the schema states about the whole dataset."""

    categories: list[tuple[int, str, str, Raw]]
    images: str = ""
    text_ids: list[str] = []  # columns of ids that are JSON texts, since not all are numbers
    map_labels: list[int] = []
    void: int = 255
    extras: Raw = _NULL


def recognize(path: Path) -> bool:
    """Return whether this is a Parquet file, or a folder of some."""
    files = [path] if path.is_file() else sorted(path.glob(f"*{SUFFIX}"))[:1]
    return any(file.suffix.lower() == SUFFIX and _begins_like_parquet(file) for file in files)


def _begins_like_parquet(file: Path) -> bool:
    with open(file, "rb") as stream:
        return stream.read(len(_MAGIC)) == _MAGIC


def holds_boxes(path: Path) -> bool:
    """Return whether this is a table of boxes, or a folder of some, and not of images."""
    files = [path] if path.is_file() else sorted(path.glob(f"*{SUFFIX}"))[:1]
    if not recognize(path):
        return False
    pyarrow = import_pyarrow()
    try:
        return is_box_table(pyarrow.parquet.read_schema(files[0]))
    except (pyarrow.ArrowException, OSError, ValueError):
        return False  # it is damaged, as its reader states


def read(path: Path, images: Path | None = None) -> Annotations:
    """Read a table, or the tables of a folder in the order of their names, a group of images at a time.

    Args:
        path: The file or the folder.
        images: Folder of the images; if None, the one that the table names, or one near it.
    """
    pyarrow = import_pyarrow()
    files = [path] if path.is_file() else sorted(path.glob(f"*{SUFFIX}"))
    if not files:
        raise BoxelError(f"{path}: there is no Parquet table; check the path.")
    if holds_boxes(path):
        return _read_boxes(path, images)
    rows = Builder()
    order: list[NDArray[np.int64]] = []
    try:
        tables = [pyarrow.parquet.ParquetFile(file) for file in files]
        dataset = msgspec.json.decode((tables[0].schema_arrow.metadata or {})[_KEY], type=_Dataset)
        for file, table in zip(files, tables, strict=True):
            if table.metadata.num_rows > _MAX_ROWS:
                raise BoxelError(f"{file}: the table states {table.metadata.num_rows:,} rows; it is damaged.")
            for batch in table.iter_batches(_IMAGES_PER_GROUP):
                order.append(_append(rows, batch, dataset))
        categories = [
            Category(id, name, kind, _from_raw(extras)) for id, name, kind, extras in dataset.categories
        ]
        if len(rows.labels) and not 0 <= min(rows.labels) <= max(rows.labels) < len(categories):
            raise ValueError("a label stands for no category")
    except (pyarrow.ArrowException, OSError, KeyError, ValueError, TypeError, msgspec.MsgspecError) as error:
        raise BoxelError(
            f"{path}: this is not a table that boxel has written ({one_line(error)}); check that it is complete."
        ) from error
    finder = ImageFinder(images) if images else guess_root(files[0], rows.paths[:3], dataset.images)
    rows.find_images(finder, path, stay=False)  # as of COCO: they may be absolute
    built = rows.build(finder.folder, categories, path, _from_raw(dataset.extras))
    data = replace(built, map_labels=np.array(dataset.map_labels, dtype=np.int16), void=dataset.void)
    places = np.concatenate([*order, np.zeros(0, dtype=np.int64)])
    return data if (np.diff(places) > 0).all() else data.select_instances(np.argsort(places, kind="stable"))


def _read_boxes(path: Path, images: Path | None) -> Annotations:
    table = BoxTable(path)
    rows, header = table.read_rows(), table.header
    stated = "" if is_url(header.images) else header.images
    first = path if path.is_file() else path / "part"
    finder = ImageFinder(images) if images else guess_root(first, rows.paths[:3], stated)
    rows.find_images(finder, path, stay=False)
    return rows.build(finder.folder, table.categories, path, _from_raw(header.extras))


def _append(rows: Builder, batch: pyarrow.RecordBatch, dataset: _Dataset) -> NDArray[np.int64]:
    """Append the images of a batch and their objects; return the places of the objects in the dataset."""
    first = len(rows.paths)
    rows.image_ids += _to_ids(batch["image_id"], "image_id" in dataset.text_ids)
    rows.paths += batch["file_name"].to_pylist()
    rows.label_maps += batch["label_map"].to_pylist()
    rows.splits += [standard_split(split) if split else None for split in batch["split"].to_pylist()]
    rows.image_extras += _to_bytes(batch["extras"])
    objects = batch[_OBJECTS]
    counts = np.diff(objects.offsets.to_numpy())
    objects = objects.flatten()
    rows.ids += _to_ids(objects.field("id"), "id" in dataset.text_ids)
    rows.segmentations += _to_bytes(objects.field("segmentation"))
    rows.extras += _to_bytes(objects.field("extras"))
    rows.source += objects.field("source").to_pylist()
    numbers = {
        "widths": batch["width"],
        "heights": batch["height"],
        "image_index": np.arange(first, first + len(counts)).repeat(counts),
        "labels": objects.field("label"),
        "boxes": objects.field("box").flatten(),
        "iscrowd": objects.field("iscrowd"),
        "quality": objects.field("quality"),
        "trusted": objects.field("trusted"),
        "areas": objects.field("area"),
    }
    for name, values in numbers.items():
        if len(values) != len(objects) * (4 if name == "boxes" else 1) and name not in ("widths", "heights"):
            raise ValueError("a box is not four numbers")
        column = getattr(rows, name)
        column.frombytes(np.asarray(values, dtype=column.typecode).tobytes())
    return objects.field("row").to_numpy()


def _to_ids(values: pyarrow.Array, are_texts: bool) -> list[ImageId]:
    return (
        [msgspec.json.decode(id, type=ImageId) for id in values.to_pylist()]
        if are_texts
        else values.to_pylist()
    )


def _to_bytes(values: pyarrow.Array) -> list[bytes | None]:
    return values.cast("binary").to_pylist()


def write(data: Annotations, path: Path) -> list[str]:
    """Write a table with one row per image, in groups of images, so that readers can take parts of it.

    File names stay as they are. If the folder of the images would not be found from the new file, the metadata names
    it.
    """
    pyarrow = import_pyarrow()
    text_ids = [name for name, ids in (("image_id", data.image_ids), ("id", data.ids)) if _are_mixed(ids)]
    dataset = _Dataset(
        [(c.id, c.name, c.supercategory, _to_raw(c.extras)) for c in data.categories],
        name_root(data, path),
        text_ids,
        data.map_labels.tolist(),
        data.void,
        _to_raw(data.dataset_extras),
    )
    schema = _schema(pyarrow, data, text_ids).with_metadata({_KEY: msgspec.json.encode(dataset)})
    with (
        atomic_path(path) as temporary,
        pyarrow.parquet.ParquetWriter(temporary, schema, compression="zstd") as writer,
    ):
        for start in range(0, len(data), _IMAGES_PER_GROUP):
            images = np.arange(start, min(start + _IMAGES_PER_GROUP, len(data)))
            writer.write_batch(_batch(pyarrow, data, images, schema, text_ids))
    return describe_outside(data)


def _are_mixed(ids: Sequence[ImageId]) -> bool:
    """Return whether ids are neither all texts nor all numbers of 64 bits."""
    is_text = [isinstance(id, str) for id in ids]
    return not all(is_text) and (any(is_text) or not all(-(2**63) <= int(id) < 2**63 for id in ids))


def _schema(pyarrow: Any, data: Annotations, text_ids: Sequence[str]) -> Any:
    text, number = pyarrow.string(), pyarrow.float64()
    is_text = {"image_id": data.image_ids, "id": data.ids}
    ids = {
        name: text if name in text_ids or (ids and isinstance(ids[0], str)) else pyarrow.int64()
        for name, ids in is_text.items()
    }
    fields = {
        "id": ids["id"],
        "row": pyarrow.int64(),
        "label": pyarrow.int32(),
        "category": pyarrow.dictionary(pyarrow.int32(), text),
        "box": pyarrow.list_(number, 4),
        "segmentation": text,
        "iscrowd": pyarrow.bool_(),
        "quality": pyarrow.float32(),
        "source": text,
        "trusted": pyarrow.bool_(),
        "area": number,
        "extras": text,
    }
    columns = {
        "image_id": ids["image_id"],
        "file_name": text,
        "width": pyarrow.int32(),
        "height": pyarrow.int32(),
        "split": text,
        "label_map": text,
        "extras": text,
        _OBJECTS: pyarrow.list_(pyarrow.struct(list(fields.items()))),
    }
    return pyarrow.schema(list(columns.items()))


def _batch(
    pyarrow: Any, data: Annotations, images: NDArray[np.int64], schema: Any, text_ids: Sequence[str]
) -> Any:
    """Return the rows of some images."""
    own = [data.instances_in(image) for image in images]
    rows = np.concatenate(own)
    names = [category.name for category in data.categories]
    values: dict[str, Any] = {
        "id": _from_ids([data.ids[i] for i in rows], "id" in text_ids),
        "row": rows,
        "label": data.labels[rows],
        "category": pyarrow.DictionaryArray.from_arrays(
            data.labels[rows], pyarrow.array(names, pyarrow.string())
        ),
        "segmentation": data.segmentations[rows],
        "iscrowd": data.iscrowd[rows],
        "quality": data.quality[rows],
        "source": data.source[rows],
        "trusted": data.trusted[rows],
        "area": data.areas[rows],
        "extras": data.extras[rows],
    }
    fields = schema.field(_OBJECTS).type.value_type
    arrays = []
    for field in fields:
        if field.name == "box":
            arrays.append(pyarrow.FixedSizeListArray.from_arrays(data.boxes[rows].ravel(), 4))
        elif field.name == "category":
            arrays.append(values["category"])
        else:
            arrays.append(_to_array(pyarrow, values[field.name], field.type))
    structs = pyarrow.StructArray.from_arrays(arrays, fields=list(fields))
    offsets = pyarrow.array(np.cumsum([0, *map(len, own)]), pyarrow.int32())
    columns: dict[str, Any] = {
        "image_id": _from_ids([data.image_ids[i] for i in images], "image_id" in text_ids),
        "file_name": [data.paths[i] for i in images],
        "width": data.widths[images],
        "height": data.heights[images],
        "split": [data.splits[i] for i in images],
        "label_map": [data.label_maps[i] for i in images],
        "extras": [data.image_extras[i] for i in images],
    }
    converted = [_to_array(pyarrow, columns[name], schema.field(name).type) for name in columns]
    converted.append(pyarrow.ListArray.from_arrays(offsets, structs))
    return pyarrow.RecordBatch.from_arrays(converted, schema=schema)


def _to_array(pyarrow: Any, values: Any, type: Any) -> Any:
    """Return a column; NaN becomes null."""
    return pyarrow.array(values, type, from_pandas=True)


def _from_ids(ids: Sequence[ImageId], as_texts: bool) -> Sequence[Any]:
    return [msgspec.json.encode(id).decode() for id in ids] if as_texts else ids


def _to_raw(extras: bytes | None) -> Raw:
    return _NULL if extras is None else Raw(extras)


def _from_raw(extras: Raw) -> bytes | None:
    return None if bytes(extras) == b"null" else bytes(extras)
