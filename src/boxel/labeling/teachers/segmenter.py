"""A semantic segmenter as a teacher: which pixels of a box are of the box's class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from boxel.data.annotations import Category
from boxel.labeling.teachers.base import NO_OPINION, Region, SoftMask, region_about
from boxel.models.boxsup import UpdateConfig
from boxel.models.semantic.inference import predict_probabilities, semantic_inference_config

REACH = 0.2
"""How far past a box its class may be, as a share of its sides; masks are clipped to the box and its margin later."""

LEAST_SHARE = UpdateConfig.least_share
"""Of a box's pixels that are taken for the object at least, those where the model is nearest to it."""

LEAST = 1e-6
"""The least probability that is told apart from none."""


class SegmenterTeacher:
    """A model that gives each pixel a class, asked about boxes that are given.

    The boxes tell it more than the photo does. Where a class has no box it can't be, so that a cat taken for a dog is
    a cat in the box of one; classes that no box of the data set may have, as the background, can be anywhere. And there
    is something in each box: a model that sees nothing there is asked where it is nearest to seeing it.

    Attributes:
        name: of the teacher.
        identity: text that changes with the model's weights and settings.

    Args:
        model: a :class:`~boxel.models.semantic.model.Segmenter` in eval mode.
        name: as above.
        categories: of the boxes, in the order of their labels.
        identity: as above.
    """

    def __init__(self, model: Any, name: str, categories: Sequence[Category], identity: str = ""):
        self.name, self.identity = name, identity
        self._model, self._looks = model, semantic_inference_config(model)
        known = [category.name for category in model.categories]
        # For each label of the data set the model's own; -1 for classes that it doesn't know.
        self._own = np.array([known.index(c.name) if c.name in known else -1 for c in categories], dtype=int)
        self._ground = np.setdiff1d(np.arange(len(known)), self._own)

    def __call__(
        self, image: NDArray[np.uint8], boxes: NDArray[np.float64], labels: NDArray[np.int32]
    ) -> list[SoftMask]:
        """One soft mask a box; no opinion on classes that the model doesn't know. See `Teacher`."""
        own = self._own[labels].tolist()
        height, width = image.shape[:2]
        regions = [region_about(box, height, width, REACH) for box in boxes]
        found = self._probabilities(image)
        total = found[self._ground].sum(0)
        for label in {label for label in own if label >= 0}:
            boxed = torch.zeros_like(total, dtype=torch.bool)
            for region in (region for region, other in zip(regions, own, strict=True) if other == label):
                boxed[_pixels(region)] = True
            total += found[label] * boxed
        return [
            _soft(found[label], total, region, region_about(box, height, width)) if label >= 0 else NO_OPINION
            for label, region, box in zip(own, regions, boxes, strict=True)
        ]

    def _probabilities(self, image: NDArray[np.uint8]) -> Tensor:
        """(K, H, W) what the model says of a photo."""
        network = self._model.network
        pixels = torch.from_numpy(image).permute(2, 0, 1).to(network.padding_color.device)
        return predict_probabilities(network, pixels, self._looks).cpu()


def _soft(own: Tensor, total: Tensor, region: Region, inner: Region) -> SoftMask:
    """The odds of a class against all else that a region's pixels may be, from (H, W) probabilities.

    Args:
        own: of the class.
        total: of all that may be there.
        region: the pixels asked about.
        inner: those of them that are in the box.
    """
    odds = (own.clamp(min=LEAST).log() - (total - own).clamp(min=LEAST).log()).numpy()
    boxed = odds[_pixels(inner)]
    # What is above it is the object.
    needed = min(np.quantile(boxed, 1 - LEAST_SHARE, method="higher") - LEAST, 0.0)
    share = (own / total.clamp(min=LEAST)).numpy()[_pixels(inner)]
    return SoftMask(odds[_pixels(region)] - needed, region, float(share[boxed >= needed].mean()))


def _pixels(region: Region) -> tuple[slice, slice]:
    return slice(region.top, region.bottom), slice(region.left, region.right)
