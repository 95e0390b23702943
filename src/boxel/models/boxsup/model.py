"""BoxSup's network, which learns in each step from the labels of the last update."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from boxel.data.label_maps import IGNORE_INDEX
from boxel.models.boxsup.config import BoxSupConfig
from boxel.models.semantic.losses import align_scores_and_labels, cross_entropy
from boxel.models.semantic.model import Segmenter


class BoxSup(Segmenter):
    """BoxSup; see :class:`~boxel.models.semantic.model.Segmenter`.

    Args:
        num_classes: K, the background first.
        config: Settings.

    Examples:
        >>> model = BoxSup(3, BoxSupConfig(backbone="resnet10t", weights="none"))
        >>> model.eval()([torch.rand(3, 64, 64)])[0][0].shape
        torch.Size([64, 64])

    References:
        Dai, He, Sun, BoxSup: Exploiting Bounding Boxes to Supervise Convolutional Networks for Semantic Segmentation,
        ICCV 2015.
    """

    config: BoxSupConfig

    def __init__(self, num_classes: int, config: BoxSupConfig):
        super().__init__(num_classes, config)
        # A network that predicts all classes alike leaves the first update to the boxes.
        nn.init.zeros_(cast(nn.Conv2d, self.network.classifier.scores).weight)

    def compute_losses(self, scores: Tensor, labels: Tensor, progress: float) -> dict[str, Tensor]:
        """Compute the cross-entropy of the labels (Eq. 3); see :meth:`Segmenter.compute_losses`."""
        scores, labels = align_scores_and_labels(scores, labels, self.network.stride, self.config.loss_grid)
        if self.config.box_bias is not None:
            labels = reestimate_labels(scores.detach(), labels, self.config.box_bias)
        return {"segmentation": cross_entropy(scores, labels)}


def reestimate_labels(scores: Tensor, labels: Tensor, bias: float) -> Tensor:
    """Relabel the pixels of boxes that score their class lower than the background by more than a bias.

    Scores are (B, K, H, W) logits, the background first; labels (B, H, W), the class of the box a pixel is in.

    References:
        Papandreou, Chen, Murphy, Yuille, Weakly- and Semi-Supervised Learning of a Deep Convolutional Network for
        Semantic Image Segmentation, ICCV 2015, Bbox-EM-Fixed.
    """
    own = scores.gather(1, labels.clamp(max=scores.shape[1] - 1)[:, None])[:, 0]
    kept = (own + bias >= scores[:, 0]) | (labels == IGNORE_INDEX)
    return torch.where(kept, labels, 0)
