"""Boxes that refer to the stored image although its EXIF orientation rotates it.

The policy: pixels are shown upright, and sizes, boxes and masks refer to the upright image. A tool that ignores EXIF
writes those of the stored image instead. This can be detected if a quarter turn swaps the sides of an image that is not
square, but not if an image is only flipped or rotated by 180 degrees.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from boxel.data.checks.geometry import TOLERANCE
from boxel.data.checks.masks import SEGMENTATION, Code
from boxel.data.checks.repair_state import RepairState
from boxel.data.images import UPRIGHT, ImageHeader
from boxel.masks.rle import decode, encode, to_rle

CLEAR_EXCESS = 0.1
"""If the recorded size is the upright one, boxes must extend past it by this share of a side to count as stored."""


def check_orientation(state: RepairState, headers: Mapping[int, ImageHeader]) -> None:
    """Check for `exif-boxes`, boxes that clearly refer to the stored image, and `exif-unclear`, boxes that may.

    They clearly do if all of the image's boxes fit the stored image and some does not fit the upright one; or if they
    fit both, the recorded size is the stored one, and no other image of the dataset has such a size with boxes that fit
    the upright image only. Clear ones are rotated.

    If a dataset has such images, its images that are rotated without a swap of sides are reported as unclear. The
    sizes must still be as recorded.
    """
    turned = {image: header for image, header in headers.items() if header.stored != header.upright}
    extents = {image: _extent(state.boxes[state.data.instances_in(image)]) for image in turned}
    votes = {image: _vote(state, image, header.stored, extents[image]) for image, header in turned.items()}
    # A tool that knows EXIF wrote the upright image's boxes beside stored sizes.
    deciding = ("stored",) if "upright" in votes.values() else ("stored", "size alone")
    wrong = [image for image, vote in votes.items() if vote in deciding]
    for image in wrong:
        (width, height), orientation = headers[image]
        message = (
            f"{state.data.image_path(image)}: its boxes refer to the image as it is stored ({width} x {height}), which "
            f"EXIF orientation {orientation} rotates."
        )
        repair = "boxes and masks rotated"
        if state.label_maps[image] is not None:
            repair += ", label map left out"
            state.label_maps[image] = None
        values = {"orientation": orientation, "stored": [width, height], "extent": extents[image]}
        state.report_image(image, "exif-boxes", message, repair, **values)
        _rotate(state, image, orientation, width, height)
    if not wrong or "size alone" not in deciding:
        return
    for image, (_, orientation) in headers.items():
        if orientation > 1 and image not in turned and len(state.data.instances_in(image)):
            message = (
                f"{state.data.image_path(image)}: EXIF orientation {orientation} rotates this image, and other "
                f"boxes of {state.data.file} ignore EXIF; check whether its boxes do."
            )
            state.report_image(image, "exif-unclear", message, orientation=orientation)


def _vote(state: RepairState, image: int, stored: tuple[int, int], extent: NDArray[np.float64]) -> str:
    """Return what the boxes refer to: "stored", "upright", "size alone" (fit both, size is stored), "" (unknown)."""
    if not np.isfinite(extent).all():
        return ""
    recorded = (int(state.widths[image]), int(state.heights[image]))
    fits_stored, fits_upright = ((extent <= np.add(size, TOLERANCE)).all() for size in (stored, stored[::-1]))
    if not fits_stored:
        return "upright" if fits_upright and recorded == stored else ""
    if recorded == stored:
        return "size alone" if fits_upright else "stored"
    if min(recorded) <= 0:
        return "" if fits_upright else "stored"
    if recorded == stored[::-1] and (extent > np.array(recorded) * (1 + CLEAR_EXCESS)).any():
        return "stored"
    return ""


def _extent(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """(2,) maximum x and y of the boxes that are finite."""
    boxes = boxes[np.isfinite(boxes).all(axis=1)]
    return boxes.reshape(-1, 2).max(axis=0) if len(boxes) else np.full(2, np.nan)


def _rotate(state: RepairState, image: int, orientation: int, width: int, height: int) -> None:
    own = state.data.instances_in(image)
    boxes = state.boxes[own]
    corners = rotate_points(boxes.reshape(-1, 2), orientation, width, height).reshape(-1, 4)
    # A rotation changes which corner is the upper left; swapped corners are left to `boxes.check_corners`.
    low, high = np.minimum(corners[:, :2], corners[:, 2:]), np.maximum(corners[:, :2], corners[:, 2:])
    swapped = (boxes[:, :2] > boxes[:, 2:]).any(axis=1, keepdims=True)
    state.boxes[own] = np.where(swapped, np.hstack([high, low]), np.hstack([low, high]))
    for i in own:
        if state.segmentations[i] is not None:
            with suppress(msgspec.MsgspecError, ValueError):  # left to `masks.check_shapes`
                raw = state.segmentations[i]
                state.segmentations[i] = _rotate_segmentation(raw, orientation, width, height)


def _rotate_segmentation(raw: bytes, orientation: int, width: int, height: int) -> bytes:
    segmentation = SEGMENTATION.decode(raw)
    if isinstance(segmentation, Code):
        mask = decode(to_rle(msgspec.structs.asdict(segmentation), height, width))
        return msgspec.json.encode(encode(rotate_pixels(mask, orientation)))
    points = [np.array(polygon, dtype=np.float64).reshape(-1, 2) for polygon in segmentation]
    rotated = [rotate_points(polygon, orientation, width, height).ravel().tolist() for polygon in points]
    return msgspec.json.encode(rotated)


def rotate_points(
    points: NDArray[np.float64], orientation: int, width: int, height: int
) -> NDArray[np.float64]:
    """Map (n, 2) xy points of a stored image of some size to its upright image, for EXIF orientation 5..8."""
    x, y = points[:, 0], points[:, 1]
    columns = {5: (y, x), 6: (height - y, x), 7: (height - y, width - x), 8: (y, width - x)}[orientation]
    return np.column_stack(columns)


def rotate_pixels(mask: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Rotate the (H, W) mask of a stored image by the quarter turn of EXIF orientation 5..8."""
    return np.asarray(Image.fromarray(mask).transpose(UPRIGHT[orientation]))
