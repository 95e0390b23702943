"""Boxes that lie as a whole: written in another layout than their format has, or without their rotation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from boxel.masks.boxes import paired_box_iou

if TYPE_CHECKING:
    from boxel.data.annotations import Annotations
    from boxel.data.checks.repair_state import RepairState

TOLERANCE = 2.0
"""A box that extends up to this many pixels past an image still fits into it."""

MIN_BOXES = 2
"""Fewer boxes do not show how a dataset was written."""

MIN_CENTER_BOXES = 5
"""Fewer boxes do not show that they begin with their center."""

MIN_BEYOND = {"xyxy": 0.2, "center": 0.1}
"""Share of the boxes that must extend past their image as they are read, for another reading to be likely."""

MIN_AGREEMENT = 0.8
"""Share of the masks whose tight box must agree with another reading alone."""

MIN_SIZE = 16
"""Images smaller than this may have boxes of a pixel."""

_WORDS = {
    "xyxy": "x0, y0, x1, y1",
    "center": "center x, center y, width, height",
    "xywh": "x, y, width, height",
}


def image_limits(data: Annotations | RepairState) -> NDArray[np.float64]:
    """(N, 4) width, height, width, height of the instances' images; infinite if unknown."""
    sizes = np.stack([data.widths, data.heights], axis=1)[data.image_index].astype(np.float64)
    sizes[(sizes <= 0).any(axis=1)] = np.inf
    return np.tile(sizes, 2)


def detect_layout(
    boxes: NDArray[np.float64], sizes: NDArray[np.float64], mask_boxes: NDArray[np.float64] | None = None
) -> tuple[str, bool]:
    """Detect that boxes read as x, y, width, height were written in another layout.

    Another layout is likely if with it all boxes are inside their image, and as they are read many are not, or the
    masks agree with it alone.

    Args:
        boxes: (N, 4) xyxy as read.
        sizes: (N, 2) width and height of the images; infinite if unknown.
        mask_boxes: (N, 4) tight boxes of masks, NaN if unknown.

    Returns:
        ``xywh`` (as read), ``xyxy`` or ``center``; and whether the numbers are shares of the image.

    Examples:
        >>> boxes = np.array([[50.0, 40, 110, 90], [10, 60, 100, 130]])  # written as 50, 40, 60, 50 and 10, 60, 90, 70
        >>> detect_layout(boxes, np.full((2, 2), 100.0))
        ('xyxy', False)
    """
    usable = np.isfinite(boxes).all(axis=1)
    if usable.sum() < MIN_BOXES:
        return "xywh", False
    boxes, sizes = boxes[usable], sizes[usable]
    known = np.isfinite(sizes).all(axis=1)
    written = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    unit = bool((written >= 0).all() and (written <= 1).all() and (sizes >= MIN_SIZE).all())
    normalized = unit and bool(known.all() and (written[:, 2:] > 0).any())
    if normalized:
        boxes = boxes * np.tile(sizes, 2)
    masks = np.full_like(boxes, np.nan) if mask_boxes is None else mask_boxes[usable]
    for layout in ("xyxy", "center"):
        if _fits_better(boxes, reread(boxes, layout), sizes, masks, layout):
            return layout, normalized
    return "xywh", normalized


def _fits_better(
    boxes: NDArray[np.float64],
    other: NDArray[np.float64],
    sizes: NDArray[np.float64],
    mask_boxes: NDArray[np.float64],
    layout: str,
) -> bool:
    """Return whether another reading of boxes fits their images and masks, and the present one does not."""
    valid = (other[:, 2:] > other[:, :2]).all() and (other[:, :2] >= -TOLERANCE).all()
    if not valid or not (other[:, 2:] <= sizes + TOLERANCE).all():
        return False
    masked = np.isfinite(mask_boxes[:, 0])
    if masked.sum() >= MIN_BOXES:
        iou = paired_box_iou(boxes[masked], mask_boxes[masked])
        other_iou = paired_box_iou(other[masked], mask_boxes[masked])
        return bool(((other_iou > 0.9) & (iou < other_iou)).mean() >= MIN_AGREEMENT)
    enough = len(boxes) >= (MIN_CENTER_BOXES if layout == "center" else MIN_BOXES)
    return enough and bool((boxes[:, 2:] > sizes + TOLERANCE).any(axis=1).mean() >= MIN_BEYOND[layout])


def reread(boxes: NDArray[np.float64], layout: str) -> NDArray[np.float64]:
    """Read boxes again, (N, 4) xyxy as read from x, y, width, height, as if written in another layout.

    Examples:
        >>> reread(np.array([[10.0, 20, 40, 60]]), "center").tolist()
        [[-5.0, 0.0, 25.0, 40.0]]
    """
    corner, sides = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
    if layout == "xyxy":
        return np.concatenate([corner, sides], axis=1)
    if layout == "center":
        return np.concatenate([corner - sides / 2, corner + sides / 2], axis=1)
    return boxes


def describe_layout(layout: str, normalized: bool, count: int) -> str:
    """Return what is wrong with the layout of boxes, to continue the name of a file; empty if nothing is."""
    found = []
    if normalized:
        found.append("shares of the image instead of pixels")
    if layout != "xywh":
        found.append(f"{_WORDS[layout]} instead of {_WORDS['xywh']}")
    return f"its {count:,} boxes are written as {' and '.join(found)}" if found else ""


def describe_geometry(data: Annotations) -> list[str]:
    """Return a sentence per way in which the boxes of a dataset lie: another layout, or a rotation beside them.

    Examples:
        >>> from boxel.data.samples import sample_images
        >>> describe_geometry(sample_images())
        []
    """
    remedy = "`boxel check --repair` corrects them"
    layout = detect_layout(data.boxes, image_limits(data)[:, :2])
    what = describe_layout(*layout, len(data.boxes))
    sentences = [f"{data.file}: {what}; {remedy}."] if what else []
    rotated = [data.ids[i] for i, _, _ in _find_rotations(data.extras)]
    if rotated:
        sentences.append(
            f"{data.file}: {len(rotated):,} boxes have a rotation (`attributes.rotation`) and state the box before it, "
            f"the first: annotation {rotated[0]}; {remedy}."
        )
    return sentences


def check_layout(state: RepairState) -> None:
    """Check for `boxes-layout`: all boxes are written in another layout, or as shares of the image."""
    sizes = image_limits(state)[:, :2]
    layout, normalized = detect_layout(
        state.boxes[state.keep], sizes[state.keep], state.mask_boxes[state.keep]
    )
    what = describe_layout(layout, normalized, len(state.boxes))
    if not what:
        return
    values = {"layout": layout, "normalized": normalized}
    state.report_dataset("boxes-layout", what, "read as they are meant", rows=state.keep, **values)
    state.boxes = reread(state.boxes * (np.tile(sizes, 2) if normalized else 1), layout)


def check_rotations(state: RepairState) -> None:
    """Check for `box-rotated`: CVAT writes the box before its rotation, and the rotation among the attributes.

    The box becomes the one that encloses the rotated box; the attribute becomes ``original_rotation``.
    """
    limits = image_limits(state)
    for i, fields, degrees in _find_rotations(state.extras):
        box = state.boxes[i].copy()
        what = f"has a box that is rotated by {degrees:g} degrees, and states the box before the rotation"
        repair = "box set to enclose the rotated one"
        state.report_instance(i, "box-rotated", what, repair, box=box, rotation=degrees)
        state.boxes[i] = np.clip(_enclose_rotated(box, degrees), 0, limits[i])
        attributes = {name: value for name, value in fields["attributes"].items() if name != "rotation"}
        fields["attributes"] = attributes | {"original_rotation": degrees}
        state.extras[i] = msgspec.json.encode(fields)


def _find_rotations(extras: NDArray[np.object_]) -> Iterator[tuple[int, dict[str, Any], float]]:
    """Yield the index, the extras and the rotation in degrees of each instance with ``attributes.rotation``."""
    for i, fields, attributes in _find_extras(extras, b'"rotation"'):
        rotation = attributes.get("rotation")
        if isinstance(rotation, int | float) and rotation % 180:
            yield i, fields, float(rotation)


def _find_extras(
    extras: NDArray[np.object_], key: bytes
) -> Iterator[tuple[int, dict[str, Any], dict[str, Any]]]:
    """Yield the index, the extras and their attributes of each instance whose extras may have a key."""
    for i, raw in enumerate(extras):
        if raw is not None and key in raw:
            fields = msgspec.json.decode(raw)
            attributes = fields.get("attributes")
            yield i, fields, attributes if isinstance(attributes, dict) else {}


def _enclose_rotated(box: NDArray[np.float64], degrees: float) -> NDArray[np.float64]:
    """Return the smallest box around one that is rotated about its center."""
    center, (width, height) = (box[:2] + box[2:]) / 2, np.abs(box[2:] - box[:2]) / 2
    c, s = abs(np.cos(np.deg2rad(degrees))), abs(np.sin(np.deg2rad(degrees)))
    half = np.array([width * c + height * s, width * s + height * c])
    return np.concatenate([center - half, center + half])


def check_tracks(state: RepairState) -> None:
    """Check for `duplicate-track`: an image with two instances of one ``track_id``, e.g. of merged frames."""
    seen: dict[tuple[int, str], int] = {}
    for i, fields, attributes in _find_extras(state.extras, b'"track_id"'):
        track = fields.get("track_id", attributes.get("track_id"))
        if not isinstance(track, int | str):
            continue
        first = seen.setdefault((int(state.image_index[i]), str(track)), i)
        if first != i:
            what = f"has the track_id {track} of annotation {state.data.ids[first]} in the same image"
            values = {"track_id": track, "same_as": state.data.ids[first]}
            state.report_instance(i, "duplicate-track", what, **values)
