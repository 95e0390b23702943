"""Base class of models that predict the class of each pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from boxel.data.annotations import Category
from boxel.data.sources import ImageLike
from boxel.models.detector import Target, check_targets
from boxel.models.inference import evaluation_mode
from boxel.models.label_map import LabelMap
from boxel.models.semantic.config import SegmenterConfig
from boxel.models.semantic.inference import (
    predict_label_map,
    predict_probabilities,
    semantic_inference_config,
)
from boxel.models.semantic.losses import stack_maps
from boxel.models.semantic.network import FullyConvolutional
from boxel.models.settings import SemanticInferenceConfig
from boxel.models.tiles import predict_images


class Segmenter(nn.Module):
    """Base class of models that predict the class of each pixel.

    In training, ``model(images, targets)`` returns a dict of raw losses, to be summed with :meth:`loss_weights`. In
    eval mode, ``model(images)`` returns `(labels, scores)` per image, (H, W) each: the class of each pixel and its
    probability. :meth:`predict` takes files and arrays of any size.

    Args:
        num_classes: K, including the background if the dataset has one.
        config: Settings of the model.

    Attributes:
        categories: The classes; numbered until a dataset names them.
        settings: The configuration of the run that trained the model; empty before.
    """

    kind: ClassVar[str] = "segmenter"

    def __init__(self, num_classes: int, config: SegmenterConfig):
        super().__init__()
        self.config, self.num_classes = config, num_classes
        self.network = FullyConvolutional(num_classes, config)
        self.categories = tuple(Category(label, str(label)) for label in range(num_classes))
        self.settings: dict[str, Any] = {}

    def forward(
        self, images: Sequence[Tensor], targets: list[Target] | None = None, *, progress: float = 1.0
    ) -> Any:
        """Return losses in training, classes in eval mode.

        Args:
            images: (3, H, W) float RGB in [0, 1] each; in training all of one size.
            targets: In training, `labels` (H, W) per image, 255 if unknown.
            progress: Share of the training that is done, in [0, 1].

        Returns:
            A dict of scalar losses, or a list of `(labels, scores)`.
        """
        if not self.training:
            config = SemanticInferenceConfig()
            maxima = [
                predict_probabilities(self.network, (image * 255).round(), config).max(0) for image in images
            ]
            return [(labels, scores) for scores, labels in maxima]
        labels = stack_maps(check_targets(targets), "labels", images[0].device)  # (B, H, W)
        batch = torch.stack(list(images))  # (B, 3, H, W)
        return self.compute_losses(self.network(batch), labels, progress)

    def configure(self, **settings: Any) -> SemanticInferenceConfig:
        """Return the inference settings of the training, changed by some that are given."""
        return semantic_inference_config(self, **settings)

    def predict_batch(
        self, images: Sequence[NDArray[np.uint8]], config: SemanticInferenceConfig | None = None
    ) -> list[LabelMap]:
        """Predict the classes of (H, W, 3) RGB images one by one, in eval mode."""
        return [predict_label_map(self, image, config) for image in images]

    @overload
    def predict(self, images: ImageLike, **settings: Any) -> LabelMap: ...
    @overload
    def predict(self, images: Sequence[ImageLike], **settings: Any) -> list[LabelMap]: ...
    def predict(self, images: ImageLike | Sequence[ImageLike], **settings: Any) -> LabelMap | list[LabelMap]:
        """Predict the classes of images of any size; the model may be in any mode.

        Args:
            images: A file, a PIL image, an array, or a list of these (see :func:`~boxel.data.sources.to_image`).
            **settings: Fields of :class:`~boxel.models.settings.SemanticInferenceConfig`, e.g. ``flip=True``;
                the others are those of the training. ``crf=True`` is the CRF that `boxel tune-crf` has found for the
                run, else the default one.

        Returns:
            The label map of the image, or a list of them.

        Raises:
            BoxelError: A file cannot be read as an image, or a setting is unknown or out of range.
        """
        config = self.configure(**settings)
        with evaluation_mode(self):
            return predict_images(self, images, config)

    def compute_losses(self, scores: Tensor, labels: Tensor, progress: float) -> dict[str, Tensor]:
        """Return the raw losses by name.

        Args:
            scores: (B, K, h, w) logits of cells.
            labels: (B, H, W) uint8 in [0, K), or `IGNORE_INDEX`.
            progress: Share of the training that is done, in [0, 1].
        """
        raise NotImplementedError

    def loss_weights(self, progress: float) -> dict[str, float]:
        """Return the weight of each loss by name, once a share of the training in [0, 1] is done."""
        return {"segmentation": 1.0}
