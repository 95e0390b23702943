"""Compare exported models with the originals on images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from torchvision.ops import box_iou

from boxel.masks.rle import Rle
from boxel.models.boxcaseg import BoxCaseg
from boxel.models.detector import Detector
from boxel.models.inference import inference_config, predict_batch, resize, to_tensor
from boxel.models.instances import Instances
from boxel.models.onnx import OnnxBoxCaseg, OnnxDetector, OnnxSegmenter
from boxel.models.semantic.inference import cells_to_pixels, semantic_inference_config
from boxel.models.semantic.model import Segmenter
from boxel.utils.onnx import Precision


@dataclass(frozen=True)
class Tolerance:
    """What a file of a precision may lose."""

    unmatched: float  # of the model and the file, by the model's; a score at a threshold may cost one
    box: float  # pixels
    score: float
    mask_iou: float  # at least
    logit: float
    changed: float  # share of the pixels
    probability: float


TIE = 1e-3
"""Classes of a pixel whose probabilities differ by less are equally likely."""

TOLERANCES: dict[Precision, Tolerance] = {
    "float32": Tolerance(0.01, 0.1, 1e-3, 0.99, 1e-3, 0.0, TIE),
    "float16": Tolerance(0.1, 1.0, 0.01, 0.97, 1.0, 0.005, 0.1),
    "int8": Tolerance(1.0, inf, 0.1, 0.8, inf, 0.05, 1.0),
}
"""For float32 nothing but rounding. What the others lose is stated; beyond this the results are not the model's."""


@dataclass(frozen=True)
class InstanceCheck:
    """How closely the instances of a file agree with those of its model.

    The differences are the largest of all matches; of float16 and int8 they are means.
    """

    instances: int  # number of instances of the model
    unmatched: int  # number of instances of either without a match of the same label, of an IoU of 0.9 or 0.5
    box: float  # difference of a coordinate of two matches, in pixels of the image
    score: float  # difference of the scores of two matches
    mask_iou: float  # IoU of the masks of two matches; 1 for masks that differ in one pixel
    precision: Precision = "float32"

    @property
    def agrees(self) -> bool:
        """Whether the file may replace the model."""
        allowed = TOLERANCES[self.precision]
        return (
            self.unmatched <= allowed.unmatched * self.instances
            and self.box <= allowed.box
            and self.score <= allowed.score
            and self.mask_iou >= allowed.mask_iou
        )

    def __str__(self) -> str:
        if not self.instances + self.unmatched:
            return "nothing was compared, since the model finds no instances in the images; give `images` with some"
        if self.precision != "float32":
            return (
                f"{self.instances} instances, {self.unmatched} unmatched, on average boxes differ by "
                f"{self.box:.2g} px, scores by {self.score:.2g}, mask IoU is {self.mask_iou:.4f}"
            )
        return (
            f"{self.instances} instances, {self.unmatched} unmatched, boxes within {self.box:.2g} px, "
            f"scores within {self.score:.2g}, mask IoU {self.mask_iou:.4f} or more"
        )


@dataclass(frozen=True)
class LogitCheck:
    """How closely the logits of a file agree with those of its model."""

    crops: int  # number of crops compared
    difference: float  # maximum difference of two logits
    mask_iou: float = 1.0  # mean IoU of the masks
    precision: Precision = "float32"

    @property
    def agrees(self) -> bool:
        """Whether the file may replace the model."""
        allowed = TOLERANCES[self.precision]
        return self.difference <= allowed.logit and self.mask_iou >= allowed.mask_iou

    def __str__(self) -> str:
        text = f"{self.crops} crops, logits within {self.difference:.2g}"
        return text if self.precision == "float32" else f"{text}, mean mask IoU {self.mask_iou:.4f}"


@dataclass(frozen=True)
class LabelCheck:
    """How closely the label maps of a file agree with those of its model."""

    pixels: int  # number of pixels compared
    changed: int  # number of pixels with a class that the model finds less likely than another
    difference: float  # maximum difference of two probabilities
    precision: Precision = "float32"

    @property
    def agrees(self) -> bool:
        """Whether the file may replace the model."""
        allowed = TOLERANCES[self.precision]
        return self.changed <= allowed.changed * self.pixels and self.difference <= allowed.probability

    def __str__(self) -> str:
        return f"{self.pixels} pixels, {self.changed} of another class, probabilities within {self.difference:.2g}"


def check_detector(
    model: Detector,
    exported: OnnxDetector,
    images: Sequence[NDArray[np.uint8]],
    precision: Precision = "float32",
) -> InstanceCheck:
    """Compare the instances of two models in (H, W, 3) RGB images, each batched with its horizontal flip."""
    config = inference_config(model)
    batches = [[image, image[:, ::-1].copy()] for image in images]
    expected, predicted = (
        [instances for batch in batches for instances in predict_batch(network, batch, config)]
        for network in (model, exported)
    )
    return compare_all(expected, predicted, precision)


def compare(expected: Instances, predicted: Instances) -> InstanceCheck:
    """Compare the instances of one image with the expected ones."""
    return compare_all([expected], [predicted])


def compare_all(
    expected: Sequence[Instances], predicted: Sequence[Instances], precision: Precision = "float32"
) -> InstanceCheck:
    """Compare the instances of images with the expected ones."""
    exact, unmatched = precision == "float32", 0
    differences: list[tuple[float, float, float]] = []  # of boxes, scores, and IoUs of masks
    for one, other in zip(expected, predicted, strict=True):
        iou = box_iou(torch.from_numpy(one.boxes), torch.from_numpy(other.boxes)).numpy()
        iou[one.labels[:, None] != other.labels] = 0
        pairs = _pair(iou, np.abs(one.scores[:, None] - other.scores), 0.9 if exact else 0.5)
        unmatched += len(one) + len(other) - 2 * len(pairs)
        for a, b in pairs:
            box = float(np.abs(one.boxes[a] - other.boxes[b]).max())
            score = float(abs(one.scores[a] - other.scores[b]))
            differences.append((box, score, _overlap(one.rles[a], other.rles[b])))
    boxes, scores, overlaps = np.array(differences or [(0.0, 0.0, 1.0)]).T
    # The largest of differences of which one is NaN is NaN.
    box, score, overlap = (
        (boxes.max(), scores.max(), overlaps.min())
        if exact
        else (boxes.mean(), scores.mean(), overlaps.mean())
    )
    count = sum(map(len, expected))
    return InstanceCheck(count, unmatched, float(box), float(score), float(overlap), precision)


def _pair(iou: NDArray[np.floating], apart: NDArray[np.floating], min_iou: float) -> list[tuple[int, int]]:
    """Pair rows and columns of a minimum IoU, the pairs that are most alike first, by IoU and score.

    Boxes that are fitted to their masks after NMS may overlap others of their label as much.
    """
    rows, columns = np.nonzero(iou >= min_iou)
    pairs: dict[int, int] = {}
    for index in np.argsort(apart[rows, columns] - iou[rows, columns]):
        row, column = int(rows[index]), int(columns[index])
        if row not in pairs and column not in pairs.values():
            pairs[row] = column
    return list(pairs.items())


def _overlap(mask: Rle, other: Rle) -> float:
    """Return the IoU of two masks; 1 if they differ in at most one pixel, however small they are."""
    shared, either = (int(coco_mask.area(coco_mask.merge([mask, other], both))) for both in (True, False))
    return 1.0 if either - shared <= 1 else shared / either


def check_boxcaseg(
    model: BoxCaseg,
    exported: OnnxBoxCaseg,
    images: Sequence[NDArray[np.uint8]],
    precision: Precision = "float32",
) -> LogitCheck:
    """Compare the logits of two models for two boxes per (H, W, 3) RGB image: the whole image and its center."""
    networks: list[Any] = [model, exported]
    differences, overlaps = [], []
    for image in images:
        boxes = np.outer([1, 0.5], [-1, -1, 1, 1]) / 2 + 0.5  # as shares of the image
        boxes *= np.tile(image.shape[1::-1], 2)
        logits, others = (network.soft_masks(image, boxes)[0] for network in networks)
        differences.append(np.abs(logits - others))
        shared, either = ((logits > 0) & (others > 0)).sum((1, 2)), ((logits > 0) | (others > 0)).sum((1, 2))
        overlaps.append((shared + 1) / (either + 1))  # 1 for two empty masks
    # The maximum is NaN if there is one.
    return LogitCheck(2 * len(images), float(np.max(differences)), float(np.mean(overlaps)), precision)


@torch.inference_mode()
def check_segmenter(
    model: Segmenter,
    exported: OnnxSegmenter,
    images: Sequence[NDArray[np.uint8]],
    precision: Precision = "float32",
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
    return LabelCheck(pixels, changed, float(np.max(differences)), precision)  # NaN if there is one
