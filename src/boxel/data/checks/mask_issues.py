"""Issues of masks that are not masks, or disagree with their box."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np

from boxel.data.checks.boxes import usable_mask_boxes
from boxel.data.checks.geometry import image_limits
from boxel.data.checks.masks import (
    MIN_DIFFERENCE,
    MIN_IOU,
    MIN_SWAPPED_IOU,
    SEGMENTATION,
    Code,
    MaskJudgment,
    Verdict,
    describe_rectangles,
    find_drawn_masks,
    find_filled_boxes,
    find_misfits,
    judge_masks,
)
from boxel.data.checks.repair_state import RepairState
from boxel.masks.boxes import paired_box_iou

_LEFT_OUT = "mask left out, box kept"


def check_shapes(state: RepairState) -> None:
    """Check for masks that are none, and for `polygon-empty`; the mask or the polygon is left out, the box stays."""
    judgment = judge_masks(state.current())
    # How a mask goes with its box is asked again, of repaired boxes.
    wrong = judgment.broken
    for i in np.flatnonzero(wrong | (judgment.empty_parts > 0)).tolist():
        _report(state, i, judgment)
    mask_boxes = np.where(wrong[:, None], np.nan, judgment.boxes)
    state.mask_boxes = np.clip(mask_boxes, 0, image_limits(state))
    state.segmentations[wrong] = None
    state.judgment = judgment


def check_rectangles(state: RepairState) -> None:
    """Check for `mask-filled-box`, and for `masks-are-boxes`, a dataset of nothing but rectangles.

    The masks are left out. Boxes must be repaired before.
    """
    data, judgment = state.current(), state.judgment
    assert judgment is not None
    there = data.has_segmentation & state.keep & state.keep_images[state.image_index]
    judgment = replace(judgment, verdicts=np.where(there, judgment.verdicts, Verdict.NONE))
    sentence = describe_rectangles(data, judgment)
    if sentence:
        rows = find_drawn_masks(data, judgment)
        values = {"masks": int(rows.sum()), "turned": int((rows & ~judgment.rectangle).sum())}
        state.report_dataset("masks-are-boxes", sentence, "masks left out, boxes kept", rows=rows, **values)
        state.segmentations[rows] = None
        return
    filled = find_filled_boxes(data, judgment)
    for i in np.flatnonzero(filled):
        what = "has a mask that is merely its filled box"
        state.report_instance(i, "mask-filled-box", what, _LEFT_OUT, box=state.boxes[i])
    state.segmentations[filled] = None


def _report(state: RepairState, i: int, judgment: MaskJudgment) -> None:
    """Report what is wrong with one segmentation."""
    verdict = Verdict(judgment.verdicts[i])
    if verdict == Verdict.UNREADABLE:
        what = f"has a mask that cannot be read ({judgment.reasons[i]})"
        state.report_instance(i, "mask-invalid", what, _LEFT_OUT)
    elif verdict == Verdict.OTHER_SIZE:
        code = SEGMENTATION.decode(state.segmentations[i])
        assert isinstance(code, Code)
        what = f"has a mask of another size than its image ({judgment.reasons[i]})"
        state.report_instance(i, "mask-size", what, _LEFT_OUT, size=code.size)
    elif judgment.empty_parts[i] or (verdict == Verdict.EMPTY and state.segmentations[i].strip()[:1] == b"["):
        _report_empty_polygons(state, i, verdict in (Verdict.EMPTY, Verdict.OUTSIDE))
    elif verdict == Verdict.EMPTY:
        state.report_instance(i, "mask-empty", "has a mask without pixels", _LEFT_OUT)
    elif verdict == Verdict.OUTSIDE:
        what = "has a mask without pixels in its image"
        state.report_instance(i, "mask-outside", what, _LEFT_OUT, mask_box=judgment.boxes[i])


def _report_empty_polygons(state: RepairState, i: int, nothing: bool) -> None:
    polygons = SEGMENTATION.decode(state.segmentations[i])
    assert isinstance(polygons, list)
    solid = [polygon for polygon in polygons if not _is_empty(polygon)]
    state.segmentations[i] = msgspec.json.encode(solid)
    count = len(polygons)
    empty = count - len(solid) if count else 1  # no polygon counts as an empty one
    what = f"has {empty} of {count} polygons without area" if count else "has a mask without polygons"
    repair = _LEFT_OUT if nothing else "empty polygons left out"
    state.report_instance(i, "polygon-empty", what, repair, polygons=count, empty=empty)


def _is_empty(polygon: list[float]) -> bool:
    x, y = polygon[0::2], polygon[1::2]
    return len(polygon) < 6 or min(x) >= max(x) or min(y) >= max(y)


def check_agreement(state: RepairState) -> None:
    """Check for `mask-box`, a mask whose tight box disagrees with its box.

    The box is taken from a mask that was drawn. A mask is left out if a program made it (it has a ``source``), if it is
    a rectangle, which shows no object, or a speck too small for a box, or if it cannot be of the object in its box; see
    `find_misfits`.
    """
    assert state.judgment is not None
    known = np.flatnonzero(np.isfinite(state.mask_boxes[:, 0]) & state.keep & state.data.trusted)
    box, mask_box = state.boxes[known], state.mask_boxes[known]
    apart = np.abs(box - mask_box).max(axis=1, initial=0) > MIN_DIFFERENCE
    iou = paired_box_iou(box, mask_box)
    misfit = find_misfits(state.boxes, image_limits(state), state.judgment)
    drawn = np.array([source is None for source in state.data.source], dtype=bool)
    reliable = (drawn & usable_mask_boxes(state) & ~state.judgment.rectangle & ~misfit)[known]
    swapped = paired_box_iou(box, state.judgment.boxes[known][:, [1, 0, 3, 2]]) >= MIN_SWAPPED_IOU
    for k in np.flatnonzero((apart & (iou < MIN_IOU)) | misfit[known]):
        i = known[k]
        what = f"has a box and a mask that disagree (IoU {iou[k]:.2f})"
        what += "; x and y of the mask seem to be swapped" if swapped[k] else ""
        repair = "box taken from the mask" if reliable[k] else _LEFT_OUT
        values = {"box": box[k], "mask_box": mask_box[k], "iou": round(float(iou[k]), 4)}
        state.report_instance(i, "mask-box", what, repair, **values)
        if reliable[k]:
            state.boxes[i] = mask_box[k]
        else:
            state.segmentations[i] = None
