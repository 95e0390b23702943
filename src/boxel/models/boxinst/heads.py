"""FCOS's detection head (Tian et al., ICCV 2019) with CondInst's controller and mask branch (ECCV 2020)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boxel.layers.decoder import upsample
from boxel.layers.norm import exchange_batch_norm, group_norm
from boxel.layers.recompute import recompute
from boxel.layers.types import Norm
from boxel.models.boxinst.matching import STRIDES


class HeadOutput(NamedTuple):
    """Predictions at all locations, P3 first, each level row by row."""

    logits: Tensor  # (B, L, K) of the classes
    distances: Tensor  # (B, L, 4) l, t, r, b in pixels, not negative
    centerness: Tensor  # (B, L) logits
    towers: list[Tensor]  # feature maps of the box tower, (B, C, h, w) each, the input of the controller


class Head(nn.Module):
    """Two towers of convolutions; center-ness and the controller sit on the box tower.

    The controller predicts `num_params` parameters of the dynamic mask head per location.
    """

    def __init__(self, channels: int, num_classes: int, num_params: int, convs: int):
        super().__init__()
        self.class_tower = _tower(channels, convs)
        self.box_tower = _tower(channels, convs)
        self.classify = nn.Conv2d(channels, num_classes, 3, padding=1)
        self.regress = nn.Conv2d(channels, 4, 3, padding=1)
        self.center = nn.Conv2d(channels, 1, 3, padding=1)
        self.controller = nn.Conv2d(channels, num_params, 3, padding=1)
        self.scales = nn.Parameter(torch.ones(len(STRIDES)))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                _init(module)
        # Boxes start two strides wide: half of the empty ones would sit where the ReLU has no gradient.
        _init(self.regress, bias=2.0)
        # A prior of 0.01 keeps the many negatives from swamping the first steps (RetinaNet, section 4.1).
        _init(self.classify, bias=-math.log((1 - 0.01) / 0.01))

    def forward(self, pyramid: list[Tensor]) -> HeadOutput:
        """Predict at every location of P3 to P7, (B, channels, H / stride, W / stride) each."""
        logits, distances, centerness, towers = [], [], [], []
        for level, (features, stride) in enumerate(zip(pyramid, STRIDES, strict=True)):
            tower = recompute(self.box_tower, features)
            towers.append(tower)
            logits.append(_flatten(recompute(lambda x: self.classify(self.class_tower(x)), features)))
            # bfloat16 cannot place a side of 1000 pixels.
            with torch.autocast(tower.device.type, enabled=False):
                sides = F.relu(self.scales[level] * self.regress(tower.float()))
            distances.append(_flatten(sides * stride))
            centerness.append(_flatten(self.center(tower)).squeeze(-1))
        return HeadOutput(torch.cat(logits, 1), torch.cat(distances, 1), torch.cat(centerness, 1), towers)

    def predict_mask_params(self, towers: list[Tensor], image_index: Tensor, location: Tensor) -> Tensor:
        """Predict the parameters of the dynamic mask head at (N,) of the tens of thousands of locations.

        The 3x3 convolution is computed only there. Locations are indices in [0, L) of images of the batch.
        """
        weight = self.controller.weight.flatten(1)
        patches = location.new_zeros((len(location), weight.shape[1]), dtype=towers[0].dtype)
        offsets = torch.arange(3, device=location.device)
        first = 0
        for tower in towers:
            height, width = tower.shape[-2:]
            rows = ((location >= first) & (location < first + height * width)).nonzero().squeeze(1)
            index = location[rows] - first
            y = (index // width)[:, None, None] + offsets[:, None]
            x = (index % width)[:, None, None] + offsets
            padded = F.pad(tower, (1, 1, 1, 1))
            patch = padded[image_index[rows][:, None, None], :, y, x]  # (n, 3, 3, C)
            patches = patches.index_put((rows,), patch.permute(0, 3, 1, 2).flatten(1))
            first += height * width
        return F.linear(patches, weight, self.controller.bias)


class MaskBranch(nn.Module):
    """P3, P4 and P5 summed at stride 8, 3x3 convolutions, then a 1x1 to the input of the dynamic head.

    References:
        Tian et al., Conditional Convolutions for Instance Segmentation, ECCV 2020, section 3.2.
    """

    def __init__(self, in_channels: int, channels: int, features: int, convs: int, norm: Norm = "gn"):
        super().__init__()
        self.lateral = nn.ModuleList(_normalized_conv(in_channels, channels) for _ in range(3))
        self.tower = nn.Sequential(*(_normalized_conv(channels, channels) for _ in range(convs)))
        self.out = nn.Conv2d(channels, features, 1)
        exchange_batch_norm(self, norm)

    def forward(self, pyramid: list[Tensor]) -> Tensor:
        """Return the features that all instances of an image share, (B, features, H / 8, W / 8), from P3 to P7."""
        x = self.lateral[0](pyramid[0])
        for lateral, features in zip(list(self.lateral)[1:], pyramid[1:3], strict=True):
            x = x + upsample(lateral(features), x.shape[-2:])
        return self.out(self.tower(x))


def _tower(channels: int, convs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(convs):
        conv = nn.Conv2d(channels, channels, 3, padding=1)
        layers += [conv, group_norm(channels), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def _init(conv: nn.Conv2d, bias: float = 0.0) -> None:
    nn.init.normal_(conv.weight, std=0.01)
    assert conv.bias is not None
    nn.init.constant_(conv.bias, bias)


def _flatten(maps: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, h * w, C)."""
    return maps.flatten(2).transpose(1, 2)


def _normalized_conv(in_channels: int, channels: int) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(conv, nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
