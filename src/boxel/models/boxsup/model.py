"""BoxSup's network, and what it learns in each step from the labels of the last update."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boxel.data.label_maps import IGNORE_INDEX
from boxel.losses.affinity import color_similarity
from boxel.losses.class_affinity import class_affinity_loss
from boxel.models.boxsup.config import BoxSupConfig
from boxel.models.semantic.criterion import cross_entropy, met, stacked
from boxel.models.semantic.model import Segmenter, Target

COLOR_STRIDE = 4
"""Pixels to a cell of the grid that colors are compared on."""


class BoxSup(Segmenter):
    """BoxSup; see :class:`~boxel.models.semantic.model.Segmenter`.

    Args:
        num_classes: K, the background first.
        config: every other choice.

    References:
        Dai, He, Sun, BoxSup: Exploiting Bounding Boxes to Supervise Convolutional Networks for Semantic Segmentation,
        ICCV 2015.
    """

    config: BoxSupConfig

    def __init__(self, num_classes: int, config: BoxSupConfig):
        super().__init__(num_classes, config)
        # A network that knows no class yet finds all alike, and the first update goes by the boxes alone.
        nn.init.zeros_(cast(nn.Conv2d, self.network.classifier.scores).weight)

    def losses(self, images: Sequence[Tensor], targets: list[Target]) -> dict[str, Tensor]:
        """The cross-entropy of the labels (Eq. 3), and color affinity; arguments as of `forward` in training."""
        batch, config = torch.stack(list(images)), self.config
        cells = self.network(batch)
        labels = stacked(targets, "labels", cells.device)
        scores, labels = met(cells, labels, self.network.stride, config.loss_at)
        if config.box_bias is not None:
            labels = reestimated(scores.detach(), labels, config.box_bias)
        found = {"segmentation": cross_entropy(scores, labels)}
        if config.affinity_weight:
            edges = color_similarity(batch, stride=COLOR_STRIDE) >= config.tau
            found["affinity"] = class_affinity_loss(
                F.interpolate(cells, edges.shape[-2:], mode="bilinear"), edges
            )
        return found

    def loss_weights(self, progress: float) -> dict[str, float]:
        """Those of the configuration, throughout."""
        return {"segmentation": 1.0, "affinity": self.config.affinity_weight}


def reestimated(scores: Tensor, labels: Tensor, bias: float) -> Tensor:
    """Labels of boxes, taken back where the network says background.

    Args:
        scores: (B, K, H, W) logits, the background first.
        labels: (B, H, W) int64 in [0, K), or `IGNORE_INDEX`: the class of the box a pixel is in, or the background.
        bias: how far the class may score below the background and still be kept.

    Returns:
        (B, H, W) int64 labels.

    References:
        Papandreou, Chen, Murphy, Yuille, Weakly- and Semi-Supervised Learning of a Deep Convolutional Network for
        Semantic Image Segmentation, ICCV 2015, Bbox-EM-Fixed.
    """
    own = scores.gather(1, labels.clamp(max=scores.shape[1] - 1)[:, None])[:, 0]
    kept = (own + bias >= scores[:, 0]) | (labels == IGNORE_INDEX)
    return torch.where(kept, labels, 0)
