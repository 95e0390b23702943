"""Metrics of salient object detection: maps of the foreground of whole images against their true masks."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from boxel.data.annotations import Annotations
from boxel.labeling.probabilities import sigmoid
from boxel.masks.boxes import Region
from boxel.masks.rle import decode
from boxel.utils.errors import BoxelError

if TYPE_CHECKING:
    from boxel.labeling.teachers.base import Teacher

logger = logging.getLogger(__name__)

_BETA_SQUARED = 0.3  # weighs precision above recall, as is the custom of this field


def saliency_metrics(pairs: Iterable[tuple[NDArray[np.bool_], NDArray[np.floating]]]) -> dict[str, float]:
    """Compute the mean absolute error and the maximum F-measure of saliency maps.

    Args:
        pairs: Per image the (H, W) true foreground, which is not empty, and the (H, W) probability of each pixel.

    Returns:
        `mae`: the mean over images of the mean distance of probability and truth; `max_f`: the highest F-measure, with
        beta^2 = 0.3, of the mean precision and the mean recall of images over 256 common thresholds. In [0, 1], NaN
        without images.

    Examples:
        >>> gt, pred = np.array([[True, True, False, False]]), np.array([[1.0, 0.6, 0.6, 0.0]])
        >>> {name: round(value, 3) for name, value in saliency_metrics([(gt, pred)]).items()}
        {'mae': 0.25, 'max_f': 0.812}

    References:
        Achanta et al., Frequency-tuned Salient Region Detection, CVPR 2009, Section 4.2 (F-measure); Perazzi et al.,
        Saliency Filters, CVPR 2012, Section 4 (MAE); Wang et al. (BoxCaseg), CVPR 2021, Section 4.2.2.
    """
    errors, curves = [], []
    for gt, pred in pairs:
        errors.append(np.abs(pred - gt).mean())
        levels = np.rint(255 * pred).astype(np.uint8)
        counts = np.stack([np.bincount(levels[gt == side], minlength=256) for side in (True, False)])
        hits, false = counts[:, ::-1].cumsum(axis=1)  # at falling thresholds
        curves.append([hits / (hits + false).clip(min=1), hits / hits[-1]])
    if not errors:
        return {"mae": float("nan"), "max_f": float("nan")}
    precision, recall = np.mean(curves, axis=0)  # (256,)
    weighted = (_BETA_SQUARED * precision + recall).clip(min=1e-9)
    return {
        "mae": float(np.mean(errors)),
        "max_f": float(((1 + _BETA_SQUARED) * precision * recall / weighted).max()),
    }


def measure_saliency(truth: Annotations, teacher: Teacher) -> dict[str, float]:
    """Compute the :func:`saliency_metrics` of a teacher whose box is the whole image; true masks are the foreground."""
    return saliency_metrics(_predict_foreground(truth, teacher))


def _predict_foreground(
    truth: Annotations, teacher: Teacher
) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.float32]]]:
    from boxel.labeling.shard import load_image

    usable = truth.has_mask & ~truth.iscrowd
    for image in np.unique(truth.image_index[usable]).tolist():
        try:
            pixels = load_image(truth, image)
        except BoxelError as error:
            logger.warning("%s Its saliency is not measured.", error)
            continue
        height, width = pixels.shape[:2]
        own = truth.instances_in(image)
        gt = decode(coco_mask.merge([truth.rle(instance) for instance in own[usable[own]].tolist()])) > 0
        (soft,) = teacher(pixels, np.array([[0.0, 0, width, height]]), np.zeros(1, dtype=np.int32))
        yield gt, sigmoid(soft.resample(Region(0, 0, width, height)))
