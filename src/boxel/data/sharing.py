"""Give a dataset to worker processes without a copy for each: they read it from one file, a page when it is needed."""

from __future__ import annotations

import contextlib
import os
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, overload

import msgspec
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from boxel.data.annotations import Annotations

_ALIGNMENT = 64  # bytes, so that arrays of any type can begin there


class _Array(NamedTuple):
    """Where an array lies in the file."""

    start: int
    dtype: str
    shape: tuple[int, ...]


class _Values(NamedTuple):
    """Where texts, ids and missing values lie in the file: all one after another, and where each ends."""

    block: _Array
    ends: _Array
    is_list: bool


class SharedValues(Sequence[Any]):
    """A column of texts, bytes, ids and None, which are decoded one by one; it is indexed as a list or an array is."""

    def __init__(self, block: NDArray[np.uint8], ends: NDArray[np.int64], is_list: bool) -> None:
        self._block, self._ends, self._is_list = block, ends, is_list

    def __len__(self) -> int:
        """Number of values."""
        return len(self._ends)

    @overload
    def __getitem__(self, key: int) -> Any: ...
    @overload
    def __getitem__(self, key: slice) -> Any: ...
    def __getitem__(self, key: Any) -> Any:
        """Return a value, or those of a slice or of an array of indices or booleans as an array (a list for a list)."""
        if isinstance(key, int | np.integer):
            return self._value(range(len(self))[key])
        chosen = np.arange(len(self))[key]
        values = [self._value(index) for index in chosen.tolist()]
        return values if self._is_list else _to_objects(values)

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the values."""
        return map(self._value, range(len(self)))

    def tolist(self) -> list[Any]:
        """Return all values."""
        return list(self)

    def copy(self) -> Any:
        """Return all values, to change some."""
        return self[:]

    def _value(self, index: int) -> Any:
        start = self._ends[index - 1] if index else 0
        return msgspec.msgpack.decode(self._block[start : self._ends[index]].data)


class SharedFile:
    """A temporary file with the columns of a dataset; it is removed with its object."""

    def __init__(self, data: Annotations) -> None:
        handle, self.path = tempfile.mkstemp(prefix="boxel-", suffix=".columns")
        self._remove = weakref.finalize(self, _unlink, self.path)
        self.columns: dict[str, _Array | _Values] = {}
        self.others: dict[str, Any] = {}
        with os.fdopen(handle, "wb") as file:
            for field in fields(data):
                value = getattr(data, field.name)
                if isinstance(value, np.ndarray) and value.dtype != object:
                    self.columns[field.name] = _write(file, value)
                elif isinstance(value, list | np.ndarray | SharedValues) and field.name != "issues":
                    self._write_values(file, field.name, value)
                else:
                    self.others[field.name] = value

    def _write_values(self, file: BinaryIO, name: str, values: Any) -> None:
        try:
            parts = [msgspec.msgpack.encode(value) for value in values]
        except (OverflowError, TypeError):  # an id of more than 64 bits
            self.others[name] = values
            return
        block = _write(file, np.frombuffer(b"".join(parts), dtype=np.uint8))
        ends = _write(file, np.cumsum([len(part) for part in parts], dtype=np.int64))
        self.columns[name] = _Values(block, ends, isinstance(values, list))

    def reduce(self, kind: type[Annotations]) -> tuple[Callable[..., Annotations], tuple[Any, ...]]:
        """Return what pickle needs to open the columns in another process."""
        return _open, (kind, self.path, self.columns, self.others)


def _write(file: BinaryIO, array: NDArray[Any]) -> _Array:
    file.write(bytes(-file.tell() % _ALIGNMENT))
    start = file.tell()
    file.write(np.ascontiguousarray(array).data)
    return _Array(start, array.dtype.str, array.shape)


def _open(
    kind: type[Annotations], path: str, columns: dict[str, _Array | _Values], others: dict[str, Any]
) -> Annotations:
    """Return the dataset in a file, without reading it."""
    # Pages that are written to become private, so that the arrays can be used like any others.
    whole = np.memmap(path, dtype=np.uint8, mode="c") if os.path.getsize(path) else np.zeros(0, np.uint8)

    def array(place: _Array) -> NDArray[Any]:
        count = int(np.prod(place.shape)) * np.dtype(place.dtype).itemsize
        return np.asarray(whole[place.start : place.start + count]).view(place.dtype).reshape(place.shape)

    data = object.__new__(kind)  # whose __init__ would read all columns
    for name, value in others.items():
        object.__setattr__(data, name, value)
    for name, place in columns.items():
        column = array(place) if isinstance(place, _Array) else None
        if isinstance(place, _Values):
            column = SharedValues(array(place.block), array(place.ends), place.is_list)  # type: ignore[assignment]
        object.__setattr__(data, name, column)
    return data


def _to_objects(values: list[Any]) -> NDArray[np.object_]:
    found = np.empty(len(values), dtype=object)
    found[:] = values
    return found


def _unlink(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)
