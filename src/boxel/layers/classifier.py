"""Classifiers of fully convolutional networks: few weights, and a wide view of the feature map."""

from __future__ import annotations

from collections import OrderedDict
from typing import cast

from torch import Tensor, nn


def field_of_view(kernel: int, dilation: int, stride: int) -> int:
    """Pixels of the image along a side that one dilated convolution of a feature map looks at.

    Args:
        kernel: of the convolution.
        dilation: cells from one of its weights to the next.
        stride: pixels to a cell.

    References:
        Wu, Shen, van den Hengel, Bridging Category-level and Instance-level Semantic Image Segmentation, 2016,
        Tables 1 and 3 (column FoV).
    """
    return ((kernel - 1) * dilation + 1) * stride


class DilatedClassifier(nn.Sequential):
    """Scores of each cell of a feature map from a wide field about it: (B, classes, h, w) of (B, channels, h, w).

    Args:
        channels: of the feature map.
        classes: scores a cell.
        kernel: of each convolution, odd.
        dilation: of each convolution.
        hidden: channels of a layer with norm and ReLU before the last one; 0 makes it linear.

    References:
        Wu et al., 2016, Section 2.3; the non-linear one, Section 1.
    """

    def __init__(self, channels: int, classes: int, kernel: int = 5, dilation: int = 12, hidden: int = 0):
        layers: dict[str, nn.Module] = {}
        if hidden:
            layers["hidden"] = _dilated(channels, hidden, kernel, dilation, bias=False)
            layers["norm"] = nn.BatchNorm2d(hidden)
            layers["activation"] = nn.ReLU(inplace=True)
        scores = _dilated(hidden or channels, classes, kernel, dilation)
        nn.init.normal_(scores.weight, std=0.01)
        nn.init.constant_(cast(Tensor, scores.bias), 0)
        super().__init__(OrderedDict(layers, scores=scores))


def _dilated(channels: int, out: int, kernel: int, dilation: int, bias: bool = True) -> nn.Conv2d:
    """A convolution that leaves a map its size."""
    return nn.Conv2d(channels, out, kernel, padding="same", dilation=dilation, bias=bias)
