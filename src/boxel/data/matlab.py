"""Read arrays and structs of MATLAB 5 files, the format of SBD and PASCAL-Context.

The format: MathWorks, "MAT-File Format", chapter 1. It is read here and not by SciPy, whose reader crashes the process
on damaged type codes and does not verify checksums.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MATRIX, _COMPRESSED = 14, 15
_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_STRUCT = 2
_MAX_BYTES = 1 << 27
_HEAD_BYTES = 1 << 12


def read_mat(file: Path, variable: str) -> Any:
    """Read a numeric array, or a struct of numeric arrays, from a MATLAB file.

    Returns:
        An array, or a dictionary of arrays by field. Fields of other kinds, e.g. cells, are None.

    Raises:
        ValueError: The file is damaged, of another version, or lacks the variable. Damage raises `zlib.error` too.
    """
    _, order, content = _find(file, variable, _MAX_BYTES)
    return _parse(content, order)


def mat_shape(file: Path, variable: str) -> tuple[int, ...]:
    """Read the shape of a variable from its header alone; raises as `read_mat` does."""
    return _find(file, variable, _HEAD_BYTES)[0]


def _find(file: Path, variable: str, limit: int) -> tuple[tuple[int, ...], str, memoryview]:
    """Return shape, byte order and content of a variable, of which up to ``limit`` bytes are decompressed."""
    content = file.read_bytes()
    order = {b"\x00\x01IM": "<", b"\x01\x00MI": ">"}.get(content[124:128])
    if order is None:
        raise ValueError("it is not a MATLAB 5 file")
    for kind, data in _elements(memoryview(content)[128:], order):
        if kind == _COMPRESSED:
            stream = zlib.decompressobj()
            whole = memoryview(stream.decompress(data, limit))
            if limit == _MAX_BYTES and not stream.eof:
                raise ValueError("its data is truncated or too large")
            data = whole[8:]
        _, shape, name = _header(data, order)
        if name == variable:
            return shape, order, data
    raise ValueError(f"it has no variable {variable}")


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
    return kind, tuple(_numbers(*shape, order).tolist()), bytes(name[1]).decode("ascii", "replace")


def _numbers(kind: int, data: memoryview, order: str) -> NDArray[Any]:
    if kind not in _TYPES:
        raise ValueError(f"it has data of unknown type {kind}")
    return np.frombuffer(data, dtype=f"{order}{_TYPES[kind]}")


def _parse(data: memoryview, order: str) -> Any:
    kind, shape, _ = _header(data, order)
    rest = list(_elements(data, order))[3:]
    if kind in _CLASSES:
        numbers = _numbers(*rest[0], order) if rest else np.empty(0)
        return numbers.astype(_CLASSES[kind]).reshape(shape, order="F")
    if kind != _STRUCT:
        return None
    if len(rest) < 2 or int(np.prod(shape)) != 1:
        raise ValueError("its struct is damaged")
    width = max(int(_numbers(*rest[0], order)[0]), 1)
    names = bytes(rest[1][1])
    fields = [names[k : k + width].split(b"\0")[0].decode("ascii") for k in range(0, len(names), width)]
    return {
        name: _parse(content, order) if content else None
        for name, (_, content) in zip(fields, rest[2:], strict=False)
    }
