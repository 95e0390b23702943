"""Issues of a dataset: what is wrong, where, and how it is repaired; as sentences, as text and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from boxel.utils.printable import count_noun

_EXAMPLES = 3
"""Maximum number of messages of a kind in a text."""


@dataclass(frozen=True)
class Issue:
    """One thing that is wrong with a dataset.

    Attributes:
        kind: Short stable name, e.g. `box-outside`.
        message: One sentence that a person can act on.
        file: The annotation file or the image concerned.
        image_id: Original id of the image, if one is concerned.
        annotation_id: Original id of the annotation, if one is concerned.
        values: The offending values by name, ready for JSON.
        repair: How a reader or `repair` handles it; empty if nothing can be done.

    Examples:
        >>> Issue("box-tiny", "a.json: annotation 7 has a box of 1 x 1 pixels.", repair="left out").kind
        'box-tiny'
    """

    kind: str
    message: str
    file: str = ""
    image_id: int | str | None = None
    annotation_id: int | str | None = None
    values: dict[str, object] = field(default_factory=dict)
    repair: str = ""


def summarize_issues(issues: Sequence[Issue]) -> str:
    """Return one sentence on the issues that a reader found.

    Args:
        issues: At least one issue, usually ``Annotations.issues``.

    Examples:
        >>> summarize_issues([Issue("bad-image", "a.json: image 3 cannot be read; it is left out.")])
        '1 entry cannot be used: a.json: image 3 cannot be read; it is left out. `boxel check` lists all.'
    """
    count = count_noun(len(issues), "entry", "entries")
    first = "" if len(issues) == 1 else ", the first"
    return f"{count} cannot be used{first}: {issues[0].message} `boxel check` lists all."


def format_issues(issues: Sequence[Issue]) -> list[str]:
    """Return lines of text: the number of issues, then each kind with its count, first examples and repairs.

    Args:
        issues: The result of `check` or `repair`.

    Examples:
        >>> format_issues([])
        ['no issues found']
    """
    if not issues:
        return ["no issues found"]
    kinds = group_by_kind(issues)
    lines = [f"{count_noun(len(issues), 'issue')} of {count_noun(len(kinds), 'kind')}"]
    for kind, members in sorted(kinds.items(), key=lambda item: -len(item[1])):
        lines += ["", f"{kind}: {len(members)} ({describe_repairs(members)})"]
        for issue in members[:_EXAMPLES]:
            lines.append(f"  {issue.message}" + (f" [{issue.repair}]" if issue.repair else ""))
        if len(members) > _EXAMPLES:
            lines.append(f"  ... and {len(members) - _EXAMPLES} more; `json` lists them all")
    return lines


def describe_repairs(issues: Sequence[Issue]) -> str:
    """State how many of some issues a repair corrects, and how many it answers by leaving out what is wrong.

    Examples:
        >>> describe_repairs([Issue("box-nan", "a.json: ...", repair="left out"), Issue("all-crowd", "a.json: ...")])
        '1 left out by a repair'
    """
    left_out = sum(issue.repair.startswith("left out") for issue in issues)
    corrected = sum(bool(issue.repair) for issue in issues) - left_out
    parts = [f"{corrected:,} corrected by a repair"] * bool(corrected)
    parts += [f"{left_out:,} left out by a repair"] * bool(left_out)
    return ", ".join(parts) or "no repair is known"


def group_by_kind(issues: Sequence[Issue]) -> dict[str, list[Issue]]:
    """Return the issues of each kind, in their order."""
    kinds: dict[str, list[Issue]] = {}
    for issue in issues:
        kinds.setdefault(issue.kind, []).append(issue)
    return kinds


def issues_to_json(issues: Sequence[Issue]) -> list[dict[str, object]]:
    """Convert issues to plain dictionaries with the attributes of `Issue`, ready for `json.dumps`.

    Examples:
        >>> issues_to_json([Issue("box-nan", "a.json: ...", values={"x": float("nan")})])[0]["values"]
        {'x': 'nan'}
    """
    return [to_plain(asdict(issue)) for issue in issues]


def to_plain(value: Any) -> Any:
    """Replace NumPy types by Python's, and numbers that JSON cannot hold by their names."""
    if isinstance(value, dict):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return to_plain(value.tolist())
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float | bool | None) else str(value)
