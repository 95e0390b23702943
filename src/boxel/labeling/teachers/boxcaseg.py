"""BoxCaseg as a teacher: one crop a box through a small network."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from boxel.labeling.teachers.base import SoftMask
from boxel.models.boxcaseg.inference import BoxToMask, soft_masks


class BoxCasegTeacher:
    """Masks of a BoxCaseg model.

    Args:
        model: in eval mode, or what runs it.
        name: to be known by.
        identity: text that changes with the model's weights.
    """

    flips = True
    """Two looks are worth their time: the mask is better, and where they differ its quality is lower."""

    def __init__(self, model: BoxToMask, name: str = "boxcaseg", identity: str = "") -> None:
        self._model, self.name, self.identity = model, name, identity

    def __call__(self, image: NDArray[np.uint8], boxes: NDArray[np.float64], labels: Any) -> list[SoftMask]:
        """One soft mask a box, whatever its label; see :class:`~boxel.labeling.teachers.base.Teacher`."""
        found = zip(*soft_masks(self._model, image, boxes), strict=True)
        return [SoftMask(logits, tuple(window), float(score)) for logits, window, score in found]
