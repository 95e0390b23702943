"""Boxes that refer to an image as it is stored, when EXIF says that it is shown turned.

The policy: pixels are shown upright, and sizes, boxes and masks refer to the upright image. A tool that
ignores EXIF writes those of the stored image instead. This can be told where a quarter turn swaps the sides
of an image that is not square, and not where an image is only mirrored or turned by 180 degrees.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

import msgspec
import numpy as np
from numpy.typing import NDArray

from boxel.data.check.repair_state import Work
from boxel.data.check.rle_validation import Code, runs_of
from boxel.masks.rle import decode, encode, to_rle

TOLERANCE = 2.0
"""A box that reaches this many pixels beyond an image still fits into it."""

CLEARLY = 0.1
"""Where the recorded size is upright, boxes must reach out by this share of a side to be taken as stored."""


def frames(work: Work, stored_sizes: Mapping[int, tuple[int, int]], orientations: Mapping[int, int]) -> None:
    """`exif-boxes`: boxes clearly refer to the stored image, and are turned; `exif-unsure`: they may.

    They clearly do where all of the image's boxes fit the stored image and some does not fit the upright
    one; or where they fit both, the size that the set records is the stored one, and no other image of the
    set has such a size with boxes that fit the upright image only.

    Where a set has such images, its images that are turned without a swap of sides are reported as unsure.

    Args:
        work: the set; sizes still as recorded.
        stored_sizes: (width, height) of the readable images before they are turned.
        orientations: EXIF orientation of each, 1..8.
    """
    turned = {
        image: stored_sizes[image]
        for image, orientation in orientations.items()
        if orientation >= 5 and stored_sizes[image][0] != stored_sizes[image][1]
    }
    if not turned:
        return
    extents = {image: _extent(work.boxes[work.data.instances_of(image)]) for image in turned}
    votes = {image: _vote(work, image, size, extents[image]) for image, size in turned.items()}
    tool_knows_exif = "upright" in votes.values()
    stored = [
        image
        for image, vote in votes.items()
        if vote == "stored" or (vote == "size alone" and not tool_knows_exif)
    ]
    for image in stored:
        width, height = turned[image]
        count = len(work.data.instances_of(image))
        message = (
            f"{work.data.image_path(image)}: the {count} boxes refer to the image as it is stored "
            f"({width} x {height}), which EXIF orientation {orientations[image]} turns."
        )
        repair = "boxes and masks turned"
        if work.label_maps[image] is not None:
            repair += ", label map left out"
            work.label_maps[image] = None
        values = {
            "orientation": orientations[image],
            "stored": [width, height],
            "extent": extents[image].tolist(),
        }
        work.about_image(image, "exif-boxes", message, repair, values)
        _turn(work, image, orientations[image], width, height)
    if stored and not tool_knows_exif:
        _report_unsure(work, {i: o for i, o in orientations.items() if o > 1 and i not in turned})


def _vote(work: Work, image: int, stored: tuple[int, int], extent: NDArray[np.float64]) -> str:
    """What the boxes mean: "stored", "upright", "size alone" (fit both, the size is stored), "" (unknown)."""
    if not len(work.data.instances_of(image)) or not np.isfinite(extent).all():
        return ""
    recorded = (int(work.widths[image]), int(work.heights[image]))
    margin = np.full(2, TOLERANCE)
    fits_stored, fits_upright = (extent <= np.array(size) + margin for size in (stored, stored[::-1]))
    if not fits_stored.all():
        return "upright" if fits_upright.all() and recorded == stored else ""
    if recorded == stored:
        return "size alone" if fits_upright.all() else "stored"
    if min(recorded) <= 0:
        return "" if fits_upright.all() else "stored"
    if recorded == stored[::-1] and (extent > np.array(recorded) * (1 + CLEARLY)).any():
        return "stored"
    return ""


def _extent(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """(2,) how far the boxes that are finite reach right and down."""
    boxes = boxes[np.isfinite(boxes).all(axis=1)]
    return boxes.reshape(-1, 2).max(axis=0) if len(boxes) else np.full(2, np.nan)


def _report_unsure(work: Work, orientations: Mapping[int, int]) -> None:
    for image, orientation in orientations.items():
        if len(work.data.instances_of(image)):
            message = (
                f"{work.data.image_path(image)}: EXIF orientation {orientation} turns this image, and other "
                f"boxes of {work.data.file} ignore EXIF; look whether its boxes do."
            )
            work.about_image(image, "exif-unsure", message, values={"orientation": orientation})


def _turn(work: Work, image: int, orientation: int, width: int, height: int) -> None:
    instances = work.data.instances_of(image)
    corners = turn_points(work.boxes[instances].reshape(-1, 2), orientation, width, height).reshape(-1, 4)
    swapped = work.boxes[instances][:, :2] > work.boxes[instances][:, 2:]
    # A turn swaps which corner is the upper left; corners swapped before are left to `boxes.corners`.
    low = np.minimum(corners[:, :2], corners[:, 2:])
    high = np.maximum(corners[:, :2], corners[:, 2:])
    work.boxes[instances] = np.where(
        swapped.any(axis=1, keepdims=True), np.hstack([high, low]), np.hstack([low, high])
    )
    for i in instances:
        raw = work.segmentations[i]
        if raw is None:
            continue
        with suppress(msgspec.MsgspecError, ValueError):  # a malformed mask is found by `masks.shapes`
            work.segmentations[i] = _turn_segmentation(raw, orientation, width, height)


def _turn_segmentation(raw: bytes, orientation: int, width: int, height: int) -> bytes:
    segmentation = msgspec.json.decode(raw, type=list[list[float]] | Code)
    if isinstance(segmentation, Code):
        if segmentation.size != (height, width) or any(runs_of([segmentation])[1]):
            return raw
        mask = decode(to_rle(msgspec.to_builtins(segmentation), height, width))
        return msgspec.json.encode(encode(turn_pixels(mask, orientation)))
    points = [np.array(polygon, dtype=np.float64).reshape(-1, 2) for polygon in segmentation]
    return msgspec.json.encode(
        [turn_points(polygon, orientation, width, height).ravel().tolist() for polygon in points]
    )


def turn_points(
    points: NDArray[np.float64], orientation: int, width: int, height: int
) -> NDArray[np.float64]:
    """Points of a stored image where they are once it is shown upright after a quarter turn.

    Args:
        points: (n, 2) float64, xy pixels.
        orientation: EXIF, 5..8.
        width: of the stored image, in pixels.
        height: of the stored image, in pixels.
    """
    x, y = points[:, 0], points[:, 1]
    columns = {5: (y, x), 6: (height - y, x), 7: (height - y, width - x), 8: (y, width - x)}[orientation]
    return np.column_stack(columns)


def turn_pixels(mask: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """The (H, W) mask of a stored image as (W, H), after the quarter turn of EXIF orientation 5..8."""
    if orientation in (6, 8):
        return np.rot90(mask, -1 if orientation == 6 else 1)
    return mask.T if orientation == 5 else np.rot90(mask, 2).T
