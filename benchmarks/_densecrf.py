"""The fully connected CRF by Krähenbühl's code, package pydensecrf2."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def mean_field(
    photo: NDArray[np.uint8],
    probabilities: NDArray[np.float32],
    smooth: tuple[float, float],
    appearance: tuple[float, float, float],
    iterations: int,
) -> NDArray[np.float32]:
    """Compute the marginals of (K, H, W) classes.

    Args:
        photo: (H, W, 3).
        probabilities: (K, H, W).
        smooth: Standard deviation in pixels, and weight.
        appearance: Standard deviation in pixels, of colors, and weight.
        iterations: Number of iterations.
    """
    from pydensecrf.densecrf import DenseCRF2D

    classes, height, width = probabilities.shape
    crf = DenseCRF2D(width, height, classes)
    crf.setUnaryEnergy(-np.log(probabilities.reshape(classes, -1).clip(1e-20)))
    crf.addPairwiseGaussian(sxy=smooth[0], compat=smooth[1])
    crf.addPairwiseBilateral(sxy=appearance[0], srgb=appearance[1], rgbim=photo, compat=appearance[2])
    return np.array(crf.inference(iterations)).reshape(classes, height, width)
