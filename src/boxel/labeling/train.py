"""Label a set and train on its masks, in one go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from boxel.data import Annotations
from boxel.labeling.label import label
from boxel.training import train


def label_and_train(
    method: str,
    data: Annotations | str | Path,
    *,
    out: str | Path | None = None,
    images: str | Path | None = None,
    teacher: str = "boxcaseg",
    **arguments: Any,
) -> Any:
    """Make masks of the boxes that have none, as :func:`boxel.label` does, and train on them.

    Args:
        method: as of :func:`boxel.train`.
        data: the set, or its file.
        out: folder of the run, which gets `masks.json` too: what is labelled already is not labelled again.
        images: folder of the images, where it is not beside the annotations.
        teacher: who draws the masks.
        **arguments: the others of :func:`boxel.train`.

    Returns:
        The trained model, or None if it was asked to stop before the end.
    """
    out = Path("runs", method) if out is None else Path(out)
    masks = label(data, images=images, teacher=teacher, out=out / "masks.json")
    return train(method, masks, out=out, **arguments)
