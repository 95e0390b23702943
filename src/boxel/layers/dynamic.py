"""Dynamic convolutions: a tiny network per instance (CondInst, ECCV 2020, section 3.1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

COORDINATE_UNIT = 8
"""Strides of an instance's level per unit of relative coordinates, as in CondInst's code: 64 pixels on P3."""


def num_dynamic_params(features: int, width: int) -> int:
    """Count the parameters per instance of three 1x1 layers on ``features`` channels and two coordinates.

    Examples:
        >>> num_dynamic_params(features=8, width=8), num_dynamic_params(features=16, width=16)
        (169, 593)
    """
    return sum(_layer_sizes(features, width))


def dynamic_masks(
    features: Tensor, params: Tensor, image_index: Tensor, centers: Tensor, scales: Tensor, width: int
) -> Tensor:
    """Compute mask logits of instances, each by the network whose parameters were predicted for it.

    Three 1x1 convolutions with ReLU read the two coordinates relative to the instance, ``(center - pixel) / scale``,
    and the features of the image. The coordinates are linear in the pixel's position, so the first layer is one matrix
    product on features and coordinates that all instances of an image share.

    Args:
        features: (B, C, h, w) from the mask branch, of stride 8.
        params: (N, P) all weights layer by layer, then all biases; P is :func:`num_dynamic_params`.
        image_index: (N,) int64 in ascending order, the image of each instance.
        centers: (N, 2) x and y of the location that predicts the instance, in pixels.
        scales: (N,) pixels per unit of relative coordinate: `COORDINATE_UNIT` strides of the instance's level.
        width: Channels of the hidden layers.

    Returns:
        (N, h, w) float32 logits. Products are computed in float32, because coordinates need the precision.

    Examples:
        >>> params = torch.randn(2, num_dynamic_params(features=4, width=8))
        >>> centers, scales = torch.rand(2, 2) * 48, torch.full((2,), 64.0)
        >>> dynamic_masks(torch.rand(1, 4, 6, 9), params, torch.tensor([0, 0]), centers, scales, width=8).shape
        torch.Size([2, 6, 9])
    """
    with torch.autocast(features.device.type, enabled=False):
        features, params = features.float(), params.float()
        batch, channels, h, w = features.shape
        w1, w2, w3, b1, b2, b3 = params.split(_layer_sizes(channels, width), dim=1)
        w1 = w1.reshape(-1, width, channels + 2)

        # w . (center - pixel) / scale is a weight of the pixel plus a constant.
        place = w1[:, :, :2] / scales[:, None, None]
        b1 = b1 + (place * centers[:, None]).sum(-1)
        w1 = torch.cat([-place, w1[:, :, 2:]], dim=2)

        y, x = (torch.arange(n, device=features.device, dtype=torch.float32) * 8 + 4 for n in (h, w))
        grid = torch.stack([x.expand(h, w), y[:, None].expand(h, w)]).flatten(1)
        counts = torch.bincount(image_index, minlength=batch).tolist()
        hidden = torch.cat(
            [
                (weights.flatten(0, 1) @ torch.cat([grid, image.flatten(1)])).reshape(-1, width, h * w)
                for image, weights in zip(features, w1.split(counts), strict=True)
            ]
        )
        hidden = F.relu(hidden + b1[:, :, None], inplace=True)
        hidden = torch.baddbmm(b2[:, :, None], w2.reshape(-1, width, width), hidden)
        hidden = F.relu(hidden, inplace=True)
        return torch.baddbmm(b3[:, :, None], w3.reshape(-1, 1, width), hidden).reshape(-1, h, w)


def upsample_twice(logits: Tensor) -> Tensor:
    """Double the size of mask logits, (N, h, w) to (N, 2h, 2w), bilinearly with pixels as areas.

    Examples:
        >>> upsample_twice(torch.tensor([[[0.0, 4.0]]]))[0, 0]
        tensor([0., 1., 3., 4.])
    """
    return F.interpolate(logits[:, None], scale_factor=2, mode="bilinear", align_corners=False)[:, 0]


def _layer_sizes(features: int, width: int) -> list[int]:
    return [(features + 2) * width, width * width, width, width, width, 1]
