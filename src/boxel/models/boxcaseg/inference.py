"""Predict masks of given boxes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from boxel.masks.crops import SoftMasks, predict_soft_masks

if TYPE_CHECKING:
    from boxel.models.boxcaseg.model import BoxCaseg
    from boxel.models.onnx import OnnxBoxCaseg


@torch.inference_mode()
def soft_masks(
    model: BoxCaseg | OnnxBoxCaseg, image: NDArray[np.uint8], boxes: NDArray[np.float64]
) -> SoftMasks:
    """Predict the logits of the object in (N, 4) boxes, xyxy pixels partly inside the (H, W, 3) RGB image."""

    def predict(some: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        *crops, windows = model.extract_crops(image, some, boxes)
        return model.predict_logits(*crops).float().cpu().numpy(), windows

    return predict_soft_masks(predict, boxes)
