"""Predict masks of given boxes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from boxel.masks.crops import SoftMasks, predict_soft_masks


class CropSegmenter:
    """Base class of what predicts the object in a box from a crop, whether PyTorch or onnxruntime runs the network."""

    extract_crops: Any  # as of `BoxCaseg`
    predict_logits: Any

    @torch.inference_mode()
    def soft_masks(self, image: NDArray[np.uint8], boxes: NDArray[np.float64]) -> SoftMasks:
        """Predict the logits of the object in (N, 4) boxes, xyxy pixels partly inside the (H, W, 3) RGB image."""

        def predict(some: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
            *crops, windows = self.extract_crops(image, some, boxes)
            return self.predict_logits(*crops).float().cpu().numpy(), windows

        return predict_soft_masks(predict, boxes)
