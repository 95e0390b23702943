"""One image: what teachers say of its boxes, and the masks that come of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from boxel.labeling.config import LabelConfig
from boxel.labeling.overlaps import Piece, box_agreement, merge, yield_to_surer
from boxel.labeling.teachers.base import SoftMask, Teacher, resample_logits
from boxel.masks.boxes import Region, pixel_region
from boxel.masks.crops import resample_at
from boxel.utils.errors import BoxelError


@dataclass(frozen=True)
class Vote:
    """What one teacher says of all boxes of an image, at one look.

    Attributes:
        teacher: its name.
        soft: N soft masks in the image's pixels, a box each.
        weights: (N,) float64, how far it is relied upon for each box's category.
        mirrored: whether it was shown the mirrored image.
    """

    teacher: str
    soft: list[SoftMask]
    weights: NDArray[np.float64]
    mirrored: bool = False

    def speaks(self, index: int) -> bool:
        """Whether it says anything of a box."""
        return bool(self.weights[index] > 0 and not np.isnan(self.soft[index].logits).all())


@dataclass(frozen=True)
class Labeled:
    """All that is known of an image when its masks are made; their quality is told from this alone.

    There are N boxes that masks were asked for and V votes, two a teacher where the mirrored image is looked at too.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        boxes: (N, 4) float64 xyxy pixels.
        labels: (N,) int32 index of each box's category.
        regions: N regions, the pixels that each mask may take.
        votes: V votes.
        settled: N masks (rows, columns) bool of their regions, before they were merged; None for a box that none
            speaks of, or in which there is nothing.
        masks: the same after the merge. One that smaller objects cover wholly is as it was before, not trusted.
        agreement: (N,) float64 in [0, 1], proxy box agreement of what the merge left; NaN without a mask.
        trusted: (N,) bool, the mask is not dropped.
    """

    image: NDArray[np.uint8]
    boxes: NDArray[np.float64]
    labels: NDArray[np.int32]
    regions: list[Region]
    votes: list[Vote]
    settled: list[NDArray[np.bool_] | None]
    masks: list[NDArray[np.bool_] | None]
    agreement: NDArray[np.float64]
    trusted: NDArray[np.bool_]

    def logits(self, index: int, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float32]:
        """(V, rows, columns) logits of each vote on a box at pixels of the image; NaN where a vote does not say.

        They are computed where asked for: those of all pixels of a hundred large boxes would not fit into memory.
        """
        said = [vote.soft[index] for vote in self.votes]
        return np.stack([resample_at(soft.logits, soft.window, rows, columns) for soft in said])


def label_image(
    image: NDArray[np.uint8],
    boxes: NDArray[np.float64],
    labels: NDArray[np.int32],
    names: Sequence[str],
    teachers: Sequence[Teacher],
    config: LabelConfig,
    kept: Sequence[Piece] = (),
) -> Labeled:
    """The masks of the boxes of one image.

    Args:
        image: (H, W, 3) uint8 RGB.
        boxes: (N, 4) float64 xyxy pixels, each with an area in the image.
        labels: (N,) int32, indices into ``names``.
        names: of the categories.
        teachers: who draws the masks.
        config: how.
        kept: masks that are there already and stay as they are; smaller ones take pixels from the new ones.
    """
    height, width = image.shape[:2]
    regions = [pixel_region(box, height, width, config.margin + config.box_slack) for box in boxes]
    votes = ask(teachers, image, boxes, labels, names, config.reliability, config.flip)

    settled, sure = [], []
    for index, region in enumerate(regions):
        chances = fused(votes, index, region)
        if config.crf:
            chances = _refined(image, region, chances)
        settled.append(settle(chances, config.min_island, config.min_max))
        if config.merge == "surer":
            sure.append(chances.astype(np.float16))  # of all boxes at once, so in half the memory
    # A mask can't reach past the image, and should not be blamed for it.
    inside = boxes.clip(0, [width, height] * 2)
    made = [index for index, mask in enumerate(settled) if mask is not None]
    pieces = [Piece(inside[index], regions[index], settled[index]) for index in made]  # type: ignore[arg-type]
    if config.merge == "smaller":
        left = merge([*pieces, *kept], height, width)
    elif config.merge == "surer":
        beyond_doubt = [np.ones(piece.mask.shape, dtype=np.float16) for piece in kept]
        left = yield_to_surer([*pieces, *kept], [*(sure[index] for index in made), *beyond_doubt])
    else:
        left = [piece.mask for piece in pieces]
    pieces = [piece._replace(mask=mask) for piece, mask in zip(pieces, left, strict=False)]
    masks, agreement, trusted = list(settled), np.full(len(boxes), np.nan), np.zeros(len(boxes), dtype=bool)
    for index, piece in zip(made, pieces, strict=True):
        agreement[index] = box_agreement(piece, config.box_slack)
        if piece.mask.any():
            masks[index] = piece.mask
            trusted[index] = agreement[index] >= config.drop
    return Labeled(image, boxes, labels, regions, votes, settled, masks, agreement, trusted)


def ask(
    teachers: Sequence[Teacher],
    image: NDArray[np.uint8],
    boxes: NDArray[np.float64],
    labels: NDArray[np.int32],
    names: Sequence[str],
    reliability: Mapping[str, Mapping[str, float]],
    flip: bool | None = None,
) -> list[Vote]:
    """The votes of teachers on an image.

    Args:
        teachers: who is asked.
        image: (H, W, 3) uint8 RGB.
        boxes: (N, 4) float64 xyxy pixels.
        labels: (N,) int32, indices into ``names``.
        names: of the categories.
        reliability: weight by a teacher's and a category's name; 1 where none is given.
        flip: ask about the mirrored image too; where None, those teachers whose `flips` says so.
    """
    votes = []
    for teacher in teachers:
        by_name = reliability.get(teacher.name, {})
        weights = np.array([by_name.get(names[label], 1.0) for label in labels])
        votes.append(Vote(teacher.name, _said(teacher, image, boxes, labels), weights))
        if getattr(teacher, "flips", False) if flip is None else flip:
            width = image.shape[1]
            turned = np.ascontiguousarray(image[:, ::-1])
            soft = _said(teacher, turned, mirror_boxes(boxes, width), labels)
            votes.append(Vote(teacher.name, [mirror(mask, width) for mask in soft], weights, mirrored=True))
    return votes


def _said(
    teacher: Teacher, image: NDArray[np.uint8], boxes: NDArray[np.float64], labels: NDArray[np.int32]
) -> list[SoftMask]:
    """What a teacher says, which may be anyone's code: masks of a wrong number would go to wrong boxes."""
    soft = teacher(image, boxes, labels)
    if not isinstance(soft, Sequence) or not all(isinstance(mask, SoftMask) for mask in soft):
        raise BoxelError(f"teacher {teacher.name} does not return a list of SoftMask.")
    if len(soft) != len(boxes):
        raise BoxelError(
            f"teacher {teacher.name} returns {len(soft)} masks for {len(boxes)} boxes; return one per box."
        )
    return list(soft)


def mirror_boxes(boxes: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """(N, 4) xyxy boxes of an image as they lie in the mirrored one, which is ``width`` pixels wide."""
    turned = boxes.copy()
    turned[:, [0, 2]] = width - boxes[:, [2, 0]]
    return turned


def mirror(soft: SoftMask, width: int) -> SoftMask:
    """A soft mask of the mirrored image, turned back; both are ``width`` pixels wide."""
    x0, y0, x1, y1 = soft.window
    return SoftMask(np.ascontiguousarray(soft.logits[:, ::-1]), (width - x1, y0, width - x0, y1), soft.score)


def region_logits(votes: Sequence[Vote], index: int, region: Region) -> NDArray[np.float32]:
    """(V, rows, columns) logits of each vote on a box in a region; NaN where a vote does not say."""
    return np.stack([resample_logits(vote.soft[index], region) for vote in votes])


def vote_weights(votes: Sequence[Vote], index: int) -> NDArray[np.float64]:
    """(V,) weights of the votes on a box."""
    return np.array([vote.weights[index] for vote in votes])


def fused(votes: Sequence[Vote], index: int, region: Region) -> NDArray[np.float32]:
    """(rows, columns) fused probability of the object of a box in a region; NaN where no vote says."""
    weights = vote_weights(votes, index)
    step = max(1, _STRIP // region.shape[1])
    tops = range(region.top, region.bottom, step)
    strips = [region._replace(top=top, bottom=min(top + step, region.bottom)) for top in tops]
    return np.concatenate([fuse(region_logits(votes, index, strip), weights) for strip in strips])


_STRIP = 1_000_000
"""Pixels that are fused at a time: each takes some 30 bytes meanwhile, and a box may have a hundred million."""


def _refined(image: NDArray[np.uint8], region: Region, chances: NDArray[np.float32]) -> NDArray[np.float32]:
    """The probability of the object of a box in a region, as a CRF has it."""
    from boxel.labeling.teachers.crf import refine  # torch is for those who ask for it

    found = Vote("crf", [refine(image, region, chances)], np.ones(1))
    return fused([found], 0, region)


def fuse(logits: NDArray[np.float32], weights: NDArray[np.float64]) -> NDArray[np.float32]:
    """Mean of the probabilities of several votes, by weight.

    Args:
        logits: (V, h, w); NaN where a vote does not say, which then does not count there.
        weights: (V,), 0 or more.

    Returns:
        (h, w) float32 in [0, 1]; NaN where no vote of any weight says.
    """
    said = ~np.isnan(logits)
    shares = said * weights.astype(np.float32)[:, None, None]
    with np.errstate(invalid="ignore"):  # 0 / 0 where none says, which is NaN as it should be
        return (np.where(said, expit(logits), 0) * shares).sum(axis=0) / shares.sum(axis=0)


def settle(
    probability: NDArray[np.float32], min_island: float = 0.0, min_max: bool = False
) -> NDArray[np.bool_] | None:
    """The mask of a probability: where it is above 0.5, without small islands and with its holes.

    Args:
        probability: (h, w) in [0, 1]; NaN, where nobody says, is not the object.
        min_island: parts below this share of the mask's area are removed.
        min_max: stretch the probabilities to reach from 0 to 1 first.

    Returns:
        (h, w) bool; None where nothing is above.
    """
    mask = (stretch(probability) if min_max else probability) > 0.5
    return without_islands(mask, min_island) if mask.any() else None


def stretch(probability: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities stretched to reach from 0 to 1; as they are where all are one number, or NaN."""
    said = probability[~np.isnan(probability)]
    span = np.ptp(said) if said.size else 0
    return (probability - said.min()) / span if span > 0 else probability


def without_islands(mask: NDArray[np.bool_], share: float) -> NDArray[np.bool_]:
    """A mask without its small parts; pixels that touch at a corner are of one part.

    Args:
        mask: (h, w) bool.
        share: parts below this share of the mask's area go; the largest stays in any case.
    """
    _, parts, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA]
    areas[0] = 0  # the ground
    kept = areas >= min(share * areas.sum(), areas.max())
    kept[0] = False
    return kept[parts]
