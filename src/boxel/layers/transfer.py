"""Weight transfer: the weights of one head's convolutions made from another's."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def segmentation_head(channels: int) -> nn.Sequential:
    """A map of logits from features: 1x1 convolution, batch norm, ReLU, 1x1 convolution (BoxCaseg, Fig. 4).

    Args:
        channels: of the features, and of the hidden layer.
    """
    return nn.Sequential(
        nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, 1, 1)
    )


class WeightTransfer(nn.Module):
    """The weights of a 1x1 convolution as a learned function of another's.

    Each output channel's row of weights goes through one perceptron of two layers; biases are scaled and shifted.
    The other's weights are detached: what is learned here does not reach them.

    Args:
        channels: input channels of the convolution.
        expansion: hidden units a channel.

    References:
        Wang et al., BoxCaseg, 2021, section 3.3.2; Hu et al., "Learning to segment every thing", 2018.
    """

    def __init__(self, channels: int, expansion: int = 4) -> None:
        super().__init__()
        hidden = channels * expansion
        self.rows = nn.Sequential(nn.Linear(channels, hidden), nn.LeakyReLU(0.1), nn.Linear(hidden, channels))
        self.scale = nn.Parameter(torch.ones(1))
        self.shift = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, source: nn.Conv2d) -> Tensor:
        """Convolve with the transferred weights.

        Args:
            x: (B, channels, h, w).
            source: the 1x1 convolution whose weights are transferred, with a bias.
        """
        weight = self.rows(source.weight.detach().flatten(1))[:, :, None, None]
        bias = self.scale * source.bias.detach() + self.shift  # type: ignore[union-attr]
        return F.conv2d(x, weight, bias)


class TransferredHead(nn.Module):
    """A segmentation head whose convolutions are transferred from another's, with a batch norm of its own.

    Args:
        channels: of the features.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.hidden, self.last = WeightTransfer(channels), WeightTransfer(channels)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor, source: nn.Sequential) -> Tensor:
        """Logits of features.

        Args:
            x: (B, channels, h, w).
            source: the :func:`segmentation_head` to learn from, left as it is.

        Returns:
            (B, 1, h, w).
        """
        first, last = source[0], source[3]
        assert isinstance(first, nn.Conv2d) and isinstance(last, nn.Conv2d)
        return self.last(F.relu(self.norm(self.hidden(x, first))), last)
