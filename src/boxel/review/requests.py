"""What the page sends: changes of objects, checked before anything else sees them."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from boxel.review.decisions import State

_MAX_POINTS = 20_000
_MAX_COORDINATE = 500_000  # pixels from the origin
_MAX_PERIMETER = 5_000_000  # pixels; filling a polygon takes about 40 bytes per pixel

ClassName = Annotated[str, Field(max_length=1000)]
Coordinate = Annotated[float, Field(ge=-_MAX_COORDINATE, le=_MAX_COORDINATE)]
Box = tuple[Coordinate, Coordinate, Coordinate, Coordinate]
Point = tuple[Coordinate, Coordinate]
Points = Annotated[list[Point], Field(max_length=_MAX_POINTS)]


def _check_perimeter(points: list[Point]) -> list[Point]:
    """Refuse a polygon that would take gigabytes to fill, or crash pycocotools."""
    edges = zip(points, points[1:] + points[:1], strict=True)
    if sum(max(abs(x1 - x0), abs(y1 - y0)) for (x0, y0), (x1, y1) in edges) > _MAX_PERIMETER:
        raise ValueError(f"the edges of a polygon have at most {_MAX_PERIMETER:,} pixels")
    return points


Polygon = Annotated[Points, AfterValidator(_check_perimeter)]


class Strict(BaseModel):
    """A part of a request; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


class SetState(Strict):
    """Accept, reject, ignore or delete an object, or open it again."""

    kind: Literal["state"]
    state: State


class SetCategory(Strict):
    """Change the class of an object."""

    kind: Literal["category"]
    category: ClassName


class SetBox(Strict):
    """Move the box of an object, and predict its mask again."""

    kind: Literal["box"]
    box: Box


class Stroke(Strict):
    """Add a stroke of a brush to the mask, or remove it."""

    kind: Literal["brush"]
    points: Annotated[list[Point], Field(min_length=1, max_length=_MAX_POINTS)]
    radius: Annotated[float, Field(gt=0, le=2000)]
    add: bool


class Clicked(Strict):
    """A click on a pixel."""

    point: Point
    add: bool  # it belongs to the object


class Click(Clicked):
    """Add the missing part that was clicked on, or remove a wrong one; earlier clicks hold."""

    kind: Literal["click"]
    earlier: Annotated[list[Clicked], Field(max_length=200)] = []


class MoveVertices(Strict):
    """Change the mask by what a polygon gains and loses."""

    kind: Literal["polygon"]
    before: Polygon
    after: Polygon


class Restore(Strict):
    """Return to another version: undo or redo."""

    kind: Literal["restore"]
    to: Annotated[int, Field(ge=0)]


Edit: TypeAlias = SetState | SetCategory | SetBox | Click | Stroke | MoveVertices
Change = Annotated[Edit | Restore, Field(discriminator="kind")]


class ChangeRequest(Strict):
    """A change of an object, whose version the page has seen."""

    version: Annotated[int, Field(ge=0)]
    change: Change


class NewObject(Strict):
    """An object that the dataset lacks."""

    category: ClassName
    box: Box
