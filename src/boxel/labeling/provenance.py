"""What made a labeled dataset, as its `info` records it."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from boxel.data.annotations import Annotations
from boxel.data.digest import digest_data
from boxel.data.formats.extras import decode_extras, encode_extras, get_dict
from boxel.labeling.store import Store
from boxel.utils.provenance import describe_origin, digest_file

_FACT = "provenance"


def describe_input(source: Annotations | str | Path, data: Annotations) -> dict[str, str]:
    """Return the name and the digest of the annotations that are labeled: of the file, or of what a folder holds."""
    if isinstance(source, Annotations) or Path(source).is_dir():
        return {"file": Path(data.file).resolve().name, "digest": digest_data(data)}
    return {"file": Path(source).resolve().name, "digest": digest_file(source)}


def add_provenance(
    data: Annotations, made_from: dict[str, str], settings: dict[str, Any], store: Store
) -> Annotations:
    """Record in the `info` of a dataset what made it, under `boxel`.

    Command and date are those of the run that changed the dataset last, so that a job which is finished writes the same
    file again.
    """
    origin = describe_origin()
    made: dict[str, Any] = {"version": origin["boxel"], "input": made_from, "settings": settings}
    state = sha256(msgspec.json.encode([made, digest_data(data)])).hexdigest()
    known = store.get(_FACT) or {}
    if known.get("state") != state:
        run = {"command": origin["command"] or "boxel.label", "date": origin["date"]}
        known = {"state": state, "made": run | made}
        store.put(_FACT, known)
    extras = decode_extras(data.dataset_extras)
    info = get_dict(extras, "info") | {"boxel": known["made"]}
    return replace(data, dataset_extras=encode_extras(extras | {"info": info}))
