"""A fault found in a data set: what is wrong, where, and what mends it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a data set.

    Attributes:
        kind: a short stable name, as `box-outside`.
        message: one sentence a person can act on.
        file: the annotation file or the image concerned.
        image_id: original id of the image, if one is concerned.
        annotation_id: original id of the annotation, if one is concerned.
        values: the offending values by name, ready for JSON.
        repair: what `--repair` does about it; empty if nothing can be done.
    """

    kind: str
    message: str
    file: str = ""
    image_id: int | str | None = None
    annotation_id: int | str | None = None
    values: dict[str, Any] = field(default_factory=dict)
    repair: str = ""


def left_out(faults: Sequence[Fault]) -> str:
    """One sentence for what a reader left out.

    Args:
        faults: of `Annotations`, one at least.
    """
    count = "1 entry" if len(faults) == 1 else f"{len(faults)} entries"
    return f"{count} can't be used, the first: {faults[0].message} `boxel check` lists all."
