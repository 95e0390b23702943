"""BoxSup's update: select the candidate segment that each box is learned from, given the network's predictions."""

from __future__ import annotations

from math import inf

import numpy as np
from numpy.typing import NDArray

from boxel.masks.boxes import box_iou, box_to_pixels, normalized_box_coords
from boxel.models.boxsup.config import UpdateConfig
from boxel.proposals.candidates import Candidates


def compute_costs(
    candidates: Candidates,
    boxes: NDArray[np.floating],
    labels: NDArray[np.integer],
    log_probabilities: NDArray[np.floating],
    config: UpdateConfig,
) -> NDArray[np.float64]:
    """Compute the cost of each candidate for each box (Eqs. 2 to 4).

    The network's loss is that of labels which give the segment the box's class, and the background everywhere else.
    Unless it is taken over the whole image, pixels of other boxes do not count: those outside the own box, and those of
    a smaller box inside it. The sum over the pixels of a segment is a sum over its superpixels, so that all segments
    cost one matrix product.

    Args:
        candidates: N segments of an image.
        boxes: (B, 4) xyxy pixels.
        labels: (B,) class of each box, in [1, K).
        log_probabilities: (K, H, W) of each pixel's classes, the background first.
        config: Settings.

    Returns:
        (N, B), infinite for segments that do not touch the box.
    """
    sets = candidates.sets().astype(np.float32)
    superpixels = candidates.superpixels
    count = sets.shape[1]
    overlap = box_iou(candidates.boxes, boxes)
    enlarge = inf if config.enlarge is None else config.enlarge
    constants, gains = np.zeros(len(boxes)), np.zeros((count, len(boxes)), dtype=np.float64)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1).astype(np.float64)
    for number, (box, label) in enumerate(zip(boxes, labels.tolist(), strict=True)):
        x0, y0, x1, y1 = window = _pixel_window(box, enlarge, superpixels.shape)
        counted, own = _counted_pixels(boxes, areas, number, window, others=config.enlarge is None)
        background, foreground = (-log_probabilities[c, y0:y1, x0:x1][counted] for c in (0, label))
        difference = foreground - background
        if config.min_share and own.any():
            difference = difference - max(np.quantile(difference[own[counted]], config.min_share), 0)
        scale = 1 / max(len(background), 1) if config.normalizer == "mean" else 1.0
        constants[number] = scale * background.sum(dtype=np.float64)
        gains[:, number] = scale * np.bincount(
            superpixels[y0:y1, x0:x1][counted], difference, minlength=count
        )
    loss = constants + sets @ gains
    distance = (1 - overlap) if config.normalizer == "mean" else (1 - overlap) / max(len(sets), 1)
    costs = distance + config.regression_weight * loss
    if config.shape_weight:
        sizes = sets @ np.bincount(superpixels.ravel(), minlength=count)
        ellipses = _ellipse_areas(superpixels, boxes, count)
        common = sets @ ellipses
        costs += config.shape_weight * (1 - common / (sizes[:, None] + ellipses.sum(0) - common))
    return np.where(overlap > 0, costs, inf)


def choose_candidates(
    costs: NDArray[np.floating], top_k: int, random: np.random.Generator
) -> NDArray[np.int64]:
    """Draw the (B,) candidates of boxes from the `top_k` of lowest (N, B) cost; -1 if no cost is finite.

    References:
        Section 4.3, where "largest" must mean the smallest.
    """
    chosen = np.full(costs.shape[1], -1, dtype=np.int64)
    for box, own in enumerate(costs.T):
        best = np.argsort(own, kind="stable")[:top_k]
        best = best[np.isfinite(own[best])]
        if len(best):
            chosen[box] = random.choice(best)
    return chosen


def _ellipse_areas(
    superpixels: NDArray[np.integer], boxes: NDArray[np.floating], count: int
) -> NDArray[np.float64]:
    """Return (S, B) the number of pixels of each superpixel in the ellipse that touches the sides of a box."""
    found = np.zeros((count, len(boxes)))
    for number, box in enumerate(boxes):
        x0, y0, x1, y1 = _pixel_window(box, 0, superpixels.shape)
        u, v = normalized_box_coords(box, np.arange(x0, x1) + 0.5, np.arange(y0, y1) + 0.5)
        inside = u**2 + v**2 <= 1
        found[:, number] = np.bincount(superpixels[y0:y1, x0:x1][inside], minlength=count)
    return found


def _pixel_window(
    box: NDArray[np.floating], enlarge: float, shape: tuple[int, ...]
) -> tuple[int, int, int, int]:
    """Return the xyxy pixels whose centers an enlarged box contains."""
    half = enlarge / 2 * np.tile(box[2:] - box[:2], 2) * [-1, -1, 1, 1]
    x0, y0, x1, y1 = box_to_pixels(box + half, *shape).tolist()
    return x0, y0, x1, y1


def _counted_pixels(
    boxes: NDArray[np.floating],
    areas: NDArray[np.float64],
    own: int,
    window: tuple[int, int, int, int],
    others: bool,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return (h, w) bool, the pixels of a window, without those of `others` or with, and those of them in the box."""
    x0, y0, x1, y1 = window
    x, y = np.arange(x0, x1) + 0.5, np.arange(y0, y1) + 0.5
    across = (boxes[:, 0, None] <= x) & (x < boxes[:, 2, None])
    down = (boxes[:, 1, None] <= y) & (y < boxes[:, 3, None])
    counted = np.ones((y1 - y0, x1 - x0), dtype=bool)
    mine = down[own][:, None] & across[own]
    for other in range(0 if others else len(boxes)):
        if other != own and across[other].any() and down[other].any():
            theirs = down[other][:, None] & across[other]
            counted &= ~(theirs if areas[other] < areas[own] else theirs & ~mine)
    return counted, counted & mine
