"""Choose which size of object each level of the feature pyramid detects, from the boxes of a dataset."""

from __future__ import annotations

import numpy as np

from boxel.data.annotations import Annotations
from boxel.data.config import AugmentConfig
from boxel.models.io import read_config_file
from boxel.training.log import rank_zero_logger
from boxel.training.settings import Run

logger = rank_zero_logger(__name__)

PAPER_SIDE = 128.0
"""Median of the longer sides of COCO's boxes in pixels, resized as in the papers: where the range of P3 ends."""


def settle_level_scale(run: Run, data: Annotations, resume: bool) -> None:
    """Set `model.level_scale` if the model has it and nobody did: as before in a resumed run, else by the boxes."""
    model = run.settings.model
    if getattr(model, "level_scale", 1.0) is not None:
        return
    if resume and (run.out / "config.yaml").is_file():
        model.level_scale = read_config_file(run.out)["model"].get("level_scale")
        return
    side = measure_median_side(data, run.settings.augment)
    model.level_scale = choose_level_scale(side)
    suits = "half of these sizes" if model.level_scale < 1 else "objects of these sizes"
    logger.info(
        "boxes have a median longer side of %.0f pixels in training, where the paper's sizes suit %.0f: the levels of "
        "the pyramid detect %s (`model.level_scale` %g)",
        *(side, PAPER_SIDE, suits, model.level_scale),
    )


def measure_median_side(data: Annotations, augment: AugmentConfig) -> float:
    """Return the median of the longer sides of the boxes that are not crowds, in pixels of the resized images."""
    shorter, longer = np.minimum(data.widths, data.heights), np.maximum(data.widths, data.heights)
    factor = np.minimum(np.median(augment.short_sides) / shorter, augment.max_size / longer)
    sides = (data.boxes[:, 2:] - data.boxes[:, :2]).max(1) * factor[data.image_index]
    return float(np.median(sides[~data.iscrowd]))


def choose_level_scale(side: float) -> float:
    """Return 0.5 if half of the papers' sizes are nearer to a median side in pixels than these sizes, else 1.

    With sizes below half, the cells of a level would be coarse for its objects.

    Examples:
        >>> choose_level_scale(130.0), choose_level_scale(45.0)
        (1.0, 0.5)
    """
    return 0.5 if side * 2**0.5 < PAPER_SIDE else 1.0
