"""The fully connected CRF: each pixel's class, made to agree with those of all pixels that are near and look alike.

References:
    Krähenbühl, Koltun, Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials, 2011.
"""

from __future__ import annotations

import torch
from torch import Tensor

from boxel.crf.config import CRFConfig
from boxel.crf.lattice import Lattice, lattice


def mean_field(images: Tensor, probabilities: Tensor, config: CRFConfig) -> Tensor:
    """Marginals of a fully connected CRF whose unary terms are the logarithms of some probabilities.

    Each kernel is normalized on both sides, ``D^-1/2 K D^-1/2`` with D the sums of its rows, so that a weight means the
    same in a plain region and in a busy one. As in the authors' code a pixel counts among its own neighbors.

    Args:
        images: (B, 3, H, W) float RGB in [0, 1].
        probabilities: (B, C, H, W) of each pixel's classes; 0 and 1 are certain, and stay.
        config: the options.

    Returns:
        (B, C, H, W) float32.

    References:
        Algorithm 1, with the Potts model as compatibility.
    """
    unary = probabilities.float().clamp(min=CERTAIN).log().permute(0, 2, 3, 1)
    shape = unary.shape
    unary = unary.flatten(0, 2).contiguous()
    messages = kernels(images, config)
    marginals = unary.softmax(1)
    for _ in range(config.iterations):
        # Potts: what other classes cost is, but for a constant of the pixel, what the own one gains.
        energy = sum((kernel.filter(marginals) for kernel in messages), start=unary)
        marginals = energy.softmax(1)
    return marginals.view(shape).permute(0, 3, 1, 2)


CERTAIN = 1e-20
"""The least probability a class is given."""


def kernels(images: Tensor, config: CRFConfig) -> list[Lattice]:
    """What passes messages between the pixels of each image, a lattice for each kernel with a weight.

    Args:
        images: (B, 3, H, W) float RGB in [0, 1].
        config: the options.
    """
    batch, _, height, width = images.shape
    y, x = torch.meshgrid(
        torch.arange(height, device=images.device), torch.arange(width, device=images.device), indexing="ij"
    )
    places = torch.stack([x, y], -1).float().expand(batch, -1, -1, -1).flatten(0, 2)
    groups = torch.arange(batch, device=images.device).repeat_interleave(height * width)
    found = []
    if config.smooth_weight:
        found.append(lattice(places / config.smooth_sigma, groups).normalized(config.smooth_weight))
    if config.appearance_weight:
        colors = images.float().permute(0, 2, 3, 1).flatten(0, 2) * (255 / config.color_sigma)
        features = torch.cat([places / config.appearance_sigma, colors], 1)
        found.append(lattice(features, groups).normalized(config.appearance_weight))
    return found
