"""Compare two datasets of the same images: find each image in the other, and measure how well the objects agree."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from boxel.data.annotations import Annotations
from boxel.data.pairing import pair_images
from boxel.masks.boxes import box_iou
from boxel.utils.errors import BoxelError

logger = logging.getLogger(__name__)


def pair_with_truth(data: Annotations, truth: Annotations) -> list[int | None]:
    """Pair the images of a dataset with those of the truth, see `pair_images`; those without a pair are logged.

    Raises:
        BoxelError: The two have no image in common.
    """
    pairs = pair_images(data, truth)
    lacking = [data.paths[image] for image, other in enumerate(pairs) if other is None]
    if lacking and len(lacking) == len(data):
        raise BoxelError(
            f"{truth.file or 'the truth'} has none of the images of {data.file or 'the dataset'}, e.g. {lacking[0]}; "
            "give the annotations of the same images, whose file names decide."
        )
    if lacking:
        logger.warning(
            "%d of %d images are not in %s, e.g. %s, and are left out",
            *(len(lacking), len(data), truth.file or "the truth", lacking[0]),
        )
    return pairs


def match_objects(
    truth: Annotations, gt_index: NDArray[np.int64], data: Annotations, pred_index: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the IoU of each true object of an image with the object of its class that it is matched with, else 0.

    Pairs are formed greedily by IoU: of their masks if both have one, else of their boxes. (T,) and (P,) indices of the
    objects in each dataset give (T,) IoUs.
    """
    gt_names = np.array([category.name for category in truth.categories], dtype=object)[
        truth.labels[gt_index]
    ]
    names = np.array([category.name for category in data.categories], dtype=object)[data.labels[pred_index]]
    boxes = truth.boxes[gt_index], data.boxes[pred_index]
    ious = box_iou(*(np.where(np.isfinite(own).all(axis=1, keepdims=True), own, 0) for own in boxes))
    ious[gt_names[:, None] != names] = 0
    for row, column in np.argwhere(ious).tolist():
        mask_iou = _mask_iou(truth, int(gt_index[row]), data, int(pred_index[column]))
        ious[row, column] = ious[row, column] if mask_iou is None else mask_iou
    matched = np.zeros(len(gt_index))
    while ious.size and (best := ious.max()) > 0:
        row, column = divmod(int(ious.argmax()), ious.shape[1])
        matched[row] = best
        ious[row], ious[:, column] = 0, 0
    return matched


def _mask_iou(truth: Annotations, instance: int, data: Annotations, other: int) -> float | None:
    """Return the IoU of the masks of two objects; None if one has none."""
    size = truth.image_size(int(truth.image_index[instance]))[::-1]
    try:
        masks = [truth.rle(instance, size), data.rle(other, size)]
    except BoxelError:
        return None
    return None if None in masks else float(coco_mask.iou(masks[:1], masks[1:], [False])[0][0])


def rank_images(
    data: Annotations, truth: Annotations | None, pairs: Sequence[int | None], images: Sequence[int]
) -> dict[int, float]:
    """Return how good images are, worst first, leaving out those of which nothing is known.

    That is the mean IoU of the true objects of an image, whose index in ``truth`` is that of ``pairs``; without truth,
    the lowest quality of an object.
    """
    found: dict[int, float] = {}
    for image in images:
        own, other = data.instances_in(image), pairs[image]
        if truth is None:
            known = data.quality[own][np.isfinite(data.quality[own])]
            if len(known):
                found[image] = float(known.min())
        elif other is not None:
            gt = truth.instances_in(other)
            gt = gt[~truth.iscrowd[gt]]
            if len(gt):
                found[image] = float(match_objects(truth, gt, data, own).mean())
    return dict(sorted(found.items(), key=lambda item: item[1]))
