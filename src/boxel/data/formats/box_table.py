"""Tables of boxes: Parquet with one row per box, which many machines read and write in parts.

A table needs ``image`` and either ``box`` or ``x0``, ``y0``, ``x1``, ``y1``. All else that `Annotations` hold has a
column too: ``ann_id``, ``label``, ``counts`` (the run-length code of a mask of ``size``, height and width) and those of
`COLUMNS`. Rows of one image may lie anywhere; an image without boxes has a row with nothing but its image.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from msgspec import Raw, Struct
from numpy.typing import NDArray

from boxel.data.annotations import Annotations, Category, ImageId
from boxel.data.formats.builder import Builder
from boxel.utils.errors import BoxelError, missing_extra, one_line
from boxel.utils.urls import list_files, open_url

if TYPE_CHECKING:
    import pyarrow

COLUMNS = {
    "image": "string",
    "image_id": "int64",
    "size": "list<int32>",
    "ann_id": "int64",
    "label": "string",
    "category": "int32",
    "box": "list<double>",
    "iscrowd": "bool",
    "counts": "string",
    "segmentation": "string",
    "area": "double",
    "quality": "float",
    "trusted": "bool",
    "source": "string",
    "status": "string",
    "error": "string",
    "split": "string",
    "extras": "string",
    "image_extras": "string",
}
"""The columns that are written. ``category`` is the place of the label among the categories of the metadata, and
``segmentation`` the JSON of a mask other than a run-length code of the size of its image, e.g. polygons."""

_KEY = b"boxel.boxes"
_SUFFIX = ".parquet"
_ROWS = 50_000  # of a group, and that are read at once
_CORNERS = ("x0", "y0", "x1", "y1")
_OWN = ("category", "segmentation", "extras", "image_extras")  # they mean this only if boxel wrote them
_NULL = Raw(b"null")
_NAMELESS = "object"  # the class of boxes that have none


class Facts(Struct):
    """What the metadata of any Parquet table state about the whole dataset.

    Attributes:
        categories: Id, name, supercategory and other fields of each.
        images: Folder of the images.
        extras: Fields of the dataset that boxel does not use.
    """

    categories: list[tuple[int, str, str, Raw]]
    images: str = ""
    extras: Raw = _NULL

    def list_categories(self) -> list[Category]:
        """Return the categories."""
        return [Category(id, name, kind, from_raw(extras)) for id, name, kind, extras in self.categories]


class Header(Facts):
    """What the metadata of a table of boxes state.

    Attributes:
        ids: How the columns of ids are stored; see `id_type`.
    """

    ids: dict[str, str] = {}


class _Code(Struct):
    """A run-length code as COCO writes it."""

    size: tuple[int, int]
    counts: str


def import_pyarrow() -> Any:
    """Import pyarrow with its Parquet module, or raise a :class:`BoxelError` that names the extra."""
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.parquet
    except ImportError as error:
        raise missing_extra("a Parquet table", error) from error
    return pyarrow


def make_header(data: Annotations) -> Header:
    """Return what the metadata of a table of a dataset state."""
    ids = {"image_id": id_type(data.image_ids), "ann_id": id_type(data.ids)}
    return Header(pack_categories(data), extras=to_raw(data.dataset_extras), ids=ids)


def pack_categories(data: Annotations) -> list[tuple[int, str, str, Raw]]:
    """Return the categories of a dataset as `Facts` hold them."""
    return [(c.id, c.name, c.supercategory, to_raw(c.extras)) for c in data.categories]


class BoxTable:
    """A table of boxes, in a file or in all files of a folder in the order of their names; on any file system.

    Args:
        path: Path or URL of the file or the folder.
        header: What its metadata state, if that is known: without metadata, all labels are read to know the classes.

    Raises:
        BoxelError: There is no such table.
    """

    def __init__(self, path: str | os.PathLike[str], header: Header | None = None) -> None:
        self.path = os.fspath(path)
        if header is not None:
            self.header = header
        pyarrow = import_pyarrow()
        try:
            names = list_files(self.path, _SUFFIX)
            self._files = [pyarrow.parquet.ParquetFile(open_url(name)) for name in names]
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            raise _no_table(self.path, one_line(error)) from error
        if not self._files:
            raise BoxelError(f"{self.path}: there is no Parquet table; check the path.")
        self._names = self._files[0].schema_arrow.names
        if not is_box_table(self._files[0].schema_arrow):
            raise _no_table(self.path, "it needs the columns image and box, or image, x0, y0, x1 and y1")

    def __len__(self) -> int:
        """Number of rows."""
        return sum(file.metadata.num_rows for file in self._files)

    @cached_property
    def digest(self) -> str:
        """A digest of the metadata of all files, which state the place, size and range of each column."""
        pyarrow, digest = import_pyarrow(), blake2b(digest_size=16)
        for file in self._files:
            sink = pyarrow.BufferOutputStream()
            file.metadata.write_metadata_file(sink)
            digest.update(sink.getvalue())
        return digest.hexdigest()

    @cached_property
    def header(self) -> Header:
        """What the metadata state; without any, the classes in the order of their names."""
        known = (self._files[0].schema_arrow.metadata or {}).get(_KEY)
        if known:
            try:
                return msgspec.json.decode(known, type=Header)
            except (msgspec.MsgspecError, RecursionError) as error:
                raise _no_table(self.path, f"its header is damaged: {one_line(error)}") from error
        pyarrow, labels = import_pyarrow(), set[str | None]()
        for _, batch in self.batches(columns=["label"]) if "label" in self._names else ():
            labels |= {*pyarrow.compute.unique(batch["label"].cast("string")).to_pylist()}
        names = sorted({label or _NAMELESS for label in labels} or {_NAMELESS})
        ids = [name for name in ("image_id", "ann_id") if name in self._names]
        types = {name: str(self._files[0].schema_arrow.field(name).type) for name in ids}
        kinds = {name: "string" if type.endswith("string") else "int64" for name, type in types.items()}
        return Header([(k, name, "", _NULL) for k, name in enumerate(names, 1)], ids=kinds)

    @property
    def categories(self) -> list[Category]:
        """The classes."""
        return self.header.list_categories()

    def batches(
        self, start: int = 0, stop: int | None = None, columns: Sequence[str] | None = None
    ) -> Iterator[tuple[int, pyarrow.RecordBatch]]:
        """Yield the rows from ``start`` to ``stop``, some at a time, with the number of the first of them."""
        stop = len(self) if stop is None else stop
        first = 0
        for file in self._files:
            for group in range(file.metadata.num_row_groups):
                count = file.metadata.row_group(group).num_rows
                if start < first + count and first < stop:
                    at = first
                    for batch in file.iter_batches(_ROWS, row_groups=[group], columns=columns):
                        low, high = max(start - at, 0), min(stop - at, len(batch))
                        if low < high:
                            yield at + low, batch.slice(low, high - low)
                        at += len(batch)
                first += count

    def read(self, root: str | Path = "", start: int = 0, stop: int | None = None) -> Annotations:
        """Read the rows from ``start`` to ``stop``.

        Args:
            root: Folder of the images.
            start: Number of the first row.
            stop: Number of the row after the last; None for all.

        Raises:
            BoxelError: A column has another type than it should have.
        """
        return self.read_rows(start, stop).build(
            Path(root), self.categories, Path(self.path), from_raw(self.header.extras)
        )

    def read_rows(self, start: int = 0, stop: int | None = None) -> Builder:
        """Read rows as `read` does, into columns whose images can still be searched for."""
        pyarrow, rows = import_pyarrow(), Builder()
        seen: dict[str, int] = {}
        names = {name: label for label, (_, name, *_) in reversed([*enumerate(self.header.categories)])}
        try:
            for first, batch in self.batches(start, stop):
                _append(rows, batch, first, self.header, names, seen)
        except (
            pyarrow.ArrowException,
            KeyError,
            ValueError,
            TypeError,
            OSError,
            msgspec.MsgspecError,
        ) as error:
            raise _no_table(self.path, one_line(error)) from error
        return rows


def is_box_table(schema: pyarrow.Schema) -> bool:
    """Return whether a schema has the columns of a table of boxes."""
    return "image" in schema.names and ("box" in schema.names or set(_CORNERS) <= {*schema.names})


def _no_table(path: str, reason: str) -> BoxelError:
    return BoxelError(f"{path}: this is not a table of boxes ({reason}); check that it is complete.")


def _append(
    rows: Builder,
    batch: pyarrow.RecordBatch,
    first: int,
    header: Header,
    names: dict[str, int],
    seen: dict[str, int],
) -> None:
    """Append the rows of a batch; ``seen`` has the places of images by their names."""
    columns = _usable(batch)
    images = columns["image"].cast("string").fill_null("").dictionary_encode()
    paths = images.dictionary.to_pylist()
    codes = np.asarray(images.indices)
    _, firsts = np.unique(codes, return_index=True)
    for row in sorted(firsts.tolist()):
        name = paths[codes[row]]
        if name not in seen:
            seen[name] = _add_image(rows, name, columns, row, header)
    image_index = np.array([seen[name] for name in paths], dtype=np.int64)[codes]
    boxes, has_box = _boxes(columns, len(batch))
    ids = decode_ids(_texts(columns, "ann_id", len(batch)), header.ids.get("ann_id"))
    # A row without a box and an id of one states that there is an image.
    kept = np.flatnonzero(has_box | np.array([id is not None for id in ids], dtype=bool))
    taken = {name: column.take(kept) for name, column in columns.items()}
    rows.ids += [first + k + 1 if ids[k] is None else ids[k] for k in kept.tolist()]
    rows.segmentations += _segmentations(taken, len(kept))
    rows.source += _texts(taken, "source", len(kept))
    rows.extras += [text.encode() if text else None for text in _texts(taken, "extras", len(kept))]
    numbers = {
        "image_index": image_index[kept],
        "labels": _labels(taken, len(kept), names),
        "boxes": boxes[kept].ravel(),
        "iscrowd": _numbers(taken, "iscrowd", len(kept), False),
        "quality": _numbers(taken, "quality", len(kept), np.nan),
        "trusted": _numbers(taken, "trusted", len(kept), True),
        "areas": _numbers(taken, "area", len(kept), np.nan),
    }
    for name, values in numbers.items():
        column = getattr(rows, name)
        column.frombytes(np.asarray(values, dtype=column.typecode).tobytes())


def _usable(batch: pyarrow.RecordBatch) -> dict[str, Any]:
    """Return the columns that are known and of the kind they should be; other programs may use the same names."""
    types = import_pyarrow().types
    is_own = _KEY in (batch.schema.metadata or {})
    columns: dict[str, Any] = {}
    for field in batch.schema:
        kind, found = COLUMNS.get(field.name, "double" if field.name in _CORNERS else ""), field.type
        is_text = types.is_string(found) or types.is_large_string(found) or types.is_dictionary(found)
        is_list = types.is_list(found) or types.is_large_list(found) or types.is_fixed_size_list(found)
        is_number = types.is_integer(found) or types.is_floating(found) or types.is_boolean(found)
        fits = {
            "image": is_text,
            "label": is_text or is_number,
            "image_id": is_text or is_number,
            "ann_id": is_text or is_number,
        }.get(field.name, is_text if kind == "string" else is_list if kind.startswith("list") else is_number)
        if kind and fits and (is_own or field.name not in _OWN):
            columns[field.name] = batch[field.name]
    return columns


def _add_image(rows: Builder, name: str, columns: dict[str, Any], row: int, header: Header) -> int:
    """Append an image by one of its rows."""

    def value(key: str) -> Any:
        return columns[key][row].as_py() if key in columns else None

    size, extras = value("size"), value("image_extras")
    height, width = size if size and len(size) == 2 else (0, 0)
    (id,) = decode_ids([value("image_id")], header.ids.get("image_id"))
    return rows.add_image(
        name if id is None else id,
        name,
        width or 0,
        height or 0,
        split=value("split"),
        extras=extras.encode() if extras else None,
    )


def _boxes(columns: dict[str, Any], count: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return (count, 4) xyxy boxes, and which rows have one; what is not four finite numbers is a box without area."""
    if "box" in columns:
        boxes = np.full((count, 4), np.nan)
        has_box = np.asarray(columns["box"].is_valid())
        values = columns["box"].drop_null()
        lengths = np.asarray(values.value_lengths())
        whole = np.flatnonzero(has_box)[lengths == 4]
        numbers = values.filter(import_pyarrow().array(lengths == 4)).flatten()
        boxes[whole] = np.asarray(numbers.cast("double").to_numpy(zero_copy_only=False)).reshape(-1, 4)
    else:
        sides = [columns[name].cast("double").to_numpy(zero_copy_only=False) for name in _CORNERS]
        boxes = np.stack(sides, axis=1)
        has_box = np.any([columns[name].is_valid() for name in _CORNERS], axis=0)
    boxes[~np.isfinite(boxes).all(axis=1)] = 0
    return boxes, has_box


def _texts(columns: dict[str, Any], name: str, count: int) -> list[Any]:
    return columns[name].to_pylist() if name in columns else [None] * count


def _numbers(columns: dict[str, Any], name: str, count: int, missing: float) -> NDArray[Any]:
    if name not in columns:
        return np.full(count, missing)
    values = columns[name].cast("double").to_numpy(zero_copy_only=False)
    return np.where(np.isnan(values), missing, values)


def _labels(columns: dict[str, Any], count: int, names: dict[str, int]) -> NDArray[np.int32]:
    if "category" in columns and not columns["category"].null_count:
        return np.asarray(columns["category"], dtype=np.int32)
    if "label" not in columns:
        return np.zeros(count, dtype=np.int32)
    texts = columns["label"].cast("string").fill_null(_NAMELESS).dictionary_encode()
    places = np.array([names[text or _NAMELESS] for text in texts.dictionary.to_pylist()], dtype=np.int32)
    return places[np.asarray(texts.indices)] if len(places) else np.zeros(count, dtype=np.int32)


def _segmentations(columns: dict[str, Any], count: int) -> list[bytes | None]:
    others = [text.encode() if text else None for text in _texts(columns, "segmentation", count)]
    codes, sizes = _texts(columns, "counts", count), _texts(columns, "size", count)
    encode = msgspec.json.encode
    return [
        other if code is None or size is None else encode({"size": size, "counts": code})
        for other, code, size in zip(others, codes, sizes, strict=True)
    ]


def write_table(
    data: Annotations,
    path: Path,
    header: Header,
    status: Sequence[str | None] = (),
    errors: Sequence[str | None] = (),
) -> None:
    """Write a table of the boxes of a dataset, image by image.

    Args:
        data: The dataset.
        path: The file, which should be a temporary one that is renamed afterwards.
        header: What the metadata state.
        status: What became of each of N boxes, if they were labeled.
        errors: Why a box got no mask.
    """
    pyarrow = import_pyarrow()
    schema = _schema(pyarrow, header).with_metadata({_KEY: msgspec.json.encode(header)})
    with pyarrow.parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for images, rows in _groups(data):
            writer.write_batch(_batch(pyarrow, data, images, rows, schema, header, status, errors))


def _groups(data: Annotations) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield the images and instances of the rows of each group; -1 for an image without instances."""
    images, rows, count = list[NDArray[np.int64]](), list[NDArray[np.int64]](), 0
    for image in range(len(data)):
        own = data.instances_in(image)
        own = own if len(own) else np.array([-1])
        images.append(np.full(len(own), image))
        rows.append(own)
        count += len(own)
        if count >= _ROWS or image == len(data) - 1:
            yield np.concatenate(images), np.concatenate(rows)
            images, rows, count = [], [], 0


def _schema(pyarrow: Any, header: Header) -> pyarrow.Schema:
    lists = {"size": pyarrow.list_(pyarrow.int32(), 2), "box": pyarrow.list_(pyarrow.float64(), 4)}
    types = COLUMNS | {name: "int64" if kind == "int64" else "string" for name, kind in header.ids.items()}
    names = [name for name in types if name != "image_id" or name in header.ids]
    return pyarrow.schema([(name, lists.get(name) or pyarrow.type_for_alias(types[name])) for name in names])


def _batch(
    pyarrow: Any,
    data: Annotations,
    images: NDArray[np.int64],
    rows: NDArray[np.int64],
    schema: pyarrow.Schema,
    header: Header,
    status: Sequence[str | None],
    errors: Sequence[str | None],
) -> pyarrow.RecordBatch:
    sizes = np.stack([data.heights, data.widths], axis=1)[images]
    names = np.array([category.name for category in data.categories] or [""], dtype=object)
    own, places = rows[rows >= 0], np.flatnonzero(rows >= 0).tolist()

    def pick(column: Any) -> list[Any]:
        """Return the values of a column of instances; null for an image without any."""
        taken = column[own].tolist() if isinstance(column, np.ndarray) else [column[k] for k in own.tolist()]
        values: list[Any] = [None] * len(rows)
        for place, value in zip(places, taken, strict=True):
            values[place] = value
        return values

    codes, others = _split_codes(pick(data.segmentations), sizes)
    values: dict[str, Any] = {
        "image": [data.paths[image] for image in images],
        "image_id": encode_ids([data.image_ids[image] for image in images], header.ids.get("image_id")),
        "size": [size if all(size) else None for size in sizes.tolist()],
        "ann_id": encode_ids(pick(data.ids), header.ids.get("ann_id")),
        "label": pick(names[data.labels]),
        "category": pick(data.labels),
        "box": pick(data.boxes),
        "iscrowd": pick(data.iscrowd),
        "counts": codes,
        "segmentation": others,
        "area": pick(data.areas),
        "quality": pick(data.quality),
        "trusted": pick(data.trusted),
        "source": pick(data.source),
        "status": pick(status) if len(status) else None,
        "error": pick(errors) if len(errors) else None,
        "split": [data.splits[image] for image in images],
        "extras": pick(data.extras),
        "image_extras": [data.image_extras[image] for image in images],
    }
    arrays = [
        pyarrow.nulls(len(rows), field.type)
        if values[field.name] is None
        else pyarrow.array(values[field.name], field.type, from_pandas=True)
        for field in schema
    ]
    return pyarrow.RecordBatch.from_arrays(arrays, schema=schema)


def _split_codes(
    segmentations: Sequence[bytes | None], sizes: NDArray[np.int32]
) -> tuple[list[str | None], list[str | None]]:
    """Return the counts of codes that have the size of their image, and the JSON of all other segmentations."""
    codes, others = list[str | None](), list[str | None]()
    decoder = msgspec.json.Decoder(_Code)
    for text, size in zip(segmentations, sizes.tolist(), strict=True):
        code = None
        with contextlib.suppress(msgspec.MsgspecError):  # it is not a code
            code = decoder.decode(text or b"")
        counts = code.counts if code is not None and list(code.size) == size else None
        codes.append(counts)
        others.append(None if text is None or counts is not None else text.decode())
    return codes, others


def id_type(ids: Sequence[ImageId]) -> str:
    """Return how ids are stored: as ``int64`` or ``string``, or as ``json`` if not all are of one kind."""
    is_text = [isinstance(id, str) for id in ids]
    if any(is_text):
        return "string" if all(is_text) else "json"
    return "int64" if all(-(2**63) <= int(id) < 2**63 for id in ids) else "json"


def encode_ids(ids: Sequence[Any], kind: str | None) -> Sequence[Any]:
    """Return ids, some of which may be None, as they are stored; see `id_type`."""
    return [None if id is None else msgspec.json.encode(id).decode() for id in ids] if kind == "json" else ids


def decode_ids(ids: list[Any], kind: str | None) -> list[Any]:
    """Return ids for what `encode_ids` made of them."""
    if kind != "json":
        return ids
    return [None if id is None else msgspec.json.decode(id, type=ImageId) for id in ids]


def to_raw(extras: bytes | None) -> Raw:
    """Return extras as `Facts` hold them."""
    return _NULL if extras is None else Raw(extras)


def from_raw(extras: Raw) -> bytes | None:
    """Return extras as `Annotations` hold them."""
    return None if bytes(extras) == b"null" else bytes(extras)
