"""Settings of the CRF, importable without torch."""

from __future__ import annotations

from dataclasses import dataclass

from boxel.utils.config import Config, NonNegativeFloat, NonNegativeInt, PositiveFloat


@dataclass
class CRFConfig(Config):
    """Settings of :func:`~boxel.crf.mean_field`. The defaults are those of Krähenbühl and Koltun's code.

    Attributes:
        smooth_weight: How strongly nearby pixels of two classes disagree; 0 disables this kernel.
        smooth_sigma: Standard deviation of the distance, in pixels.
        appearance_weight: How strongly nearby pixels of one color and two classes disagree; 0 disables this kernel.
        appearance_sigma: Standard deviation of the distance, in pixels.
        color_sigma: Standard deviation of the difference of colors, in steps of 8-bit RGB.
        iterations: Iterations of mean field.

    Examples:
        >>> CRFConfig(appearance_weight=4).iterations
        10
    """

    smooth_weight: NonNegativeFloat = 3.0
    smooth_sigma: PositiveFloat = 3.0
    appearance_weight: NonNegativeFloat = 10.0
    appearance_sigma: PositiveFloat = 80.0
    color_sigma: PositiveFloat = 13.0
    iterations: NonNegativeInt = 10
