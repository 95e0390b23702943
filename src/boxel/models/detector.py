"""Base class of the models that find instances."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from boxel.data.annotations import Category
from boxel.data.sources import ImageLike
from boxel.masks.paste import paste_windows
from boxel.models.inference import evaluation_mode, inference_config, predict_batch
from boxel.models.instances import Instances
from boxel.models.settings import InferenceConfig
from boxel.models.tiles import predict_images
from boxel.utils.config import Config

Target = dict[str, Any]


def check_targets(targets: list[Target] | None) -> list[Target]:
    """Return the targets, or raise a `ValueError` if there are none."""
    if targets is None:
        raise ValueError("in training the model needs targets")
    return targets


def separate_crowds(target: Target) -> Target:
    """Return the instances of a target that are not crowds, with all fields, and the `crowds` (C, 4) apart.

    `weights` (N,) are how much their masks count: their estimated quality, 1 if it is unknown.
    """
    boxes = target["boxes"].as_subclass(Tensor).float()
    crowd = target.get("iscrowd", torch.zeros_like(target["labels"])).bool()
    if "masks" in target:
        masks = target["masks"].as_subclass(Tensor)
        has_mask = target.get("has_mask", torch.ones_like(crowd)).bool()
    else:
        masks, has_mask = boxes.new_zeros(len(boxes), 1, 1), torch.zeros_like(crowd)
    weights = target["quality"].float().nan_to_num(1.0) if "quality" in target else boxes.new_ones(len(boxes))
    labels = target["labels"]
    own = {"boxes": boxes, "labels": labels, "masks": masks, "has_mask": has_mask, "weights": weights}
    return {name: values[~crowd] for name, values in own.items()} | {"crowds": boxes[crowd]}


class Detections(NamedTuple):
    """Detections in one image, best first, before their masks are pasted."""

    boxes: Tensor  # (N, 4) xyxy pixels
    scores: Tensor  # (N,) in [0, 1]
    labels: Tensor  # (N,) int64
    mask_logits: Tensor  # (N, h, w), each over the window of its instance
    windows: Tensor  # (N, 4) xyxy pixels that these cells cover from edge to edge
    bounds: Tensor  # (N, 4) xyxy pixels outside which the masks are empty


def full_image_detections(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    mask_logits: Tensor,
    *,
    stride: int,
    margin: float | None = 0.0,
) -> Detections:
    """Return detections whose mask logits, of cells of `stride` pixels, cover the whole image and possibly padding.

    Masks are cut to their boxes, grown by `margin` of their sides on each side; not at all if it is None.
    """
    height, width = mask_logits.shape[-2:]
    windows = boxes.new_tensor([0, 0, stride * width, stride * height]).expand(len(boxes), 4)
    bounds = windows if margin is None else grow_boxes(boxes, margin)
    return Detections(boxes, scores, labels, mask_logits, windows, bounds)


def grow_boxes(boxes: Tensor, margin: float) -> Tensor:
    """Grow (N, 4) xyxy boxes on each side by a share of their width or height.

    Examples:
        >>> grow_boxes(torch.tensor([[10.0, 10, 30, 20]]), 0.1).tolist()
        [[8.0, 9.0, 32.0, 21.0]]
    """
    extent = margin * (boxes[:, 2:] - boxes[:, :2])
    return torch.cat([boxes[:, :2] - extent, boxes[:, 2:] + extent], dim=1)


def paste_masks(detections: Sequence[Detections], images: Sequence[Tensor]) -> list[dict[str, Any]]:
    """Return a dict per (3, H, W) image: its `boxes`, `labels`, `scores` and `masks`, compressed run-length codes."""
    return [
        {
            "boxes": found.boxes,
            "labels": found.labels,
            "scores": found.scores,
            "masks": paste_windows(
                found.mask_logits, found.bounds, found.windows, (image.shape[-2], image.shape[-1])
            ),
        }
        for found, image in zip(detections, images, strict=True)
    ]


class Detector(nn.Module):
    """Base class of models that find the instances of images, with torchvision's detection interface.

    In training, ``model(images, targets)`` returns a dict of raw losses, to be summed with :meth:`loss_weights`. In
    eval mode, ``model(images)`` returns one dict per image, as of :func:`paste_masks`. :meth:`predict` takes files and
    arrays of any size.

    A target has at least `boxes` (N, 4) xyxy and `labels` (N,). Optional are `iscrowd` (N,) bool, `masks` (N, H, W) and
    `has_mask` (N,) bool, the instances that are learned from their mask: all if missing.

    Args:
        num_classes: K, without the background.
        config: Settings of the model.

    Attributes:
        categories: The categories of the labels; numbered until a dataset names them.
        settings: The configuration of the run that trained the model; empty before.
    """

    kind: ClassVar[str] = "detector"

    def __init__(self, num_classes: int, config: Config):
        super().__init__()
        self.config: Any = config  # subclasses narrow the type
        self.num_classes = num_classes
        self.categories = tuple(Category(label, str(label)) for label in range(num_classes))
        self.settings: dict[str, Any] = {}

    def forward(self, images: list[Tensor], targets: list[Target] | None = None) -> Any:
        """Return losses in training, instances in eval mode.

        Args:
            images: (3, H, W) float RGB in [0, 1] each, of any sizes.
            targets: One per image in training.

        Returns:
            A dict of scalar losses, or one dict per image.
        """
        raise NotImplementedError

    def detect(self, images: list[Tensor]) -> list[Detections]:
        """Return the detections in each image, as in :meth:`forward`, before their masks are pasted."""
        raise NotImplementedError

    def loss_weights(self, progress: float) -> dict[str, float]:
        """Return the weight of each loss by name, once a share of the schedule in [0, 1] is done."""
        raise NotImplementedError

    def configure(self, **settings: Any) -> InferenceConfig:
        """Return the inference settings of the training, changed by some that are given."""
        return inference_config(self, **settings)

    def predict_batch(
        self, images: Sequence[NDArray[np.uint8]], config: InferenceConfig | None = None
    ) -> list[Instances]:
        """Predict the instances of a batch, see :func:`~boxel.models.inference.predict_batch`; in eval mode."""
        return predict_batch(self, images, config)

    @overload
    def predict(self, images: ImageLike, **settings: Any) -> Instances: ...
    @overload
    def predict(self, images: Sequence[ImageLike], **settings: Any) -> list[Instances]: ...
    def predict(
        self, images: ImageLike | Sequence[ImageLike], **settings: Any
    ) -> Instances | list[Instances]:
        """Predict the instances of images of any size; the model may be in any mode.

        Args:
            images: A file, a PIL image, an array, or a list of these (see :func:`~boxel.data.sources.to_image`).
            **settings: Fields of :class:`~boxel.models.settings.InferenceConfig`, e.g. ``flip=True``; the others are
                those of the training.

        Returns:
            The instances of the image, or a list of them.

        Raises:
            BoxelError: A file cannot be read as an image, or a setting is unknown or out of range.
        """
        config = self.configure(**settings)
        with evaluation_mode(self):
            return predict_images(self, images, config)
