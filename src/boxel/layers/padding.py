"""Batches of images of several sizes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def pad_batch(
    images: Sequence[Tensor], fill: Tensor, multiple: int = 32
) -> tuple[Tensor, list[tuple[int, int]]]:
    """Pad images at the right and the bottom to one size.

    Args:
        images: B images (3, h, w) of any sizes.
        fill: (3, 1, 1) color of the padding.
        multiple: Height and width of the batch are multiples of it.

    Returns:
        (B, 3, H, W), and (h, w) of each image.

    Examples:
        >>> import torch
        >>> batch, sizes = pad_batch([torch.rand(3, 20, 40), torch.rand(3, 33, 8)], torch.zeros(3, 1, 1))
        >>> batch.shape, sizes
        (torch.Size([2, 3, 64, 64]), [(20, 40), (33, 8)])
    """
    sizes = [(image.shape[-2], image.shape[-1]) for image in images]
    height, width = (-(-max(side) // multiple) * multiple for side in zip(*sizes, strict=True))
    batch = fill.reshape(1, 3, 1, 1).repeat(len(images), 1, height, width)
    for place, image, (h, w) in zip(batch, images, sizes, strict=True):
        place[:, :h, :w] = image
    return batch, sizes
