"""Extras as dictionaries: the JSON texts in which `Annotations` carries fields that boxel itself does not use."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray


class _Any:
    """Equals any value."""

    def __eq__(self, other: object) -> bool:
        return True


ANY = _Any()
"""What a writer makes up where it knows nothing, e.g. an id, so that `merge_edits` leaves it out."""


def decode_extras(extras: bytes | None) -> dict[str, Any]:
    """Return the fields of extras; none for None.

    Examples:
        >>> decode_extras(b'{"pose": "left"}')
        {'pose': 'left'}
    """
    return {} if extras is None else decode_json(extras)


def decode_json(content: bytes) -> Any:
    """Decode a value that a reader kept as it was written, which may have what msgspec refuses.

    Of whole numbers, those of more than 4,300 digits become infinite; broken characters are replaced.

    Examples:
        >>> decode_json(b"1" + b"0" * 5000)
        inf
    """
    try:
        return msgspec.json.decode(content)
    except msgspec.MsgspecError:
        value = json.loads(content.decode("utf-8", "replace"), parse_int=_parse_int)
        return json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))


def _parse_int(text: str) -> int | float:
    return int(text) if len(text) < 19 else float(text)


def encode_extras(fields: Mapping[str, Any] | None) -> bytes | None:
    """Return fields as extras; None if there are none."""
    return msgspec.json.encode(fields) if fields else None


def set_field(extras: bytes | None, name: str, value: Any) -> bytes | None:
    """Return extras with a field set, or without it if the value is None.

    Examples:
        >>> set_field(set_field(b'{"track_id":1}', "note", "wet"), "note", None)
        b'{"track_id":1}'
    """
    if value is None and (extras is None or name.encode() not in extras):
        return extras
    fields = {key: old for key, old in decode_extras(extras).items() if key != name}
    return encode_extras(fields if value is None else fields | {name: value})


def find_field(extras: Iterable[bytes | None], name: str) -> list[int]:
    """Return the rows whose extras may have a field: its name is in their text.

    Examples:
        >>> find_field([None, b'{"note":"wet"}'], "note")
        [1]
    """
    key = f'"{name}"'.encode()
    return [row for row, text in enumerate(extras) if text is not None and key in text]


def get_dict(fields: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return a field that should be an object; an empty one if it is anything else."""
    value = fields.get(key)
    return value if isinstance(value, dict) else {}


def get_list(fields: Mapping[str, Any], key: str) -> list[Any]:
    """Return a field that should be a list; an empty one if it is anything else."""
    value = fields.get(key)
    return value if isinstance(value, list) else []


def get_text(fields: Mapping[str, Any], key: str) -> str:
    """Return a field that should be text; an empty one if it is anything else."""
    value = fields.get(key)
    return value if isinstance(value, str) else ""


def as_objects(values: Sequence[bytes | None]) -> NDArray[np.object_]:
    """Return texts as a column of `Annotations`."""
    column = np.full(len(values), None, dtype=object)
    column[:] = values
    return column


def merge_edits(known: Any, written: Any, read: Any) -> Any:
    """Return fields as read, which may have been edited, but as they were known before where they have not been.

    A format may hold a value only as something else, e.g. a number as text, or not at all.

    Args:
        known: The fields before they were written.
        written: What the format holds of them.
        read: The fields as read.

    Examples:
        >>> merge_edits({"wet": True, "n": 1, "id": 7}, {"wet": "true", "n": "1"}, {"wet": "true", "n": "2"})
        {'wet': True, 'n': 2, 'id': 7}
    """
    if isinstance(known, dict) and isinstance(read, dict):
        return _merge_dicts(known, written if isinstance(written, dict) else {}, read)
    if isinstance(known, list) and isinstance(written, list) and isinstance(read, list):
        triples = zip(known, written, read, strict=False)
        items = [k if w == r else merge_edits(k, w, r) for k, w, r in triples]
        return items + read[len(items) :]
    if isinstance(read, str) and not isinstance(known, str):
        with contextlib.suppress(msgspec.DecodeError):  # it has become another text
            value = msgspec.json.decode(read)
            if _plain_type(value) is _plain_type(known):
                return value
    return read


def _merge_dicts(known: dict[str, Any], written: dict[str, Any], read: dict[str, Any]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for key in known | read:
        is_same = read.get(key, ...) == written.get(key, ...)
        if is_same and key in known:
            merged[key] = known[key]
        elif not is_same and key in read:  # else it has been deleted, or the writer has added it
            merged[key] = merge_edits(known.get(key, read[key]), written.get(key), read[key])
    return merged


def _plain_type(value: Any) -> type:
    return float if type(value) is int else type(value)
