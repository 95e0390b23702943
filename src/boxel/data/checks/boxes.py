"""Issues of boxes, found in whole columns at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from boxel.data.checks.geometry import image_limits
from boxel.data.checks.masks import MIN_SIDE
from boxel.data.checks.repair_state import RepairState

OVERHANG = 0.5
"""Boxes up to this many pixels outside their image are taken for rounding and clipped silently."""


def check_corners(state: RepairState) -> None:
    """Check for `box-nan`, `box-inverted` and `box-outside`, in this order; all boxes end up inside their image."""
    mask_box = usable_mask_boxes(state)

    nan = ~np.isfinite(state.boxes).all(axis=1)
    for i in np.flatnonzero(nan):
        what = "has a box with a number that is not finite"
        repair = "box taken from its mask" if mask_box[i] else "left out"
        state.report_instance(i, "box-nan", what, repair, box=state.boxes[i])
    state.boxes[nan] = np.where(mask_box[nan, None], state.mask_boxes[nan], 0)
    state.keep &= ~nan | mask_box

    one, other = state.boxes[:, :2], state.boxes[:, 2:]
    ordered = np.concatenate([np.minimum(one, other), np.maximum(one, other)], axis=1)
    for i in np.flatnonzero((ordered != state.boxes).any(axis=1)):
        what = "has a box whose corners are swapped"
        state.report_instance(i, "box-inverted", what, "swapped back", box=state.boxes[i])

    limits = image_limits(state)
    inside = np.clip(ordered, 0, limits)
    beyond = np.abs(inside - ordered).max(axis=1, initial=0) > OVERHANG
    gone = beyond & (_shorter_sides(inside) < MIN_SIDE) & (_shorter_sides(ordered) >= MIN_SIDE)
    for i in np.flatnonzero(beyond):
        image = state.image_index[i]
        width, height = int(state.widths[image]), int(state.heights[image])
        what = f"has a box that extends past its image ({width} x {height})"
        repair = "clipped to the image"
        if gone[i]:
            repair = "box taken from its mask" if mask_box[i] else "left out, too little of it is inside"
        state.report_instance(i, "box-outside", what, repair, box=ordered[i], width=width, height=height)
    state.boxes = np.where((gone & mask_box)[:, None], state.mask_boxes, inside)
    state.keep &= ~gone | mask_box


def check_sizes(state: RepairState) -> None:
    """Check for `box-empty`, a box of zero area, and `box-tiny`, one with a side under `MIN_SIDE`."""
    mask_box = usable_mask_boxes(state)
    shortest = _shorter_sides(state.boxes)
    for i in np.flatnonzero(state.keep & (shortest < MIN_SIDE)):
        width, height = (state.boxes[i, 2:] - state.boxes[i, :2]).tolist()
        kind = "box-empty" if shortest[i] <= 0 else "box-tiny"
        what = f"has a box of {width:g} x {height:g} pixels; a side needs at least {MIN_SIDE:g}"
        repair = "box taken from its mask" if mask_box[i] else "left out"
        state.report_instance(i, kind, what, repair, box=state.boxes[i], width=width, height=height)
        state.boxes[i] = state.mask_boxes[i] if mask_box[i] else state.boxes[i]
        state.keep[i] = mask_box[i]


def check_duplicates(state: RepairState) -> None:
    """Check for `duplicate-box`, the same box of the same category in the same image.

    Of exact copies the first with a mask stays; copies with different masks all stay.
    """
    if not len(state.boxes):
        return
    kept = np.flatnonzero(state.keep)
    columns = (*state.boxes[kept].T, state.data.iscrowd[kept], state.labels[kept], state.image_index[kept])
    order = np.lexsort(columns)  # stable, so that equal rows stay in the order of the file
    equal = np.logical_and.reduce([column[order][1:] == column[order][:-1] for column in columns])
    groups = np.split(kept[order], np.flatnonzero(~equal) + 1) if equal.any() else []
    several = [group.tolist() for group in groups if len(group) > 1]
    for members in sorted(several):
        first = next((i for i in members if state.segmentations[i] is not None), members[0])
        for i in members:
            if i == first:
                continue
            same = state.segmentations[i] is None or state.segmentations[i] == state.segmentations[first]
            what = f"has the box and category of annotation {state.data.ids[first]}"
            what += "" if same else ", but a different mask"
            values = {"box": state.boxes[i], "same_as": state.data.ids[first]}
            state.report_instance(i, "duplicate-box", what, "left out" if same else "", **values)
            state.keep[i] = not same


def check_all_crowd(state: RepairState) -> None:
    """Check for `all-crowd`: every annotation is a crowd, so there is nothing to train on or to evaluate."""
    if len(state.data.iscrowd) and state.data.iscrowd.all():
        count = len(state.data.iscrowd)
        state.report_dataset(
            "all-crowd",
            f"all {count} annotations are marked iscrowd, which leaves no object to train on; set iscrowd "
            "to 0 for boxes of single objects",
            annotations=count,
        )


def check_not_empty(state: RepairState) -> None:
    """Check for `dataset-empty`: there is no image, or no annotation of any."""
    has = {"image": state.image_ids, "annotation": len(state.data.iscrowd) or any(state.data.label_maps)}
    missing = next((what for what, there in has.items() if not there), None)
    if missing:
        state.report_dataset("dataset-empty", f"it has no {missing}; check that it is the right file")


def usable_mask_boxes(state: RepairState) -> NDArray[np.bool_]:
    """(N,) bool: the mask's tight box is known and large enough to replace the box."""
    return _shorter_sides(state.mask_boxes) >= MIN_SIDE


def _shorter_sides(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    return (boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=np.inf)
