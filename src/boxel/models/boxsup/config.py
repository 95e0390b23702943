"""Settings of BoxSup: its network, its loss, and the update of its labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from boxel.models.semantic.config import SegmenterConfig
from boxel.utils.config import ClosedUnitInterval, Config, NonNegativeFloat, NonNegativeInt, PositiveInt


@dataclass
class BoxSupConfig(SegmenterConfig):
    """Settings of :class:`~boxel.models.boxsup.model.BoxSup`. The defaults are the paper's network, DeepLab's VGG-16.

    Attributes:
        box_bias: For masks that are filled boxes: a pixel of a box is learned as the box's class only if the network
            scores that class no further below the background than this, and else as background (the re-estimated
            labels of WSSL's Bbox-EM, Table 2); None learns labels as they are.
    """

    backbone: str = "vgg16.tv_in1k"
    frozen_stages: int = 0
    classifier: Literal["dilated", "fully-connected"] = "fully-connected"
    kernel: PositiveInt = 4
    dilation: PositiveInt = 4
    hidden: NonNegativeInt = 4096
    box_bias: float | None = None


@dataclass
class UpdateConfig(Config):
    """Settings of the update, which selects a candidate segment per box.

    Attributes:
        regression_weight: Lambda, the weight of the network's loss relative to the overlap with the box (Eq. 4). With
            the paper's 3 the loss decides nearly alone, which suits a trained network and ruins a new one.
        normalizer: `mean` divides the loss by the number of its pixels, so that both parts have one scale; `printed`
            sums it and divides the overlap by the number of candidates, as Eqs. 2 and 3 are printed, and the loss
            outweighs the overlap by thousands.
        enlarge: The loss is taken over the box, enlarged by this share of its sides, without the pixels of other boxes.
            Null takes the whole image with them, as Eq. 3 is printed.
        top_k: The segment of a box is drawn from this many of lowest cost (k, Section 4.3); 1 takes the best.
        every: Epochs between updates; 0 selects once, before the first step.
        shape_weight: Weight of 1 - IoU with the ellipse in the box; not in the paper. Many segments have a tight box
            that fits, and a new network cannot tell them apart.
        min_share: Minimum share of a box's pixels that count as predicted to be the box's class, those that are nearest
            to it. With 0 a class that the network hardly knows yet gets the smallest segments and is forgotten.
    """

    regression_weight: NonNegativeFloat = 0.3
    normalizer: Literal["mean", "printed"] = "mean"
    enlarge: NonNegativeFloat | None = 0.2
    top_k: PositiveInt = 5
    every: NonNegativeFloat = 1.0
    shape_weight: NonNegativeFloat = 0.3
    min_share: ClosedUnitInterval = 0.4
