"""The one judgment of masks: whether a segmentation is a mask, and if not, what it is.

No mask is rasterized: polygons and run-length codes are judged in their written form, a million in a few seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from boxel.data.checks.geometry import detect_layout, image_limits
from boxel.data.checks.mask_shapes import measure_codes, measure_polygons
from boxel.masks.boxes import paired_box_iou
from boxel.masks.rle import MAX_COORDINATE, to_rle
from boxel.utils.printable import name_ids

if TYPE_CHECKING:
    from boxel.data.annotations import Annotations

ROUNDING = 1.0
"""A mask is its filled box if it is a rectangle whose sides are up to this many pixels from the box..."""

MIN_FILLED_SIDE = 8.0
"""...of at least this side: a smaller object may well fill its box."""

MIN_RECTANGLES = 2
"""A dataset of fewer masks is not judged by what all of them are."""

MIN_SIDE = 2.0
"""A box with a shorter side, in pixels, is not one."""

MIN_IOU = 0.5
"""A box and its mask's tight box disagree if their IoU is less than this..."""

MIN_DIFFERENCE = 6.0
"""...and one of their sides differs by more than this many pixels: the unlabeled rim of VOC masks, 5 pixels wide, moves
the boxes of small objects as far."""

MIN_FIT = 0.02
"""Minimum IoU of a mask's tight box with its box: of an object that is nearly hidden, or in a box far too loose."""

MIN_SWAPPED_IOU = 0.9
"""A mask has x and y swapped if its tight box, swapped back, has at least this IoU with its box."""

_CHUNK = 512
"""Masks that are judged at once."""


class Verdict(IntEnum):
    """What the segmentation of an instance is; only `SOUND` is a mask."""

    NONE = 0
    SOUND = 1
    UNREADABLE = 2
    EMPTY = 3
    OUTSIDE = 4
    OTHER_SIZE = 5
    FILLED_BOX = 6
    APART = 7


_WORDS = {
    Verdict.UNREADABLE: "unreadable",
    Verdict.EMPTY: "empty",
    Verdict.OUTSIDE: "outside the image",
    Verdict.OTHER_SIZE: "of another size than the image",
    Verdict.FILLED_BOX: "merely the filled box",
    Verdict.APART: "unlike the box",
}


class Code(msgspec.Struct, gc=False):
    """A COCO run-length code as written: (height, width), and its runs as text or as numbers."""

    size: tuple[int, int]
    counts: str | list[int]


SEGMENTATION = msgspec.json.Decoder(list[list[float]] | Code)
MALFORMED = (msgspec.MsgspecError, ValueError, OverflowError, RecursionError)


@dataclass(frozen=True)
class MaskJudgment:
    """What the N segmentations of a dataset are.

    Attributes:
        verdicts: (N,) int8, a `Verdict` each.
        boxes: (N, 4) float64, tight xyxy box of what can be read, not clipped to the image; NaN if unknown.
        rectangle: (N,) bool, an axis-parallel rectangle.
        oriented: (N,) bool, a single quadrilateral that is close to a rectangle, turned or not.
        empty_parts: (N,) int64, polygons without area.
        reasons: Why a segmentation cannot be read, or its size, by instance.
    """

    verdicts: NDArray[np.int8]
    boxes: NDArray[np.float64]
    rectangle: NDArray[np.bool_]
    oriented: NDArray[np.bool_]
    empty_parts: NDArray[np.int64]
    reasons: dict[int, str]

    @property
    def bad(self) -> NDArray[np.bool_]:
        """(N,) bool: there is a segmentation, and it is not a mask."""
        return self.verdicts > Verdict.SOUND

    @property
    def broken(self) -> NDArray[np.bool_]:
        """(N,) bool: it is not a mask, whatever its box."""
        return self.bad & ~np.isin(self.verdicts, (Verdict.FILLED_BOX, Verdict.APART))

    def describe(
        self, ids: Sequence[int | str], among: NDArray[np.bool_] | None = None, verb: str = ""
    ) -> str:
        """State how many segmentations are bad, of each kind, with annotation ids; empty if none is.

        Args:
            ids: N annotation ids.
            among: (N,) bool, the instances that count; all if None.
            verb: What comes between a count and what is wrong, with a space at the end.

        Examples:
            >>> from boxel.data.samples import sample_images
            >>> data = sample_images()
            >>> data.segmentations[1:3] = b"[]"
            >>> judge_masks(data).describe(data.ids)
            '2 empty (annotations 2, 3)'
        """
        parts = []
        for verdict, words in _WORDS.items():
            found = np.flatnonzero((self.verdicts == verdict) & (True if among is None else among)).tolist()
            if found:
                parts.append(f"{len(found):,} {verb}{words} ({name_ids([ids[i] for i in found])})")
        return ", ".join(parts)


def judge_masks(data: Annotations) -> MaskJudgment:
    """Judge whether each segmentation of a dataset is a mask.

    A mask is the filled box if it is a rectangle equal to its box within `ROUNDING`, unless it has a ``source``, i.e. a
    program took it for the object, or is a crowd. A mask that hardly fits its box is of something else; see
    `find_misfits`.

    Args:
        data: The dataset; sizes of images are taken as recorded.

    Examples:
        >>> from boxel.data.samples import sample_images
        >>> data = sample_images()
        >>> data.segmentations[0] = b'{"size": [3, 3], "counts": "09"}'
        >>> judge_masks(data).verdicts[:2].tolist() == [Verdict.OTHER_SIZE, Verdict.SOUND]
        True
    """
    n = len(data.labels)
    judgment = MaskJudgment(
        verdicts=np.zeros(n, dtype=np.int8),
        boxes=np.full((n, 4), np.nan),
        rectangle=np.zeros(n, dtype=bool),
        oriented=np.zeros(n, dtype=bool),
        empty_parts=np.zeros(n, dtype=np.int64),
        reasons={},
    )
    rows = np.flatnonzero(data.has_segmentation)
    judgment.verdicts[rows] = Verdict.SOUND
    sizes = np.stack([data.heights, data.widths], axis=1)[data.image_index]
    for start in range(0, len(rows), _CHUNK):
        _judge_some(rows[start : start + _CHUNK].tolist(), data.segmentations, sizes, judgment)
    sound = judgment.verdicts == Verdict.SOUND
    limits = image_limits(data)
    with np.errstate(invalid="ignore"):
        sides = np.minimum(judgment.boxes[:, 2:], limits[:, 2:]) - np.maximum(judgment.boxes[:, :2], 0)
        judgment.verdicts[sound & ~(sides > 0).all(axis=1)] = Verdict.OUTSIDE
    judgment.verdicts[sound & np.isnan(judgment.boxes[:, 0])] = Verdict.EMPTY
    judgment.verdicts[find_filled_boxes(data, judgment)] = Verdict.FILLED_BOX
    sound = judgment.verdicts == Verdict.SOUND
    if sound.any() and detect_layout(data.boxes, limits[:, :2]) == ("xywh", False):
        single = sound & data.trusted & ~data.iscrowd
        judgment.verdicts[single & find_misfits(data.boxes, limits, judgment)] = Verdict.APART
    return judgment


def find_misfits(
    boxes: NDArray[np.float64], limits: NDArray[np.float64], judgment: MaskJudgment
) -> NDArray[np.bool_]:
    """(N,) bool, the masks that cannot be of the object in their box.

    A mask is one if it hardly overlaps its box (`MIN_FIT`), or disagrees with it and is a speck, has x and y swapped,
    or extends past the image by more than the image's size.

    Args:
        boxes: (N, 4) xyxy.
        limits: (N, 4) what `image_limits` returns.
        judgment: Of the masks, for their boxes.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        ordered = np.sort(boxes.reshape(-1, 2, 2), axis=1).reshape(-1, 4)
        box, mask_box = np.clip(ordered, 0, limits), np.clip(judgment.boxes, 0, limits)
        apart = ((box[:, 2:] - box[:, :2]) >= MIN_SIDE).all(axis=1)
        apart &= np.abs(box - mask_box).max(axis=1, initial=0) > MIN_DIFFERENCE
        iou = paired_box_iou(box, mask_box)
        speck = (mask_box[:, 2:] - mask_box[:, :2]).min(axis=1, initial=np.inf) < MIN_SIDE
        swapped = paired_box_iou(box, judgment.boxes[:, [1, 0, 3, 2]]) >= MIN_SWAPPED_IOU
        far = (np.abs(judgment.boxes - mask_box) > limits).any(axis=1)
        far &= paired_box_iou(ordered, judgment.boxes) < MIN_IOU
    none = (iou < MIN_FIT) | ((iou < MIN_IOU) & (speck | swapped))
    return (apart & none) | far


def find_filled_boxes(data: Annotations, judgment: MaskJudgment) -> NDArray[np.bool_]:
    """(N,) bool, the masks that can be read and are merely their filled box, by the boxes of the dataset."""
    limits = image_limits(data)
    with np.errstate(invalid="ignore"):
        mask_boxes, boxes = np.clip(judgment.boxes, 0, limits), np.clip(data.boxes, 0, limits)
        near = (np.abs(mask_boxes - boxes) <= ROUNDING).all(axis=1)
        large = (boxes[:, 2:] - boxes[:, :2] >= MIN_FILLED_SIDE).all(axis=1)
    return find_drawn_masks(data, judgment) & judgment.rectangle & near & large


def find_drawn_masks(data: Annotations, judgment: MaskJudgment) -> NDArray[np.bool_]:
    """(N,) bool, the masks that can be read, of single objects, and without a ``source``."""
    readable = (judgment.verdicts > Verdict.NONE) & ~judgment.broken
    return readable & ~data.has_source & ~data.iscrowd


def _judge_some(
    rows: Sequence[int],
    segmentations: NDArray[np.object_],
    sizes: NDArray[np.integer[Any]],
    result: MaskJudgment,
) -> None:
    """Judge some segmentations as far as they show it themselves."""
    codes: list[tuple[int, Code]] = []
    own: list[int] = []  # rows of polygons
    shapes = measure_polygons(_read_polygons(rows, segmentations, codes, own, result))
    result.boxes[own], result.empty_parts[own] = shapes.boxes, shapes.empty
    result.rectangle[own], result.oriented[own] = shapes.rectangle, shapes.oriented
    for position in np.flatnonzero(shapes.farthest > MAX_COORDINATE):
        _refuse(result, own[position], f"it has a vertex {shapes.farthest[position]:g} pixels away")
    _judge_codes(codes, sizes, result)


def _read_polygons(
    rows: Sequence[int],
    segmentations: NDArray[np.object_],
    codes: list[tuple[int, Code]],
    own: list[int],
    result: MaskJudgment,
) -> Iterator[list[list[float]]]:
    """Yield the polygons of each row that has some, and list its row and the run-length codes of other rows."""
    decode = SEGMENTATION.decode
    for row in rows:
        try:
            segmentation = decode(segmentations[row])
        except MALFORMED as error:
            _refuse(result, row, error)
            continue
        if isinstance(segmentation, Code):
            codes.append((row, segmentation))
        elif any(len(ring) & 1 for ring in segmentation):
            _refuse(result, row, "a polygon has an odd number of coordinates")
        else:
            own.append(row)
            yield segmentation


def _judge_codes(
    codes: Sequence[tuple[int, Code]], sizes: NDArray[np.integer[Any]], result: MaskJudgment
) -> None:
    rows, texts, own_sizes = [], [], []
    for row, code in codes:
        height, width = expected = tuple(sizes[row].tolist())
        if min(code.size) < 1:
            _refuse(result, row, f"its size is {list(code.size)}")
        elif height and width and code.size != expected:
            size, image = list(code.size), list(expected)
            reason = f"a run-length code of size {size} in an image of {image}, height first"
            _refuse(result, row, reason, Verdict.OTHER_SIZE)
        else:
            try:
                text = code.counts if isinstance(code.counts, str) else _compress(code.size, code.counts)
            except MALFORMED as error:
                _refuse(result, row, error)
                continue
            rows.append(row)
            texts.append(text)
            own_sizes.append(code.size)
    if not rows:
        return
    shapes = measure_codes(texts, own_sizes)
    own = np.array(rows)
    result.boxes[own] = shapes.boxes
    sides = shapes.boxes[:, 2:] - shapes.boxes[:, :2]
    result.rectangle[own] = shapes.areas == sides.prod(axis=1)
    for position in np.flatnonzero(~shapes.sound):
        try:
            to_rle({"size": own_sizes[position], "counts": texts[position]}, *own_sizes[position])
        except ValueError as error:
            _refuse(result, rows[position], error)


def _compress(size: tuple[int, int], counts: list[int]) -> str:
    """Return the compressed form of a code of numbers."""
    code = {"size": list(size), "counts": counts}
    if min(counts, default=-1) < 0 or sum(counts) != size[0] * size[1] or sum(counts) >= 2**31:
        return to_rle(code, *size)["counts"]  # which states what is wrong
    return coco_mask.frPyObjects(code, *size)["counts"].decode("ascii")


def _refuse(result: MaskJudgment, row: int, reason: object, verdict: Verdict = Verdict.UNREADABLE) -> None:
    result.verdicts[row] = verdict
    result.boxes[row] = np.nan
    result.rectangle[row] = result.oriented[row] = False
    result.reasons[int(row)] = str(reason).rstrip(".")


def describe_rectangles(
    data: Annotations,
    judgment: MaskJudgment | None = None,
    remedy: str = "`boxel label --relabel` makes masks",
) -> str:
    """Return a sentence if all masks of a dataset are rectangles, i.e. boxes, else an empty text.

    Masks that cannot be read, crowds, and masks with a ``source`` do not count. ``remedy`` is what to do, or is done.

    Examples:
        >>> from boxel.data.samples import sample_images
        >>> describe_rectangles(sample_images())
        ''
    """
    judgment = judge_masks(data) if judgment is None else judgment
    counted = find_drawn_masks(data, judgment)
    count = int(counted.sum())
    if count < MIN_RECTANGLES or not (judgment.rectangle | judgment.oriented)[counted].all():
        return ""
    if judgment.rectangle[counted].all():
        return f"all {count:,} masks are axis-parallel rectangles: these are boxes, not masks; {remedy}"
    return f"all {count:,} masks are turned rectangles: these are oriented boxes, not masks; {remedy}"


def describe_bad_masks(
    data: Annotations, judgment: MaskJudgment | None = None, outcome: str = "only their boxes are"
) -> list[str]:
    """Return a sentence on the segmentations that are not masks and what becomes of them, and on mere rectangles."""
    judgment = judge_masks(data) if judgment is None else judgment
    sentences = describe_unusable(data, judgment, judgment.bad, outcome)
    rectangles = describe_rectangles(data, judgment)
    return [*sentences, f"{data.file}: {rectangles}."] if rectangles else sentences


def describe_unusable(
    data: Annotations, judgment: MaskJudgment, bad: NDArray[np.bool_], outcome: str
) -> list[str]:
    """Return a sentence on (N,) bool segmentations that are not masks, if there are any."""
    if not bad.any():
        return []
    total = int((judgment.verdicts > Verdict.NONE).sum())
    return [
        f"{data.file or 'the dataset'}: {bad.sum():,} of {total:,} masks cannot be used, {outcome}: "
        f"{judgment.describe(data.ids, bad)}; `boxel check` states why."
    ]


def drop_bad_masks(data: Annotations, outcome: str = "only their boxes are") -> tuple[Annotations, list[str]]:
    """Drop every segmentation that is not a mask, and keep its box.

    Returns:
        The dataset, and the sentences of `describe_bad_masks`.

    Examples:
        >>> from boxel.data.samples import sample_images
        >>> data = sample_images()
        >>> data.segmentations[0] = b"[]"
        >>> kept, sentences = drop_bad_masks(data)
        >>> int(kept.has_segmentation.sum() - data.has_segmentation.sum()), sentences[0].split(": ", 1)[1]
        (-1, '1 of 33 masks cannot be used, only their boxes are: 1 empty (annotation 1); `boxel check` states why.')
    """
    judgment = judge_masks(data)
    return drop_masks(data, judgment.bad), describe_bad_masks(data, judgment, outcome)


def drop_masks(data: Annotations, bad: NDArray[np.bool_]) -> Annotations:
    """Drop (N,) bool segmentations and all that is known of them; their boxes stay."""
    if not bad.any():
        return data
    nothing = {"segmentations": None, "quality": np.nan, "source": None, "trusted": True}
    columns = {name: getattr(data, name).copy() for name in nothing}
    for name, value in nothing.items():
        columns[name][bad] = value
    return replace(data, **columns)
