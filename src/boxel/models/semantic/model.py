"""What all models that give each pixel a class have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from boxel.data.annotations import Category
from boxel.models.predict import Photo
from boxel.models.semantic.config import SegmenterConfig
from boxel.models.semantic.network import FullyConvolutional
from boxel.models.semantic.predict import LabelMap, LookConfig, own_looks, predict_maps, probabilities

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
    def fill(self) -> Tensor:
        """(3, 1, 1), the color of what lies outside an image."""
        return self.network.fill

    def forward(self, images: Sequence[Tensor], targets: list[Target] | None = None) -> Any:
        """Losses in training, classes in eval.

        Args:
            images: (3, H, W) float RGB in [0, 1] each; in training all of one size.
            targets: in training, for each image `labels` (H, W), 255 where nothing is known.

        Returns:
            A dict of scalar losses, or a list of `(labels, scores)`.
        """
        if not self.training:
            looks = [
                probabilities(self.network, (image * 255).round(), LookConfig()).max(0) for image in images
            ]
            return [(labels, scores) for scores, labels in looks]
        if targets is None:
            raise ValueError("in training the model needs targets")
        return self.losses(images, targets)

    def predict(self, photos: Photo | Sequence[Photo], **options: Any) -> LabelMap | list[LabelMap]:
        """The classes of photos of any size, by a model in any mode.

        Args:
            photos: a file, a PIL image, an (H, W, 3) uint8 RGB array, or a list of these.
            **options: fields of :class:`~boxel.models.semantic.predict.LookConfig`, as ``flip=True``; the others are
                those of the training. ``crf=True`` takes the CRF that `boxel tune-crf` has set for the run, or the
                default one.

        Returns:
            A :class:`~boxel.models.semantic.predict.LabelMap` of the photo, or a list of them.

        Raises:
            BoxelError: a file can't be read as an image.
        """
        training = self.training
        try:
            found = list(predict_maps(self.eval(), photos, own_looks(self, **options)))
        finally:
            self.train(training)
        return found if isinstance(photos, (list, tuple)) else found[0]

    def losses(self, images: Sequence[Tensor], targets: list[Target]) -> dict[str, Tensor]:
        """Raw losses by name; arguments as of `forward` in training."""
        raise NotImplementedError

    def loss_weights(self, progress: float) -> dict[str, float]:
        """Weight of each loss at a point of the schedule, by its name.

        Args:
            progress: share of the schedule that is done, in [0, 1].
        """
        raise NotImplementedError
