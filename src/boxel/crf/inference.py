"""Mean field inference of a fully connected CRF: nearby pixels of similar color should have the same class."""

from __future__ import annotations

import torch
from torch import Tensor

from boxel.crf.config import CRFConfig
from boxel.crf.lattice import Lattice, build_lattice

MIN_PROBABILITY = 1e-20


def mean_field(images: Tensor, probabilities: Tensor, config: CRFConfig) -> Tensor:
    """Compute the marginals of a fully connected CRF whose unary terms are the logarithms of probabilities.

    Each kernel is normalized on both sides, ``D^-1/2 K D^-1/2`` with D the sums of its rows, so that a weight has the
    same effect in a uniform region and in a busy one. As in the authors' code, a pixel is among its own neighbors.

    Args:
        images: (B, 3, H, W) float, RGB in [0, 1].
        probabilities: (B, C, H, W) float in [0, 1], probabilities of the classes; 0 and 1 are certain and stay.
        config: The settings.

    Returns:
        (B, C, H, W) float32, the marginals.

    Examples:
        >>> images = torch.zeros(1, 3, 8, 8)
        >>> images[..., 4:] = 1  # black and white
        >>> probabilities = torch.full((1, 2, 8, 8), 0.5)
        >>> probabilities[:, :, 4, 1] = torch.tensor([0.9, 0.1])  # one pixel of each half has an opinion
        >>> probabilities[:, :, 4, 6] = torch.tensor([0.1, 0.9])
        >>> mean_field(images, probabilities, CRFConfig()).argmax(1)[0, 0]
        tensor([0, 0, 0, 0, 1, 1, 1, 1])

    References:
        Krähenbühl, Koltun, Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials, 2011, Algorithm
        1, with the Potts model as compatibility.
    """
    unary = probabilities.float().clamp(min=MIN_PROBABILITY).log().permute(0, 2, 3, 1)
    shape = unary.shape
    unary = unary.flatten(0, 2).contiguous()
    messages = kernels(images, config)
    marginals = unary.softmax(1)
    for _ in range(config.iterations):
        # Potts: the cost of the other classes is, up to a constant per pixel, the gain of the own class.
        energy = sum((kernel.filter(marginals) for kernel in messages), start=unary)
        marginals = energy.softmax(1)
    return marginals.view(shape).permute(0, 3, 1, 2)


def kernels(images: Tensor, config: CRFConfig) -> list[Lattice]:
    """Build the lattices that pass messages between the pixels of (B, 3, H, W) images, one per kernel with a weight."""
    batch, _, height, width = images.shape
    y, x = torch.meshgrid(
        torch.arange(height, device=images.device), torch.arange(width, device=images.device), indexing="ij"
    )
    positions = torch.stack([x, y], -1).float().expand(batch, -1, -1, -1).flatten(0, 2)
    groups = torch.arange(batch, device=images.device).repeat_interleave(height * width)
    lattices = []
    if config.smooth_weight:
        lattices.append(
            build_lattice(positions / config.smooth_sigma, groups).normalized(config.smooth_weight)
        )
    if config.appearance_weight:
        colors = images.float().permute(0, 2, 3, 1).flatten(0, 2) * (255 / config.color_sigma)
        features = torch.cat([positions / config.appearance_sigma, colors], 1)
        lattices.append(build_lattice(features, groups).normalized(config.appearance_weight))
    return lattices
