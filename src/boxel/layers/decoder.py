"""Decoders: from a backbone's maps of several strides to one map at the finest stride."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Concatenate(nn.Module):
    """Upsample all maps to the finest and concatenate them, as HRNetV2 does.

    Args:
        in_channels: Channels of each map, the finest first.

    Attributes:
        channels: Channels of the result.

    Examples:
        >>> Concatenate([8, 16])([torch.rand(1, 8, 6, 8), torch.rand(1, 16, 3, 4)]).shape
        torch.Size([1, 24, 6, 8])
    """

    def __init__(self, in_channels: Sequence[int]) -> None:
        super().__init__()
        self.channels = sum(in_channels)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Join maps (B, in_channels, h, w), the finest first, in one map (B, channels, h, w) of its size."""
        return torch.cat([maps[0], *(upsample(m, maps[0].shape[-2:]) for m in maps[1:])], dim=1)


class TopDown(nn.Module):
    """Fuse a pyramid from the coarsest map down, each step smoothed by two separable convolutions.

    Args:
        in_channels: Channels of each map, the finest first.
        channels: Channels of the result and of every step.

    Examples:
        >>> TopDown([8, 16], channels=4)([torch.rand(1, 8, 6, 8), torch.rand(1, 16, 3, 4)]).shape
        torch.Size([1, 4, 6, 8])
    """

    def __init__(self, in_channels: Sequence[int], channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.lateral = nn.ModuleList(
            nn.Sequential(nn.Conv2d(n, channels, 1, bias=False), nn.BatchNorm2d(channels))
            for n in in_channels
        )
        self.smooth = nn.ModuleList(
            nn.Sequential(*_separable(channels), *_separable(channels)) for _ in in_channels
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Join maps (B, in_channels, h, w), the finest first, in one map (B, channels, h, w) of its size."""
        steps = list(zip(maps, self.lateral, self.smooth, strict=True))[::-1]
        coarsest, lateral, smooth = steps[0]
        path = smooth(lateral(coarsest))
        for finer, lateral, smooth in steps[1:]:
            path = smooth(lateral(finer) + upsample(path, finer.shape[-2:]))
        return path


def upsample(x: Tensor, size: Sequence[int]) -> Tensor:
    """Resize (B, C, h, w) to (B, C, *size) bilinearly, with pixels as areas (``align_corners=False``)."""
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


def _separable(channels: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU6(inplace=True),
    ]
