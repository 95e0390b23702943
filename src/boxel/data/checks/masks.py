"""Issues of masks that cannot be read, are empty, or disagree with their box.

No mask is rasterized: 860,000 polygons and codes are checked in their written form, block by block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import msgspec
import numpy as np
from numpy.typing import NDArray

from boxel.data.checks.boxes import usable_mask_boxes
from boxel.data.checks.repair_state import RepairState, to_json_numbers
from boxel.data.checks.rle_validation import Code, parse_codes, tight_boxes
from boxel.masks.boxes import paired_box_iou

MIN_IOU = 0.5
"""A box and its mask's tight box disagree if their IoU is less than this..."""

MIN_DIFFERENCE = 6.0
"""...and one of their sides differs by more than this many pixels: the unlabeled rim of VOC masks, 5 pixels wide, moves
the boxes of small objects as far."""

MAX_COORDINATE = 1_000_000.0
"""A polygon with a vertex farther from the origin, in pixels, cannot be made into a mask."""

_BLOCK = 20_000


_ONE = msgspec.json.Decoder(list[list[float]] | Code)
_MANY = msgspec.json.Decoder(list[list[list[float]] | Code])


@dataclass
class _Block:
    """What is known of consecutive instances with a segmentation."""

    segmentations: list[list[list[float]] | Code | None]
    problems: list[str]  # why a mask cannot be read; empty if it can
    boxes: NDArray[np.float64]  # tight, NaN without a pixel
    empty_polygons: NDArray[np.int64]


def check_shapes(state: RepairState) -> None:
    """Check for `mask-invalid`, `mask-empty`, `polygon-empty`; the mask or the polygon is left out, the box stays."""
    present = np.flatnonzero([s is not None for s in state.segmentations])
    for start in range(0, len(present), _BLOCK):
        instances = present[start : start + _BLOCK]
        image = state.image_index[instances]
        block = _parse_block(list(state.segmentations[instances]), state.heights[image], state.widths[image])
        limits = state.limits(instances)
        boxes = np.clip(block.boxes, 0, limits)
        nothing = ~((boxes[:, 2:] - boxes[:, :2]).min(axis=1) > 0)
        boxes[nothing] = np.nan
        state.mask_boxes[instances] = boxes
        broken = np.array([bool(problem) for problem in block.problems])
        for k in np.flatnonzero(broken | nothing | (block.empty_polygons > 0)):
            _report(state, int(instances[k]), block, int(k), bool(nothing[k]))


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
        i = int(known[k])
        state.report_instance(
            i,
            "mask-box",
            f"has a box and a mask that disagree (IoU {iou[k]:.2f})",
            "box taken from the mask" if drawn[i] else "mask left out",
            {
                "box": to_json_numbers(box[k]),
                "mask_box": to_json_numbers(mask_box[k]),
                "iou": round(float(iou[k]), 4),
            },
        )
        if drawn[i]:
            state.boxes[i] = mask_box[k]
        else:
            state.segmentations[i] = None


def _report(state: RepairState, i: int, block: _Block, k: int, nothing: bool) -> None:
    segmentation = block.segmentations[k]
    if block.problems[k]:
        what = f"has a mask that cannot be read ({block.problems[k]})"
        values = {"size": list(segmentation.size)} if isinstance(segmentation, Code) else {}
        state.report_instance(i, "mask-invalid", what, "mask left out, box kept", values)
        state.segmentations[i] = None
        state.mask_boxes[i] = np.nan
    elif isinstance(segmentation, list) and block.empty_polygons[k]:
        empty, count = int(block.empty_polygons[k]), len(segmentation)
        what = f"has {empty} of {count} polygons without area" if count else "has a mask without polygons"
        repair = "mask left out, box kept" if nothing else "empty polygons left out"
        state.report_instance(i, "polygon-empty", what, repair, {"polygons": count, "empty": empty})
        left = [polygon for polygon in segmentation if not _is_empty(polygon)]
        state.segmentations[i] = None if nothing else msgspec.json.encode(left)
    else:
        state.report_instance(
            i, "mask-empty", "has a mask without pixels in its image", "mask left out, box kept"
        )
        state.segmentations[i] = None


def _parse_block(raws: list[bytes], heights: NDArray[np.int32], widths: NDArray[np.int32]) -> _Block:
    segmentations, problems = _decode(raws)
    boxes = np.full((len(raws), 4), np.nan)
    empty = np.zeros(len(raws), dtype=np.int64)

    codes = {k: s for k, s in enumerate(segmentations) if isinstance(s, Code)}
    runs, found = parse_codes(list(codes.values()))
    valid = []
    for at, (k, code) in enumerate(codes.items()):
        size, wanted = list(code.size), [int(heights[k]), int(widths[k])]
        if min(wanted) > 0 and size != wanted:
            problems[k] = f"its size is {size} in an image of {wanted}, height first"
        else:
            problems[k] = found[at]
        if not problems[k]:
            valid.append(at)
    code_heights = np.array([code.size[0] for code in codes.values()], dtype=np.int64)
    rows = np.array(list(codes), dtype=np.int64)
    boxes[rows[valid]] = tight_boxes([runs[at] for at in valid], code_heights[valid])

    polygons_of = {k: s for k, s in enumerate(segmentations) if isinstance(s, list)}
    for k in [k for k, polygons in polygons_of.items() if any(len(polygon) % 2 for polygon in polygons)]:
        problems[k] = "a polygon has an odd number of coordinates"
        del polygons_of[k]
    rows = np.array(list(polygons_of), dtype=np.int64)
    boxes[rows], empty[rows] = _polygon_boxes(list(polygons_of.values()))
    for far in np.flatnonzero((np.abs(boxes) > MAX_COORDINATE).any(axis=1)):
        problems[far] = f"it has a vertex {np.abs(boxes[far]).max():g} pixels away"
    return _Block(segmentations, problems, boxes, empty)


def _decode(raws: list[bytes]) -> tuple[list[list[list[float]] | Code | None], list[str]]:
    try:
        decoded = _MANY.decode(b"[" + b",".join(raws) + b"]")
        if len(decoded) == len(raws):
            return list(decoded), [""] * len(raws)
    except msgspec.MsgspecError:
        pass  # find out which one is invalid
    segmentations: list[list[list[float]] | Code | None] = []
    problems = []
    for raw in raws:
        try:
            segmentations.append(_ONE.decode(raw))
            problems.append("")
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            segmentations.append(None)
            problems.append(str(error).rstrip("."))
    return segmentations, problems


def _polygon_boxes(instances: list[list[list[float]]]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the (n, 4) tight boxes of the polygons of n instances, and the (n,) number of empty polygons."""
    boxes = np.full((len(instances), 4), np.nan)
    counts = np.array([len(polygons) for polygons in instances], dtype=np.int64)
    # No polygon counts as one empty polygon.
    empty = np.where(counts == 0, 1, 0)
    lengths = np.fromiter(map(len, chain.from_iterable(instances)), dtype=np.int64, count=int(counts.sum()))
    owner = np.repeat(np.arange(len(instances)), counts)
    enough = lengths >= 6
    np.add.at(empty, owner[~enough], 1)
    if not enough.any():
        return boxes, empty

    numbers = np.fromiter(
        chain.from_iterable(p for p in chain.from_iterable(instances) if len(p) >= 6),
        dtype=np.float64,
        count=int(lengths[enough].sum()),
    )
    owner = owner[enough]
    starts = (np.cumsum(lengths[enough]) - lengths[enough]) // 2
    x, y = numbers[0::2], numbers[1::2]
    each = np.column_stack(
        [
            np.minimum.reduceat(x, starts),
            np.minimum.reduceat(y, starts),
            np.maximum.reduceat(x, starts),
            np.maximum.reduceat(y, starts),
        ]
    )
    flat = (each[:, 2] <= each[:, 0]) | (each[:, 3] <= each[:, 1])
    np.add.at(empty, owner[flat], 1)
    each, owner = each[~flat], owner[~flat]
    if len(owner):
        first = np.flatnonzero(np.diff(owner, prepend=-1))
        boxes[owner[first]] = np.column_stack(
            [np.minimum.reduceat(each[:, :2], first), np.maximum.reduceat(each[:, 2:], first)]
        )
    return boxes, empty


def _is_empty(polygon: Sequence[float]) -> bool:
    x, y = polygon[0::2], polygon[1::2]
    return len(polygon) < 6 or min(x) >= max(x) or min(y) >= max(y)
