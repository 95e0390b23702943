"""Masks that every box gives for free: what a trained model must beat (BoxInst, Table 5)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import msgspec
import numpy as np

from boxel.data.annotations import Annotations
from boxel.evaluation.results import (
    Result,
    fill_box,
    fill_in_sizes,
    get_boxes,
    group_by_image,
    sizes_by_id,
    to_results,
)
from boxel.masks.boxes import xywh_to_xyxy
from boxel.masks.grabcut import grabcut_from_box
from boxel.masks.rle import encode
from boxel.utils.errors import BoxelError

logger = logging.getLogger(__name__)

MIN_SCORE = 0.05
"""GrabCut is run for detections of at least this score: all that a trained model returns by default."""


def fill_boxes(truth: Annotations, results: Sequence[Result]) -> list[Result]:
    """Return the same detections with their boxes filled as masks.

    Args:
        truth: The ground truth, for the sizes of the images.
        results: Detections; masks are not needed.

    Raises:
        BoxelError: The size of an image is unknown.

    Examples:
        >>> from boxel.data import example_scenes
        >>> from boxel.evaluation import mean_fill, to_results
        >>> truth = example_scenes()
        >>> mean_fill(fill_boxes(truth, to_results(truth)))
        1.0
    """
    sizes = sizes_by_id(fill_in_sizes(truth, results))
    return [
        {**result, "segmentation": fill_box(box, *sizes[result["image_id"]])}
        for result, box in zip(results, get_boxes(results).tolist(), strict=True)
    ]


def grabcut_boxes(truth: Annotations, results: Sequence[Result]) -> list[Result]:
    """Return the same detections with the masks that GrabCut finds in their boxes (BoxInst, Table 5).

    GrabCut takes about half a second per box, so detections of a score below 0.05 get their box filled, and so do those
    of an image that cannot be read (which is logged).

    Args:
        truth: The ground truth, for the sizes and files of the images.
        results: Detections; masks are not needed.

    Raises:
        BoxelError: The size of an image is unknown.

    Examples:
        >>> from boxel.data import example_scenes
        >>> from boxel.evaluation import to_results
        >>> truth = example_scenes()
        >>> grabcut_boxes(truth, to_results(truth))[0]["segmentation"]["size"]
        [64, 96]
    """
    from boxel.labeling.shard import load_image

    truth = fill_in_sizes(truth, results)
    cut = fill_boxes(truth, results)
    boxes = xywh_to_xyxy(get_boxes(results))

    def cut_image(image: int, positions: list[int]) -> None:
        try:
            pixels = load_image(truth, image)
        except BoxelError as error:
            logger.warning("%s The boxes of this image are filled instead.", error)
            return
        for position in positions:
            if results[position]["score"] >= MIN_SCORE:
                cut[position]["segmentation"] = encode(grabcut_from_box(pixels, boxes[position]))

    groups = group_by_image(truth, results)
    with ThreadPoolExecutor(2) as pool:  # threads suffice: OpenCV releases the GIL
        list(pool.map(cut_image, groups, groups.values()))
    return cut


MAKE_BASELINE = {"box": fill_boxes, "grabcut": grabcut_boxes}
BASELINE_TITLES = {"box": "box filled", "grabcut": "GrabCut"}


def label_with_baseline(boxes: Annotations, name: str) -> Annotations:
    """Give each box of a dataset the mask of one of `MAKE_BASELINE`, but crowds and boxes that are not finite none."""
    own = np.flatnonzero(boxes.has_box & ~boxes.iscrowd)
    results = to_results(boxes.select_instances(own))
    made = MAKE_BASELINE[name](boxes, results)
    masks = np.full(len(boxes.labels), None, dtype=object)
    masks[own] = [msgspec.json.encode(result["segmentation"]) for result in made]
    return replace(boxes, segmentations=masks)
