"""Masks by a fully connected CRF with two classes: of a box alone, or of the predictions of others."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from boxel.crf import CRFConfig, mean_field
from boxel.labeling.teachers.base import CERTAIN_LOGIT, SoftMask
from boxel.labeling.teachers.baselines import inner_box
from boxel.masks.boxes import Region
from boxel.masks.crops import crop, crop_spans, crop_window

SIDE = 96  # cells per side of the copy that the CRF works on, so that its time does not depend on the box
BOX_RIM = 4  # cells of background around a box: as many as certainly are object, since the larger class wins
MASK_RIM = 14  # cells of background around the pixels that a mask may take

BOX_CRF = CRFConfig(appearance_weight=4, appearance_sigma=SIDE / 4, color_sigma=10, iterations=5)
"""For a box alone; sigmas in cells."""

MASK_CRF = CRFConfig(
    smooth_weight=1, appearance_weight=1, appearance_sigma=SIDE / 2, color_sigma=8, iterations=5
)
"""For a mask, which should change little: the better the teacher, the more harm a stronger CRF does."""


def segment(image: NDArray[np.uint8], box: NDArray[np.float64]) -> SoftMask:
    """Segment a box whose inner fifth certainly is the object and whose outside certainly is not.

    References:
        Papandreou et al., "Weakly- and Semi-Supervised Learning of a Deep Convolutional Network for Semantic Image
        Segmentation", ICCV 2015, Section 3.2: Bbox-Seg.
    """
    inner = inner_box(image, box)  # with one pixel of background on each side
    left, top, right, bottom = (int(edge) for edge in inner.window)
    region = Region(left + 1, top + 1, right - 1, bottom - 1)
    core = inner.logits[1:-1, 1:-1] > 0
    prior = np.where(core, np.float32(1), np.float32(0.5))
    found = _marginals(image, region, prior, BOX_RIM, BOX_CRF)
    logits = np.where(core, CERTAIN_LOGIT, found.resample(region))
    return SoftMask(np.pad(logits, 1, constant_values=-CERTAIN_LOGIT), inner.window)


def refine(image: NDArray[np.uint8], region: Region, probability: NDArray[np.float32]) -> SoftMask:
    """Refine a mask, given by its (rows, columns) probability in a region, so that it follows the colors of the image.

    The probability is NaN if unknown; all pixels outside the region are certainly background.
    """
    return _marginals(image, region, np.nan_to_num(probability, nan=0.5), MASK_RIM, MASK_CRF)


def _marginals(
    image: NDArray[np.uint8], region: Region, probability: NDArray[np.float32], rim: int, config: CRFConfig
) -> SoftMask:
    """Compute the mean field of a region and the background around it, and return the region's part."""
    height, width = image.shape[:2]
    window = crop_window(region, rim / (SIDE - 2 * rim))  # so that the region begins and ends with a cell
    inside = np.ix_(*crop_spans((0, 0, width, height), window, SIDE))
    pixels = torch.from_numpy(crop(image, window, SIDE)[inside]).permute(2, 0, 1)
    # Padded with 0, certain background, beyond the region.
    prior = torch.from_numpy(crop(probability, window - [region.left, region.top] * 2, SIDE)[inside])
    found = np.zeros((SIDE, SIDE), dtype=np.float32)
    found[inside] = mean_field(pixels[None] / 255, torch.stack([1 - prior, prior])[None], config)[0, 1]
    own = np.ix_(*crop_spans(region, window, SIDE))
    logits = torch.from_numpy(found[own]).logit().numpy()
    return SoftMask(logits.clip(-CERTAIN_LOGIT, CERTAIN_LOGIT), region)
