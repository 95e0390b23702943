"""Training on masks that are made of boxes first: `boxel.train`."""

from __future__ import annotations

from functools import partial, wraps
from pathlib import Path
from typing import Any

from boxel.data import Annotations
from boxel.labeling.label import label_data
from boxel.training import run
from boxel.training.progress import say

DAY = 24 * 60 * 60.0
"""Seconds that the processes of a training wait for the one among them that labels."""


def made_masks(data: Annotations, teacher: str, file: Path, device: str) -> Annotations:
    """The set with masks of the boxes that have none.

    Args:
        data: the set.
        teacher: who draws them.
        file: keeps them; what is labelled already is not labelled again.
        device: where a network runs.
    """
    told = partial(say, "%s")
    return label_data(data, teacher=teacher, out=file, device=device, wait=DAY, report=told).data


@wraps(run.train)
def train(*given: Any, **settings: Any) -> Any:
    """:func:`boxel.training.run.train`, with `boxel label` at hand."""
    return run.train(*given, **{"labeller": made_masks} | settings)
