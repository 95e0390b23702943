"""Choose which size of object each level of the feature pyramid detects, from the boxes of a dataset."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from boxel.data.annotations import Annotations
from boxel.data.config import AugmentConfig, ScaleCropConfig
from boxel.evaluation.results import fill_in_sizes
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


def measure_median_side(data: Annotations, view: AugmentConfig | ScaleCropConfig) -> float:
    """Return the median of the longer sides of the boxes that are not crowds, in pixels of the resized images.

    Images whose size nobody knows do not count; without any that do it is `PAPER_SIDE`.
    """
    sides, factors = measure_boxes(data, view)
    return float(np.median(sides * factors)) if len(sides) else PAPER_SIDE


def measure_boxes(
    data: Annotations, view: AugmentConfig | ScaleCropConfig
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the longer sides (N,) of the boxes that are not crowds, in pixels, and how their images are resized.

    The latter are factors (N,), without the random ones. Images whose size nobody knows do not count.
    """
    data = fill_in_sizes(data, required=False)
    sizes = np.stack([data.widths, data.heights], 1)[data.image_index]  # (N, 2), of each instance's image
    used = data.has_box & ~data.iscrowd & (sizes > 0).all(1)
    return (data.boxes[used, 2:] - data.boxes[used, :2]).max(1), _resize_factors(sizes[used], view)


def _resize_factors(sizes: NDArray[np.integer], view: AugmentConfig | ScaleCropConfig) -> NDArray[np.float64]:
    """Return the (N,) factors by which images of some (N, 2) sizes are resized, without the random ones."""
    if isinstance(view, ScaleCropConfig):
        return (view.long_side or sizes.max(1)) / sizes.max(1)
    return np.minimum(np.median(view.short_sides) / sizes.min(1), view.max_size / sizes.max(1))


def choose_level_scale(side: float) -> float:
    """Return 0.5 if half of the papers' sizes are nearer to a median side in pixels than these sizes, else 1.

    With sizes below half, the cells of a level would be coarse for its objects.

    Examples:
        >>> choose_level_scale(130.0), choose_level_scale(45.0)
        (1.0, 0.5)
    """
    return 0.5 if side * 2**0.5 < PAPER_SIDE else 1.0
