"""What graphs that take a batch of images share."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def pad_to_multiple(images: Tensor, color: Tensor, multiple: int = 32) -> Tensor:
    """Pad (B, 3, H, W) images with a (3, 1, 1) color at the right and the bottom, to sides that are multiples."""
    height, width = images.shape[-2:]
    padding = (0, -width % multiple, 0, -height % multiple)
    outside = F.pad(torch.zeros_like(images[:1, :1]), padding, value=1.0)
    return F.pad(images, padding) + outside * color


def category_list(model: Any) -> list[dict[str, Any]]:
    """Return the categories of a model as plain data."""
    return [{"id": category.id, "name": category.name} for category in model.categories]
