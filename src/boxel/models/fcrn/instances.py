"""Instances by voting: a semantic network says what each pixel is, a localization network where its instance lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf

import torch
from torch import Tensor

from boxel.layers.padding import pad_batch
from boxel.losses.localization import bootstrapped_box_loss, size_weights
from boxel.models.detector import Detections, Detector, Target, full_image_detections
from boxel.models.fcrn.config import check_bootstrapping
from boxel.models.fcrn.criterion import kept_of
from boxel.models.fcrn.voting import VotingConfig, vote
from boxel.models.semantic.config import SemanticConfig
from boxel.models.semantic.criterion import at_cells, stacked
from boxel.models.semantic.network import FullyConvolutional
from boxel.utils.errors import check_range


@dataclass
class FCRNInstancesConfig(SemanticConfig):
    """Options of :class:`FCRNInstances`; those of the network are the localization network's.

    Attributes:
        semantic: the semantic network, as it was trained, of FCRN or BoxSup; it does not learn here.
        min_kept: online bootstrapping: so many cells of a device's batch, those whose boxes overlap the true ones
            least, are learned from, counted in cells of a grid of stride 8; None learns from all of an instance.
        threshold: cells whose boxes have an IoU up to this are kept too, and `min_kept` is the least number of them;
            None keeps exactly `min_kept`.
        size_power: a cell's weight is one over its instance's area to this power, so that small instances count as
            much as large ones with 1 and cells count alike with 0 (Table 6, "weighted loss").
        unit: pixels that count as 1 in the regression.
        beta: where the smooth L1 loss turns from quadratic to linear, in that unit.
        voting: how instances are found.
    """

    semantic: SemanticConfig = field(default_factory=SemanticConfig)
    min_kept: int | None = 512
    threshold: float | None = None
    size_power: float = 0.5
    unit: float = 32.0
    beta: float = 1.0
    voting: VotingConfig = field(default_factory=VotingConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, 0, inf, "size_power")
        check_range(self, 1e-6, inf, "unit", "beta")
        check_bootstrapping(self)

    @property
    def nms_threshold(self) -> float:
        """Box IoU above which the lower of two instances of several looks is dropped."""
        return self.voting.nms_iou

    @property
    def max_detections(self) -> int:
        """Most instances an image gives."""
        return self.voting.max_detections


class FCRNInstances(Detector):
    """Semantic segmentation first, instances after; see :class:`~boxel.models.detector.Detector`.

    Only the localization network learns: the two are trained apart (Section 2.1).

    Args:
        num_classes: K, with no class for the background, which the semantic network has before them.
        config: every other choice.

    References:
        Wu, Shen, van den Hengel, Bridging Category-level and Instance-level Semantic Image Segmentation, 2016.
    """

    config: FCRNInstancesConfig

    def __init__(self, num_classes: int, config: FCRNInstancesConfig):
        super().__init__(num_classes, config)
        self.network = FullyConvolutional(4 * num_classes, config)
        self.semantic = FullyConvolutional(num_classes + 1, config.semantic)
        self.semantic.requires_grad_(False)

    @property
    def padding_color(self) -> Tensor:
        """(3, 1, 1), the color of what lies outside an image."""
        return self.network.padding_color

    def train(self, mode: bool = True) -> FCRNInstances:
        """Training mode for all but the semantic network."""
        super().train(mode)
        self.semantic.eval()
        return self

    def losses(self, images: Sequence[Tensor], targets: list[Target]) -> dict[str, Tensor]:
        """The localization loss.

        Args:
            images: (3, H, W) float RGB in [0, 1] each, of one size.
            targets: for each image `instances` (H, W), the instance of each pixel or -1, `boxes` (N, 4) xyxy and
                `instance_labels` (N,), their classes, the background among them.
        """
        config = self.config
        found = self.network(torch.stack(list(images)))
        found = found.unflatten(1, (self.num_classes, 4))
        instances = at_cells(stacked(targets, "instances", found.device), self.network.stride).long()
        valid = instances >= 0
        boxes, labels = zip(
            *(
                _of_cells(cells, target, found.device)
                for cells, target in zip(instances, targets, strict=True)
            ),
            strict=True,
        )
        own = torch.stack(labels)[:, None, None].expand(-1, 1, 4, -1, -1)
        target = to_offsets(torch.stack(boxes), self.network.stride) / config.unit
        return {
            "localization": bootstrapped_box_loss(
                found.gather(1, own).squeeze(1),
                target,
                valid,
                None if config.min_kept is None else kept_of(config.min_kept, self.network.stride),
                config.threshold,
                size_weights(target, config.size_power) if config.size_power else None,
                config.beta,
            )
        }

    def loss_weights(self, progress: float) -> dict[str, float]:
        """The only loss has weight 1."""
        return {"localization": 1.0}

    def detect(self, images: list[Tensor], classes: Sequence[Tensor] | None = None) -> list[Detections]:
        """Instances of each image with their mask logits, before anything is pasted.

        Args:
            images: (3, H, W) float RGB in [0, 1] each, of any sizes.
            classes: in place of the semantic network's, (K + 1, h, w) scores of each image's cells, as many as there
                are in a batch of the images; 1 and 0 where they are known (the paper's pilot experiment).
        """
        stride = self.network.stride
        batch, sizes = pad_batch(images, self.padding_color, max(stride, self.semantic.stride))
        offsets = self.network(batch).unflatten(1, (self.num_classes, 4)) * self.config.unit
        if classes is None:
            scores = self.semantic(batch).softmax(1)
            # The two networks may have cells of two sizes.
            scores = torch.nn.functional.interpolate(scores, offsets.shape[-2:], mode="bilinear")
            classes = list(scores)
        found = []
        for own, image_offsets, (height, width) in zip(classes, offsets, sizes, strict=True):
            rows, columns = -(-height // stride), -(-width // stride)
            boxes = from_offsets(image_offsets[..., :rows, :columns], stride)
            boxes = boxes.clamp(min=0).minimum(
                boxes.new_tensor([width, height, width, height])[:, None, None]
            )
            own = own[:, :rows, :columns]  # without the padding
            hypotheses = vote(own, boxes, self.config.voting, stride)
            lead = _lead(own)[hypotheses.labels + 1].abs().clamp(min=1e-3)
            logits = torch.where(hypotheses.masks, lead, -lead)
            found.append(
                full_image_detections(
                    hypotheses.boxes, hypotheses.scores, hypotheses.labels, logits, stride=stride
                )
            )
        return found


def to_offsets(boxes: Tensor, stride: int) -> Tensor:
    """What the cells of a grid regress: the way to the middle of a box, and its size.

    Args:
        boxes: (..., 4, h, w) xyxy pixels, the box of each cell's instance.
        stride: pixels to a cell.

    Returns:
        (..., 4, h, w) pixels: down and right to the box's center, its height and width (Section 2.1).
    """
    x0, y0, x1, y1 = boxes.unbind(-3)
    y, x = _centers(boxes, stride)
    return torch.stack([(y0 + y1) / 2 - y, (x0 + x1) / 2 - x, y1 - y0, x1 - x0], dim=-3)


def from_offsets(offsets: Tensor, stride: int) -> Tensor:
    """The inverse of :func:`to_offsets`."""
    down, right, height, width = offsets.unbind(-3)
    y, x = _centers(offsets, stride)
    y, x = y + down, x + right
    return torch.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], dim=-3)


def _centers(cells: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """(h, 1) and (w,) pixels, the middles of a grid's rows and columns."""
    y, x = ((torch.arange(count, device=cells.device) + 0.5) * stride for count in cells.shape[-2:])
    return y[:, None], x


def _lead(scores: Tensor) -> Tensor:
    """(C, h, w) by how much each class's score leads the best of the others; below 0 where it trails.

    Between two cells, where this crosses 0 is where the classes meet, so that an edge need not lie on the grid.
    """
    (best, second), (winner, _) = scores.topk(2, 0)
    wins = torch.arange(len(scores), device=scores.device)[:, None, None] == winner
    return scores - torch.where(wins, second, best)


def _of_cells(instances: Tensor, target: Target, device: torch.device) -> tuple[Tensor, Tensor]:
    """(4, h, w) box and (h, w) label in [0, K) of the instance of each cell; of any where there is none."""
    boxes, labels = target["boxes"].to(device), target["instance_labels"].to(device)
    if not len(boxes):
        return torch.zeros(4, *instances.shape, device=device), torch.zeros_like(instances)
    own = instances.clamp(min=0)
    return boxes[own].permute(2, 0, 1), labels[own] - 1
