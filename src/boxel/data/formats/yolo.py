"""Stub."""

from pathlib import Path

from boxel.data.annotations import Annotations


def recognise(path: Path) -> bool:
    """Whether this is such a set."""
    return False


def read(path: Path, images: Path | None = None) -> Annotations:
    """Read."""
    raise NotImplementedError


def write(data: Annotations, path: Path) -> list[str]:
    """Write."""
    raise NotImplementedError
