"""Every choice of FCRN: the shared network's, and which pixels it learns from."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any

from boxel.models.semantic.config import SegmenterConfig
from boxel.utils.errors import BoxelError, check_range


@dataclass
class FCRNConfig(SegmenterConfig):
    """Options of :class:`~boxel.models.fcrn.model.FCRN`.

    Attributes:
        min_kept: online bootstrapping (Section 2.2): so many hard pixels of a device's batch are learned from, counted
            in cells of a grid of stride 8 (Table 7: 256, 512 or 1024); None learns from all.
        threshold: pixels whose true class has a probability up to this are kept too, and `min_kept` is the least
            number of them; None keeps exactly `min_kept`.
        bootstrap_after: share of the training that learns from all pixels before hard ones are chosen. A network that
            knows nothing yet finds all pixels of a rare class hard, and may never say more than how rare it is.
    """

    min_kept: int | None = 512
    threshold: float | None = None
    bootstrap_after: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bootstrapping(self)
        check_range(self, 0, 1, "bootstrap_after")
        if self.bootstrap_after and self.min_kept is None:
            raise BoxelError(
                "bootstrap_after does nothing where min_kept is null, which learns from all; set min_kept."
            )


def check_bootstrapping(config: Any) -> None:
    """Raise a :class:`BoxelError` unless `min_kept` and `threshold` make sense together."""
    if config.min_kept is not None:
        check_range(config, 1, inf, "min_kept")
    if config.threshold is not None:
        check_range(config, 1e-6, 1, "threshold")
        if config.min_kept is None:
            raise BoxelError(
                "threshold does nothing where min_kept is null, which learns from all; set min_kept, 256 for one."
            )
