"""Extras as dictionaries: the JSON texts in which `Annotations` carries fields that boxel itself does not use."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from boxel.data.annotations import Annotations
from boxel.data.formats.identity import Ids


def decode_extras(extras: bytes | None) -> dict[str, Any]:
    """Return the fields of extras; none for None.

    Examples:
        >>> decode_extras(b'{"pose": "left"}')
        {'pose': 'left'}
    """
    return {} if extras is None else msgspec.json.decode(extras)


def encode_extras(fields: Mapping[str, Any]) -> bytes | None:
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


def restore(ids: Ids, data: Annotations, stems: Sequence[str], written: Collection[str] = ()) -> Annotations:
    """Restore what an ids file holds in a dataset of a format that holds ids and extras itself.

    What has been read may have been edited since, so it comes first: extras take the place of restored ones, and an
    instance whose id is in the file is the one with that id, wherever it has been moved to.

    Args:
        ids: The file.
        data: The dataset as read.
        stems: Stem of each image's files.
        written: Keys of extras that the writer of the format adds itself.
    """
    restored, known = ids.restore(data, stems), ids.by_text
    if restored is data:
        return data
    return replace(
        restored,
        ids=[known.get(str(read), id) for read, id in zip(data.ids, restored.ids, strict=True)],
        extras=as_objects(
            [_merge(*pair, written) for pair in zip(restored.extras, data.extras, strict=True)]
        ),
        image_extras=[
            _merge(*pair, written) for pair in zip(restored.image_extras, data.image_extras, strict=True)
        ],
    )


def _merge(restored: bytes | None, read: bytes | None, written: Collection[str]) -> bytes | None:
    old = {} if restored is read else decode_extras(restored)
    new = {key: value for key, value in decode_extras(read).items() if key in old or key not in written}
    both = {
        key: get_dict(old, key) | get_dict(new, key) for key in ("attributes",) if key in old and key in new
    }
    return encode_extras(old | new | both)
