"""torchvision's region proposal network (Ren et al., NeurIPS 2015), with crowds that are no background."""

from __future__ import annotations

from torch import Tensor
from torchvision.models.detection import rpn
from torchvision.models.detection.anchor_utils import AnchorGenerator

from boxel.models.mask_rcnn.config import MaskRCNNConfig
from boxel.models.mask_rcnn.targets import in_crowd


class RegionProposalNetwork(rpn.RegionProposalNetwork):
    """Proposals from P2 to P6, with torchvision's settings.

    Args:
        config: width of the pyramid, anchors and number of proposals.
    """

    def __init__(self, config: MaskRCNNConfig):
        sizes = tuple((config.anchor_size * 2**level,) for level in range(5))
        anchors = AnchorGenerator(sizes, (tuple(config.anchor_ratios),) * len(sizes))
        most = {"training": 2 * config.proposals, "testing": config.proposals}
        super().__init__(
            anchors,
            _Head(config.neck_channels, len(config.anchor_ratios)),
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=256,
            positive_fraction=0.5,
            pre_nms_top_n=most,
            post_nms_top_n=most,
            nms_thresh=0.7,
        )

    def assign_targets_to_anchors(
        self, anchors: list[Tensor], targets: list[dict[str, Tensor]]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """torchvision's choice, but background in a target's `crowds` is drawn for neither side.

        Anchors about an image's corner reach out of every crowd, so that some background is left in any case.
        """
        labels, boxes = super().assign_targets_to_anchors(anchors, targets)
        for own, places, target in zip(labels, anchors, targets, strict=True):
            own[(own == 0) & in_crowd(places, target["crowds"])] = -1
        return labels, boxes


class _Head(rpn.RPNHead):
    """In full precision at its end: a box of a thousand pixels has no place in bfloat16's eight bits."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        logits, deltas = super().forward(x)
        return [level.float() for level in logits], [level.float() for level in deltas]
