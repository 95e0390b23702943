"""Predict masks of given boxes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from boxel.data.annotations import Category
from boxel.masks.boxes import box_to_pixels
from boxel.masks.crops import SoftMasks, predict_soft_masks, resample
from boxel.masks.rle import Rle, encode_in_box
from boxel.models.instances import Instances

if TYPE_CHECKING:
    from boxel.models.boxcaseg.model import BoxCaseg
    from boxel.models.onnx import OnnxBoxCaseg

BoxToMask: TypeAlias = "BoxCaseg | OnnxBoxCaseg"


@torch.inference_mode()
def soft_masks(model: BoxToMask, image: NDArray[np.uint8], boxes: NDArray[np.float64]) -> SoftMasks:
    """Predict the logits of the object in (N, 4) boxes, xyxy pixels partly inside the (H, W, 3) RGB image."""

    def predict(some: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        *crops, windows = model.extract_crops(image, some, boxes)
        return model.predict_logits(*crops).float().cpu().numpy(), windows

    return predict_soft_masks(predict, boxes)


def box_masks(
    model: BoxToMask, image: NDArray[np.uint8], boxes: NDArray[np.float64]
) -> tuple[list[Rle], NDArray[np.float32]]:
    """Predict the run-length code of the object in each box, cut to the box, and its score, as :func:`soft_masks`."""
    height, width = image.shape[:2]
    logits, windows, scores = soft_masks(model, image, boxes)
    rles = []
    for grid, window, corners in zip(logits, windows, box_to_pixels(boxes, height, width), strict=True):
        left, top, right, bottom = corners.tolist()
        area = (left, top, max(left, right), max(top, bottom))
        empty = area[0] == area[2] or area[1] == area[3]
        mask = np.zeros((area[3] - top, area[2] - left), bool) if empty else resample(grid, window, area) > 0
        rles.append(encode_in_box(mask, left, top, height, width))
    return rles, scores


def segment_boxes(
    model: BoxCaseg,
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


def resegment(model: BoxCaseg, image: NDArray[np.uint8], instances: Instances) -> Instances:
    """Replace the masks of detected instances by those that the model predicts of their boxes."""
    return replace(instances, rles=box_masks(model, image, instances.boxes.astype(np.float64))[0])
