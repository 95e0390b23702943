"""Inputs that once crashed a reader, hung it or filled the memory, or made a message without an end."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from typing import Any, NamedTuple

import pyarrow.parquet
import yaml
from fuzz_mutations import ALIASES


class Found(NamedTuple):
    """A change of a valid file.

    Attributes:
        target: The reader.
        file: The file.
        what: What was found.
        change: Makes the input of the valid file.
        sentence: Part of the error of boxel; empty if the rest of the input is read.
    """

    target: str
    file: str
    what: str
    change: Callable[[bytes], bytes]
    sentence: str = ""


def _set(**fields: Any) -> Callable[[bytes], bytes]:
    """Return a change of fields of a JSON or YAML document."""
    return lambda content: json.dumps(yaml.safe_load(content) | fields).encode()


def _replace(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    return lambda content: content.replace(old, new)


def _deep(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def _patch(content: bytes, at: int, new: bytes) -> bytes:
    """Overwrite a field of the first entry of the directory of an archive."""
    at += content.index(b"PK\x01\x02")
    return content[:at] + new + content[at + len(new) :]


def _bytes_npz(content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(stream, "w") as new:
        for name in old.namelist():
            new.writestr(name, b"none")
    return stream.getvalue()


def _in_parts(content: bytes) -> bytes:
    at = content.index(b"PK\x06\x07")  # the locator of the directory, which states the number of archives
    return content[: at + 16] + b"\xff" * 4 + content[at + 20 :]


def _header(text: bytes) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        table, stream = pyarrow.parquet.read_table(io.BytesIO(content)), io.BytesIO()
        pyarrow.parquet.write_table(table.replace_schema_metadata({b"boxel.boxes": text}), stream)
        return stream.getvalue()

    return change


FOUND = [
    Found("segments", "1.npz", "a part that is not an array", _bytes_npz, "not a file of candidate segments"),
    Found("yolo", "in/labels/1.txt", "a track id beyond 64 bits", lambda content: b"0 .5 .5 .2 .2 1e300\n"),
    Found(
        "cvat tracks",
        "annotations.xml",
        "a task without a begin",
        _replace(b"frame>0<", b"frame>-4294967296<"),
    ),
    Found(
        "cvat tracks",
        "annotations.xml",
        "a box in a far frame",
        _replace(b'frame="1"', b'frame="4294967296"'),
        "correct the number",
    ),
    Found(
        "cvat tracks",
        "annotations.xml",
        "a task without an end",
        _replace(b"frame>1<", b"frame>4294967296<"),
        "correct the number",
    ),
    Found(
        "segments",
        "1.npz",
        "an unknown compression",
        lambda content: _patch(content, 10, b"\x63\x00"),
        "cannot be read",
    ),
    Found("checkpoint", "last.ckpt", "an archive in parts", _in_parts, "is damaged"),
    Found(
        "convert to sbd",
        "data.json",
        "a mask below another",
        lambda content: content.replace(b"[3, 3, 9, 3, 9, 8, 3, 8]", b"[2, 3, 8, 3, 8, 8, 2, 8]").replace(
            b'"image_id": 1, "category_id": 1, "bbox": [3', b'"image_id": 2, "category_id": 1, "bbox": [2'
        ),
    ),
    *(
        Found(f"convert to {name}", "data.json", f"{what} in an unknown field", _replace(b"true", value))
        for name in ("yolo", "voc", "salient")
        for what, value in (("invalid text", b'"\xff"'), ("a number beyond floats", b"1e999"))
    ),
    Found(
        "onnx", "model.onnx", "a color out of range", _replace(b"[0,0,0]", b"[2,0,0]"), "has a damaged mean"
    ),
    Found(
        "recipe", "recipe.yaml", "a base whose name is too long", _set(base="1" * 300), "there is no recipe"
    ),
    Found(
        "model",
        "model/config.yaml",
        "a size of 20 digits",
        _replace(b"16", b"9" * 20),
        "config.yaml: is damaged",
    ),
    Found(
        "yolo",
        "in/data.yaml",
        "a file of names whose name is too long",
        _set(names="1" * 300),
        "must list the classes",
    ),
    Found("yolo", "in/data.yaml", "a count of 5000 digits", _set(nc="9" * 5000)),
    Found(
        "convert to yolo",
        "data.json",
        "an id of 5000 digits",
        _replace(b'"id": 2,', b'"id": "%s",' % (b"9" * 5000)),
    ),
    Found(
        "table of boxes",
        "t.parquet",
        "a header that is not JSON",
        _header(b"{"),
        "its header is damaged",
    ),
    Found(
        "table of boxes",
        "t.parquet",
        "a header of another kind",
        _header(b'{"categories": {}}'),
        "its header is damaged",
    ),
    Found(
        "model folder",
        "model/quality.json",
        "a calibration of other types",
        _set(mean={"a": 1}),
        "not readable as a calibration",
    ),
    Found(
        "model folder",
        "model/quality.json",
        "a calibration of other shapes",
        _set(mean=[1.0]),
        "its arrays are damaged",
    ),
    Found(
        "model folder",
        "model/config.yaml",
        "aliases of aliases",
        lambda content: ALIASES.encode() + content,
        "expand to too many values",
    ),
    Found(
        "onnx",
        "model.onnx",
        "metadata that are not UTF-8",
        _replace(b"boxcaseg", b"boxcase\xff"),
        "its metadata are damaged",
    ),
    Found(
        "segments",
        "1.npz",
        "a bomb",
        lambda content: _patch(content, 24, b"\x00\x00\x00\x40"),
        "it expands to",
    ),
    Found(
        "recipe",
        "recipe.yaml",
        "settings that are nested deeply",
        _set(model={"tau": _deep(300)}),
        "nested deeper than",
    ),
    Found(
        "recipe",
        "recipe.yaml",
        "aliases of aliases",
        lambda content: ALIASES.encode() + b"model:\n  tau: *i\n",
        "expand to too many values",
    ),
    Found(
        "yolo",
        "in/data.yaml",
        "aliases of aliases",
        lambda content: ALIASES.encode() + b"names: *i\n",
        "expand to too many values",
    ),
    Found(
        "page of a run", "model/metrics.csv", "curves that are not UTF-8", lambda content: content + b"\xff"
    ),
    Found("page of a run", "model/run.json", "counts that are text", _set(training={"images": "three"})),
]
