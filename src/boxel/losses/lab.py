"""CIELAB, the color space in which distances are close to perceived ones."""

from __future__ import annotations

import torch
from torch import Tensor

# sRGB primaries to CIE XYZ; each row is divided by the white point of illuminant D65 (2 degree observer).
_XYZ_OVER_WHITE = (
    (0.412453 / 0.95047, 0.357580 / 0.95047, 0.180423 / 0.95047),
    (0.212671, 0.715160, 0.072169),
    (0.019334 / 1.08883, 0.119193 / 1.08883, 0.950227 / 1.08883),
)


def rgb_to_lab(images: Tensor) -> Tensor:
    """Convert sRGB images to CIELAB, on their device; equal to `skimage.color.rgb2lab`.

    Args:
        images: (B, 3, H, W) float, sRGB in [0, 1].

    Returns:
        (B, 3, H, W) float: L in [0, 100], a and b in about [-128, 127].

    Examples:
        >>> rgb_to_lab(torch.ones(1, 3, 1, 1)).flatten().round().abs()  # white
        tensor([100.,   0.,   0.])

    References:
        CIE 15:2004; IEC 61966-2-1 (sRGB).
    """
    linear = torch.where(images > 0.04045, ((images + 0.055) / 1.055) ** 2.4, images / 12.92)
    matrix = torch.tensor(_XYZ_OVER_WHITE, dtype=linear.dtype, device=linear.device)
    xyz = torch.einsum("ij,bjhw->bihw", matrix, linear)
    x, y, z = torch.where(xyz > 0.008856, xyz ** (1 / 3), 7.787 * xyz + 16 / 116).unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)
