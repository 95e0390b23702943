"""Modulated deformable convolution: each tap of the kernel has a predicted offset and weight."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import torch
from timm.layers import Conv2dSame, pad_same
from torch import Tensor, nn
from torchvision.ops import DeformConv2d


class ModulatedDeformConv2d(DeformConv2d):
    """A convolution made modulated deformable, which starts with the same output.

    In Deformable ConvNets v2 (Zhu et al. 2019, equation 1), each tap of the kernel reads the map at its position plus a
    learned offset, and its value is scaled by a learned modulation. One more convolution, which starts at zero,
    predicts both. The paper's modulation is sigmoid(m): it starts at 0.5 and halves the output of a pretrained kernel.
    Here it is 2 sigmoid(m), which starts at 1 and keeps pretrained features.

    The kernel keeps its name (``weight``, ``bias``), so a state dict of the plain network still fits.

    Args:
        conv: The convolution to replace; its kernel is shared, not copied.

    Examples:
        >>> conv, x = nn.Conv2d(4, 8, 3, padding=1), torch.rand(1, 4, 6, 6)
        >>> bool(torch.allclose(ModulatedDeformConv2d(conv)(x), conv(x), atol=1e-5))
        True
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        names = ("kernel_size", "stride", "padding", "dilation")
        where: dict[str, Any] = {name: getattr(conv, name) for name in names}
        super().__init__(conv.in_channels, conv.out_channels, groups=conv.groups, bias=False, **where)
        self.weight, self.bias = conv.weight, conv.bias
        # The padding of TensorFlow depends on the size of the input.
        self.pads_itself = isinstance(conv, Conv2dSame)
        taps = conv.kernel_size[0] * conv.kernel_size[1]
        self.split = [2 * taps, taps]
        self.offset_and_mask = nn.Conv2d(conv.in_channels, 3 * taps, **where)
        for parameter in self.offset_and_mask.parameters():
            nn.init.zeros_(parameter)

    def forward(self, features: Tensor) -> Tensor:  # type: ignore[override]
        """Convolve (B, C, H, W) float to (B, out_channels, H', W'), the size of the plain convolution."""
        if self.pads_itself:
            features = pad_same(features, self.kernel_size, self.stride, self.dilation)
        offset, mask = self.offset_and_mask(features).to(self.weight.dtype).split(self.split, dim=1)
        # torchvision needs one dtype throughout; mixed precision has several.
        moved = super().forward(features.to(self.weight.dtype), offset, 2 * torch.sigmoid(mask))
        return moved.to(features.dtype)


def make_deformable(network: nn.Module, names: Iterable[str]) -> int:
    """Replace the plain 3x3 convolutions among the named modules of a network, in place.

    Convolutions with computed kernels (weight standardization) and those of other sizes stay.

    Args:
        network: The network.
        names: Names of its modules to consider.

    Returns:
        The number of replaced convolutions.

    Examples:
        >>> make_deformable(nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 1)), ["0", "1"])
        1
    """
    count = 0
    for name in names:
        conv = network.get_submodule(name)
        if type(conv) in (nn.Conv2d, Conv2dSame) and conv.kernel_size == (3, 3):
            parent, _, leaf = name.rpartition(".")
            setattr(network.get_submodule(parent), leaf, ModulatedDeformConv2d(cast(nn.Conv2d, conv)))
            count += 1
    return count
