"""Faults of boxes, found in whole columns at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from boxel.data.check.repair_state import Work, numbers

MIN_SIDE = 2.0
"""A box with a side of fewer pixels is left out."""

OVERHANG = 0.5
"""A box this many pixels outside its image is no fault but rounding; it is cut off without a word."""


def corners(work: Work) -> None:
    """`box-nan`, `box-inverted` and `box-outside`, in this order; all boxes end up inside their image."""
    mask_box = usable_mask_boxes(work)

    nan = ~np.isfinite(work.boxes).all(axis=1)
    for i in np.flatnonzero(nan):
        repair = "taken from its mask" if mask_box[i] else "left out"
        work.about_instance(
            int(i),
            "box-nan",
            "has a box with a number that is not finite",
            repair,
            {"box": numbers(work.boxes[i])},
        )
    work.boxes[nan] = np.where(mask_box[nan, None], work.mask_boxes[nan], 0)
    work.keep &= ~nan | mask_box

    one, other = work.boxes[:, :2], work.boxes[:, 2:]
    ordered = np.concatenate([np.minimum(one, other), np.maximum(one, other)], axis=1)
    for i in np.flatnonzero((ordered != work.boxes).any(axis=1)):
        work.about_instance(
            int(i),
            "box-inverted",
            "has a box whose corners are swapped",
            "swapped back",
            {"box": numbers(work.boxes[i])},
        )

    limits = work.limits(np.arange(len(work.boxes)))
    inside = np.clip(ordered, 0, limits)
    beyond = np.abs(inside - ordered).max(axis=1, initial=0) > OVERHANG
    left = (inside[:, 2:] - inside[:, :2]).min(axis=1, initial=np.inf)
    sides = (ordered[:, 2:] - ordered[:, :2]).min(axis=1, initial=np.inf)
    gone = beyond & (left < MIN_SIDE) & (sides >= MIN_SIDE)
    for i in np.flatnonzero(beyond):
        image = work.image_index[i]
        width, height = int(work.widths[image]), int(work.heights[image])
        repair = "cut off at the image's edge"
        if gone[i]:
            repair = "taken from its mask" if mask_box[i] else "left out, too little of it is inside"
        work.about_instance(
            int(i),
            "box-outside",
            f"has a box that reaches out of its image ({width} x {height})",
            repair,
            {"box": numbers(ordered[i]), "width": width, "height": height},
        )
    work.boxes = np.where((gone & mask_box)[:, None], work.mask_boxes, inside)
    work.keep &= ~gone | mask_box


def small(work: Work) -> None:
    """`box-empty`: a box of zero area; `box-tiny`: one with a side under `MIN_SIDE`."""
    mask_box = usable_mask_boxes(work)
    sides = work.boxes[:, 2:] - work.boxes[:, :2]
    shortest = sides.min(axis=1, initial=np.inf)
    for i in np.flatnonzero(work.keep & (shortest < MIN_SIDE)):
        width, height = sides[i].tolist()
        work.about_instance(
            int(i),
            "box-empty" if shortest[i] <= 0 else "box-tiny",
            f"has a box of {width:g} x {height:g} pixels; a side needs {MIN_SIDE:g}",
            "taken from its mask" if mask_box[i] else "left out",
            {"box": numbers(work.boxes[i]), "width": width, "height": height},
        )
        work.boxes[i] = work.mask_boxes[i] if mask_box[i] else work.boxes[i]
        work.keep[i] = mask_box[i]


def duplicates(work: Work) -> None:
    """`box-twice`: the same box of the same category in the same image.

    Of exact copies the first with a mask stays; copies with masks that differ all stay.
    """
    if not len(work.boxes):
        return
    kept = np.flatnonzero(work.keep)
    columns = (*work.boxes[kept].T, work.data.iscrowd[kept], work.labels[kept], work.image_index[kept])
    order = np.lexsort(columns)  # stable, so that equal rows stay in the order of the file
    equal = np.logical_and.reduce([column[order][1:] == column[order][:-1] for column in columns])
    groups = np.split(kept[order], np.flatnonzero(~equal) + 1) if equal.any() else []
    several = [group.tolist() for group in groups if len(group) > 1]
    for members in sorted(several):
        first = next((i for i in members if work.segmentations[i] is not None), members[0])
        for i in members:
            if i == first:
                continue
            same = work.segmentations[i] is None or work.segmentations[i] == work.segmentations[first]
            work.about_instance(
                i,
                "box-twice",
                f"has the box and category of annotation {work.data.ids[first]}"
                + ("" if same else ", but another mask"),
                "left out" if same else "",
                {"box": numbers(work.boxes[i]), "same_as": work.data.ids[first]},
            )
            work.keep[i] = not same


def all_crowd(work: Work) -> None:
    """`all-crowd`: every annotation is a crowd, so there is nothing to learn from or to evaluate."""
    if len(work.data.iscrowd) and work.data.iscrowd.all():
        count = len(work.data.iscrowd)
        work.about_set(
            "all-crowd",
            f"all {count} annotations are marked iscrowd, which leaves no object to learn from; set iscrowd "
            "to 0 where a box holds one object",
            values={"annotations": count},
        )


def none_at_all(work: Work) -> None:
    """`set-empty`: there is no image, or nothing is said of any."""
    has = {"image": work.image_ids, "annotation": len(work.data.iscrowd) or any(work.data.label_maps)}
    missing = next((what for what, there in has.items() if not there), None)
    if missing:
        work.about_set("set-empty", f"there is no {missing} in it; check that it is the file you mean")


def usable_mask_boxes(work: Work) -> NDArray[np.bool_]:
    """(N,) bool: the mask's tight box is known and large enough to stand in for the box."""
    sides = work.mask_boxes[:, 2:] - work.mask_boxes[:, :2]
    return (sides >= MIN_SIDE).all(axis=1)
