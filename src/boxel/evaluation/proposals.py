"""How well the best candidate segment of an image fits each object."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from boxel.data.annotations import Annotations
from boxel.evaluation.boxes import MIN_SIDE
from boxel.evaluation.tables import format_table
from boxel.proposals.candidates import Candidates
from boxel.proposals.store import ProposalConfig, box_indices, load_candidates
from boxel.utils.errors import BoxelError

logger = logging.getLogger(__name__)

COUNTS = (10, 20, 50, 100, 200, 500, 1000, 2000)
"""The numbers of candidates at which recall is reported."""


def candidate_ious(candidates: Candidates, gt_masks: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Compute the IoU of each candidate with each mask, through sums over superpixels.

    Args:
        candidates: N candidates of an image.
        gt_masks: (M, H, W) bool.

    Returns:
        (N, M) in [0, 1].

    Examples:
        >>> halves = Candidates.from_sets(np.array([[0, 0, 1, 1]]), np.array([[False, True]]))
        >>> candidate_ious(halves, np.array([[[False, False, False, True]]]))
        array([[0.5]])
    """
    labels = candidates.superpixels.ravel()
    count = int(labels.max()) + 1
    sets = candidates.sets().astype(np.float64)
    sizes = np.bincount(labels, minlength=count)
    inside = np.stack([np.bincount(labels[mask.ravel()], minlength=count) for mask in gt_masks], 1)
    common = sets @ inside
    union = (sets @ sizes)[:, None] + gt_masks.reshape(len(gt_masks), -1).sum(1) - common
    return common / union


def best_candidate_ious(data: Annotations, folder: str | Path, config: ProposalConfig) -> NDArray[np.float64]:
    """Compute the (objects, len(COUNTS)) IoU of each true mask with the best of the first candidates of its image.

    The boxes of the objects have sides of 16 pixels or more. An image that cannot be used is logged and skipped.
    """
    found = [np.zeros((0, len(COUNTS)))]
    for image in range(len(data)):
        own = box_indices(data, image)
        sides = (data.boxes[own, 2:] - data.boxes[own, :2]).min(1, initial=np.inf)
        own = own[(sides >= MIN_SIDE) & data.has_mask[own]]
        if not len(own):
            continue
        try:
            candidates = load_candidates(data, image, folder, config)
            masks = [data.mask(instance, candidates.superpixels.shape) for instance in own.tolist()]
        except BoxelError as error:
            logger.warning("%s The image is skipped.", error)
            continue
        gt_masks = np.stack([mask for mask in masks if mask is not None]).astype(bool)
        ious = candidate_ious(candidates, gt_masks[gt_masks.any((1, 2))])
        found.append(np.stack([ious[:count].max(0, initial=0) for count in COUNTS], 1))
    return np.concatenate(found)


def summarize_recall(ious: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Summarize IoUs of :func:`best_candidate_ious` by number of candidates, e.g. for `plot_recall`.

    Examples:
        >>> summarize_recall(np.array([[0.4, 0.8], [0.6, 0.6]]))["above 0.5"].tolist()
        [0.5, 1.0]
    """
    return {"mean IoU": ious.mean(0), "above 0.5": (ious > 0.5).mean(0), "above 0.7": (ious > 0.7).mean(0)}


def format_recall(ious: NDArray[np.float64]) -> str:
    """Format IoUs of :func:`best_candidate_ious` as a table."""
    summary = summarize_recall(ious)
    rows = zip(COUNTS, *summary.values(), strict=True)
    title = f"the best candidate of {len(ious)} objects of 16 pixels or more, by number of candidates:"
    return f"{title}\n{format_table([['number', *summary], *rows])}"
