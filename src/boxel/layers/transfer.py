"""Weight transfer: the weights of one head's convolutions as a function of another's."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def segmentation_head(channels: int) -> nn.Sequential:
    """Create a head from features to logits: 1x1 convolution, batch norm, ReLU, 1x1 convolution (BoxCaseg, Fig. 4).

    Args:
        channels: Channels of the features and of the hidden layer.

    Examples:
        >>> segmentation_head(8)(torch.rand(2, 8, 6, 9)).shape
        torch.Size([2, 1, 6, 9])
    """
    return nn.Sequential(
        nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, 1, 1)
    )


class WeightTransfer(nn.Module):
    """The weights of a 1x1 convolution as a learned function of another's.

    The weights of each output channel go through one perceptron of two layers; biases are scaled and shifted. The
    weights of the source are detached, so no gradient reaches them.

    References:
        Wang et al., BoxCaseg, 2021, section 3.3.2; Hu et al., "Learning to segment every thing", 2018.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = 4 * channels
        self.rows = nn.Sequential(nn.Linear(channels, hidden), nn.LeakyReLU(0.1), nn.Linear(hidden, channels))
        self.scale = nn.Parameter(torch.ones(1))
        self.shift = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, source: nn.Conv2d) -> Tensor:
        """Convolve (B, channels, h, w) with weights transferred from a 1x1 convolution with a bias."""
        weight = self.rows(source.weight.detach().flatten(1))[:, :, None, None]
        bias = self.scale * source.bias.detach() + self.shift  # type: ignore[union-attr]
        return F.conv2d(x, weight, bias)


class TransferredHead(nn.Module):
    """A segmentation head whose convolutions are transferred from another head, with its own batch norm.

    Args:
        channels: Channels of the features.

    Examples:
        >>> TransferredHead(8)(torch.rand(2, 8, 6, 9), segmentation_head(8)).shape
        torch.Size([2, 1, 6, 9])
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.hidden, self.last = WeightTransfer(channels), WeightTransfer(channels)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor, source: nn.Sequential) -> Tensor:
        """Compute (B, 1, h, w) logits from (B, channels, h, w) and the :func:`segmentation_head` to transfer from."""
        first, last = source[0], source[3]
        assert isinstance(first, nn.Conv2d) and isinstance(last, nn.Conv2d)
        return self.last(F.relu(self.norm(self.hidden(x, first))), last)
