"""Read arrays, structs and cells of MATLAB 5 files, the format of SBD, PASCAL-Context and MCG's segments.

The format: MathWorks, "MAT-File Format", chapter 1. It is read here and not by SciPy, whose reader crashes the process
on damaged type codes and does not verify checksums.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_COMPRESSED = 15
_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_CELL, _STRUCT = 1, 2
_MAX_BYTES = 1 << 26
"""Maximum size of a variable: a small file may expand to any size."""

_HEAD_BYTES = 1 << 12
_CHUNK_BYTES = 1 << 20
_MAX_VARIABLES, _MAX_DIMENSIONS, _MAX_FIELDS, _MAX_DEPTH, _MAX_CELLS = 1000, 32, 1000, 8, 100_000


def read_mat(file: Path, variable: str) -> Any:
    """Read a numeric array, a struct or a cell of numeric arrays from a MATLAB file.

    Returns:
        An array, a dictionary of arrays by field, or a list of the arrays of a cell in MATLAB's order. Fields and items
        of other kinds, e.g. cells, are None.

    Raises:
        ValueError: The file is damaged, of another version, expands to more than 64 MB, or lacks the variable. Damage
            raises `zlib.error` too.
    """
    try:
        _, order, content = _find(file, variable, whole=True)
        return _parse(content, order)
    except (struct.error, OverflowError, TypeError, IndexError) as error:
        raise ValueError(f"its data is damaged ({error})") from error


def mat_shape(file: Path, variable: str) -> tuple[int, ...]:
    """Read the shape of a variable from its header alone; raises as `read_mat` does."""
    try:
        return _find(file, variable, whole=False)[0]
    except (struct.error, OverflowError, TypeError, IndexError) as error:
        raise ValueError(f"its data is damaged ({error})") from error


def _find(file: Path, variable: str, whole: bool) -> tuple[tuple[int, ...], str, memoryview]:
    """Return shape, byte order and content of a variable, or of the latter only the beginning."""
    if (size := file.stat().st_size) > 2 * _MAX_BYTES:
        raise ValueError(f"it has {size:,} bytes, more than boxel reads")
    content = file.read_bytes()
    order = {b"\x00\x01IM": "<", b"\x01\x00MI": ">"}.get(content[124:128])
    if order is None:
        raise ValueError("it is not a MATLAB 5 file")
    for kind, data in islice(_elements(memoryview(content)[128:], order), _MAX_VARIABLES):
        found = data
        if kind == _COMPRESSED:
            found = memoryview(zlib.decompressobj().decompress(data, _HEAD_BYTES))[8:]
        _, shape, name = _header(found, order)
        if name == variable:
            return shape, order, _decompress(data, order) if kind == _COMPRESSED and whole else found
    raise ValueError(f"it has no variable {variable}")


def _decompress(data: memoryview, order: str) -> memoryview:
    """Return the content of a compressed element, whose size is in its first bytes."""
    stream = zlib.decompressobj()
    _, size = struct.unpack(f"{order}II", stream.decompress(data, 8))
    if size > _MAX_BYTES:
        raise ValueError(f"its data expands to {size:,} bytes, more than boxel reads")
    content, at = bytearray(size), 0
    while chunk := stream.decompress(stream.unconsumed_tail, min(_CHUNK_BYTES, size - at + 1)):
        at += len(chunk)
        if at > size:
            raise ValueError("its data is longer than it states")
        content[at - len(chunk) : at] = chunk
    if at < size or not stream.eof:
        raise ValueError("its data is truncated")
    return memoryview(content)


def _elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Yield type and content of each data element."""
    at = 0
    while at + 8 <= len(data):
        kind, size = struct.unpack_from(f"{order}II", data, at)
        if kind >> 16:  # a small element: its size is in the upper half, and up to 4 bytes follow
            yield kind & 0xFFFF, data[at + 4 : at + 4 + min(kind >> 16, 4)]
            at += 8
            continue
        content = data[at + 8 : at + 8 + size]
        yield kind, content
        at += 8 + size + (0 if kind == _COMPRESSED else -size % 8)


def _header(data: memoryview, order: str) -> tuple[int, tuple[int, ...], str]:
    """Return class, shape and name of a matrix."""
    first = list(islice(_elements(data, order), 3))
    if len(first) < 3 or not first[0][1]:
        raise ValueError("its data is truncated")
    flags, shape, name = first
    kind = int(_numbers(*flags, order)[0]) & 0xFF
    dimensions = _numbers(*shape, order)
    if len(dimensions) > _MAX_DIMENSIONS or dimensions.dtype.kind not in "iu" or (dimensions < 0).any():
        raise ValueError("its dimensions are damaged")
    return kind, tuple(dimensions.tolist()), bytes(name[1][:64]).decode("ascii", "replace")


def _numbers(kind: int, data: memoryview, order: str) -> NDArray[Any]:
    if kind not in _TYPES:
        raise ValueError(f"it has data of unknown type {kind}")
    return np.frombuffer(data, dtype=f"{order}{_TYPES[kind]}")


def _parse(data: memoryview, order: str, depth: int = 0) -> Any:
    kind, shape, _ = _header(data, order)
    if kind == _CELL and depth == 0:
        count = math.prod(shape)
        items = list(islice(_elements(data, order), 3, min(count, _MAX_CELLS) + 3))
        if len(items) != count:
            raise ValueError(f"its cell has {len(items):,} of {count:,} items")
        return [_parse(content, order, depth + 1) if content else None for _, content in items]
    rest = list(islice(_elements(data, order), 3, _MAX_FIELDS + 6))
    if kind in _CLASSES:
        numbers = _numbers(*rest[0], order) if rest else np.empty(0)
        return _convert(numbers, _CLASSES[kind]).reshape(shape, order="F")
    if kind != _STRUCT:
        return None
    width = max(int(_numbers(*rest[0], order)[0]), 1) if len(rest) > 1 else 1
    if len(rest) < 2 or math.prod(shape) != 1 or len(rest[1][1]) > _MAX_FIELDS * width or depth == _MAX_DEPTH:
        raise ValueError("its struct is damaged")
    names = bytes(rest[1][1])
    fields = [names[k : k + width].split(b"\0")[0].decode("ascii") for k in range(0, len(names), width)]
    return {
        name: _parse(content, order, depth + 1) if content else None
        for name, (_, content) in zip(fields, rest[2:], strict=False)
    }


def _convert(numbers: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Return numbers, which may be stored in a smaller type, in the type of their array."""
    if np.can_cast(numbers.dtype, dtype):
        return numbers.astype(dtype, copy=False)
    with np.errstate(invalid="ignore"):
        converted = numbers.astype(dtype)
    if not np.array_equal(converted, numbers):
        raise ValueError(f"its numbers are not of its type, {np.dtype(dtype)}")
    return converted
