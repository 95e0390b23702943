"""Every choice of BoxSup's network and of its loss."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Literal

from boxel.models.semantic.config import SegmenterConfig
from boxel.utils.errors import check_range


@dataclass
class BoxSupConfig(SegmenterConfig):
    """Options of :class:`~boxel.models.boxsup.model.BoxSup`. The defaults are the paper's network, DeepLab's VGG-16.

    Attributes:
        box_bias: with masks that are filled boxes: a pixel of a box is learned as the box's class only where the
            network gives that class a score no further below the background's than this, and else as background
            (the re-estimated labels of WSSL's Bbox-EM, Table 2); None learns labels as they are.
        affinity_weight: of BoxInst's color affinity loss on the scores, which the paper hasn't; 0 for none.
        tau: color similarity from which two neighbors are to be of one class.
    """

    backbone: str = "vgg16.tv_in1k"
    frozen_stages: int = 0
    classifier: Literal["dilated", "fully-connected"] = "fully-connected"
    kernel: int = 4
    dilation: int = 4
    hidden: int = 4096
    box_bias: float | None = None
    affinity_weight: float = 0.0
    tau: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, 0, inf, "affinity_weight")
        check_range(self, 0, 1, "tau")
        if self.box_bias is not None:
            check_range(self, -inf, inf, "box_bias")
