"""Images labeled by masks where there are any, and by candidate segments where there are boxes alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from boxel.data.annotations import Annotations
from boxel.data.dataset import Sample, SemanticDataset
from boxel.data.label_maps import make_label_map
from boxel.proposals import Candidates, ProposalConfig, load_candidates
from boxel.proposals.candidates import add_masks
from boxel.proposals.store import box_indices

NONE = -1
"""The choice of an instance that has no segment."""


class BoxSupDataset(SemanticDataset):
    """Images with the class of each pixel, as they are guessed at present.

    An instance with a mask is painted as it is. One with a box alone is painted as the candidate segment chosen for it,
    smaller ones on top; where none is chosen, its box is not learned from.

    Args:
        data: the annotations.
        folder: of the candidate segments; those that are not there are made and put there.
        config: which segments; with None none are chosen from, and a box alone is not learned from.
        transforms: of the whole sample.
        more: the same instances with masks that are candidates too, as another model has made them.

    Attributes:
        choices: (N,) int32 tensor, the candidate of each instance, or `NONE`; workers see it change.
    """

    def __init__(
        self,
        data: Annotations,
        folder: Path,
        config: ProposalConfig | None,
        transforms: Callable[[Sample], Sample] | None = None,
        more: Annotations | None = None,
    ):
        super().__init__(data, transforms)
        self.folder, self.config, self.more = folder, config, more
        self.choices = torch.full((len(data.labels),), NONE, dtype=torch.int32).share_memory_()
        self._masked = data.has_mask

    def guessed(self, image: int) -> NDArray[np.intp]:
        """(B,) the instances of an image that choose a segment, having a box alone and the image no label map."""
        if self.config is None or self.data.label_maps[image] is not None:
            return np.zeros(0, dtype=np.intp)
        own = box_indices(self.data, image)
        return own[~self._masked[own]]

    def candidates(self, image: int) -> Candidates:
        """The segments to choose from: first the masks of `more`, then those of the folder.

        Raises:
            BoxelError: the image, or the file of its segments, can't be read.
        """
        assert self.config is not None  # `guessed` is empty else
        found = load_candidates(self.data, image, self.folder, self.config)
        if self.more is None:
            return found
        size = found.superpixels.shape
        given = (self.more.mask(int(own), size) for own in self.guessed(image))
        masks = [mask.astype(bool) for mask in given if mask is not None and mask.any()]
        return add_masks(found, np.stack(masks)) if masks else found

    def labels(self, index: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        """(H, W) the present guess; see :meth:`SemanticDataset.labels`."""
        own = self.guessed(index)
        chosen = {int(i): int(c) for i, c in zip(own, self.choices[own], strict=True) if c != NONE}
        if not chosen:
            return make_label_map(self.data, index, size)
        candidates = self.candidates(index)
        guesses = {instance: candidates.mask(choice) for instance, choice in chosen.items()}
        return make_label_map(self.data, index, size, guesses)
