"""Bidirectional feature pyramid with learned weights, P3 to P7."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boxel.layers.norm import group_norm


class BiFPN(nn.Module):
    """Weighted bidirectional feature pyramid (EfficientDet, Tan et al. 2020, section 3).

    C3 to C5 are projected to one width, P6 and P7 come from C5 by max pooling, and then information flows down and up
    again three times (D0 of the paper), each time with its own weights. Norms are group norms, for small batches.

    Args:
        in_channels: Channels of C3, C4, C5.
        channels: Channels of every level of the pyramid (D0 of the paper: 64).

    Examples:
        >>> features = [torch.rand(1, 8, size, size) for size in (16, 8, 4)]
        >>> [level.shape[-1] for level in BiFPN([8, 8, 8], channels=16)(features)]
        [16, 8, 4, 2, 1]
    """

    def __init__(self, in_channels: list[int], channels: int = 256) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(_pointwise(c, channels) for c in in_channels)
        self.to_p6 = _pointwise(in_channels[-1], channels)
        self.layers = nn.Sequential(*(BiFPNLayer(channels) for _ in range(3)))

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Compute P3 to P7, (B, channels, H / stride, W / stride), from C3 to C5, of strides 8, 16 and 32."""
        levels = [lateral(feature) for lateral, feature in zip(self.lateral, features, strict=True)]
        levels.append(_half(self.to_p6(features[-1])))
        levels.append(_half(levels[-1]))
        return self.layers(levels)


class BiFPNLayer(nn.Module):
    """One pass down the pyramid and up again (EfficientDet, figure 2d).

    On the way down, each level but the coarsest is fused with the coarser one. On the way up, each level but the finest
    is fused from its input, its result on the way down, and the finer level; the coarsest has two inputs only.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down = nn.ModuleList(Fusion(2, channels) for _ in range(4))  # P6, P5, P4, P3
        self.up = nn.ModuleList(Fusion(inputs, channels) for inputs in (3, 3, 3, 2))  # P4, P5, P6, P7

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        """Map P3 to P7, (B, channels, H / stride, W / stride) float, to the same shapes."""
        down = [levels[-1]]
        for fusion, level in zip(self.down, levels[-2::-1], strict=True):
            down.insert(0, fusion(level, F.interpolate(down[0], size=level.shape[-2:], mode="nearest")))

        up = [down[0]]
        for fusion, level, middle in zip(self.up[:-1], levels[1:-1], down[1:-1], strict=True):
            up.append(fusion(level, middle, _half(up[-1])))
        up.append(self.up[-1](levels[-1], _half(up[-1])))
        return up


class Fusion(nn.Module):
    """Fuse several maps of one shape: a learned weighted mean, then a separable convolution."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.ones(inputs))
        self.conv = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
            _pointwise(channels, channels),
            nn.SiLU(inplace=True),
        )

    def forward(self, *maps: Tensor) -> Tensor:
        """Fuse ``inputs`` maps of (B, channels, H, W) float into one of that shape."""
        return self.conv(weighted_fusion(maps, self.weights))


def weighted_fusion(maps: tuple[Tensor, ...], weights: Tensor) -> Tensor:
    """Return the mean of n maps by (n,) weights, of which negative ones count as 0 (EfficientDet, section 3.3)."""
    weights = weights.relu()
    shares = weights / (weights.sum() + 1e-4)
    return sum((share * map for share, map in zip(shares, maps, strict=True)), torch.zeros_like(maps[0]))


def _pointwise(in_channels: int, channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_channels, channels, 1), group_norm(channels))


def _half(level: Tensor) -> Tensor:
    return F.max_pool2d(level, kernel_size=3, stride=2, padding=1)
