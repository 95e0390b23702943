"""Settings of FCRN and of its instances: the networks, the pixels that they learn from, and the voting."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from boxel.models.semantic.config import SegmenterConfig, SemanticConfig
from boxel.utils.config import ClosedUnitInterval, Config, NonNegativeFloat, OpenUnitInterval, PositiveInt
from boxel.utils.errors import BoxelError

GRID_STRIDE = 8
"""Pixels per cell of the grid that `min_kept` counts in."""


@dataclass
class FCRNConfig(SegmenterConfig):
    """Settings of :class:`~boxel.models.fcrn.model.FCRN`.

    Attributes:
        min_kept: Online bootstrapping (Section 2.2): the number of hard pixels of a device's batch that are learned
            from, counted in cells of a grid of stride 8 (Table 7: 256, 512 or 1024); None learns from all.
        threshold: Also keep pixels whose true class has a probability up to this, so that `min_kept` is their minimum;
            None keeps exactly `min_kept`.
        bootstrap_after: Share of the training that learns from all pixels before hard ones are selected. A new network
            finds all pixels of a rare class hard, and may never predict more than how rare it is.
    """

    min_kept: PositiveInt | None = 512
    threshold: OpenUnitInterval | None = None
    bootstrap_after: ClosedUnitInterval = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bootstrapping(self)
        if self.bootstrap_after and self.min_kept is None:
            raise BoxelError(
                "bootstrap_after does nothing if min_kept is null, which learns from all pixels; set min_kept."
            )


@dataclass
class VotingConfig(Config):
    """Settings of :func:`~boxel.models.fcrn.voting.vote`.

    Attributes:
        top_n: For n from 1 to `top_n`, the masks of a class consist of pixels that have it among their n best classes.
        nms_iou: IoU above which the box of a pixel is suppressed by a better one, and the pixel joins its mask.
        region_iou: IoU above which the lower-scoring of two masks of a class is dropped, those of all n together; 0
            leaves no overlap (SDS).
        min_score: Minimum class score of a pixel that votes.
        min_cells: Minimum number of pixels of a mask.
        confidence: Score of a mask: `score`, the mean class score of its pixels, as in the paper; `agreement`, that
            times the mean IoU of their boxes with the mean box, times the share of that box that they fill (at most 1).
            With known classes, scores are all alike and rank nothing.
        max_detections: Maximum number of instances per image.
    """

    top_n: PositiveInt = 3
    nms_iou: ClosedUnitInterval = 0.3
    region_iou: ClosedUnitInterval = 0.3
    min_score: ClosedUnitInterval = 0.1
    min_cells: PositiveInt = 4
    confidence: Literal["score", "agreement"] = "agreement"
    max_detections: PositiveInt = 100


@dataclass
class FCRNInstancesConfig(SemanticConfig):
    """Settings of :class:`~boxel.models.fcrn.instances.FCRNInstances`, those of the localization network first.

    Attributes:
        semantic: The semantic network of FCRN or BoxSup, as it was trained; it does not learn here.
        min_kept: Online bootstrapping: the number of cells of a device's batch that are learned from, those whose boxes
            overlap the true ones least, counted in cells of a grid of stride 8; None learns from all of an instance.
        threshold: Also keep cells whose boxes have an IoU up to this, so that `min_kept` is their minimum; None keeps
            exactly `min_kept`.
        size_power: The weight of a cell is one over the area of its instance to this power, so that small instances
            count as much as large ones with 1, and cells count alike with 0 (Table 6, "weighted loss").
        voting: How instances are found.
    """

    semantic: SemanticConfig = field(default_factory=SemanticConfig)
    min_kept: PositiveInt | None = 512
    threshold: OpenUnitInterval | None = None
    size_power: NonNegativeFloat = 0.5
    voting: VotingConfig = field(default_factory=VotingConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bootstrapping(self)

    @property
    def nms_threshold(self) -> float:
        """Box IoU above which the lower-scoring of two instances of different TTA passes is dropped."""
        return self.voting.nms_iou

    @property
    def max_detections(self) -> int:
        """Maximum number of instances per image."""
        return self.voting.max_detections


def check_bootstrapping(config: FCRNConfig | FCRNInstancesConfig) -> None:
    """Raise a :class:`BoxelError` unless `min_kept` and `threshold` make sense together."""
    if config.threshold is not None and config.min_kept is None:
        raise BoxelError(
            "threshold does nothing if min_kept is null, which learns from all; set min_kept, e.g. 256."
        )


def scale_min_kept(min_kept: int, stride: int) -> int:
    """Convert `min_kept` from cells of the grid of stride 8 to cells of another stride, at least 1.

    Examples:
        >>> scale_min_kept(512, stride=16)
        128
    """
    return max(round(min_kept * (GRID_STRIDE / stride) ** 2), 1)
