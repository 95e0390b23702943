"""How well the best of an image's candidate segments fits each object."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from boxel.data.annotations import Annotations
from boxel.proposals.candidates import Candidates
from boxel.proposals.store import ProposalConfig, box_indices, load_candidates
from boxel.utils.errors import BoxelError

COUNTS = (10, 20, 50, 100, 200, 500, 1000, 2000)
"""Numbers of candidates at which recall is told."""


def overlaps(candidates: Candidates, masks: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(N, M) IoU of each candidate with each mask, through sums over superpixels.

    Args:
        candidates: of an image.
        masks: (M, H, W) bool.
    """
    labels = candidates.superpixels.ravel()
    count = int(labels.max()) + 1
    sets = candidates.sets().astype(np.float64)
    sizes = np.bincount(labels, minlength=count)
    inside = np.stack([np.bincount(labels[mask.ravel()], minlength=count) for mask in masks], 1)
    common = sets @ inside
    union = (sets @ sizes)[:, None] + masks.reshape(len(masks), -1).sum(1) - common
    return common / union


def recall(
    data: Annotations,
    folder: str | Path,
    config: ProposalConfig,
    *,
    counts: Sequence[int] = COUNTS,
    least_side: float = 16,
    report: Callable[[str], None] = print,
) -> NDArray[np.float64]:
    """The IoU of each object's mask with the best of an image's first candidates.

    Args:
        data: with true masks.
        folder: of the candidates.
        config: which they are.
        counts: how many of the candidates are looked at.
        least_side: objects whose box has a shorter side than this, in pixels, are left out.
        report: is told of images that can't be used.

    Returns:
        (objects, len(counts)) float in [0, 1].
    """
    found = [np.zeros((0, len(counts)))]
    for image in range(len(data)):
        own = box_indices(data, image)
        sides = (data.boxes[own, 2:] - data.boxes[own, :2]).min(1, initial=np.inf)
        own = own[(sides >= least_side) & data.has_mask[own]]
        if not len(own):
            continue
        try:
            candidates = load_candidates(data, image, folder, config)
            masks = [data.mask(instance, candidates.superpixels.shape) for instance in own.tolist()]
        except BoxelError as error:
            report(f"warning: {error} The image is left out.")
            continue
        known = np.stack([mask for mask in masks if mask is not None]).astype(bool)
        ious = overlaps(candidates, known[known.any((1, 2))])
        found.append(np.stack([ious[:count].max(0, initial=0) for count in counts], 1))
    return np.concatenate(found)
