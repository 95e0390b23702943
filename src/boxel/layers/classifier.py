"""Classifiers of fully convolutional networks, with a wide field of view."""

from __future__ import annotations

from collections import OrderedDict
from typing import cast

import torch
from torch import Tensor, nn

from boxel.layers.weights import StateDict
from boxel.utils.errors import BoxelError

VGG_SIDE = 7
"""Side of the feature map of a VGG's first fully connected layer, for an image of 224 pixels."""

_VGG_LAYERS = (("pre_logits.fc1", "pre_logits.fc2"), ("classifier.0", "classifier.3"))
"""Names of a VGG's first two fully connected layers in timm and in torchvision."""


class DilatedClassifier(nn.Sequential):
    """Score each cell of a feature map from a wide field of view: (B, channels, h, w) to (B, classes, h, w).

    Args:
        channels: Channels of the feature map.
        classes: Number of scores per cell.
        kernel: Kernel size of each convolution, odd.
        dilation: Dilation of each convolution.
        hidden: Channels of a layer with norm and ReLU before the last one; 0 makes the classifier linear.

    Examples:
        >>> DilatedClassifier(8, classes=21, kernel=3, dilation=2)(torch.rand(1, 8, 6, 9)).shape
        torch.Size([1, 21, 6, 9])

    References:
        Wu et al., 2016, Section 2.3; the non-linear one, Section 1.
    """

    def __init__(self, channels: int, classes: int, kernel: int = 5, dilation: int = 12, hidden: int = 0):
        layers: dict[str, nn.Module] = {}
        if hidden:
            layers["hidden"] = _dilated(channels, hidden, kernel, dilation, bias=False)
            layers["norm"] = nn.BatchNorm2d(hidden)
            layers["activation"] = nn.ReLU(inplace=True)
        scores = _scores(hidden or channels, classes, kernel, dilation)
        super().__init__(OrderedDict(layers, scores=scores))


class FullyConnectedClassifier(nn.Sequential):
    """A VGG's fully connected layers as convolutions: (B, channels, h, w) to (B, classes, h, w).

    fc6 sees a field around each cell, fc7 and the scores the cell alone; ReLU and dropout follow fc6 and fc7.

    Args:
        channels: Channels of the feature map.
        classes: Number of scores per cell.
        kernel: Kernel size of fc6. If (kernel - 1) x dilation is odd, its field reaches one cell further down and right
            than up and left; otherwise it is centered, also for even kernels.
        dilation: Dilation of fc6.
        hidden: Channels of fc6 and of fc7, half of whose outputs training drops.

    Examples:
        >>> FullyConnectedClassifier(8, classes=21, hidden=16)(torch.rand(1, 8, 6, 9)).shape
        torch.Size([1, 21, 6, 9])

    References:
        Chen et al., Semantic Image Segmentation with Deep Convolutional Nets and Fully Connected CRFs, ICLR 2015,
        Sections 3.1 and 5: 4x4 with dilation 4 and 4096 channels, and LargeFOV, 3x3 with dilation 12 and 1024.
    """

    fc6: nn.Conv2d
    fc7: nn.Conv2d

    def __init__(self, channels: int, classes: int, kernel: int = 4, dilation: int = 4, hidden: int = 4096):
        layers: dict[str, nn.Module] = {
            "fc6": _dilated(channels, hidden, kernel, dilation),
            "relu6": nn.ReLU(inplace=True),
            "dropout6": nn.Dropout(0.5),
            "fc7": _dilated(hidden, hidden),
            "relu7": nn.ReLU(inplace=True),
            "dropout7": nn.Dropout(0.5),
        }
        for name in ("fc6", "fc7"):
            nn.init.kaiming_normal_(cast(Tensor, layers[name].weight), nonlinearity="relu")
            nn.init.zeros_(cast(Tensor, layers[name].bias))
        super().__init__(OrderedDict(layers, scores=_scores(hidden, classes)))


@torch.no_grad()
def load_fully_connected(classifier: FullyConnectedClassifier, state: StateDict) -> bool:
    """Initialize fc6 and fc7 from those of a VGG, by evenly spaced channels and kernel entries.

    From 7x7 entries, a kernel of 4x4 takes rows and columns 0, 2, 4 and 6; one of 3x3 takes 0, 3 and 6. If the VGG's
    state dict, with the names of timm or of torchvision, has no such layers, nothing changes and False is returned.

    References:
        Chen et al., 2015, Section 3.1 ("decimating").
    """
    fc6, fc7 = classifier.fc6, classifier.fc7
    names = next((pair for pair in _VGG_LAYERS if all(f"{name}.weight" in state for name in pair)), None)
    if names is None:
        return False
    first, second = (state[f"{name}.weight"].flatten(1) for name in names)
    if first.shape[1] != fc6.in_channels * VGG_SIDE**2:
        return False
    kernel, hidden = fc6.kernel_size[0], fc6.out_channels
    if kernel > VGG_SIDE or hidden > len(first):
        raise BoxelError(
            f"kernel is {kernel} and hidden {hidden}, more than the fully connected layers of the VGG have; "
            f"give at most {VGG_SIDE} and {len(first)}."
        )
    rows, kept = evenly_spaced_indices(VGG_SIDE, kernel), evenly_spaced_indices(len(first), hidden)
    taps = first.unflatten(1, (-1, VGG_SIDE, VGG_SIDE))
    fc6.weight.copy_(taps[kept][:, :, rows][..., rows])
    fc7.weight.copy_(second[kept][:, kept, None, None])
    for layer, name in zip((fc6, fc7), names, strict=True):
        cast(Tensor, layer.bias).copy_(state[f"{name}.bias"][kept])
    return True


def evenly_spaced_indices(size: int, count: int) -> list[int]:
    """Return `count` evenly spaced indices below `size`, both ends included; the middle one if `count` is 1.

    Examples:
        >>> evenly_spaced_indices(7, 4)
        [0, 2, 4, 6]
    """
    step = (size - 1) / max(count - 1, 1)
    return [round((size - 1) / 2 + step * (place - (count - 1) / 2)) for place in range(count)]


def _dilated(channels: int, out: int, kernel: int = 1, dilation: int = 1, bias: bool = True) -> nn.Conv2d:
    """Create a convolution that keeps the size of a map."""
    return nn.Conv2d(channels, out, kernel, padding="same", dilation=dilation, bias=bias)


def _scores(channels: int, classes: int, kernel: int = 1, dilation: int = 1) -> nn.Conv2d:
    """Create the last layer, whose scores start near zero."""
    scores = _dilated(channels, classes, kernel, dilation)
    nn.init.normal_(scores.weight, std=0.01)
    nn.init.zeros_(cast(Tensor, scores.bias))
    return scores
