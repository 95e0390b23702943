"""Boxes that were replaced by the tight boxes of their masks; the field `original_box` keeps the old ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pycocotools import mask as coco_mask

from boxel.data.annotations import Annotations
from boxel.data.formats.extras import decode_extras, find_field, set_field
from boxel.masks.boxes import paired_box_iou, xywh_to_xyxy
from boxel.masks.rle import Rle
from boxel.utils.errors import BoxelError

FIELD = "original_box"
"""The field with the box that was given: x0, y0, x1, y1 in pixels."""

GOOD, DISAGREES, LOOSE_SHARE, MIN_GOOD = 0.8, 0.93, 0.35, 20
"""Boxes of a dataset are loose if of its masks of at least this quality, and so many, at least this share has a tight
box of at most this IoU with its box. All numbers here were chosen on kinds of images that the network had not seen;
`benchmarks/tighten.py` measures them on others."""

MIN_QUALITY, MAX_AGREEMENT = 0.6, 0.97
"""Minimum quality of a mask of loose boxes whose box is replaced, and maximum IoU of its tight box with its box..."""

STRICT_QUALITY, STRICT_AGREEMENT = 0.85, 0.9
"""...and the same of other boxes, which may be exact."""

_SAME = 2.0
"""Maximum distance in pixels between the sides of a tightened box and those of its mask, which formats may round."""


def tighten_boxes(data: Annotations, instances: Sequence[int] | NDArray[np.integer]) -> Annotations:
    """Replace boxes by the tight boxes of their trusted masks where these are likely closer to the object.

    Args:
        data: The dataset.
        instances: Those whose boxes may be replaced.

    Examples:
        >>> from boxel.data import example_scenes
        >>> scenes = example_scenes()
        >>> scenes.quality[0], scenes.boxes[0] = 0.95, [0, 0, 96, 64]
        >>> find_tightened(tighten_boxes(scenes, [0, 1])).tolist()
        [0]
    """
    rows, tight = [], []
    for row in np.asarray(instances, dtype=np.int64).tolist():
        box = _tight_box(data.rle(row)) if data.has_mask[row] and np.isfinite(data.quality[row]) else None
        if box is not None:
            rows.append(row)
            tight.append(box)
    if not rows:
        return data
    sizes = np.stack([data.widths, data.heights] * 2, axis=1)[data.image_index[rows]]
    agreement = paired_box_iou(np.array(tight), data.boxes[rows].clip(0, sizes))
    chosen = choose_loose(data.quality[rows], agreement)
    boxes, extras = data.boxes.copy(), data.extras.copy()
    for k in np.flatnonzero(chosen).tolist():
        extras[rows[k]] = set_field(extras[rows[k]], FIELD, boxes[rows[k]].tolist())
        boxes[rows[k]] = tight[k]
    return replace(data, boxes=boxes, extras=extras)


def choose_loose(quality: ArrayLike, agreement: ArrayLike) -> NDArray[np.bool_]:
    """Choose the boxes of a dataset that the tight boxes of their masks are likely better than.

    A tight box is a few percent off itself. So boxes must disagree much, unless the good masks show that the boxes of
    the whole dataset are loose.

    Args:
        quality: (N,) quality of the masks.
        agreement: (N,) IoU of the tight box of each mask with its box.

    Returns:
        (N,) bool.

    Examples:
        >>> choose_loose([0.7, 0.9, 0.9, 0.9], [0.5, 0.8, 0.93, 1]).tolist()
        [False, True, False, False]
        >>> choose_loose([0.7, *[0.9] * 20], [0.5, *[0.92] * 8, *[1] * 12])[:2].tolist()
        [True, True]
    """
    quality, agreement = np.asarray(quality), np.asarray(agreement)
    good = quality >= GOOD
    loose = good.sum() >= MIN_GOOD and (agreement[good] <= DISAGREES).mean() >= LOOSE_SHARE
    if loose:
        return (quality >= MIN_QUALITY) & (agreement <= MAX_AGREEMENT)
    return (quality >= STRICT_QUALITY) & (agreement <= STRICT_AGREEMENT)


def original_box(data: Annotations, row: int) -> NDArray[np.float64]:
    """Return the (4,) box that an instance was given: the one before it was tightened, unless it was edited since."""
    extras = data.extras[row]
    if not find_field([extras], FIELD):
        return data.boxes[row]
    box = _parse_box(decode_extras(extras).get(FIELD))
    try:
        tight = _tight_box(data.rle(row))
    except BoxelError:
        tight = None
    edited = tight is not None and np.abs(tight - data.boxes[row]).max() > _SAME
    return data.boxes[row] if box is None or edited else box


def restore_boxes(data: Annotations) -> Annotations:
    """Return a dataset with the boxes that were given, and without the field.

    Examples:
        >>> from boxel.data import example_scenes
        >>> scenes = example_scenes()
        >>> scenes.quality[0], scenes.boxes[0] = 0.95, [0, 0, 96, 64]
        >>> restore_boxes(tighten_boxes(scenes, [0])).boxes[0].tolist()
        [0.0, 0.0, 96.0, 64.0]
    """
    marked = find_field(data.extras, FIELD)
    boxes, extras = data.boxes.copy(), data.extras.copy()
    for row in marked:
        boxes[row], extras[row] = original_box(data, row), set_field(extras[row], FIELD, None)
    return replace(data, boxes=boxes, extras=extras) if marked else data


def find_tightened(data: Annotations) -> NDArray[np.int64]:
    """Return the instances whose boxes have been tightened."""
    marked = find_field(data.extras, FIELD)
    rows = [row for row in marked if (original_box(data, row) != data.boxes[row]).any()]
    return np.array(rows, dtype=np.int64)


def describe_tightened(data: Annotations) -> str:
    """State how many boxes have been tightened and by how much; empty if none has."""
    rows = find_tightened(data)
    if not len(rows):
        return ""
    before = np.array([original_box(data, row) for row in rows.tolist()])
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (data.boxes[rows], before)]
    verb = "boxes were" if len(rows) > 1 else "box was"
    return f"{len(rows):,} {verb} tightened, by {np.mean(1 - areas[0] / areas[1]):.0%} of the area on average"


def _tight_box(rle: Rle | None) -> NDArray[np.float64] | None:
    """Return the (4,) tight box of a mask; None without pixels."""
    if rle is None:
        return None
    box = xywh_to_xyxy(np.asarray(coco_mask.toBbox(rle), dtype=np.float64))
    return box if (box[2:] > box[:2]).all() else None


def _parse_box(value: Any) -> NDArray[np.float64] | None:
    """Return a field as a (4,) box with an area; None for anything else."""
    try:
        box = np.array(value, dtype=np.float64).reshape(4)
    except (TypeError, ValueError):
        return None
    return box if np.isfinite(box).all() and (box[2:] > box[:2]).all() else None
