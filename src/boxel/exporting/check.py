"""Compare exported models with the originals on images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from torchvision.ops import box_iou

from boxel.masks.rle import Rle
from boxel.models.boxcaseg import BoxCaseg
from boxel.models.boxcaseg.inference import soft_masks
from boxel.models.detector import Detector
from boxel.models.inference import inference_config, predict_batch, resize, to_tensor
from boxel.models.instances import Instances
from boxel.models.onnx import OnnxBoxCaseg, OnnxDetector, OnnxSegmenter
from boxel.models.semantic.inference import cells_to_pixels, semantic_inference_config
from boxel.models.semantic.model import Segmenter


@dataclass(frozen=True)
class InstanceCheck:
    """How closely the instances of a file agree with those of its model."""

    instances: int  # number of instances of the model
    unmatched: int  # number of instances of either without a match of the same label and an IoU of 0.9
    box: float  # maximum difference of a coordinate of two matches, in pixels of the image
    score: float  # maximum difference of the scores of two matches
    mask_iou: float  # minimum IoU of the masks of two matches; 1 for masks that differ in one pixel

    @property
    def agrees(self) -> bool:
        """Whether the file may replace the model; a score at a threshold may cost one instance in a hundred."""
        few_unmatched = self.unmatched <= 0.01 * self.instances
        return few_unmatched and self.box <= 0.1 and self.score <= 1e-3 and self.mask_iou >= 0.99

    def __str__(self) -> str:
        if not self.instances + self.unmatched:
            return "nothing was compared, since the model finds no instances in the images; give `images` with some"
        return (
            f"{self.instances} instances, {self.unmatched} unmatched, boxes within {self.box:.2g} px, "
            f"scores within {self.score:.2g}, mask IoU {self.mask_iou:.4f} or more"
        )


@dataclass(frozen=True)
class LogitCheck:
    """How closely the logits of a file agree with those of its model."""

    crops: int  # number of crops compared
    difference: float  # maximum difference of two logits

    @property
    def agrees(self) -> bool:
        """Whether the file may replace the model."""
        return self.difference <= 1e-3

    def __str__(self) -> str:
        return f"{self.crops} crops, logits within {self.difference:.2g}"


@dataclass(frozen=True)
class LabelCheck:
    """How closely the label maps of a file agree with those of its model."""

    pixels: int  # number of pixels compared
    changed: int  # number of pixels with a class that the model finds less likely than another
    difference: float  # maximum difference of two probabilities

    @property
    def agrees(self) -> bool:
        """Whether the file may replace the model."""
        return self.changed == 0 and self.difference <= TIE

    def __str__(self) -> str:
        return f"{self.pixels} pixels, {self.changed} of another class, probabilities within {self.difference:.2g}"


TIE = 1e-3
"""Classes of a pixel whose probabilities differ by less are equally likely."""


def check_detector(
    model: Detector, exported: OnnxDetector, images: Sequence[NDArray[np.uint8]]
) -> InstanceCheck:
    """Compare the instances of two models in (H, W, 3) RGB images, each batched with its horizontal flip."""
    config = inference_config(model)
    checks: list[InstanceCheck] = []
    for image in images:
        batch = [image, image[:, ::-1].copy()]
        checks += map(compare, predict_batch(model, batch, config), predict_batch(exported, batch, config))
    instances, unmatched, box, score, mask_iou = np.array([astuple(check) for check in checks]).T
    # The maximum is NaN if one of them is.
    worst = float(box.max()), float(score.max()), float(mask_iou.min())
    return InstanceCheck(int(instances.sum()), int(unmatched.sum()), *worst)


def compare(expected: Instances, predicted: Instances) -> InstanceCheck:
    """Compare the instances of one image with the expected ones."""
    iou = box_iou(torch.from_numpy(expected.boxes), torch.from_numpy(predicted.boxes)).numpy()
    iou[expected.labels[:, None] != predicted.labels] = 0
    ours, theirs = _pair(iou, np.abs(expected.scores[:, None] - predicted.scores))
    box = np.abs(expected.boxes[ours] - predicted.boxes[theirs]).max(initial=0)
    score = np.abs(expected.scores[ours] - predicted.scores[theirs]).max(initial=0)
    overlaps = [_overlap(expected.rles[a], predicted.rles[b]) for a, b in zip(ours, theirs, strict=True)]
    unmatched = len(expected) + len(predicted) - 2 * len(ours)
    return InstanceCheck(len(expected), unmatched, float(box), float(score), min(overlaps, default=1.0))


def _pair(iou: NDArray[np.floating], apart: NDArray[np.floating]) -> tuple[list[int], list[int]]:
    """Pair rows and columns with an IoU of 0.9 or more, the pairs that are most alike first, by IoU and score.

    Boxes that are fitted to their masks after NMS may overlap others of their label as much.
    """
    rows, columns = np.nonzero(iou >= 0.9)
    pairs: dict[int, int] = {}
    for index in np.argsort(apart[rows, columns] - iou[rows, columns]):
        row, column = int(rows[index]), int(columns[index])
        if row not in pairs and column not in pairs.values():
            pairs[row] = column
    return list(pairs), list(pairs.values())


def _overlap(mask: Rle, other: Rle) -> float:
    """Return the IoU of two masks; 1 if they differ in at most one pixel, however small they are."""
    shared, either = (int(coco_mask.area(coco_mask.merge([mask, other], both))) for both in (True, False))
    return 1.0 if either - shared <= 1 else shared / either


def check_boxcaseg(
    model: BoxCaseg, exported: OnnxBoxCaseg, images: Sequence[NDArray[np.uint8]]
) -> LogitCheck:
    """Compare the logits of two models for two boxes per (H, W, 3) RGB image: the whole image and its center."""
    networks: list[Any] = [model, exported]
    differences = []
    for image in images:
        boxes = np.outer([1, 0.5], [-1, -1, 1, 1]) / 2 + 0.5  # as shares of the image
        boxes *= np.tile(image.shape[1::-1], 2)
        logits, others = (soft_masks(network, image, boxes)[0] for network in networks)
        differences.append(np.abs(logits - others))
    return LogitCheck(2 * len(images), float(np.max(differences)))  # NaN if there is one


@torch.inference_mode()
def check_segmenter(
    model: Segmenter, exported: OnnxSegmenter, images: Sequence[NDArray[np.uint8]]
) -> LabelCheck:
    """Compare the label maps of two models for (H, W, 3) RGB images, each batched with its horizontal flip."""
    stride, long_side = model.network.stride, semantic_inference_config(model).long_side
    pixels, changed, differences = 0, 0, []
    for image in images:
        resized = resize(
            to_tensor(image, torch.device("cpu")), long_side / max(image.shape[:2]) if long_side else 1
        )
        batch = torch.stack([resized, resized.flip(-1)])
        labels, logits = exported.network.predict_labels(batch)
        expected, found = (
            cells_to_pixels(cells, batch.shape[-2:], stride).softmax(1)
            for cells in (model.network(batch), logits)
        )
        chosen = expected.gather(1, labels[:, None].long())[:, 0]
        pixels += labels.numel()
        changed += int((expected.amax(1) - chosen > TIE).sum())
        differences.append(float((found - expected).abs().max()))
    return LabelCheck(pixels, changed, float(np.max(differences)))  # NaN if there is one
