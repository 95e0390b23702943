"""Settings of object proposals, importable without the libraries that make them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from boxel.utils.config import Config, PositiveInt
from boxel.utils.errors import BoxelError

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
        files: Folder of the segments that MCG's authors published, a MATLAB file per image with its name; they are read
            instead of made. They are not fitted to boxes.

    Raises:
        BoxelError: The source is unknown, the count is not positive, or files are given together with another source or
            `fit_boxes`.

    Examples:
        >>> ProposalConfig(source="gop").count
        2000
    """

    source: Source = "mcg"
    count: PositiveInt = 2000
    fit_boxes: bool = True
    grabcut: bool = True
    files: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.files is not None and (self.source != "mcg" or self.fit_boxes):
            raise BoxelError(
                f"files is {self.files}, whose segments are MCG's and are not fitted to boxes; set source to mcg and "
                "fit_boxes to false."
            )
