"""Parquet: a table with one row per image and its objects in a list, for datasets that are read in parts.

It holds all that `Annotations` does. pandas, DuckDB, Ray Data and Hugging Face's datasets read it as it is; categories
and the other facts about the whole dataset are in the metadata of its schema, as JSON under the key ``boxel``. Tables
with one row per box are read too; see `box_table`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from msgspec import field
from numpy.typing import NDArray

from boxel.data.annotations import Annotations
from boxel.data.formats.box_table import (
    BoxTable,
    Facts,
    decode_ids,
    encode_ids,
    from_raw,
    id_type,
    import_pyarrow,
    is_box_table,
    pack_categories,
    to_raw,
)
from boxel.data.formats.builder import Builder
from boxel.data.formats.coco_writer import describe_outside, name_root
from boxel.data.formats.names import ImageFinder, guess_root, list_files
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


class _Dataset(Facts):
    """What the schema states about the whole dataset."""

    text_ids: list[str] = field(default_factory=list)  # columns of ids that are JSON texts; see `id_type`
    map_labels: list[int] = field(default_factory=list)
    void: int = 255

    def id_kind(self, column: str) -> str:
        """Return how the ids of a column are stored; see `id_type`."""
        return "json" if column in self.text_ids else ""


def recognize(path: Path) -> bool:
    """Return whether this is a Parquet file, or a folder of some."""
    first = next(iter(_files_in(path)), None)
    if first is None or first.suffix.lower() != SUFFIX:
        return False
    with open(first, "rb") as stream:
        return stream.read(len(_MAGIC)) == _MAGIC


def _files_in(path: Path) -> list[Path]:
    return [path] if path.is_file() else list_files(path, SUFFIX)


def holds_boxes(path: Path) -> bool:
    """Return whether this is a table of boxes, or a folder of some, and not of images."""
    if not recognize(path):
        return False
    pyarrow = import_pyarrow()
    try:
        return is_box_table(pyarrow.parquet.read_schema(_files_in(path)[0]))
    except (pyarrow.ArrowException, OSError, ValueError):
        return False  # it is damaged, as its reader states


def read(path: Path, images: Path | None = None) -> Annotations:
    """Read a table, or the tables of a folder in the order of their names, a group of images at a time.

    Args:
        path: The file or the folder.
        images: Folder of the images; if None, the one that the table names, or one near it.
    """
    pyarrow = import_pyarrow()
    files = _files_in(path)
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
        categories = dataset.list_categories()
        if len(rows.labels) and not 0 <= min(rows.labels) <= max(rows.labels) < len(categories):
            raise ValueError("a label stands for no category")
    except (pyarrow.ArrowException, OSError, KeyError, ValueError, TypeError, msgspec.MsgspecError) as error:
        raise BoxelError(
            f"{path}: this is not a table that boxel has written ({one_line(error)}); check that it is complete."
        ) from error
    finder = ImageFinder(images) if images else guess_root(files[0], rows.paths[:3], dataset.images)
    rows.find_images(finder, path, stay=False)  # as of COCO: they may be absolute
    built = rows.build(finder.folder, categories, path, from_raw(dataset.extras))
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
    return rows.build(finder.folder, table.categories, path, from_raw(header.extras))


def _append(rows: Builder, batch: pyarrow.RecordBatch, dataset: _Dataset) -> NDArray[np.int64]:
    """Append the images of a batch and their objects; return the places of the objects in the dataset."""
    first = len(rows.paths)
    rows.image_ids += decode_ids(batch["image_id"].to_pylist(), dataset.id_kind("image_id"))
    rows.paths += batch["file_name"].to_pylist()
    rows.label_maps += batch["label_map"].to_pylist()
    rows.splits += [standard_split(split) if split else None for split in batch["split"].to_pylist()]
    rows.image_extras += _to_bytes(batch["extras"])
    objects = batch[_OBJECTS]
    counts = np.diff(objects.offsets.to_numpy())
    objects = objects.flatten()
    rows.ids += decode_ids(objects.field("id").to_pylist(), dataset.id_kind("id"))
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


def _to_bytes(values: pyarrow.Array) -> list[bytes | None]:
    return values.cast("binary").to_pylist()


def write(data: Annotations, path: Path) -> list[str]:
    """Write a table with one row per image, in groups of images, so that readers can take parts of it.

    File names stay as they are. If the folder of the images would not be found from the new file, the metadata names
    it.
    """
    pyarrow = import_pyarrow()
    kinds = {"image_id": id_type(data.image_ids), "id": id_type(data.ids)}
    dataset = _Dataset(
        pack_categories(data),
        name_root(data, path),
        to_raw(data.dataset_extras),
        [name for name, kind in kinds.items() if kind == "json"],
        data.map_labels.tolist(),
        data.void,
    )
    schema = _schema(pyarrow, kinds).with_metadata({_KEY: msgspec.json.encode(dataset)})
    with (
        atomic_path(path) as temporary,
        pyarrow.parquet.ParquetWriter(temporary, schema, compression="zstd") as writer,
    ):
        for start in range(0, len(data), _IMAGES_PER_GROUP):
            images = np.arange(start, min(start + _IMAGES_PER_GROUP, len(data)))
            writer.write_batch(_batch(pyarrow, data, images, schema, kinds))
    return describe_outside(data, [*data.paths, *data.label_maps])


def _schema(pyarrow: Any, kinds: dict[str, str]) -> Any:
    text, number = pyarrow.string(), pyarrow.float64()
    ids = {name: pyarrow.int64() if kind == "int64" else text for name, kind in kinds.items()}
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
    pyarrow: Any, data: Annotations, images: NDArray[np.int64], schema: Any, kinds: dict[str, str]
) -> Any:
    """Return the rows of some images."""
    own = [data.instances_in(image) for image in images]
    rows = np.concatenate(own)
    names, text = [category.name for category in data.categories], pyarrow.string()
    values: dict[str, Any] = {
        "id": encode_ids([data.ids[i] for i in rows], kinds["id"]),
        "row": rows,
        "label": data.labels[rows],
        "segmentation": data.segmentations[rows],
        "iscrowd": data.iscrowd[rows],
        "quality": data.quality[rows],
        "source": data.source[rows],
        "trusted": data.trusted[rows],
        "area": data.areas[rows],
        "extras": data.extras[rows],
    }
    fields = schema.field(_OBJECTS).type.value_type
    made = {
        "box": pyarrow.FixedSizeListArray.from_arrays(data.boxes[rows].ravel(), 4),
        "category": pyarrow.DictionaryArray.from_arrays(data.labels[rows], pyarrow.array(names, text)),
    }
    arrays = [
        made[field.name] if field.name in made else _to_array(pyarrow, values[field.name], field.type)
        for field in fields
    ]
    structs = pyarrow.StructArray.from_arrays(arrays, fields=list(fields))
    offsets = pyarrow.array(np.cumsum([0, *map(len, own)]), pyarrow.int32())
    columns: dict[str, Any] = {
        "image_id": encode_ids([data.image_ids[i] for i in images], kinds["image_id"]),
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
