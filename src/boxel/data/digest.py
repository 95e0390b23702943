"""The digest of a dataset, by which two of them are known to be the same."""

from __future__ import annotations

from hashlib import sha256

import msgspec

from boxel.data.annotations import COLUMNS, Annotations

_LISTS = ("image_ids", "paths", "categories", "ids", "label_maps", "image_extras", "splits", "dataset_extras")


def digest_data(data: Annotations) -> str:
    """Return the SHA-256 of all that a dataset holds, as hexadecimal digits; of images and label maps, the names.

    Examples:
        >>> from boxel.data import example_scenes
        >>> digest_data(example_scenes()) == digest_data(example_scenes(2))
        False
    """
    total = sha256()
    for name in COLUMNS:
        column = getattr(data, name)
        total.update(msgspec.msgpack.encode(column.tolist()) if column.dtype == object else column.tobytes())
    total.update(data.map_labels.tobytes())
    for name in _LISTS:
        total.update(msgspec.msgpack.encode(getattr(data, name)))
    return total.hexdigest()
