"""Compare two datasets of the same images: find each image in the other, and measure how well the objects agree."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from boxel.data.annotations import Annotations
from boxel.data.pairing import pair_images
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
    """Return the IoU of each true object of an image with the object of its class that it is matched with.

    Pairs are formed greedily by IoU: of their masks if both have one, else of their boxes.

    Args:
        truth: The dataset with the true objects.
        gt_index: (T,) indices of the true objects of the image.
        data: The other dataset.
        pred_index: (P,) indices of its objects in the same image.

    Returns:
        (T,) float64 in [0, 1]; 0 for an object without a match.
    """
    ious = np.zeros((len(gt_index), len(pred_index)))
    for row, instance in enumerate(gt_index.tolist()):
        name = truth.categories[truth.labels[instance]].name
        for column, other in enumerate(pred_index.tolist()):
            if data.categories[data.labels[other]].name == name:
                ious[row, column] = _iou(truth, instance, data, other)
    matched = np.zeros(len(gt_index))
    while ious.size and (best := ious.max()) > 0:
        row, column = divmod(int(ious.argmax()), ious.shape[1])
        matched[row] = best
        ious[row], ious[:, column] = 0, 0
    return matched


def _iou(truth: Annotations, instance: int, data: Annotations, other: int) -> float:
    boxes = [truth.boxes[instance], data.boxes[other]]
    xywh = [np.concatenate([box[:2], box[2:] - box[:2]])[None] for box in boxes]
    box_iou = float(coco_mask.iou(*xywh, [False])[0][0]) if np.isfinite(xywh).all() else 0.0
    if not box_iou:
        return 0.0
    try:
        size = truth.image_size(int(truth.image_index[instance]))[::-1]
        masks = [truth.rle(instance, size), data.rle(other, size)]
    except BoxelError:
        return box_iou
    return box_iou if None in masks else float(coco_mask.iou(masks[:1], masks[1:], [False])[0][0])


def rank_images(
    data: Annotations, truth: Annotations | None, pairs: Sequence[int | None], images: Sequence[int]
) -> dict[int, float]:
    """Return how good images are, worst first, leaving out those of which nothing is known.

    Args:
        data: The dataset.
        truth: True objects, to compare with; None: the quality that ``data`` states.
        pairs: For each image its index in ``truth``.
        images: The images that are ranked.

    Returns:
        By image the mean IoU of its true objects; without ``truth``, the lowest quality of an object.
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
