"""A semantic segmenter as a teacher: which pixels of a box are of the box's class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from boxel.data.annotations import Category
from boxel.labeling.teachers.base import NO_OPINION, SoftMask, match_classes
from boxel.masks.boxes import Region, pixel_region
from boxel.models.boxsup.config import UpdateConfig
from boxel.models.semantic.inference import predict_probabilities, semantic_inference_config
from boxel.models.semantic.model import Segmenter

REACH = 0.2  # how far past a box its class may be, as a share of its sides; masks are clipped later
MIN_SHARE = UpdateConfig.min_share  # minimum share of a box that is object: the pixels nearest to its class
EPS = 1e-6  # minimum probability that is distinguished from zero


class SegmenterTeacher:
    """A model that assigns a class to each pixel, applied to given boxes.

    The boxes are evidence too. A class cannot be where it has no box, so a cat mistaken for a dog is still a cat in the
    box of one; classes that have no boxes in the dataset, such as the background, can be anywhere. And each box holds
    an object: if the model sees none there, the pixels where it is nearest to seeing it are taken. The categories are
    those of the labels of the boxes.
    """

    def __init__(
        self, model: Segmenter, name: str, categories: Sequence[Category], identity: str = ""
    ) -> None:
        self.name, self.identity = name, identity
        self._model, self._config = model, semantic_inference_config(model)
        self._own = match_classes(model.categories, categories)
        self._anywhere = np.setdiff1d(np.arange(len(model.categories)), self._own)

    def __call__(
        self, image: NDArray[np.uint8], boxes: NDArray[np.float64], labels: NDArray[np.int32]
    ) -> list[SoftMask]:
        """Predict one soft mask per box, without an opinion on classes that the model does not know."""
        own = self._own[labels].tolist()
        height, width = image.shape[:2]
        regions = [pixel_region(box, height, width, REACH) for box in boxes]
        found = self._probabilities(image)
        total = found[self._anywhere].sum(0)
        for label in {label for label in own if label >= 0}:
            boxed = torch.zeros_like(total, dtype=torch.bool)
            for region in (region for region, other in zip(regions, own, strict=True) if other == label):
                boxed[region.slices] = True
            total += found[label] * boxed
        return [
            _soft_mask(found[label], total, region, pixel_region(box, height, width))
            if label >= 0
            else NO_OPINION
            for label, region, box in zip(own, regions, boxes, strict=True)
        ]

    def _probabilities(self, image: NDArray[np.uint8]) -> Tensor:
        """(K, H, W) class probabilities of an image."""
        network = self._model.network
        pixels = torch.from_numpy(image).permute(2, 0, 1).to(network.padding_color.device)
        return predict_probabilities(network, pixels, self._config).cpu()


def _soft_mask(own: Tensor, total: Tensor, region: Region, inner: Region) -> SoftMask:
    """Compute the odds of a class, of (H, W) probability ``own``, in a region whose ``inner`` part lies in the box."""
    odds = (own.clamp(min=EPS).log() - (total - own).clamp(min=EPS).log()).numpy()
    boxed = odds[inner.slices]
    # Pixels with odds above this threshold are the object.
    threshold = min(np.quantile(boxed, 1 - MIN_SHARE, method="higher") - EPS, 0.0)
    share = (own / total.clamp(min=EPS)).numpy()[inner.slices]
    return SoftMask(odds[region.slices] - threshold, region, float(share[boxed >= threshold].mean()))
