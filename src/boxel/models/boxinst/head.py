"""The detection head of FCOS (Tian et al., ICCV 2019) with CondInst's controller (ECCV 2020), for all levels."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boxel.layers.norm import norm_layer


class HeadOutput(NamedTuple):
    """Predictions of all levels, flattened in the order of P3 to P7 and row by row.

    Attributes:
        logits: (B, L, K) class logits.
        distances: (B, L, 4) l, t, r, b in pixels, not negative.
        centerness: (B, L) logits.
        towers: the box tower's feature maps, (B, C, h, w) each, from which the controller works.
    """

    logits: Tensor
    distances: Tensor
    centerness: Tensor
    towers: list[Tensor]


class Head(nn.Module):
    """FCOS's two towers; center-ness and the controller sit on the box tower.

    Args:
        channels: of the feature pyramid.
        num_classes: K.
        num_params: parameters of the dynamic mask head, a location.
        convs: 3x3 convolutions in each tower.
        strides: of the pyramid's levels.
    """

    def __init__(
        self, channels: int, num_classes: int, num_params: int, convs: int, strides: tuple[int, ...]
    ):
        super().__init__()
        self.strides = strides
        self.class_tower = _tower(channels, convs)
        self.box_tower = _tower(channels, convs)
        self.classify = nn.Conv2d(channels, num_classes, 3, padding=1)
        self.regress = nn.Conv2d(channels, 4, 3, padding=1)
        self.center = nn.Conv2d(channels, 1, 3, padding=1)
        self.controller = nn.Conv2d(channels, num_params, 3, padding=1)
        self.scales = nn.Parameter(torch.ones(len(strides)))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                _init(module)
        # Boxes start two strides wide, not empty: half of them would sit where the ReLU has no gradient.
        _init(self.regress, bias=2.0)
        # A prior of 0.01 keeps the many negatives from swamping the first steps (RetinaNet, section 4.1).
        _init(self.classify, bias=-math.log((1 - 0.01) / 0.01))

    def forward(self, pyramid: list[Tensor]) -> HeadOutput:
        """Predict at every location of every level.

        Args:
            pyramid: P3 to P7, (B, channels, H / stride, W / stride) each.
        """
        logits, distances, centerness, towers = [], [], [], []
        for level, (features, stride) in enumerate(zip(pyramid, self.strides, strict=True)):
            tower = self.box_tower(features)
            towers.append(tower)
            logits.append(_flatten(self.classify(self.class_tower(features))))
            distances.append(_flatten(F.relu(self.scales[level] * self.regress(tower)).float() * stride))
            centerness.append(_flatten(self.center(tower)).squeeze(-1))
        return HeadOutput(torch.cat(logits, 1), torch.cat(distances, 1), torch.cat(centerness, 1), towers)

    def control(self, towers: list[Tensor], image: Tensor, location: Tensor) -> Tensor:
        """Parameters of the dynamic mask head at some locations only.

        The 3x3 convolution is computed where it is needed, a few dozen places of tens of thousands.

        Args:
            towers: as :class:`HeadOutput` has them.
            image: (N,) int64, index in the batch.
            location: (N,) int64, index in [0, L).

        Returns:
            (N, num_params) in the order of the arguments.
        """
        weight = self.controller.weight.flatten(1)
        patches = location.new_zeros((len(location), weight.shape[1]), dtype=towers[0].dtype)
        around = torch.arange(3, device=location.device)
        first = 0
        for tower in towers:
            height, width = tower.shape[-2:]
            here = ((location >= first) & (location < first + height * width)).nonzero().squeeze(1)
            index = location[here] - first
            y = (index // width)[:, None, None] + around[:, None]
            x = (index % width)[:, None, None] + around
            padded = F.pad(tower, (1, 1, 1, 1))
            patch = padded[image[here][:, None, None], :, y, x]  # (n, 3, 3, C)
            patches = patches.index_put((here,), patch.permute(0, 3, 1, 2).flatten(1))
            first += height * width
        return F.linear(patches, weight, self.controller.bias)


def _tower(channels: int, convs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(convs):
        conv = nn.Conv2d(channels, channels, 3, padding=1)
        layers += [conv, norm_layer("gn", channels), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def _init(conv: nn.Conv2d, bias: float = 0.0) -> None:
    nn.init.normal_(conv.weight, std=0.01)
    assert conv.bias is not None
    nn.init.constant_(conv.bias, bias)


def _flatten(maps: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, h * w, C)."""
    return maps.flatten(2).transpose(1, 2)
