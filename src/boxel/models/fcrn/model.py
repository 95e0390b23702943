"""FCRN: a fully convolutional residual network that learns from hard pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from boxel.models.fcrn.config import FCRNConfig
from boxel.models.fcrn.criterion import segmentation_loss
from boxel.models.semantic.criterion import stacked
from boxel.models.semantic.model import Segmenter, Target


class FCRN(Segmenter):
    """FCRN; see :class:`~boxel.models.semantic.model.Segmenter`.

    Args:
        num_classes: K, the background among them where the data set has one.
        config: every other choice.

    References:
        Wu, Shen, van den Hengel, Bridging Category-level and Instance-level Semantic Image Segmentation, 2016.
    """

    config: FCRNConfig

    def losses(self, images: Sequence[Tensor], targets: list[Target]) -> dict[str, Tensor]:
        """The bootstrapped cross-entropy, and that of all pixels where it comes first; arguments as of `forward`."""
        scores = self.network(torch.stack(list(images)))
        labels = stacked(targets, "labels", scores.device)
        found = {"segmentation": segmentation_loss(scores, labels, self.network.stride, self.config)}
        if self.config.bootstrap_after:
            everything = replace(self.config, min_kept=None, threshold=None, bootstrap_after=0)
            found["all_pixels"] = segmentation_loss(scores, labels, self.network.stride, everything)
        return found

    def loss_weights(self, progress: float) -> dict[str, float]:
        """1 for the loss that is learned from now."""
        if not self.config.bootstrap_after:
            return {"segmentation": 1.0}
        hard = progress >= self.config.bootstrap_after
        return {"segmentation": float(hard), "all_pixels": float(not hard)}
