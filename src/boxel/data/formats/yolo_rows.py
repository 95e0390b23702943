"""Tell what the rows of a YOLO dataset are: boxes, polygons, oriented boxes or poses, with scores or track ids.

A row does not say so itself, hence all rows of the dataset are judged together.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from boxel.data.checks.mask_shapes import measure_polygons
from boxel.data.formats.builder import Builder, read_utf8
from boxel.data.formats.geometry import enclose
from boxel.data.formats.rotated import CORNERS
from boxel.data.issues import Issue
from boxel.utils.errors import BoxelError, one_line

MIN_ORIENTED = 2
"""Minimum number of quadrilaterals that show that they are oriented boxes."""

_MAX_OUT = 0.02
"""A box of a pose may extend this far past the image, as a share of it."""

_MIN_PIXELS = 2
"""All boxes with a number above this are written in pixels."""

_MIN_OUTSIDE = 0.2
"""Minimum share of the boxes that must extend past their image, for another layout to be likely."""

_MIN_CORNERS = 5
"""Fewer boxes do not show that they begin with their corner."""

_MIN_INSIDE = 0.9
"""Minimum share of the keypoints that are inside the boxes of their poses."""

_MIN_EXTENT = 0.25
"""Minimum extent of several keypoints relative to the box of their pose, in the median."""

_MIN_APART = 0.15
"""Corners of a small polygon are closer to each other than this, so that it looks like a box with points in it."""


_DECIMAL_COMMA = re.compile(r"-?\d*,\d+")


class Row(NamedTuple):
    """A row of a label file: index of its image, class number, and the numbers that follow."""

    image: int
    file: Path
    line: int
    class_id: int
    numbers: list[float]


class Meaning(NamedTuple):
    """What the rows of a dataset are.

    Attributes:
        keypoints: Number of keypoints that follow each box; 0 if none do.
        dims: Numbers per keypoint, 2 or 3.
        has_tracks: Rows end in a track id, which follows a score if one number more is left.
    """

    keypoints: int = 0
    dims: int = 2
    has_tracks: bool = False


class Shape(NamedTuple):
    """What a row describes: xyxy box in pixels, ring of a polygon, and fields that are kept as extras."""

    box: Sequence[float]
    ring: list[float] | None
    extras: dict[str, Any]


def read_rows(file: Path, image: int, rows: Builder) -> Iterator[Row]:
    """Yield each valid row of a label file; the others become issues."""
    stem = rows.image_ids[image]
    try:
        lines = read_utf8(file).decode("utf-8", "replace").splitlines()
    except BoxelError as error:
        rows.issues.append(Issue("bad-file", str(error), str(file), image_id=stem, repair="left out"))
        return
    first = next((line for line in lines if line.strip()), "")
    if first.count(",") >= 5 and not any(map(_DECIMAL_COMMA.fullmatch, first.split())):
        what = "these are rows of a MOT file (frame, id, box, ...), not YOLO labels; the file is left out."
        rows.report("bad-file", file, what, stem)
        return
    for number, line in enumerate(lines, start=1):
        if not line.split():
            continue
        try:
            class_id, numbers = parse_words(line.split())
            if len(numbers) < 4:
                raise ValueError(f"{len(numbers)} numbers are neither a box nor a polygon")
        except ValueError as error:
            what = f"line {number} cannot be read ({one_line(error)}); it is left out."
            rows.report("bad-annotation", file, what, stem, line=number)
            continue
        yield Row(image, file, number, class_id, numbers)


def parse_words(words: Sequence[str]) -> tuple[int, list[float]]:
    """Return the class number of a row, and the numbers that follow; a ValueError states why there are none."""
    try:
        class_id, *numbers = map(float, words)
    except ValueError as error:
        comma = next(filter(_DECIMAL_COMMA.fullmatch, words), None)
        raise ValueError(f"{comma} has a decimal comma; write a point") if comma else error from None
    if not class_id.is_integer() or not 0 <= class_id < 2**31:
        raise ValueError("its class is not a whole number")
    return int(class_id), numbers


def judge_rows(rows: Sequence[Row], kpt_shape: tuple[int, int] | None, task: str = "") -> Meaning:
    """Judge what all rows of a dataset are.

    Args:
        rows: The rows.
        kpt_shape: Number of keypoints and of numbers per keypoint, if the dataset states them.
        task: What the dataset states itself to be: ``detect``, ``segment``, ``obb``, ``pose``, or nothing.
    """
    if kpt_shape is not None:
        return Meaning(*kpt_shape)
    counts = {len(row.numbers) for row in rows}
    if len(counts) == 1 and task in ("", "pose") and (count := next(iter(counts))) > 5:
        numbers = np.array([row.numbers for row in rows])
        if np.isfinite(numbers).all():
            # A box, then keypoints, then perhaps a score; visibilities are the best sign.
            found = _find_visible(numbers, count) or _find_points(numbers, count)
            if found:
                return Meaning(*found)
    last = [row.numbers[-1] for row in rows if len(row.numbers) % 2]
    ends_in_ids = any(v > 1 for v in last) and all(v >= 0 and v.is_integer() for v in last)
    six = [row.numbers[5] for row in rows if len(row.numbers) == 6]
    scored = len(six) == len(rows) and all(v >= 1 and v.is_integer() for v in six)
    return Meaning(has_tracks=ends_in_ids or (scored and (len(six) > 1 or max(six, default=0) > 1)))


def judge_layout(boxes: NDArray[np.float64], sizes: NDArray[np.float64]) -> str:
    """Judge how boxes are written: as YOLO's ``shares`` of the image, or wrongly as ``pixels``, ``corners``, or
    ``corner`` and size.

    Another layout is only returned if all boxes fit into their images in it, and as they should be many do not.

    Args:
        boxes: (N, 4) the numbers of rows that are boxes.
        sizes: (N, 2) width and height of their images in pixels; zeros if unknown.

    Examples:
        >>> judge_layout(np.array([[60.0, 40, 20, 20]]), np.array([[120.0, 80]]))
        'pixels'
        >>> judge_layout(np.array([[0.5, 0.5, 0.9, 0.8], [0.6, 0.1, 0.9, 0.3]]), np.array([[120.0, 80]] * 2))
        'corners'
    """
    usable = np.isfinite(boxes).all(axis=1) & (sizes > 0).all(axis=1)
    boxes, sizes = boxes[usable], sizes[usable]
    if not len(boxes):
        return "shares"
    if (boxes.max(axis=1) > _MIN_PIXELS).all():
        return "pixels" if _are_boxes(boxes / np.tile(sizes, 2)) else "shares"
    corners = (boxes[:, 2:] > boxes[:, :2]).all() and boxes.min() >= 0 and boxes.max() <= 1 + _MAX_OUT
    enough = len(boxes) > 1 and (~_find_inside(boxes)).mean() >= _MIN_OUTSIDE
    corner = boxes.min() >= 0 and (boxes[:, :2] + boxes[:, 2:]).max() <= 1 + _MAX_OUT
    corner &= len(boxes) >= _MIN_CORNERS
    return "corners" if corners and enough else "corner" if corner and enough else "shares"


def _find_visible(numbers: NDArray[np.float64], count: int) -> tuple[int, int] | None:
    """Find keypoints with a visibility of 0, 1 or 2."""
    if (count - 4) % 3:
        return None
    visible = np.isin(numbers[:, 6::3], (0, 1, 2)).all()
    return ((count - 4) // 3, 3) if visible and _are_boxes(numbers) else None


def _find_points(numbers: NDArray[np.float64], count: int) -> tuple[int, int] | None:
    """Find keypoints by where they are: inside the box that the first four numbers of each row are."""
    if not _are_boxes(numbers):
        return None
    center, sides = numbers[:, None, :2], numbers[:, None, 2:4]
    for dims in (3, 2):
        end = count - (count - 4) % dims
        if count - end > 1:
            continue
        points = numbers[:, 4:end].reshape(len(numbers), -1, dims)
        inside = (np.abs(points[..., :2] - center) <= 0.55 * sides).all(axis=2)
        unlabeled = (points[..., :2] == 0).all(axis=2)
        if (inside | unlabeled).mean() < _MIN_INSIDE or (dims == 3 and points[..., 2].max() > 1):
            continue
        if points.shape[1] == 1:
            spread = bool((np.abs(numbers[:, 2:4] - numbers[:, :2]) >= _MIN_APART).any())
        else:
            extent = np.ptp(points[..., :2], axis=1).max(axis=1) / numbers[:, 2:4].max(axis=1)
            spread = bool(np.median(extent) >= _MIN_EXTENT)
        if spread:
            return points.shape[1], dims
    return None


def _are_boxes(numbers: NDArray[np.float64]) -> bool:
    """Return whether the first four numbers of all rows are boxes inside the image."""
    return bool(_find_inside(numbers).all() and (numbers[:, 2:4] > 0).all())


def _find_inside(boxes: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which boxes, given by center and size as shares of the image, are inside it."""
    reach: NDArray[np.float64] = np.abs(boxes[:, :2] - 0.5) + boxes[:, 2:4] / 2
    return reach.max(axis=1) <= 0.5 + _MAX_OUT


def interpret(numbers: list[float], meaning: Meaning, width: int, height: int) -> Shape:
    """Return what the numbers of a row describe in an image of a size in pixels.

    Raises:
        ValueError: They are neither a box nor a polygon.
    """
    extras: dict[str, Any] = {}
    if meaning.keypoints:
        end = 4 + meaning.keypoints * meaning.dims
        if len(numbers) >= end:
            extras["keypoints"] = _to_keypoints(numbers[4:end], meaning.dims, width, height)
        numbers = numbers[:4]
    else:
        numbers, extras = _split_tail(numbers, meaning)
    if len(numbers) < 4 or len(numbers) % 2:
        raise ValueError(f"{len(numbers)} numbers are neither a box nor a polygon")
    box, ring = place_shape(numbers, width, height)
    return Shape(box, None if ring == box_corners(box) else ring, extras)


def place_shape(numbers: Sequence[float], width: int, height: int) -> tuple[list[float], list[float] | None]:
    """Return the xyxy box in pixels that the numbers of a row describe, and the ring if they are a polygon."""
    if len(numbers) == 4:
        x, y, w, h = numbers
        box = [(x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height]
        return [round(v, 6) for v in box], None
    ring = [round(v * side, 6) for v, side in zip(numbers, cycle((width, height)), strict=False)]
    return [min(ring[::2]), min(ring[1::2]), max(ring[::2]), max(ring[1::2])], ring


def _split_tail(numbers: list[float], meaning: Meaning) -> tuple[list[float], dict[str, Any]]:
    """Split off the score and the track id at the end of a row, which have no place in a box or polygon."""
    extras: dict[str, Any] = {}
    if meaning.has_tracks and len(numbers) >= 5:
        extras["track_id"] = _to_whole(numbers[-1])
        numbers = numbers[:-1]
    if len(numbers) % 2 and len(numbers) >= 5:
        extras["score"] = numbers[-1]
        numbers = numbers[:-1]
    return numbers, {key: value for key, value in extras.items() if np.isfinite(value)}


def _to_keypoints(numbers: list[float], dims: int, width: int, height: int) -> list[float]:
    """Return keypoints as COCO has them: x and y in pixels, and the visibility."""
    points: list[float] = []
    for k in range(0, len(numbers), dims):
        x, y = numbers[k] * width, numbers[k + 1] * height
        visible = numbers[k + 2] if dims == 3 else 2 * (numbers[k] != 0 or numbers[k + 1] != 0)
        points += [round(x, 6), round(y, 6), _to_whole(visible)]
    return points if np.isfinite(points).all() else []


def _to_whole(value: float) -> float:
    """Return a number as an int if it is a whole one that floats hold exactly."""
    return int(value) if abs(value) < 2**53 and float(value).is_integer() else value


def box_corners(box: Sequence[float]) -> list[float]:
    """Return the corners of an xyxy box from the upper left clockwise."""
    x0, y0, x1, y1 = box
    return [x0, y0, x1, y0, x1, y1, x0, y1]


def find_oriented(shapes: Sequence[Shape], task: str = "") -> bool:
    """Return whether the polygons of a dataset are oriented boxes: quadrilaterals, all of which are turned rectangles.

    The ``task`` is what the dataset states itself to be, as for `judge_rows`.
    """
    rings = [shape.ring for shape in shapes if shape.ring is not None]
    if task != "obb" and (task or len(rings) < MIN_ORIENTED):
        return False
    if not rings or any(len(ring) != 8 for ring in rings) or not np.isfinite(rings).all():
        return False
    measured = measure_polygons([[ring] for ring in rings])
    return task == "obb" or bool(measured.oriented.all() and not measured.rectangle.all())


def as_oriented(shape: Shape) -> Shape:
    """Return a polygon of four corners as its box, with the corners among the extras."""
    if shape.ring is None:
        return shape
    corners = np.reshape(shape.ring, (-1, 2)).tolist()
    return Shape(enclose(corners), None, shape.extras | {CORNERS: corners})
