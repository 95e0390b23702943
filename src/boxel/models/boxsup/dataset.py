"""Images labeled by their masks, and by selected candidate segments of boxes without a mask."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from boxel.data.annotations import Annotations
from boxel.data.dataset import Sample, SemanticDataset
from boxel.data.label_maps import make_label_map
from boxel.proposals import Candidates, ProposalConfig
from boxel.proposals.store import box_indices, load_candidates

NO_SEGMENT = -1
"""The choice of an instance that has no segment."""


class BoxSupDataset(SemanticDataset):
    """Images with the current estimate of the class of each pixel.

    An instance with a mask is painted as it is. One with a box only is painted as its selected candidate segment,
    smaller ones on top; without a selected segment, its box is ignored.

    Args:
        data: The annotations.
        folder: Folder of the candidate segments; missing ones are made and stored there.
        config: Settings of the candidates; None ignores instances with a box only.
        transforms: Transforms of the whole sample.

    Attributes:
        choices: (N,) int32 tensor, the candidate of each instance, or `NO_SEGMENT`; shared with worker processes.
    """

    def __init__(
        self,
        data: Annotations,
        folder: Path,
        config: ProposalConfig | None,
        transforms: Callable[[Sample], Sample] | None = None,
    ):
        super().__init__(data, transforms)
        self.folder, self.config = folder, config
        self.choices = torch.full((len(data.labels),), NO_SEGMENT, dtype=torch.int32).share_memory_()
        self._masked = data.has_mask

    def undecided(self, image: int) -> NDArray[np.intp]:
        """Return (B,) the instances of an image that need a segment: those with a box only, without a label map."""
        if self.config is None or self.data.label_maps[image] is not None:
            return np.zeros(0, dtype=np.intp)
        own = box_indices(self.data, image)
        return own[~self._masked[own]]

    def candidates(self, image: int) -> Candidates:
        """Return the candidate segments of an image.

        Raises:
            BoxelError: The image, or the file of its segments, cannot be read.
        """
        assert self.config is not None  # no instance is undecided otherwise
        return load_candidates(self.data, image, self.folder, self.config)

    def labels(self, index: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Return (H, W) the current estimate; see :meth:`SemanticDataset.labels`."""
        own = self.undecided(index)
        chosen = {int(i): int(c) for i, c in zip(own, self.choices[own], strict=True) if c != NO_SEGMENT}
        if not chosen:
            return make_label_map(self.data, index, size)
        candidates = self.candidates(index)
        guesses = {instance: candidates.mask(choice) for instance, choice in chosen.items()}
        return make_label_map(self.data, index, size, guesses)
