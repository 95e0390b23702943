"""What made a labeled dataset: recorded in its `info`."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec

from boxel import __version__
from boxel.data.annotations import COLUMNS, Annotations
from boxel.data.formats.extras import decode_extras, encode_extras, get_dict
from boxel.labeling.outputs import digest_files
from boxel.labeling.store import Store

_FACT = "provenance"


def describe_input(source: Annotations | str | Path, data: Annotations) -> dict[str, str]:
    """Return the name and the digest of the annotations that are labeled."""
    if isinstance(source, Annotations):
        name = {"file": Path(data.file).name} if data.file else {}
        return name | {"digest": _digest_data(data)}
    return {"file": Path(source).name, "digest": digest_files(Path(source)).hex()}


def add_provenance(
    data: Annotations, made_from: dict[str, str], settings: dict[str, Any], command: str, store: Store
) -> Annotations:
    """Record in the `info` of a dataset what made it.

    Command and date are those of the run that changed the dataset last, so that a job which is finished writes the same
    file again.
    """
    made: dict[str, Any] = {"version": __version__, "input": made_from, "settings": settings}
    state = blake2b(msgspec.json.encode([made, _digest_data(data)]), digest_size=16).hexdigest()
    known = store.get(_FACT) or {}
    if known.get("state") != state:
        date = datetime.now(timezone.utc).isoformat(timespec="seconds")
        known = {"state": state, "made": {"command": command, "date": date} | made}
        store.put(_FACT, known)
    extras = decode_extras(data.dataset_extras)
    info = get_dict(extras, "info") | {"boxel": known["made"]}
    return replace(data, dataset_extras=encode_extras(extras | {"info": info}))


def _digest_data(data: Annotations) -> str:
    """Compute the digest of all that a dataset holds."""
    total = blake2b(digest_size=16)
    for name in COLUMNS:
        column = getattr(data, name)
        total.update(msgspec.msgpack.encode(column.tolist()) if column.dtype == object else column.tobytes())
    names = (
        "image_ids",
        "paths",
        "categories",
        "ids",
        "label_maps",
        "image_extras",
        "splits",
        "dataset_extras",
    )
    for name in names:
        total.update(msgspec.msgpack.encode(getattr(data, name)))
    return total.hexdigest()
