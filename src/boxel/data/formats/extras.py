"""Extras as dictionaries: the JSON texts in which `Annotations` carries fields that boxel itself does not use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray


def decode_extras(extras: bytes | None) -> dict[str, Any]:
    """Return the fields of extras; none for None.

    Examples:
        >>> decode_extras(b'{"pose": "left"}')
        {'pose': 'left'}
    """
    return {} if extras is None else msgspec.json.decode(extras)


def encode_extras(fields: Mapping[str, Any] | None) -> bytes | None:
    """Return fields as extras; None if there are none."""
    return msgspec.json.encode(fields) if fields else None


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
