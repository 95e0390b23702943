"""Settings of object proposals, importable without the libraries that make them."""

from __future__ import annotations

from dataclasses import dataclass

from boxel.utils.config import Config, PositiveInt
from boxel.utils.errors import BoxelError, nearest

SOURCES = ("mcg", "selective-search", "gop")
"""The methods that make candidate segments."""


@dataclass
class ProposalConfig(Config):
    """Which candidate segments are made.

    Attributes:
        source: `mcg`, `selective-search` or `gop`.
        count: Maximum number of segments per image.
        fit_boxes: Prefer segments that fit the image's boxes, and cut off what lies outside them.
        grabcut: Add the GrabCut mask of each box.

    Raises:
        BoxelError: The source is unknown, or the count is not positive.

    Examples:
        >>> ProposalConfig(source="gop").count
        2000
    """

    source: str = "mcg"
    count: PositiveInt = 2000
    fit_boxes: bool = True
    grabcut: bool = True

    def __post_init__(self) -> None:
        check_source(self.source)
        super().__post_init__()


def check_source(source: str) -> None:
    """Raise a :class:`BoxelError` unless ``source`` is known."""
    if source not in SOURCES:
        raise BoxelError(
            f"there is no source of candidate segments {source!r}; choose one of {', '.join(SOURCES)}."
            f"{nearest(source, list(SOURCES))}"
        )
