"""The bundled models: model folders under names of their own."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import yaml

BUNDLED = ("boxcaseg", "boxcaseg-boxes")
"""`boxcaseg` has learned from boxes, salient images and some masks; `boxcaseg-boxes` has only seen the masks of the
salient images. Their cards are beside their weights."""


def model_folder(source: str | Path) -> Path:
    """Return the folder of a model.

    Args:
        source: One of :data:`BUNDLED`, or a path; an existing folder of that name takes precedence.

    Examples:
        >>> model_folder("boxcaseg").name
        'boxcaseg'
    """
    path = Path(source)
    if str(source) in BUNDLED and not path.is_dir():
        return Path(str(files("boxel"))) / "weights" / str(source)
    return path


def read_method(source: str | Path) -> str | None:
    """Return the method of a model folder or a bundled model; None if it is neither.

    Examples:
        >>> read_method("boxcaseg")
        'boxcaseg'
    """
    try:
        text = (model_folder(source) / "config.yaml").read_text(encoding="utf-8")
        return str(yaml.safe_load(text)["method"])
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return None
