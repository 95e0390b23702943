"""What graphs that take a batch of images share."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import nms

from boxel.models.detector import Detector
from boxel.models.inference import inference_config
from boxel.models.thresholds import SCORE_THRESHOLDS, best_scores


def pad_to_multiple(images: Tensor, color: Tensor, multiple: int = 32) -> Tensor:
    """Pad (B, 3, H, W) images with a (3, 1, 1) color at the right and the bottom, to sides that are multiples."""
    height, width = images.shape[-2:]
    padding = (0, -width % multiple, 0, -height % multiple)
    outside = F.pad(torch.zeros_like(images[:1, :1]), padding, value=1.0)
    return F.pad(images, padding) + outside * color


def clip_boxes(boxes: Tensor, size: Sequence[int]) -> Tensor:
    """Clip (N, 4) xyxy boxes to images of a height and width."""
    height, width = size
    x, y = boxes.reshape(-1, 2, 2).unbind(2)
    x, y = x.clamp(min=0).clamp(max=width), y.clamp(min=0).clamp(max=height)
    return torch.stack([x, y], 2).flatten(1)


def nms_per_label(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    image: Tensor,
    num_labels: int,
    size: Sequence[int],
    threshold: float,
) -> Tensor:
    """Return the indices of the boxes that NMS keeps, best first; images, of a height and width, and labels are apart.

    Boxes are (N, 4), scores, labels and the image of each (N,).
    """
    group = image * num_labels + labels
    # Each group has its own tile, in rows: far from the origin, coordinates would lose digits.
    columns = ceil(num_labels**0.5)
    height, width = size
    shift = torch.stack([group % columns * (width + 1), group // columns * (height + 1)], 1)
    return nms(boxes + shift.to(boxes.dtype).repeat(1, 2), scores, threshold)


def best_per_image(image: Tensor, num_images: int, count: int) -> tuple[Tensor, Tensor]:
    """Return the image and the place in the list of the first `count` boxes of each image, image after image."""
    # One row per image: its boxes in their order.
    own = image == torch.arange(num_images, device=image.device)[:, None]
    image, place = (own & (own.long().cumsum(1) <= count)).nonzero(as_tuple=True)
    return image, place


def detector_metadata(model: Detector) -> dict[str, Any]:
    """Return what is needed to run the file of a detector, as plain data."""
    config = inference_config(model)
    return {
        "categories": category_list(model),
        "mean": model.backbone.mean.flatten().tolist(),  # type: ignore[union-attr, operator]
        "short_side": config.short_side,
        "max_size": config.max_size,
        "nms_threshold": model.config.nms_threshold,
        SCORE_THRESHOLDS: best_scores(model),
    }


def category_list(model: Any) -> list[dict[str, Any]]:
    """Return the categories of a model as plain data."""
    return [{"id": category.id, "name": category.name} for category in model.categories]
