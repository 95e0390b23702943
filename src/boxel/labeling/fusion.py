"""Fuse the predictions of teachers for one image into masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from boxel.labeling.config import LabelConfig
from boxel.labeling.overlaps import PlacedMask, box_agreement, resolve_by_confidence, resolve_by_size
from boxel.labeling.probabilities import best_threshold, mean_probability, sigmoid
from boxel.labeling.teachers.base import SoftMask, Teacher
from boxel.masks.boxes import Region, pixel_region
from boxel.masks.components import remove_small_components
from boxel.masks.crops import bound_tiles, resample_at
from boxel.utils.errors import BoxelError

_STRIP = 1_000_000  # pixels that are fused at once, in about 30 bytes each
_KEPT = 1 << 18  # maximum pixels of a region whose probabilities are all computed
_TILE = 32  # rows and columns of a tile of a larger region
_ROUNDING = 1e-4  # by which a probability may differ from those that bound it
_SIDE = 128  # maximum rows and columns of a region that its threshold is chosen on


class Vote(NamedTuple):
    """The predictions of one teacher for all boxes of an image, in one TTA pass."""

    teacher: str  # its name
    soft_masks: list[SoftMask]  # N, in the image's pixels

    def has_opinion(self, index: int) -> bool:
        """Whether it counts for a box."""
        return not np.isnan(self.soft_masks[index].logits).all()


@dataclass(frozen=True)
class LabeledImage:
    """An image with the masks of N boxes and all that their quality is estimated from.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        boxes: (N, 4) float64 xyxy pixels.
        regions: N regions, the pixels that each mask may take.
        votes: V votes: one per teacher, two if they saw the flipped image too.
        unmerged: N masks (rows, columns) bool of their regions before overlaps are resolved; None for a box without
            an opinion or an object.
        masks: The same after overlaps are resolved. A mask that would lose all its pixels is unchanged and not
            trusted.
        undecided: N bool masks of the regions' pixels about which no teacher has an opinion; None if all have one.
        agreement: (N,) float64 in [0, 1], box agreement of what is left of each mask; NaN without a mask.
        trusted: (N,) bool.
    """

    image: NDArray[np.uint8]
    boxes: NDArray[np.float64]
    regions: list[Region]
    votes: list[Vote]
    unmerged: list[NDArray[np.bool_] | None]
    masks: list[NDArray[np.bool_] | None]
    undecided: list[NDArray[np.bool_] | None]
    agreement: NDArray[np.float64]
    trusted: NDArray[np.bool_]


def label_image(
    image: NDArray[np.uint8],
    boxes: NDArray[np.float64],
    labels: NDArray[np.int32],
    teachers: Sequence[Teacher],
    config: LabelConfig,
    existing: Sequence[PlacedMask] = (),
) -> LabeledImage:
    """Make the masks of the boxes of one image.

    Args:
        image: (H, W, 3) uint8 RGB.
        boxes: (N, 4) float64 xyxy pixels, each with an area in the image.
        labels: (N,) int32 index of each box's category.
        teachers: The teachers that predict the masks.
        config: Settings; its `teachers` are ignored.
        existing: Masks of other instances that stay as they are, but take part in resolving overlaps.

    Examples:
        >>> from boxel.labeling.teachers import make_teacher
        >>> image, boxes = np.zeros((8, 8, 3), np.uint8), np.array([[1.0, 2, 5, 6]])
        >>> labels, teachers = np.zeros(1, np.int32), [make_teacher("rectangle")]
        >>> label_image(image, boxes, labels, teachers, LabelConfig()).masks[0].shape
        (4, 4)
    """
    height, width = image.shape[:2]
    regions = [pixel_region(box, height, width, config.box_slack) for box in boxes]
    votes = collect_votes(teachers, image, boxes, labels, config.flip)
    calibrated = {teacher.name for teacher in teachers if getattr(teacher, "calibrated", False)}
    unmerged, confidence, undecided = [], [], []
    for index, region in enumerate(regions):
        fused = FusedBox(votes, index, region)
        if config.crf:
            fused = _refine_with_crf(image, fused)
        if all(vote.teacher in calibrated for vote in fused.votes):
            fused.choose_threshold()
        mask = fused.predict_mask()
        unmerged.append(remove_small_components(mask, config.min_component) if mask.any() else None)
        confidence.append(fused.confidence)
        undecided.append(fused.find_undecided())
    # A mask cannot reach past the image, and should not be blamed for it.
    visible = boxes.clip(0, [width, height] * 2)
    made = [index for index, mask in enumerate(unmerged) if mask is not None]
    placed = [PlacedMask(visible[i], regions[i], unmerged[i]) for i in made]  # type: ignore[arg-type]
    if config.merge == "smaller":
        resolved = resolve_by_size([*placed, *existing], height, width)
    elif config.merge == "confident":
        certain = [lambda part: np.ones(part.shape)] * len(existing)
        resolved = resolve_by_confidence([*placed, *existing], [*(confidence[i] for i in made), *certain])
    else:
        resolved = [one.mask for one in placed]

    masks, agreement, trusted = list(unmerged), np.full(len(boxes), np.nan), np.zeros(len(boxes), dtype=bool)
    for index, one, mask in zip(made, placed, resolved, strict=False):
        agreement[index] = box_agreement(one._replace(mask=mask), config.box_slack)
        if mask.any():
            masks[index], trusted[index] = mask, agreement[index] >= config.drop
    return LabeledImage(image, boxes, regions, votes, unmerged, masks, undecided, agreement, trusted)


def collect_votes(
    teachers: Sequence[Teacher],
    image: NDArray[np.uint8],
    boxes: NDArray[np.float64],
    labels: NDArray[np.int32],
    flip: bool = False,
) -> list[Vote]:
    """Run the teachers on an image, and on its flipped copy if wanted."""
    votes = []
    for teacher in teachers:
        votes.append(Vote(teacher.name, _call_teacher(teacher, image, boxes, labels)))
        if flip:
            width = image.shape[1]
            flipped = np.asarray(cv2.flip(image, 1), dtype=np.uint8)
            soft_masks = _call_teacher(teacher, flipped, flip_boxes(boxes, width), labels)
            votes.append(Vote(teacher.name, [flip_soft_mask(soft, width) for soft in soft_masks]))
    return votes


def _call_teacher(
    teacher: Teacher, image: NDArray[np.uint8], boxes: NDArray[np.float64], labels: NDArray[np.int32]
) -> list[SoftMask]:
    """Call a teacher, which may be anyone's code, and check that there is one mask per box."""
    soft_masks = teacher(image, boxes, labels)
    if not isinstance(soft_masks, Sequence) or not all(isinstance(soft, SoftMask) for soft in soft_masks):
        raise BoxelError(f"teacher {teacher.name} does not return a list of SoftMask.")
    if len(soft_masks) != len(boxes):
        raise BoxelError(
            f"teacher {teacher.name} returns {len(soft_masks)} masks for {len(boxes)} boxes; return one per box."
        )
    return list(soft_masks)


def flip_boxes(boxes: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Flip (N, 4) xyxy boxes horizontally in an image that is ``width`` pixels wide."""
    flipped = boxes.copy()
    flipped[:, [0, 2]] = width - boxes[:, [2, 0]]
    return flipped


def flip_soft_mask(soft: SoftMask, width: int) -> SoftMask:
    """Flip a soft mask horizontally in an image that is ``width`` pixels wide."""
    x0, y0, x1, y1 = soft.window
    return SoftMask(np.ascontiguousarray(soft.logits[:, ::-1]), (width - x1, y0, width - x0, y1), soft.score)


def vote_logits(
    votes: Sequence[Vote], index: int, rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Resample the votes for a box at some pixels of the image: (V, rows, columns) logits; NaN without an opinion."""
    soft_masks = [vote.soft_masks[index] for vote in votes]
    return np.stack([resample_at(soft.logits, soft.window, rows, columns) for soft in soft_masks])


class FusedBox:
    """The fused votes for a box in its region, which may have a hundred million pixels.

    In a small region all probabilities are computed at once, and kept; in a large one they are computed only where they
    are asked for, and where the votes for the tile of a pixel leave open whether it is the object's.

    Args:
        votes: The votes for all boxes of the image.
        index: Index of the box.
        region: The pixels that its mask may take.

    Attributes:
        threshold: The probability above which a pixel is the object's.
    """

    threshold = 0.5

    def __init__(self, votes: Sequence[Vote], index: int, region: Region) -> None:
        self.votes = [vote for vote in votes if vote.has_opinion(index)]
        self.index, self.region = index, region
        self._kept: NDArray[np.float16] | None = None

    def probability(self, part: Region) -> NDArray[np.float32]:
        """Return the (rows, columns) probability of the object in a part of the region; NaN without an opinion."""
        rows, columns = np.arange(part.top, part.bottom), np.arange(part.left, part.right)
        step = max(1, _STRIP // len(columns))
        strips = [rows[start : start + step] for start in range(0, len(rows), step)]
        return np.concatenate([self._probability_at(strip, columns) for strip in strips])

    def confidence(self, part: Region) -> NDArray[np.float16]:
        """Return the probability in a part of the region in half precision."""
        if self._kept is None:
            return self.probability(part).astype(np.float16)
        left, top = self.region[:2]
        return self._kept[part.top - top : part.bottom - top, part.left - left : part.right - left]

    def choose_threshold(self) -> None:
        """Choose the threshold with the largest expected IoU; see `best_threshold`."""
        top, left = self.region.top, self.region.left
        rows, columns = (spread(side, _SIDE) for side in self.region.shape)
        self.threshold = best_threshold(self._probability_at(top + rows, left + columns))

    def predict_mask(self) -> NDArray[np.bool_]:
        """Return where the probability is above the threshold: (rows, columns) bool of the region."""
        if np.prod(self.region.shape) <= _KEPT:
            probability = self.probability(self.region)
            self._kept = probability.astype(np.float16)  # kept for all boxes, so in half the memory
            return probability > self.threshold
        rows = np.arange(self.region.top, self.region.bottom)
        columns = np.arange(self.region.left, self.region.right)
        inside, is_open = self._judge_tiles(rows, columns)
        mask = np.empty(self.region.shape, dtype=bool)
        for k, start in enumerate(range(0, len(rows), _TILE)):
            band = mask[start : start + _TILE]
            band[:] = np.repeat(inside[k], _TILE)[: len(columns)]
            unsure = np.flatnonzero(np.repeat(is_open[k], _TILE)[: len(columns)])
            if len(unsure):
                probability = self._probability_at(rows[start : start + _TILE], columns[unsure])
                band[:, unsure] = probability > self.threshold
        return mask

    def find_undecided(self) -> NDArray[np.bool_] | None:
        """Return the (rows, columns) pixels of the region about which no vote has an opinion; None if all have one."""
        if not any(np.isnan(vote.soft_masks[self.index].logits).any() for vote in self.votes):
            return None
        undecided = np.isnan(self.probability(self.region))
        return undecided if undecided.any() else None

    def _judge_tiles(
        self, rows: NDArray[np.int64], columns: NDArray[np.int64]
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return which tiles lie in the mask, and which may have an outline or pixels without an opinion."""
        soft_masks = [vote.soft_masks[self.index] for vote in self.votes]
        bounds = [bound_tiles(soft.logits, soft.window, rows, columns, _TILE) for soft in soft_masks]
        if not bounds:
            nothing = np.zeros((-(-len(rows) // _TILE), -(-len(columns) // _TILE)), dtype=bool)
            return nothing, nothing
        low, high = (sigmoid(np.stack(limits)).mean(axis=0) for limits in zip(*bounds, strict=True))
        inside = low > self.threshold + _ROUNDING
        return inside, ~inside & ~(high < self.threshold - _ROUNDING)  # NaN is neither

    def _probability_at(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float32]:
        if not self.votes:
            return np.full((len(rows), len(columns)), np.nan, dtype=np.float32)
        return mean_probability(vote_logits(self.votes, self.index, rows, columns))


def spread(size: int, count: int) -> NDArray[np.int64]:
    """Choose evenly spaced indices of rows or columns, at most so many."""
    count = min(size, count)
    return ((np.arange(count) + 0.5) * size / max(count, 1)).astype(int)


def _refine_with_crf(image: NDArray[np.uint8], fused: FusedBox) -> FusedBox:
    from boxel.labeling.teachers.crf import refine

    region = fused.region
    return FusedBox([Vote("crf", [refine(image, region, fused.probability(region))])], 0, region)
