"""Issues of masks that cannot be read, are empty, or disagree with their box.

No mask is rasterized: polygons and run-length codes are checked in their written form.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from boxel.data.checks.boxes import usable_mask_boxes
from boxel.data.checks.repair_state import RepairState
from boxel.masks.boxes import paired_box_iou
from boxel.masks.rle import MAX_COORDINATE, parse_runs, to_rle

MIN_IOU = 0.5
"""A box and its mask's tight box disagree if their IoU is less than this..."""

MIN_DIFFERENCE = 6.0
"""...and one of their sides differs by more than this many pixels: the unlabeled rim of VOC masks, 5 pixels wide, moves
the boxes of small objects as far."""


class Code(msgspec.Struct, gc=False):
    """A COCO run-length code as written: (height, width), and its runs as text or as numbers."""

    size: tuple[int, int]
    counts: str | list[int]


SEGMENTATION = msgspec.json.Decoder(list[list[float]] | Code)


def check_shapes(state: RepairState) -> None:
    """Check for `mask-invalid`, `mask-empty`, `polygon-empty`; the mask or the polygon is left out, the box stays."""
    limits = state.limits(np.arange(len(state.boxes)))
    for i in np.flatnonzero([raw is not None for raw in state.segmentations]).tolist():
        image = state.image_index[i]
        segmentation: list[list[float]] | Code | None = None
        try:
            segmentation = SEGMENTATION.decode(state.segmentations[i])
            if isinstance(segmentation, Code):
                box = _code_box(segmentation, int(state.heights[image]), int(state.widths[image]))
            else:
                box = _polygon_box(segmentation)
        except (msgspec.MsgspecError, ValueError, OverflowError) as error:
            what = f"has a mask that cannot be read ({str(error).rstrip('.')})"
            values = {"size": segmentation.size} if isinstance(segmentation, Code) else {}
            state.report_instance(i, "mask-invalid", what, "mask left out, box kept", **values)
            state.segmentations[i] = None
            continue
        x0, y0, x1, y1 = box
        width, height = limits[i, :2].tolist()
        nothing = not (max(x0, 0) < min(x1, width) and max(y0, 0) < min(y1, height))
        if isinstance(segmentation, list) and (not segmentation or any(map(_is_empty, segmentation))):
            _report_empty_polygons(state, i, segmentation, nothing)
        elif nothing:
            what = "has a mask without pixels in its image"
            state.report_instance(i, "mask-empty", what, "mask left out, box kept")
        if nothing:
            state.segmentations[i] = None
        else:
            state.mask_boxes[i] = box
    state.mask_boxes = np.clip(state.mask_boxes, 0, limits)


def _report_empty_polygons(state: RepairState, i: int, polygons: list[list[float]], nothing: bool) -> None:
    solid = [polygon for polygon in polygons if not _is_empty(polygon)]
    state.segmentations[i] = msgspec.json.encode(solid)
    count = len(polygons)
    empty = count - len(solid) if count else 1  # no polygon counts as an empty one
    what = f"has {empty} of {count} polygons without area" if count else "has a mask without polygons"
    repair = "mask left out, box kept" if nothing else "empty polygons left out"
    state.report_instance(i, "polygon-empty", what, repair, polygons=count, empty=empty)


def check_agreement(state: RepairState) -> None:
    """Check for `mask-box`, a mask whose tight box disagrees with its box.

    The box is taken from a mask that was drawn. A mask that a program made (one with a ``source``) is left out, and so
    is a speck too small for a box.
    """
    known = np.flatnonzero(np.isfinite(state.mask_boxes[:, 0]) & state.keep & state.data.trusted)
    box, mask_box = state.boxes[known], state.mask_boxes[known]
    apart = np.abs(box - mask_box).max(axis=1, initial=0) > MIN_DIFFERENCE
    iou = paired_box_iou(box, mask_box)
    drawn = usable_mask_boxes(state) & np.array([source is None for source in state.data.source], dtype=bool)
    for k in np.flatnonzero(apart & (iou < MIN_IOU)):
        i = known[k]
        what = f"has a box and a mask that disagree (IoU {iou[k]:.2f})"
        repair = "box taken from the mask" if drawn[i] else "mask left out"
        values = {"box": box[k], "mask_box": mask_box[k], "iou": round(float(iou[k]), 4)}
        state.report_instance(i, "mask-box", what, repair, **values)
        if drawn[i]:
            state.boxes[i] = mask_box[k]
        else:
            state.segmentations[i] = None


def _code_box(code: Code, height: int, width: int) -> Sequence[float]:
    """Return the tight xyxy box of a code, NaN without a pixel; ValueError if it is invalid. Unknown sizes are 0."""
    if min(code.size) < 1:
        raise ValueError(f"its size is {list(code.size)}")
    if not min(height, width):
        height, width = code.size
    rle = to_rle({"size": list(code.size), "counts": code.counts}, height, width)
    ends = np.cumsum(parse_runs(rle["counts"], height * width))
    starts, ends = ends[:-1:2], ends[1::2]
    starts, ends = starts[starts < ends], ends[starts < ends]
    if not len(starts):
        return [np.nan] * 4
    x0, x1 = starts // height, (ends - 1) // height + 1
    wraps = x1 - x0 > 1  # a run that continues in the next column touches the lower and the upper edge
    y0, y1 = np.where(wraps, 0, starts % height), np.where(wraps, height, (ends - 1) % height + 1)
    return x0.min(), y0.min(), x1.max(), y1.max()


def _polygon_box(polygons: list[list[float]]) -> Sequence[float]:
    """Return the tight xyxy box of the polygons with area, NaN if there is none; ValueError if they are invalid."""
    if any(len(polygon) % 2 for polygon in polygons):
        raise ValueError("a polygon has an odd number of coordinates")
    solid = [polygon for polygon in polygons if not _is_empty(polygon)]
    if not solid:
        return [np.nan] * 4
    box = [
        *(min(min(polygon[axis::2]) for polygon in solid) for axis in (0, 1)),
        *(max(max(polygon[axis::2]) for polygon in solid) for axis in (0, 1)),
    ]
    farthest = max(map(abs, box))
    if farthest > MAX_COORDINATE:
        raise ValueError(f"it has a vertex {farthest:g} pixels away")
    return box


def _is_empty(polygon: Sequence[float]) -> bool:
    x, y = polygon[0::2], polygon[1::2]
    return len(polygon) < 6 or min(x) >= max(x) or min(y) >= max(y)
