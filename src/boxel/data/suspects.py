"""Marks of boxes that look wrong by content, in the field `suspect` of an instance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from boxel.data.annotations import Annotations
from boxel.data.formats.extras import decode_extras, find_field, set_field
from boxel.utils.printable import name_ids

FIELD = "suspect"

SUSPECTS = ("empty", "two objects", "far too loose")
"""What may be wrong with a box."""


def mark_suspect(extras: bytes | None, suspect: str | None) -> bytes | None:
    """Return the extra fields of an instance with a mark, or without one.

    Examples:
        >>> mark_suspect(mark_suspect(b'{"track_id":1}', "empty"), None)
        b'{"track_id":1}'
    """
    return set_field(extras, FIELD, suspect)


def find_suspects(data: Annotations) -> dict[str, list[int]]:
    """Return the instances that are marked, by what may be wrong with them.

    Examples:
        >>> from boxel.data import example_scenes
        >>> data = example_scenes()
        >>> data.extras[1] = mark_suspect(None, "empty")
        >>> find_suspects(data)
        {'empty': [1]}
    """
    found: dict[str, list[int]] = {suspect: [] for suspect in SUSPECTS}
    for row in find_field(data.extras, FIELD):
        suspect = decode_extras(data.extras[row]).get(FIELD)
        if isinstance(suspect, str) and suspect in found:
            found[suspect].append(row)
    return {suspect: rows for suspect, rows in found.items() if rows}


def describe_suspects(data: Annotations, suspects: Mapping[str, Sequence[int]]) -> str:
    """State how many boxes look wrong, of each kind, with annotation ids; empty if none does.

    Examples:
        >>> from boxel.data import example_scenes
        >>> describe_suspects(example_scenes(), {"empty": [1], "far too loose": [0, 2]})
        '3 boxes look wrong: 1 empty (annotation 2), 2 far too loose (annotations 1, 3)'
    """
    total = sum(map(len, suspects.values()))
    if not total:
        return ""
    parts = [
        f"{len(rows):,} {suspect} ({name_ids([data.ids[row] for row in rows])})"
        for suspect, rows in suspects.items()
    ]
    verb = "boxes look" if total > 1 else "box looks"
    return f"{total:,} {verb} wrong: {', '.join(parts)}"
