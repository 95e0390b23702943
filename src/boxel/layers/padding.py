"""Images of several sizes as one batch."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def pad_batch(
    images: Sequence[Tensor], fill: Tensor, multiple: int = 32
) -> tuple[Tensor, list[tuple[int, int]]]:
    """Pad images at the right and the bottom to one size.

    Args:
        images: B images (3, h, w) of any sizes.
        fill: (3, 1, 1), the color of the padding.
        multiple: height and width of the batch are multiples of it.

    Returns:
        (B, 3, H, W), and (h, w) of each image.
    """
    sizes = [(image.shape[-2], image.shape[-1]) for image in images]
    height, width = (-(-max(side) // multiple) * multiple for side in zip(*sizes, strict=True))
    batch = fill.reshape(1, 3, 1, 1).repeat(len(images), 1, height, width)
    for place, image, (h, w) in zip(batch, images, sizes, strict=True):
        place[:, :h, :w] = image
    return batch, sizes
