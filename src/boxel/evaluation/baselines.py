"""The masks any box gives for free: what a trained model has to beat (BoxInst, Table 5)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from boxel.data.annotations import Annotations
from boxel.data.images import read_image
from boxel.evaluation.results import Result, by_image, result_boxes
from boxel.evaluation.sizes import with_sizes
from boxel.masks.grabcut import grabcut_from_box
from boxel.masks.rle import Rle, encode
from boxel.utils.errors import BoxelError

logger = logging.getLogger(__name__)

MIN_SCORE, MAX_PER_IMAGE = 0.05, 20
"""GrabCut cuts detections of at least this score, and of an image at most so many."""


def fill_boxes(results: Sequence[Result], truth: Annotations) -> list[Result]:
    """The same detections, each box filled.

    Args:
        results: detections; masks are not needed.
        truth: it knows the images' sizes.

    Raises:
        BoxelError: an image's size can't be told (`with_sizes`).
    """
    truth = with_sizes(truth, results)
    boxes = result_boxes(results)
    filled = [dict(result) for result in results]
    for image, positions in by_image(results, truth).items():
        codes = coco_mask.frPyObjects(boxes[positions], int(truth.heights[image]), int(truth.widths[image]))
        for position, code in zip(positions, codes, strict=True):
            filled[position]["segmentation"] = {
                "size": code["size"],
                "counts": code["counts"].decode("ascii"),
            }
    return filled


def grabcut_boxes(
    results: Sequence[Result],
    truth: Annotations,
    min_score: float = MIN_SCORE,
    max_per_image: int = MAX_PER_IMAGE,
    workers: int = 1,
) -> list[Result]:
    """The same detections, their masks found by GrabCut in the predicted boxes.

    It takes about half a second a box, so that only the best detections of an image get one; the others get
    the filled box, and so do those of an image that can't be read (which is logged).

    Args:
        results: detections; masks are not needed.
        truth: it knows where the images are.
        min_score: least score for GrabCut.
        max_per_image: most detections of an image for GrabCut, best scores first.
        workers: threads, an image each.

    Raises:
        BoxelError: an image's size can't be told (`with_sizes`).
    """
    truth = with_sizes(truth, results)
    cut = fill_boxes(results, truth)
    boxes = result_boxes(results)
    boxes[:, 2:] += boxes[:, :2]
    chosen: dict[int, list[int]] = {}
    for image, positions in by_image(results, truth).items():
        best = sorted(positions, key=lambda p: -results[p]["score"])[:max_per_image]
        chosen[image] = [p for p in best if results[p]["score"] >= min_score]
    jobs = [
        (truth.image_path(image), (int(truth.heights[image]), int(truth.widths[image])), boxes[positions])
        for image, positions in chosen.items()
    ]
    with ThreadPoolExecutor(workers) as pool:  # threads are enough: OpenCV lets go of the interpreter's lock
        outcomes = list(pool.map(_cut_image, jobs))
    for positions, outcome in zip(chosen.values(), outcomes, strict=True):
        if isinstance(outcome, str):
            logger.warning("%s The boxes of this image are filled instead of cut.", outcome)
            continue
        for position, code in zip(positions, outcome, strict=True):
            cut[position]["segmentation"] = code
    return cut


def _cut_image(job: tuple[Path, tuple[int, int], NDArray[np.float64]]) -> list[Rle] | str:
    """GrabCut's masks in the boxes of one image, or what was wrong with the image."""
    path, size, boxes = job
    try:
        image = read_image(path)
    except BoxelError as error:
        return str(error)
    if image.shape[:2] != size:
        return f"{path}: the image is {image.shape[:2]}, not {size} (height, width) as the annotations say."
    return [encode(grabcut_from_box(image, box)) for box in boxes]
