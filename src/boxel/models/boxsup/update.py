"""BoxSup's update: which candidate segment each box is to be learned from, given what the network says."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from boxel.masks.boxes import box_iou, box_to_pixels, normalized_box_coords
from boxel.proposals.candidates import Candidates
from boxel.utils.errors import check_range


@dataclass
class UpdateConfig:
    """Options of the update.

    Attributes:
        regression_weight: lambda, the weight of the network's loss beside the overlap with the box (Eq. 4). The paper's
            3 lets the loss decide nearly alone: fine where a network has long learned, and the end of a young one.
        normalizer: `mean` divides the loss by the pixels it is summed over, so that both parts are of one size;
            `printed` sums it and divides the overlap by the number of candidates, as Eqs. 2 and 3 are printed, and the
            loss outweighs the overlap by thousands.
        enlarge: the loss is taken over the box, made larger by this share of its sides.
        sampled: each box's segment is drawn from so many of lowest cost (k, Section 4.3); 1 takes the best.
        every: epochs from one update to the next; 0 chooses once, before the first step.
        shape_weight: of 1 - IoU with the ellipse in the box, which the paper hasn't. Many segments have a tight box
            that fits, and before the network says something nothing else tells them apart.
        least_share: of a box's pixels that the network is taken to call the box's class at least, those where it is
            nearest to it. With 0 a class that the network hardly knows yet gets the smallest segments and is forgotten.
        min_fill: segments that fill less of their tight box than this are no candidates, as the frame of ground around
            an object, whose box fits perfectly.
    """

    regression_weight: float = 0.3
    normalizer: Literal["mean", "printed"] = "mean"
    enlarge: float = 0.2
    sampled: int = 5
    every: float = 1.0
    shape_weight: float = 0.3
    least_share: float = 0.4
    min_fill: float = 0.2

    def __post_init__(self) -> None:
        check_range(self, 0, inf, "regression_weight", "enlarge", "every", "shape_weight")
        check_range(self, 1, inf, "sampled")
        check_range(self, 0, 1, "least_share", "min_fill")


def costs(
    candidates: Candidates,
    boxes: NDArray[np.floating],
    labels: NDArray[np.integer],
    log_probabilities: NDArray[np.floating],
    config: UpdateConfig,
) -> NDArray[np.float64]:
    """The cost of each candidate for each box (Eqs. 2 to 4).

    The network's loss is that of labels which give the segment the box's class and all else around it the background.
    Pixels of other boxes don't count: those outside the own box, and those of a smaller box inside it. A segment's sum
    over pixels is one over its superpixels, so that all of them cost one product of matrices.

    Args:
        candidates: N segments of an image.
        boxes: (B, 4) xyxy pixels.
        labels: (B,) the class of each box, in [1, K).
        log_probabilities: (K, H, W) of each pixel's classes, the background first.
        config: the options.

    Returns:
        (N, B), inf for segments that don't touch the box and those that the guards leave out, unless all are.
    """
    sets = candidates.sets().astype(np.float32)
    superpixels = candidates.superpixels
    count = sets.shape[1]
    overlap = box_iou(candidates.boxes, boxes)
    constants, gains = np.zeros(len(boxes)), np.zeros((count, len(boxes)), dtype=np.float64)
    areas = _areas(boxes)
    for number, (box, label) in enumerate(zip(boxes, labels.tolist(), strict=True)):
        x0, y0, x1, y1 = _window(box, config.enlarge, superpixels.shape)
        counted, own = _counted(boxes, areas, number, (x0, y0, x1, y1))
        ground, thing = (-log_probabilities[c, y0:y1, x0:x1][counted] for c in (0, label))
        more = thing - ground  # what it costs to call a pixel the thing, and not the ground
        if config.least_share and own.any():
            more = more - max(np.quantile(more[own[counted]], config.least_share), 0)
        scale = 1 / max(len(ground), 1) if config.normalizer == "mean" else 1.0
        constants[number] = scale * ground.sum(dtype=np.float64)
        gains[:, number] = scale * np.bincount(superpixels[y0:y1, x0:x1][counted], more, minlength=count)
    loss = constants + sets @ gains
    apart = (1 - overlap) if config.normalizer == "mean" else (1 - overlap) / max(len(sets), 1)
    found = apart + config.regression_weight * loss
    sizes = sets @ np.bincount(superpixels.ravel(), minlength=count)
    if config.shape_weight:
        ellipses = _ellipses(superpixels, boxes, count)
        common = sets @ ellipses
        found += config.shape_weight * (1 - common / (sizes[:, None] + ellipses.sum(0) - common))
    thin = sizes < config.min_fill * _areas(candidates.boxes)
    allowed = (overlap > 0) & ~thin[:, None]
    allowed |= (overlap > 0) & ~allowed.any(0)
    return np.where(allowed, found, inf)


def choose(found: NDArray[np.floating], sampled: int, random: np.random.Generator) -> NDArray[np.int64]:
    """(B,) the candidate of each box: drawn from those of lowest cost, or -1 where no cost is finite.

    Args:
        found: (N, B) costs.
        sampled: from how many.
        random: what draws.

    References:
        Section 4.3; it says "largest", and means the smallest.
    """
    chosen = np.full(found.shape[1], -1, dtype=np.int64)
    for box, own in enumerate(found.T):
        best = np.argsort(own, kind="stable")[:sampled]
        best = best[np.isfinite(own[best])]
        if len(best):
            chosen[box] = random.choice(best)
    return chosen


def _areas(boxes: NDArray[np.floating] | NDArray[np.integer]) -> NDArray[np.float64]:
    return (boxes[:, 2:] - boxes[:, :2]).prod(1).astype(np.float64)


def _ellipses(
    superpixels: NDArray[np.integer], boxes: NDArray[np.floating], count: int
) -> NDArray[np.float64]:
    """(S, B) pixels of each superpixel in the ellipse that touches a box's sides."""
    found = np.zeros((count, len(boxes)))
    for number, box in enumerate(boxes):
        x0, y0, x1, y1 = _window(box, 0, superpixels.shape)
        u, v = normalized_box_coords(box, np.arange(x0, x1) + 0.5, np.arange(y0, y1) + 0.5)
        inside = u**2 + v**2 <= 1
        found[:, number] = np.bincount(superpixels[y0:y1, x0:x1][inside], minlength=count)
    return found


def _window(box: NDArray[np.floating], enlarge: float, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """The pixels of an enlarged box, those whose centers it holds: xyxy."""
    half = enlarge / 2 * np.tile(box[2:] - box[:2], 2) * [-1, -1, 1, 1]
    x0, y0, x1, y1 = box_to_pixels(box + half, *shape).tolist()
    return x0, y0, x1, y1


def _counted(
    boxes: NDArray[np.floating], areas: NDArray[np.float64], own: int, window: tuple[int, int, int, int]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(h, w) which pixels of a window belong to a box or to none, and which of them to the box."""
    x0, y0, x1, y1 = window
    x, y = np.arange(x0, x1) + 0.5, np.arange(y0, y1) + 0.5
    across = (boxes[:, 0, None] <= x) & (x < boxes[:, 2, None])
    down = (boxes[:, 1, None] <= y) & (y < boxes[:, 3, None])
    counted = np.ones((y1 - y0, x1 - x0), dtype=bool)
    mine = down[own][:, None] & across[own]
    for other in range(len(boxes)):
        if other != own and across[other].any() and down[other].any():
            theirs = down[other][:, None] & across[other]
            counted &= ~(theirs if areas[other] < areas[own] else theirs & ~mine)
    return counted, counted & mine
