"""Exported FCRN and BoxSup."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, overload

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from boxel.data.annotations import Category
from boxel.data.sources import ImageLike
from boxel.models.exported.file import ExportedFile, ExportedModel, run_by_size
from boxel.models.exported.resizing import resize_image
from boxel.models.label_map import LabelMap
from boxel.models.settings import SemanticInferenceConfig, check_settings
from boxel.models.tiles import predict_images

_Positive = Annotated[int, msgspec.Meta(ge=1)]


class ExportedSegmenter(ExportedModel):
    """An exported model of the class of each pixel, used like a :class:`~boxel.models.semantic.model.Segmenter`."""

    kind = "segmenter"

    def __init__(self, file: ExportedFile) -> None:
        super().__init__(file)
        file.check_names(("images",), ("labels", "logits"))
        self.categories = file.state("categories", tuple[Category, ...])
        self._base = SemanticInferenceConfig(file.state("long_side", _Positive | None))
        self._stride: int = file.state("stride", _Positive)

    def configure(self, **settings: Any) -> SemanticInferenceConfig:
        """Return the inference settings of the file, changed by some that are given.

        Raises:
            UsageError: A setting is unknown, out of range, or not one that an exported file can follow.
        """
        check_settings(SemanticInferenceConfig, settings)
        followed = ("long_side", "tile", "overlap")
        self.refuse(settings, SemanticInferenceConfig(), followed)
        return replace(self._base, **{name: settings[name] for name in followed if name in settings})

    def predict_batch(
        self, images: Sequence[NDArray[np.uint8]], config: SemanticInferenceConfig | None = None
    ) -> list[LabelMap]:
        """Predict the classes of (H, W, 3) RGB images of any sizes; the settings are those of the file if None."""
        config = config or self._base
        side, tile = config.long_side, config.tile
        factors = [side / (tile or max(image.shape[:2])) if side else 1.0 for image in images]
        resized = [resize_image(image, factor) for image, factor in zip(images, factors, strict=True)]
        logits = run_by_size(resized, lambda batch: self.file.run({"images": batch})[1])
        return [
            LabelMap(*self._classify(cells, inputs.shape[:2], image.shape[:2]), self.categories)
            for cells, inputs, image in zip(logits, resized, images, strict=True)
        ]

    @overload
    def predict(self, images: ImageLike, **settings: Any) -> LabelMap: ...
    @overload
    def predict(self, images: Sequence[ImageLike], **settings: Any) -> list[LabelMap]: ...
    def predict(self, images: ImageLike | Sequence[ImageLike], **settings: Any) -> LabelMap | list[LabelMap]:
        """Predict the classes of images of any size.

        Args:
            images: A file, a PIL image, an array, or a list of these (see :func:`~boxel.data.sources.to_image`).
            **settings: `long_side`, `tile` and `overlap` of :class:`~boxel.models.settings.SemanticInferenceConfig`.

        Returns:
            The label map of the image, or a list of them.

        Raises:
            BoxelError: A file cannot be read as an image, or a setting is unknown, out of range or cannot be followed.
        """
        return predict_images(self, images, self.configure(**settings))

    def _classify(
        self, logits: NDArray[np.float32], inputs: Sequence[int], size: Sequence[int]
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Return the class of each pixel of an image of a height and width, and its probability.

        The (K, h, w) logits of cells are enlarged to the resized image, and then to the image itself. One class is
        enlarged at a time, and the sum of the softmax kept relative to the best so far.
        """
        labels = np.zeros(size, dtype=np.uint8)
        best = np.full(size, -np.inf, dtype=np.float32)
        total = np.zeros(size, dtype=np.float32)
        height, width = (self._stride * side for side in logits.shape[-2:])
        for label, cells in enumerate(logits):
            dense = cv2.resize(cells, (width, height), interpolation=cv2.INTER_LINEAR)
            scores = cv2.resize(
                dense[: inputs[0], : inputs[1]], tuple(size[::-1]), interpolation=cv2.INTER_LINEAR
            )
            labels[scores > best] = label
            higher = np.maximum(scores, best)
            total = total * np.exp(best - higher) + np.exp(scores - higher)
            best = higher
        return labels, np.reciprocal(total)
