"""Classifiers of fully convolutional networks: few weights, and a wide view of the feature map."""

from __future__ import annotations

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
    """Scores of each cell of a feature map from a wide field about it.

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
        layers: list[nn.Module] = []
        if hidden:
            layers += [
                _dilated(channels, hidden, kernel, dilation, bias=False),
                nn.BatchNorm2d(hidden),
                nn.ReLU(inplace=True),
            ]
        layers.append(_dilated(hidden or channels, classes, kernel, dilation))
        super().__init__(*layers)
        nn.init.normal_(layers[-1].weight, std=0.01)  # type: ignore[arg-type]
        nn.init.zeros_(layers[-1].bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> Tensor:
        """(B, classes, h, w) scores of (B, channels, h, w)."""
        return super().forward(features)


def _dilated(channels: int, out: int, kernel: int, dilation: int, bias: bool = True) -> nn.Conv2d:
    padding = (kernel - 1) * dilation // 2  # the map keeps its size
    return nn.Conv2d(channels, out, kernel, padding=padding, dilation=dilation, bias=bias)
