"""What made a labeled dataset."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import msgspec

from boxel.data.annotations import Annotations
from boxel.data.digest import digest_data
from boxel.data.provenance import add_record, describe_run
from boxel.labeling.store import Store

_FACT = "provenance"


def add_provenance(
    data: Annotations, made_from: dict[str, str], settings: dict[str, Any], store: Store
) -> Annotations:
    """Record in the `info` of a dataset what made it.

    Command and date are those of the run that changed the dataset last, so that a job which is finished writes the same
    file again.
    """
    run = describe_run("boxel.label")
    made = {"version": run["version"], "input": made_from, "settings": settings}
    state = sha256(msgspec.json.encode([made, digest_data(data)])).hexdigest()
    known = store.get(_FACT) or {}
    if known.get("state") != state:
        known = {"state": state, "made": run | made}
        store.put(_FACT, known)
    return add_record(data, known["made"])
