"""Choose the size of the images that a detector learns from, by the boxes of a dataset."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from boxel.data.annotations import Annotations
from boxel.training.level_scale import measure_boxes
from boxel.training.log import rank_zero_logger
from boxel.training.settings import Run

logger = rank_zero_logger(__name__)

MAX_FACTOR = 1.5
"""The most that images are enlarged by: a step takes its square as long."""

MULTIPLE = 32
"""Sides are multiples of the largest stride of a backbone, to which images are padded."""


def settle_input_size(run: Run, data: Annotations) -> None:
    """Enlarge the training images if the boxes are smaller than `augment.min_side`, which is then settled."""
    view = getattr(run.settings, "augment", None)
    if view is None or view.min_side is None:
        return
    sides, factors = measure_boxes(data, view)
    run.settings.augment = replace(view, min_side=None)
    side = float(np.median(sides * factors)) if len(sides) else 0.0
    if not side:
        return
    factor = choose_factor(side, view.min_side, 1 / float(np.median(factors)))
    *short_sides, max_size = (
        max(round(factor * length / MULTIPLE) * MULTIPLE, length)
        for length in (*view.short_sides, view.max_size)
    )
    if short_sides != view.short_sides:
        run.settings.augment = replace(run.settings.augment, short_sides=short_sides, max_size=max_size)
        logger.info(
            "boxes have a median longer side of only %.0f pixels in training, so images are resized to shorter sides "
            "of %s (`augment.short_sides`)",
            *(side, ", ".join(map(str, short_sides))),
        )


def choose_factor(side: float, min_side: float, native: float) -> float:
    """Return the factor by which images are enlarged: to `min_side`, but neither beyond their own size nor too far.

    Args:
        side: Median of the longer sides of the boxes in training, in pixels.
        min_side: What it should be.
        native: Factor that gives the images their own size.

    Examples:
        >>> choose_factor(45, 64, native=1.49), choose_factor(27, 64, native=1.95), choose_factor(27, 64, native=0.9)
        (1.4222222222222223, 1.5, 1.0)
    """
    return max(min(min_side / side, native, MAX_FACTOR), 1.0)
