"""What made a dataset: the record in `info.boxel` of the dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from boxel.data.annotations import Annotations
from boxel.data.digest import describe_source
from boxel.data.formats.extras import decode_extras, encode_extras, get_dict, get_list
from boxel.utils.provenance import describe_origin

RECORD = "boxel"
"""Name of the record in the `info` of a dataset."""


def describe_input(source: Annotations | str | Path, data: Annotations) -> dict[str, str]:
    """Return the name and the digest of the annotations that were read: of the file, or of what a folder holds."""
    is_file = not isinstance(source, Annotations) and Path(source).is_file()
    described = describe_source(source if is_file else data)
    return {"file": Path(described["path"] or "").name, "digest": described["sha256"]}


def describe_run(function: str) -> dict[str, str]:
    """Return the command, or the function if a program of the user calls it, the version and the date."""
    origin = describe_origin()
    return {"command": origin["command"] or function, "version": origin["boxel"], "date": origin["date"]}


def add_record(data: Annotations, made: dict[str, Any]) -> Annotations:
    """Return the dataset with a record of what made it; the one that it has becomes the last of its ``before``.

    Examples:
        >>> from boxel.data import example_scenes
        >>> labeled = add_record(example_scenes(), {"command": "boxel label"})
        >>> add_record(labeled, {"command": "boxel convert"}).dataset_extras
        b'{"info":{"boxel":{"command":"boxel convert","before":[{"command":"boxel label"}]}}}'
    """
    *before, last = _read_records(data)
    return _with_records(data, [*before, last, made] if last else [made])


def take_back_repair(data: Annotations) -> Annotations:
    """Return the dataset without its last record if that is of a repair, which is to be undone."""
    *before, last = _read_records(data)
    return _with_records(data, before) if "repaired" in last else data


def without_records(data: Annotations) -> Annotations:
    """Return the dataset without any record of what made it."""
    return _with_records(data, [])


def has_record(data: Annotations) -> bool:
    """Return whether a dataset states what made it."""
    return any(_read_records(data))


def _read_records(data: Annotations) -> list[dict[str, Any]]:
    """Return the records of a dataset, the last one last; it is empty if there is none."""
    last = get_dict(get_dict(decode_extras(data.dataset_extras), "info"), RECORD)
    before = [record for record in get_list(last, "before") if isinstance(record, dict)]
    return [*before, {name: value for name, value in last.items() if name != "before"}]


def _with_records(data: Annotations, records: Sequence[dict[str, Any]]) -> Annotations:
    extras = decode_extras(data.dataset_extras)
    info = extras.get("info") or {}
    if not isinstance(info, dict):  # a text of another tool, which has no place for a record
        return data
    info.pop(RECORD, None)
    if records:
        *before, last = records
        info[RECORD] = last | ({"before": before} if before else {})
    others = {name: value for name, value in extras.items() if name != "info"}
    return replace(data, dataset_extras=encode_extras(others | ({"info": info} if info else {})))
