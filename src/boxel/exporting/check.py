"""An exported file against the model it was made of, on real photos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from torchvision.ops import box_iou

from boxel.masks.rle import Rle
from boxel.models.boxcaseg import BoxCaseg
from boxel.models.boxcaseg.inference import soft_masks
from boxel.models.boxinst import BoxInst
from boxel.models.inference import inference_config, predict_batch
from boxel.models.instances import Instances
from boxel.models.onnx import OnnxBoxCaseg, OnnxBoxInst


@dataclass(frozen=True)
class InstanceCheck:
    """How the instances of a file agree with the model's.

    Attributes:
        instances: that the model has found.
        alone: of both, those that the other has no partner for, of its label and an IoU of 0.9.
        box: largest difference of a coordinate of two partners, in pixels of the photo.
        score: largest difference of two partners' scores.
        mask_iou: lowest of two partners' masks, that of masks which differ in one pixel being 1.
    """

    instances: int
    alone: int
    box: float
    score: float
    mask_iou: float

    @property
    def agrees(self) -> bool:
        """Whether the file may be used for the model; a score at a threshold may cost one instance of a hundred."""
        few_alone = self.alone <= 0.01 * self.instances
        return few_alone and self.box <= 0.1 and self.score <= 1e-3 and self.mask_iou >= 0.99

    def __str__(self) -> str:
        if not self.instances + self.alone:
            return "nothing is found in the photos, so nothing could be compared; give photos of yours"
        return (
            f"{self.instances} instances, {self.alone} without a partner, boxes within {self.box:.2g} px, "
            f"scores within {self.score:.2g}, mask IoU {self.mask_iou:.4f} or more"
        )


@dataclass(frozen=True)
class LogitCheck:
    """How the logits of a file agree with the model's.

    Attributes:
        crops: compared.
        difference: the largest of two logits.
    """

    crops: int
    difference: float

    @property
    def agrees(self) -> bool:
        """Whether the file may be used for the model."""
        return self.difference <= 1e-3

    def __str__(self) -> str:
        return f"{self.crops} crops, logits within {self.difference:.2g}"


def check_boxinst(model: BoxInst, path: Path, photos: Sequence[NDArray[np.uint8]]) -> InstanceCheck:
    """Compare what a file and its model find in photos, each together with its mirror image.

    Args:
        model: in eval mode, on the CPU.
        path: the file.
        photos: (H, W, 3) RGB each.
    """
    exported, looking = OnnxBoxInst(model, path), inference_config(model)
    checks = []
    for photo in photos:
        batch = [photo, photo[:, ::-1].copy()]
        pairs = zip(
            predict_batch(model, batch, looking), predict_batch(exported, batch, looking), strict=True
        )
        checks += [compare(*pair) for pair in pairs]
    return InstanceCheck(
        instances=sum(check.instances for check in checks),
        alone=sum(check.alone for check in checks),
        box=float(np.max([check.box for check in checks])),
        score=float(np.max([check.score for check in checks])),
        mask_iou=float(np.min([check.mask_iou for check in checks])),
    )


def compare(expected: Instances, found: Instances) -> InstanceCheck:
    """Instances of one photo against those that are expected."""
    iou = box_iou(torch.from_numpy(expected.boxes), torch.from_numpy(found.boxes)).numpy()
    iou[expected.labels[:, None] != found.labels] = 0
    # NMS leaves no two boxes of a label that overlap so far.
    ours, theirs = np.nonzero(iou >= 0.9)
    box = np.abs(expected.boxes[ours] - found.boxes[theirs]).max(initial=0)
    score = np.abs(expected.scores[ours] - found.scores[theirs]).max(initial=0)
    overlaps = [_overlap(expected.rles[a], found.rles[b]) for a, b in zip(ours, theirs, strict=True)]
    alone = len(expected) + len(found) - len(set(ours)) - len(set(theirs))
    return InstanceCheck(len(expected), alone, float(box), float(score), min(overlaps, default=1.0))


def _overlap(mask: Rle, other: Rle) -> float:
    """IoU of two masks; 1 where they differ in a pixel at most, however small they are."""
    shared, either = (int(coco_mask.area(coco_mask.merge([mask, other], both))) for both in (True, False))
    return 1.0 if either - shared <= 1 else shared / either


def check_boxcaseg(model: BoxCaseg, path: Path, photos: Sequence[NDArray[np.uint8]]) -> LogitCheck:
    """Compare the logits of a file and its model for two boxes a photo: the whole of it and its middle.

    Args:
        model: in eval mode, on the CPU.
        path: the file.
        photos: (H, W, 3) RGB each.
    """
    networks: list[Any] = [model, OnnxBoxCaseg(model, path)]
    differences = []
    for photo in photos:
        boxes = np.outer([1, 0.5], [-1, -1, 1, 1]) / 2 + 0.5  # as shares of the photo
        boxes *= np.tile(photo.shape[1::-1], 2)
        logits, others = (soft_masks(network, photo, boxes)[0] for network in networks)
        differences.append(np.abs(logits - others))
    return LogitCheck(2 * len(photos), float(np.max(differences)))  # NaN where there is one
