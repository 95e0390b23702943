"""Classifiers of fully convolutional networks: few weights, and a wide view of the feature map."""

from __future__ import annotations

from collections import OrderedDict
from typing import cast

import torch
from torch import Tensor, nn

from boxel.layers.weights import StateDict
from boxel.utils.errors import BoxelError

VGG_SIDE = 7
"""Cells along a side of the map that a VGG's first fully connected layer sees in an image of 224 pixels."""

_VGG_LAYERS = (("pre_logits.fc1", "pre_logits.fc2"), ("classifier.0", "classifier.3"))
"""What a VGG's first two fully connected layers are called: by timm, by torchvision."""


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
        scores = _scores(hidden or channels, classes, kernel, dilation)
        super().__init__(OrderedDict(layers, scores=scores))


class FullyConnectedClassifier(nn.Sequential):
    """A VGG's fully connected layers as convolutions: (B, classes, h, w) scores of (B, channels, h, w) features.

    fc6 looks at a field about each cell, fc7 and the scores at the cell alone; a ReLU and dropout follow fc6 and fc7.

    Args:
        channels: of the feature map.
        classes: scores a cell.
        kernel: of fc6. Where (kernel - 1) x dilation is odd its field reaches one cell further down and right than up
            and left; it is centerd otherwise, an even kernel's too.
        dilation: of fc6.
        hidden: channels of fc6 and of fc7.
        dropout: share of what fc6, and what fc7, gives that training drops.

    References:
        Chen et al., Semantic Image Segmentation with Deep Convolutional Nets and Fully Connected CRFs, ICLR 2015,
        Sections 3.1 and 5: 4x4 with dilation 4 and 4096 channels, and LargeFOV, 3x3 with dilation 12 and 1024.
    """

    fc6: nn.Conv2d
    fc7: nn.Conv2d

    def __init__(
        self,
        channels: int,
        classes: int,
        kernel: int = 4,
        dilation: int = 4,
        hidden: int = 4096,
        dropout: float = 0.5,
    ):
        layers: dict[str, nn.Module] = {
            "fc6": _dilated(channels, hidden, kernel, dilation),
            "relu6": nn.ReLU(inplace=True),
            "dropout6": nn.Dropout(dropout),
            "fc7": _dilated(hidden, hidden),
            "relu7": nn.ReLU(inplace=True),
            "dropout7": nn.Dropout(dropout),
        }
        for name in ("fc6", "fc7"):
            nn.init.kaiming_normal_(cast(Tensor, layers[name].weight), nonlinearity="relu")
            nn.init.zeros_(cast(Tensor, layers[name].bias))
        super().__init__(OrderedDict(layers, scores=_scores(hidden, classes)))


@torch.no_grad()
def load_fully_connected(classifier: FullyConnectedClassifier, state: StateDict) -> bool:
    """Fill fc6 and fc7 from a VGG's own, taking channels and entries of the kernel at even distances.

    Of 7x7 entries a kernel of 4x4 takes rows and columns 0, 2, 4 and 6, one of 3x3 takes 0, 3 and 6.

    Args:
        classifier: changed in place; the scores stay.
        state: the VGG's state dict, with the names of timm or of torchvision.

    Returns:
        Whether they are in it; if not, nothing is changed.

    Raises:
        BoxelError: the classifier's kernel or channels are more than the VGG's.

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
            f"kernel is {kernel} and hidden {hidden}, more than the VGG's fully connected layers have to start from: "
            f"give at most {VGG_SIDE} and {len(first)}."
        )
    rows, kept = evenly_spaced_indices(VGG_SIDE, kernel), evenly_spaced_indices(len(first), hidden)
    taps = first.unflatten(1, (-1, VGG_SIDE, VGG_SIDE))
    fc6.weight.copy_(taps[kept][:, :, rows][..., rows])
    fc7.weight.copy_(second[kept][:, kept, None, None])
    for layer, name in zip((fc6, fc7), names, strict=True):
        cast(Tensor, layer.bias).copy_(state[f"{name}.bias"][kept])
    return True


def evenly_spaced_indices(of: int, count: int) -> list[int]:
    """Indices below ``of`` at even distances: its ends among them, or its middle where it is one."""
    step = (of - 1) / max(count - 1, 1)
    return [round((of - 1) / 2 + step * (place - (count - 1) / 2)) for place in range(count)]


def _dilated(channels: int, out: int, kernel: int = 1, dilation: int = 1, bias: bool = True) -> nn.Conv2d:
    """A convolution that leaves a map its size."""
    return nn.Conv2d(channels, out, kernel, padding="same", dilation=dilation, bias=bias)


def _scores(channels: int, classes: int, kernel: int = 1, dilation: int = 1) -> nn.Conv2d:
    """The last layer, which begins near zero."""
    scores = _dilated(channels, classes, kernel, dilation)
    nn.init.normal_(scores.weight, std=0.01)
    nn.init.zeros_(cast(Tensor, scores.bias))
    return scores
