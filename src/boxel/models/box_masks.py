"""Masks of given boxes as instances, from any network that predicts the object in a box."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from boxel.data.annotations import Category
from boxel.data.sources import ImageLike, to_image
from boxel.masks.boxes import box_to_pixels, to_corners
from boxel.masks.crops import SoftMasks, resample
from boxel.masks.rle import Rle, encode_in_box
from boxel.models.instances import Instances
from boxel.utils.errors import UsageError


class BoxToMask(Protocol):
    """A network that predicts the object in a box, run by PyTorch or by onnxruntime."""

    def soft_masks(self, image: NDArray[np.uint8], boxes: NDArray[np.float64]) -> SoftMasks:
        """Predict the logits of the object in (N, 4) boxes, xyxy pixels partly inside the (H, W, 3) RGB image."""


def box_masks(
    model: BoxToMask, image: NDArray[np.uint8], boxes: NDArray[np.float64]
) -> tuple[list[Rle], NDArray[np.float32]]:
    """Predict the run-length code of the object in each box, cut to the box, and its score, by `soft_masks`."""
    height, width = image.shape[:2]
    logits, windows, scores = model.soft_masks(image, boxes)
    rles = []
    for grid, window, corners in zip(logits, windows, box_to_pixels(boxes, height, width), strict=True):
        left, top, right, bottom = corners.tolist()
        mask = np.zeros((0, 0), dtype=bool)
        if left < right and top < bottom:
            mask = resample(grid, window, (left, top, right, bottom)) > 0
        rles.append(encode_in_box(mask, left, top, height, width))
    return rles, scores


def segment_boxes(
    model: BoxToMask,
    image: NDArray[np.uint8],
    boxes: NDArray[np.float64],
    labels: NDArray[np.integer],
    categories: tuple[Category, ...],
) -> Instances:
    """Predict the masks of labeled boxes as instances in their order, scored by how certain their pixels are."""
    rles, scores = box_masks(model, image, boxes)
    height, width = image.shape[:2]
    return Instances(
        boxes.astype(np.float32), scores, labels.astype(np.int64), rles, categories, (height, width)
    )


def predict_boxes(
    model: Any, image: ImageLike, boxes: ArrayLike, settings: Mapping[str, object]
) -> Instances:
    """Predict the masks of boxes of unknown class in an image, without settings."""
    if settings:
        raise UsageError(f"predict() of BoxCaseg has no setting {next(iter(settings))!r}; leave it out.")
    corners, pixels = to_corners(boxes), to_image(image)
    labels = np.zeros(len(corners), dtype=np.int64)
    return replace(segment_boxes(model, pixels, corners, labels, model.categories[:1]), source=image)


def resegment(model: BoxToMask, image: NDArray[np.uint8], instances: Instances) -> Instances:
    """Replace the masks of detected instances by those that the model predicts of their boxes."""
    return replace(instances, rles=box_masks(model, image, instances.boxes.astype(np.float64))[0])
