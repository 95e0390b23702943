"""Settings of object proposals, importable without the libraries that make them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from boxel.utils.config import Config, PositiveInt

Source: TypeAlias = Literal["mcg", "selective-search", "gop"]
"""The methods that make candidate segments."""


@dataclass
class ProposalConfig(Config):
    """Which candidate segments are made.

    Attributes:
        source: The method that makes the segments.
        count: Maximum number of segments per image.
        fit_boxes: Prefer segments that fit the image's boxes, and cut off what lies outside them.
        grabcut: Add the GrabCut mask of each box.

    Raises:
        BoxelError: The source is unknown, or the count is not positive.

    Examples:
        >>> ProposalConfig(source="gop").count
        2000
    """

    source: Source = "mcg"
    count: PositiveInt = 2000
    fit_boxes: bool = True
    grabcut: bool = True
