"""Feature pyramid P3 to P7 from the backbone's C3 to C5."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelP6P7


class FPN(nn.Module):
    """Feature pyramid network (Lin et al. 2017) with the two coarse levels of FCOS (Tian et al. 2019).

    The top-down path upsamples by nearest neighbor; P6 comes from P5 and P7 from ReLU(P6), by 3x3 convolutions of
    stride 2.

    Args:
        in_channels: Channels of C3, C4, C5.
        channels: Channels of every level of the pyramid.

    Examples:
        >>> import torch
        >>> features = [torch.rand(1, 8, size, size) for size in (16, 8, 4)]
        >>> [level.shape[-1] for level in FPN([8, 8, 8], channels=16)(features)]
        [16, 8, 4, 2, 1]
    """

    def __init__(self, in_channels: list[int], channels: int = 256) -> None:
        super().__init__()
        # With equal numbers of channels torchvision computes P6 from P5 and not from C5.
        self.pyramid = FeaturePyramidNetwork(
            in_channels, channels, extra_blocks=LastLevelP6P7(channels, channels)
        )

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Compute P3 to P7, (B, channels, H / stride, W / stride), from C3 to C5, of strides 8, 16 and 32."""
        return list(self.pyramid({f"p{3 + i}": feature for i, feature in enumerate(features)}).values())
