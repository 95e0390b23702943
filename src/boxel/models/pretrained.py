"""The models that come with boxel: folders like any other, under names of their own."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import yaml

SHIPPED = ("boxcaseg", "boxcaseg-boxes")
"""`boxcaseg` has learned from boxes, salient images and some masks; `boxcaseg-boxes` has seen the masks of the salient
images only. Their cards are beside their weights."""


def folder_of(source: str | Path) -> Path:
    """The folder of a model: of one that comes with boxel where the name is one's, else the path itself.

    Args:
        source: one of :data:`SHIPPED`, or a path; a folder of that name goes first.
    """
    path = Path(source)
    if str(source) in SHIPPED and not path.is_dir():
        return Path(str(files("boxel"))) / "weights" / str(source)
    return path


def method_of(source: str | Path) -> str | None:
    """The method of a model folder, or of a model that comes with boxel; None where it is neither."""
    try:
        return str(yaml.safe_load((folder_of(source) / "config.yaml").read_text())["method"])
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return None
