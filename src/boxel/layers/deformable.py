"""Modulated deformable convolution: a convolution whose taps move and weigh themselves by what they see."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from timm.layers import Conv2dSame, pad_same
from torch import Tensor, nn
from torchvision.ops import DeformConv2d


class ModulatedDeformConv2d(DeformConv2d):
    """A convolution turned into a modulated deformable one that starts as its equal.

    Deformable ConvNets v2 (Zhu et al. 2019, equation 1): each tap of the kernel reads the map at its place
    plus a learned offset, and its value counts with a learned modulation. Both are predicted by one more
    convolution that starts at zero. The paper's modulation is sigmoid(m), which starts at 0.5 and so halves
    what a pretrained kernel gives; here it is 2 sigmoid(m), which starts at 1 and keeps pretrained features.

    The kernel keeps its name (``weight``, ``bias``), so a state dict of the plain network still fits.

    Args:
        conv: the convolution to replace; its kernel is taken over, not copied.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        where: dict[str, Any] = {
            "kernel_size": conv.kernel_size,
            "stride": conv.stride,
            "padding": conv.padding,
            "dilation": conv.dilation,
        }
        super().__init__(conv.in_channels, conv.out_channels, groups=conv.groups, bias=False, **where)
        self.weight, self.bias = conv.weight, conv.bias
        self.pads_itself = isinstance(conv, Conv2dSame)  # TensorFlow's padding depends on the input's size
        taps = conv.kernel_size[0] * conv.kernel_size[1]
        self.split = [2 * taps, taps]
        self.offset_and_mask = nn.Conv2d(conv.in_channels, 3 * taps, **where)
        for parameter in self.offset_and_mask.parameters():
            nn.init.zeros_(parameter)

    def forward(self, features: Tensor) -> Tensor:  # type: ignore[override]
        """(B, C, H, W) float to (B, out_channels, H', W'), the size that the plain convolution gives."""
        if self.pads_itself:
            features = pad_same(features, self.kernel_size, self.stride, self.dilation)
        offset, mask = self.offset_and_mask(features).to(self.weight.dtype).split(self.split, dim=1)
        # torchvision wants one dtype throughout, and mixed precision brings several.
        moved = super().forward(features.to(self.weight.dtype), offset, 2 * torch.sigmoid(mask))
        return moved.to(features.dtype)


def make_deformable(network: nn.Module, names: Iterable[str]) -> int:
    """Replace the plain 3x3 convolutions among the named modules of a network, in place.

    Convolutions that compute their kernel first (weight standardization) stay, as do other sizes.

    Returns:
        How many were replaced.
    """
    count = 0
    for name in names:
        conv = network.get_submodule(name)
        if (
            isinstance(conv, nn.Conv2d)
            and type(conv) in (nn.Conv2d, Conv2dSame)
            and conv.kernel_size == (3, 3)
        ):
            parent, _, leaf = name.rpartition(".")
            setattr(network.get_submodule(parent), leaf, ModulatedDeformConv2d(conv))
            count += 1
    return count
