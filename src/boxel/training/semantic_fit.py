"""Warn of a dataset from which a semantic segmenter learns little, before the first step."""

from __future__ import annotations

from math import ceil

import numpy as np

from boxel.data.annotations import Annotations
from boxel.data.label_maps import has_pixel_labels
from boxel.evaluation.results import fill_in_sizes
from boxel.training.level_scale import measure_median_side
from boxel.training.log import rank_zero_logger
from boxel.training.settings import Run
from boxel.utils.printable import count_noun

logger = rank_zero_logger(__name__)

MIN_IMAGES = 40
MIN_CELLS = 2
"""Cells of the score map along the longer side of the median box."""
MIN_COVERED = 0.01
"""Share of the pixels that lie in a box; below it, predicting only background is almost right."""


def warn_if_unsuited(run: Run, data: Annotations) -> None:
    """Warn if a dataset has few images, or tiny or sparse boxes, and name what suits it better.

    Boxes in images with a label map do not count, since the network learns from the label map.
    """
    if run.settings.label is None:
        data = data.select_images(has_pixel_labels(data))
    boxed = fill_in_sizes(data.select_images(~data.has_label_map), required=False)
    views, smallest = run.settings.views, MIN_CELLS * run.settings.model.output_stride
    side, covered = measure_median_side(boxed, views), measure_covered(boxed)
    reasons: list[str] = []
    remedy = "`boxel train boxinst`" if len(boxed.labels) else "start from a run on more images (`init`)"
    if len(data) < MIN_IMAGES:
        reasons.append(f"{count_noun(len(data), 'training image')} (fewer than {MIN_IMAGES})")
    if side < smallest:
        cells = f"below {smallest}, {MIN_CELLS} cells of the network"
        reasons.append(f"boxes with a median longer side of {side:.0f} pixels in training ({cells})")
        long_side = views.long_side or np.median(np.maximum(boxed.widths, boxed.heights))
        remedy += f", or set `views.long_side` to {ceil(long_side * smallest / side)}"
    if covered < MIN_COVERED:
        reasons.append(f"boxes on {covered:.2%} of the pixels (below {MIN_COVERED:.0%})")
    if reasons:
        name = run.method.name
        logger.warning(
            "%s: %s may learn little from %s; better: %s.", data.file, name, ", ".join(reasons), remedy
        )


def measure_covered(data: Annotations) -> float:
    """Return the share of the pixels that lie in boxes which are not crowds, as if no two overlapped.

    Images whose size nobody knows do not count; without boxes in others it is 1.
    """
    pixels = data.widths.astype(np.float64) * data.heights  # (I,)
    used = data.has_box & ~data.iscrowd & (pixels[data.image_index] > 0)
    sides = data.boxes[used, 2:] - data.boxes[used, :2]
    return float(sides.prod(1).sum() / pixels.sum()) if used.any() else 1.0
