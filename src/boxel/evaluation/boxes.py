"""How good are masks that were made of given boxes? Each is compared with the true mask of the same instance."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from pycocotools import mask as coco_mask
from torch import Tensor
from torchvision.ops import box_iou

from boxel.data.annotations import Annotations
from boxel.evaluation.ranking import ranking_figures
from boxel.masks.spans import tight_boxes
from boxel.utils.errors import BoxelError

LEAST_SIDE = 16.0
"""Shorter side of the boxes that figures are of, in pixels, unless told otherwise."""

LEAST_RANKED = 20
"""Masks that figures of a quality are taken from, at least."""


def mask_figures(ious: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """The figures of a class-agnostic segmenter (BoxCaseg, section 4).

    Args:
        ious: (N,) IoU of each mask with the true one.
        labels: (N,) class of each.

    Returns:
        `mask_iou`, the mean over instances; `IoU@50` and `IoU@75`, the share above 0.5 and 0.75; `mask_iou_by_class`,
        the paper's mIoU*: the mean over classes of the mean over instances. Empty without instances.
    """
    values, classes = np.asarray(ious, dtype=np.float64), np.asarray(labels)
    if not len(values):
        return {}
    _, index = np.unique(classes, return_inverse=True)
    of_class = np.bincount(index, weights=values) / np.bincount(index)
    return {
        "mask_iou": float(values.mean()),
        "IoU@50": float((values > 0.5).mean()),
        "IoU@75": float((values > 0.75).mean()),
        "mask_iou_by_class": float(of_class.mean()),
    }


def measure_masks(made: Annotations, truth: Annotations, least_side: float = LEAST_SIDE) -> dict[str, float]:
    """Figures of a labeled set against true masks of the same instances.

    Args:
        made: masks, of the same image and annotation ids as the truth's; an instance without one counts as IoU 0.
        truth: true masks.
        least_side: shorter side of the boxes measured, in pixels.

    Returns:
        The figures of :func:`mask_figures` and `instances`, their number; where 20 masks or more have a quality, also
        those of :func:`~boxel.evaluation.ranking.ranking_figures`.

    Raises:
        BoxelError: the two have no instance in common.
    """
    ious, ours, theirs = instance_ious(made, truth, least_side)
    figures = mask_figures(ious, truth.labels[theirs]) | {"instances": float(len(ious))}
    known = (ours >= 0) & np.isfinite(made.quality[ours])
    if known.sum() >= LEAST_RANKED:
        figures |= ranking_figures(made.quality[ours[known]], ious[known])
    return figures


def instance_ious(
    made: Annotations, truth: Annotations, least_side: float = LEAST_SIDE
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """IoU of each made mask with the true one.

    Args:
        made: as for :func:`measure_masks`.
        truth: as there.
        least_side: as there.

    Returns:
        ious (M,), indices (M,) of the instances in `made`, -1 where there is none, and in `truth`. Crowds and instances
        without a true mask are left out.

    Raises:
        BoxelError: the two have no instance in common.
    """
    place = {(made.image_ids[made.image_index[i]], made.ids[i]): i for i in range(len(made.labels))}
    sides = (truth.boxes[:, 2:] - truth.boxes[:, :2]).min(axis=1, initial=np.inf)
    theirs = np.flatnonzero(truth.has_mask & ~truth.iscrowd & (sides >= least_side))
    ours = np.array(
        [place.get((truth.image_ids[truth.image_index[i]], truth.ids[i]), -1) for i in theirs], dtype=np.int64
    )
    if len(theirs) and (ours < 0).all():
        raise BoxelError(
            f"{made.file}: none of its annotation ids is one of {truth.file}; compare a labeled set with the true "
            "masks of the same set."
        )
    ious = np.zeros(len(theirs))
    for row, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        true = truth.rle(int(other))
        assert true is not None  # has_mask
        try:
            mask = made.rle(int(mine), tuple(true["size"])) if mine >= 0 else None
        except BoxelError as error:
            warnings.warn(f"{error} It counts as an IoU of 0.", stacklevel=2)
            continue
        if mask is not None:
            ious[row] = coco_mask.iou([mask], [true], [0])[0, 0]
    return ious, ours, theirs


def compare_masks(masks: Tensor, target: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Masks of an image's boxes against its target, as :class:`~boxel.data.dataset.InstanceDataset` gives it.

    Args:
        masks: (N, H, W) bool, one a box.
        target: `boxes`, and `masks` and `has_mask` where there are true ones.

    Returns:
        (N,) IoU with the true mask, NaN where there is none, and (N,) IoU of the mask's tight box with the box.
    """
    ious = masks.new_full((len(masks),), float("nan"), dtype=torch.float64)
    if "masks" in target:
        truth = target["masks"].bool()
        both, either = (masks & truth).flatten(1).sum(1), (masks | truth).flatten(1).sum(1)
        known = target["has_mask"]
        ious[known] = (both / either.clamp(min=1)).double()[known]
    tight, boxes = tight_boxes(masks), target["boxes"].to(masks.device)
    return ious, box_iou(tight, boxes).diagonal()


def validation_figures(parts: Sequence[tuple[Any, Any, Any]]) -> dict[str, float]:
    """Figures of images that :func:`compare_masks` has compared.

    Args:
        parts: ious, agreements and labels, (N,) each, an image.

    Returns:
        Those of :func:`mask_figures` where there are true masks, and `box_agreement`, the mean over instances.
    """
    ious, agreement, labels = (np.concatenate([np.zeros(0), *(part[i] for part in parts)]) for i in range(3))
    known = np.isfinite(ious)
    figures = mask_figures(ious[known], labels[known])
    return figures | ({"box_agreement": float(agreement.mean())} if len(agreement) else {})
