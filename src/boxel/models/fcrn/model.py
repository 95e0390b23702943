"""FCRN: a fully convolutional residual network that learns from hard pixels."""

from __future__ import annotations

from torch import Tensor

from boxel.data.label_maps import IGNORE_INDEX
from boxel.losses.bootstrap import bootstrapped_cross_entropy
from boxel.models.fcrn.config import FCRNConfig, scale_min_kept
from boxel.models.semantic.losses import align_scores_and_labels, cross_entropy
from boxel.models.semantic.model import Segmenter


class FCRN(Segmenter):
    """FCRN; see :class:`~boxel.models.semantic.model.Segmenter`.

    Args:
        num_classes: K, including the background if the dataset has one.
        config: Settings.

    Examples:
        >>> import torch
        >>> model = FCRN(3, FCRNConfig(backbone="resnet10t", weights="none", kernel=3, dilation=2))
        >>> labels = torch.zeros(64, 64, dtype=torch.uint8)
        >>> list(model([torch.rand(3, 64, 64)], [{"labels": labels}]))
        ['segmentation']

    References:
        Wu, Shen, van den Hengel, Bridging Category-level and Instance-level Semantic Image Segmentation, 2016.
    """

    config: FCRNConfig

    def compute_losses(self, scores: Tensor, labels: Tensor, progress: float) -> dict[str, Tensor]:
        """Compute the cross-entropy of all pixels before `bootstrap_after`, of hard ones afterwards (Eq. 1)."""
        config = self.config
        scores, labels = align_scores_and_labels(scores, labels, self.network.stride, config.loss_grid)
        if config.min_kept is None or progress < config.bootstrap_after:
            return {"segmentation": cross_entropy(scores, labels)}
        min_kept = scale_min_kept(config.min_kept, self.network.stride if config.loss_grid == "cells" else 1)
        loss = bootstrapped_cross_entropy(scores, labels, min_kept, config.threshold, IGNORE_INDEX)
        return {"segmentation": loss}
