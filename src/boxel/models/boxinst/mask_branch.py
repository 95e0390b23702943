"""The mask branch: features at stride 8 that all instances of an image share (CondInst, ECCV 2020, section 3.2)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from boxel.layers.norm import norm_layer
from boxel.layers.types import Norm


class MaskBranch(nn.Module):
    """P3, P4 and P5 summed at stride 8, a few convolutions, then a 1x1 to the features the dynamic head reads.

    Args:
        in_channels: of the feature pyramid.
        channels: of the branch.
        features: channels given out.
        convs: 3x3 convolutions after the sum.
        norm: kind of the norm layers.
    """

    def __init__(self, in_channels: int, channels: int, features: int, convs: int, norm: Norm):
        super().__init__()
        self.lateral = nn.ModuleList(_conv(in_channels, channels, norm) for _ in range(3))
        self.tower = nn.Sequential(*(_conv(channels, channels, norm) for _ in range(convs)))
        self.out = nn.Conv2d(channels, features, 1)

    def forward(self, pyramid: list[Tensor]) -> Tensor:
        """The features that all instances of an image share.

        Args:
            pyramid: P3 to P7, (B, in_channels, H / stride, W / stride) each.

        Returns:
            (B, features, H / 8, W / 8).
        """
        x = self.lateral[0](pyramid[0])
        for lateral, features in zip(list(self.lateral)[1:], pyramid[1:3], strict=True):
            x = x + F.interpolate(lateral(features), size=x.shape[-2:], mode="bilinear", align_corners=False)
        return self.out(self.tower(x))


def _conv(in_channels: int, channels: int, norm: Norm) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(conv, norm_layer(norm, channels), nn.ReLU(inplace=True))
