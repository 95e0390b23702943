"""What all models that give each pixel a class have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast, overload

from torch import Tensor, nn

from boxel.crf import CRFConfig
from boxel.data.annotations import Category
from boxel.data.sources import ImageLike, to_image
from boxel.models.inference import evaluation_mode
from boxel.models.semantic.config import SegmenterConfig
from boxel.models.semantic.inference import (
    LabelMap,
    SemanticInferenceConfig,
    predict_label_map,
    predict_probabilities,
    semantic_inference_config,
)
from boxel.models.semantic.network import FullyConvolutional

Target = dict[str, Any]


class Segmenter(nn.Module):
    """A model that tells the class of each pixel.

    In training, ``model(images, targets)`` gives a dict of raw losses, to be summed with :meth:`loss_weights`; in
    eval, ``model(images)`` gives for each image `(labels, scores)`, (H, W) each: the class of every pixel and its
    probability.

    Args:
        num_classes: K, the background among them where the data set has one.
        config: every other choice.

    Attributes:
        categories: tuple of `Category`, the classes; their numbers until a data set gives names.
        settings: dict, the configuration of the run that made the model; empty before.
    """

    def __init__(self, num_classes: int, config: SegmenterConfig):
        super().__init__()
        self.config, self.num_classes = config, num_classes
        self.network = FullyConvolutional(num_classes, config)
        self.categories = tuple(Category(label, str(label)) for label in range(num_classes))
        self.settings: dict[str, Any] = {}

    @property
    def padding_color(self) -> Tensor:
        """(3, 1, 1), the color of what lies outside an image."""
        return self.network.padding_color

    def forward(self, images: Sequence[Tensor], targets: list[Target] | None = None) -> Any:
        """Losses in training, classes in eval.

        Args:
            images: (3, H, W) float RGB in [0, 1] each; in training all of one size.
            targets: in training, for each image `labels` (H, W), 255 where nothing is known.

        Returns:
            A dict of scalar losses, or a list of `(labels, scores)`.
        """
        if not self.training:
            config = SemanticInferenceConfig()
            maxima = [
                predict_probabilities(self.network, (image * 255).round(), config).max(0) for image in images
            ]
            return [(labels, scores) for scores, labels in maxima]
        if targets is None:
            raise ValueError("in training the model needs targets")
        return self.losses(images, targets)

    @overload
    def predict(
        self, images: ImageLike, *, crf: bool | CRFConfig | None = None, **settings: Any
    ) -> LabelMap: ...
    @overload
    def predict(
        self, images: Sequence[ImageLike], *, crf: bool | CRFConfig | None = None, **settings: Any
    ) -> list[LabelMap]: ...
    def predict(
        self,
        images: ImageLike | Sequence[ImageLike],
        *,
        crf: bool | CRFConfig | None = None,
        **settings: Any,
    ) -> LabelMap | list[LabelMap]:
        """Predict the classes of images of any size; the model may be in any mode.

        Args:
            images: A file, a PIL image, an array, or a list of these (see :func:`~boxel.data.sources.to_image`).
            crf: True for the CRF that `boxel tune-crf` has found for the run, else for the default one.
            **settings: Other fields of :class:`~boxel.models.semantic.inference.SemanticInferenceConfig`, e.g.
                ``flip=True``; the others are those of the training.

        Returns:
            The label map of the image, or a list of them.

        Raises:
            BoxelError: A file cannot be read as an image, or a setting is unknown or out of range.
        """
        config = semantic_inference_config(self, crf=crf, **settings)
        several = cast("list[ImageLike]", images if isinstance(images, list | tuple) else [images])
        with evaluation_mode(self):
            results = [
                replace(predict_label_map(self, to_image(source), config), source=source)
                for source in several
            ]
        return results if isinstance(images, list | tuple) else results[0]

    def losses(self, images: Sequence[Tensor], targets: list[Target]) -> dict[str, Tensor]:
        """Raw losses by name; arguments as of `forward` in training."""
        raise NotImplementedError

    def loss_weights(self, progress: float) -> dict[str, float]:
        """Weight of each loss at a point of the schedule, by its name.

        Args:
            progress: share of the schedule that is done, in [0, 1].
        """
        raise NotImplementedError
