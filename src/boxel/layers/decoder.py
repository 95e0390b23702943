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
        self.lateral = nn.ModuleList(_project(n, channels) for n in in_channels)
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


class FineLevel(nn.Module):
    """Correct logits of the object by features of half their stride, so that thin parts and outlines are not lost.

    It corrects nothing before training.

    Args:
        fine_channels: Channels of the fine features.
        in_channels: Channels of the coarse features, from which the logits were made.
        channels: Channels of the level.

    Examples:
        >>> level = FineLevel(8, in_channels=16, channels=4)
        >>> level(torch.rand(1, 3, 4), torch.rand(1, 16, 3, 4), torch.rand(1, 8, 6, 8)).shape
        torch.Size([1, 6, 8])
    """

    def __init__(self, fine_channels: int, in_channels: int, channels: int) -> None:
        super().__init__()
        self.lateral = _project(fine_channels, channels)
        self.reduce = _project(in_channels, channels)
        self.smooth = nn.Sequential(*_separable(channels), *_separable(channels))
        self.correction = nn.Conv2d(channels, 1, 1)
        nn.init.zeros_(self.correction.weight)
        nn.init.zeros_(self.correction.bias)  # type: ignore[arg-type]

    def forward(self, logits: Tensor, features: Tensor, fine: Tensor) -> Tensor:
        """Return (B, 2h, 2w) logits from (B, h, w) logits, (B, in_channels, h, w) and (B, fine_channels, 2h, 2w)."""
        size = fine.shape[-2:]
        hidden = F.relu(self.lateral(fine) + upsample(self.reduce(features), size))
        return (upsample(logits[:, None], size) + self.correction(self.smooth(hidden)))[:, 0]


def upsample(x: Tensor, size: Sequence[int]) -> Tensor:
    """Resize (B, C, h, w) to (B, C, *size) bilinearly, with pixels as areas (``align_corners=False``)."""
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


def _project(in_channels: int, channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_channels, channels, 1, bias=False), nn.BatchNorm2d(channels))


def _separable(channels: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU6(inplace=True),
    ]
