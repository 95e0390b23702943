"""Exported BoxCaseg."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from boxel.data.annotations import OBJECT, Category
from boxel.data.sources import ImageLike
from boxel.masks.crops import SoftMasks, extract_crops, predict_soft_masks
from boxel.models.box_masks import predict_boxes
from boxel.models.exported.file import ExportedFile, ExportedModel
from boxel.models.instances import Instances

_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class ExportedBoxToMask(ExportedModel):
    """An exported model of the object in a box, used like a :class:`~boxel.models.boxcaseg.model.BoxCaseg`.

    Attributes:
        threshold: The probability that its logits are relative to; None if it is 0.5 and they are calibrated.
    """

    kind = "box_to_mask"

    def __init__(self, file: ExportedFile) -> None:
        super().__init__(file)
        file.check_names(("crops", "rows", "columns", "neighbors"), ("logits",))
        self.categories = (Category(0, OBJECT),)
        self._side = file.state("side", Annotated[int, msgspec.Meta(ge=1, multiple_of=32)])
        self._margin = file.state("margin", Annotated[float, msgspec.Meta(ge=0)])
        self.threshold: float | None = file.state("threshold", float | None)
        mean = file.state("mean", tuple[_Share, _Share, _Share])
        self._padding_color = np.round(255 * np.array(mean)).tolist()

    def soft_masks(self, image: NDArray[np.uint8], boxes: NDArray[np.float64]) -> SoftMasks:
        """Predict the logits of the object in each of (N, 4) boxes of xyxy pixels in an (H, W, 3) RGB image."""
        return predict_soft_masks(partial(self._predict, image, boxes), boxes)

    def predict(self, image: ImageLike, boxes: ArrayLike, **settings: object) -> Instances:
        """Predict the mask of the object in each box.

        Args:
            image: A file, a PIL image or an array (see :func:`~boxel.data.sources.to_image`).
            boxes: (N, 4) xyxy pixels.
            **settings: None; other models have some.

        Returns:
            The instances in the order of the boxes, without a class: all have the category `object`.

        Raises:
            BoxelError: The image cannot be read.
            UsageError: The boxes do not have four columns, or there is a setting.
        """
        return predict_boxes(self, image, boxes, settings)

    def _predict(
        self, image: NDArray[np.uint8], others: NDArray[np.float64], boxes: NDArray[np.float64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        crops = extract_crops(image, boxes, self._side, self._margin, self._padding_color, others)
        pixels = crops.pixels.transpose(0, 3, 1, 2).astype(np.float32) / 255  # (N, 3, S, S)
        return self.file.run({"crops": pixels} | crops._asdict())[0], crops.windows
