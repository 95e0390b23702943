"""The models that come with boxel: folders like any other, under names of their own."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

SHIPPED = ("boxcaseg", "boxcaseg-boxes")
"""`boxcaseg` has learned from some masks, `boxcaseg-boxes` from boxes and salient images only."""


def shipped(name: str) -> Path:
    """The folder of a model that comes with boxel.

    Args:
        name: one of :data:`SHIPPED`.
    """
    return Path(str(files("boxel"))) / "weights" / name
