"""The settings of drawings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from boxel.utils.config import ClosedUnitInterval, Config, PositiveInt


@dataclass
class DrawConfig(Config):
    """How instances are drawn, and which images of a dataset.

    Attributes:
        color_by: `class`, or `instance` for a color per object.
        style: `fill` tints masks inside their outline; `outline` leaves them clear.
        labels: Write class and score or quality of each object.
        boxes: Draw the boxes.
        line_width: Width of lines in pixels. None: by the size of the image.
        min_score: Minimum score or quality of the objects drawn; those without one are drawn. None: for the
            predictions of a run what its training has chosen, or 0.3 without these; else 0.
        worst: Draw only this many images, the one with the lowest quality first; with true masks to compare with, the
            one with the lowest mean mask IoU.
        count: Draw at most this many images.
        sheet: File of a contact sheet: a grid of small drawings, on several pages if there are many.

    Examples:
        >>> DrawConfig(style="outline", worst=20).color_by
        'class'
    """

    color_by: Literal["class", "instance"] = "class"
    style: Literal["fill", "outline"] = "fill"
    labels: bool = True
    boxes: bool = True
    line_width: PositiveInt | None = None
    min_score: ClosedUnitInterval | None = None
    worst: PositiveInt | None = None
    count: PositiveInt | None = None
    sheet: str | None = None
