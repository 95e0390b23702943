"""Masks that every box gives for free: what a trained model must beat (BoxInst, Table 5)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from boxel.data.annotations import Annotations
from boxel.data.images import read_image
from boxel.evaluation.results import Result, fill_in_sizes, get_boxes, group_by_image, to_results
from boxel.masks.grabcut import grabcut_from_box
from boxel.masks.rle import Rle, encode
from boxel.utils.errors import BoxelError, nearest

logger = logging.getLogger(__name__)

BASELINES = {"box": "box filled", "grabcut": "GrabCut"}
"""The baselines by name, and what tables call them."""

MIN_SCORE, MAX_PER_IMAGE = 0.05, 20
"""GrabCut is run for detections of at least this score, and for at most this many per image."""


def check_baselines(names: Sequence[str]) -> None:
    """Raise a `BoxelError` unless all names are baselines.

    Examples:
        >>> check_baselines(["box", "grabcut"])
    """
    known = list(BASELINES)
    for name in names:
        if name not in known:
            raise BoxelError(f"there is no baseline {name!r}, only {', '.join(known)}.{nearest(name, known)}")


def fill_boxes(truth: Annotations, results: Sequence[Result]) -> list[Result]:
    """Return the same detections with their boxes filled as masks.

    Args:
        truth: The ground truth, for the sizes of the images.
        results: Detections; masks are not needed.

    Raises:
        BoxelError: The size of an image is unknown.

    Examples:
        >>> import tempfile
        >>> from boxel.data.synthetic import write_scenes
        >>> from boxel.evaluation import mean_fill, to_results
        >>> truth = write_scenes(tempfile.mkdtemp(), 1, height=64, width=96)
        >>> mean_fill(fill_boxes(truth, to_results(truth)))
        1.0
    """
    truth = fill_in_sizes(truth, results)
    boxes = get_boxes(results)
    filled = [dict(result) for result in results]
    for image, positions in group_by_image(truth, results).items():
        codes = coco_mask.frPyObjects(boxes[positions], int(truth.heights[image]), int(truth.widths[image]))
        for position, code in zip(positions, codes, strict=True):
            filled[position]["segmentation"] = {
                "size": code["size"],
                "counts": code["counts"].decode("ascii"),
            }
    return filled


def grabcut_boxes(
    truth: Annotations,
    results: Sequence[Result],
    min_score: float = MIN_SCORE,
    max_per_image: int | None = MAX_PER_IMAGE,
    workers: int = 1,
) -> list[Result]:
    """Return the same detections with the masks that GrabCut finds in their boxes.

    GrabCut takes about half a second per box, so it runs only for the best detections of an image. The other
    detections get their box filled, and so do those of an image that cannot be read (which is logged).

    Args:
        truth: The ground truth, for the sizes and files of the images.
        results: Detections; masks are not needed.
        min_score: Minimum score for GrabCut.
        max_per_image: Maximum number of detections per image for GrabCut, best scores first. None: all.
        workers: Number of threads, one image per thread.

    Raises:
        BoxelError: The size of an image is unknown.

    Examples:
        >>> import tempfile
        >>> from boxel.data.synthetic import write_scenes
        >>> from boxel.evaluation import to_results
        >>> truth = write_scenes(tempfile.mkdtemp(), 1, height=64, width=96)
        >>> cut = grabcut_boxes(truth, to_results(truth))
        >>> cut[0]["segmentation"]["size"]
        [64, 96]
    """
    truth = fill_in_sizes(truth, results)
    cut = fill_boxes(truth, results)
    boxes = get_boxes(results)
    boxes[:, 2:] += boxes[:, :2]
    chosen: dict[int, list[int]] = {}
    for image, positions in group_by_image(truth, results).items():
        best = sorted(positions, key=lambda p: -results[p]["score"])[:max_per_image]
        chosen[image] = [p for p in best if results[p]["score"] >= min_score]
    jobs = [
        (truth.image_path(image), (int(truth.heights[image]), int(truth.widths[image])), boxes[positions])
        for image, positions in chosen.items()
    ]
    with ThreadPoolExecutor(workers) as pool:  # threads suffice: OpenCV releases the GIL
        outcomes = list(pool.map(_cut_image, jobs))
    for positions, outcome in zip(chosen.values(), outcomes, strict=True):
        if isinstance(outcome, str):
            logger.warning("%s The boxes of this image are filled instead.", outcome)
            continue
        for position, code in zip(positions, outcome, strict=True):
            cut[position]["segmentation"] = code
    return cut


def label_with_baseline(boxes: Annotations, name: str) -> Annotations:
    """Give each box of a dataset the mask of a baseline.

    Args:
        boxes: Boxes that are not finite and crowds get no mask.
        name: One of `BASELINES`.
    """
    own = np.flatnonzero(boxes.has_box & ~boxes.iscrowd)
    results = to_results(boxes.select_instances(own))
    made = fill_boxes(boxes, results) if name == "box" else grabcut_boxes(boxes, results, max_per_image=None)
    masks = np.full(len(boxes.labels), None, dtype=object)
    masks[own] = [msgspec.json.encode(result["segmentation"]) for result in made]
    return replace(boxes, segmentations=masks)


def _cut_image(job: tuple[Path, tuple[int, int], NDArray[np.float64]]) -> list[Rle] | str:
    """Run GrabCut in the boxes of one image, or return what is wrong with the image."""
    path, size, boxes = job
    try:
        image = read_image(path)
    except BoxelError as error:
        return str(error)
    if image.shape[:2] != size:
        return f"{path}: the image is {image.shape[:2]} (height, width), not {size} as in the annotations."
    return [encode(grabcut_from_box(image, box)) for box in boxes]
