"""Training on masks that are made of boxes first: `boxel.train`."""

from __future__ import annotations

import time
from functools import partial, wraps
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from boxel.data import Annotations, read
from boxel.labeling.label import label_data
from boxel.training import run
from boxel.training.progress import say

TORCH_DEVICES = ("cpu", "cuda", "mps")
"""What a run's `device` may be that is one of torch's too."""


def made_masks(data: Annotations, teacher: str, file: Path, device: str) -> Annotations:
    """The set with masks of the boxes that have none.

    Of several processes the first makes them, and the others read its file, in a folder that all see.

    Args:
        data: the set.
        teacher: who draws them.
        file: keeps them; what is labelled already is not labelled again.
        device: where a network runs.
    """
    if getattr(rank_zero_only, "rank", 0):
        while not file.exists():  # if the first fails, who started them ends them all
            time.sleep(1)
        return read(file, images=data.root)
    device = device if device in TORCH_DEVICES else "auto"
    return label_data(data, teacher=teacher, out=file, device=device, report=partial(say, "%s")).data


@wraps(run.train, assigned=("__doc__",))  # its own name is what a process pool finds it by
def train(*given: Any, **settings: Any) -> Any:  # noqa: D103
    return run.train(*given, **{"labeller": made_masks} | settings)
