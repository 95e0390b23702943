"""Trained models as teachers; a detector labels the boxes that its own detections agree with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from boxel.data.annotations import Category
from boxel.exporting.accelerate import accelerate
from boxel.labeling.teachers.base import NO_OPINION, SoftMask, Teacher, from_binary_mask, match_classes
from boxel.labeling.teachers.boxcaseg import BoxCasegTeacher, identify
from boxel.labeling.teachers.segmenter import SegmenterTeacher
from boxel.masks.boxes import box_iou
from boxel.masks.rle import Rle, decode_in_box
from boxel.models.boxcaseg import BoxCaseg
from boxel.models.inference import inference_config, predict_batch
from boxel.models.instances import Instances
from boxel.models.io import find_folder, load
from boxel.models.semantic.model import Segmenter

MIN_IOU = 0.5  # minimum IoU of a box with that of a detection


class DetectorTeacher:
    """A model that detects instances, applied to given boxes.

    Each box gets the mask of the detection that overlaps it most, each detection serving one box. If the model knows
    the box's category by its name, the detection must be of that category; else it may be of any.

    The model is in eval mode, or a runner that replaces it; the categories are those of the labels of the boxes.
    """

    def __init__(self, model: Any, name: str, categories: Sequence[Category], identity: str = "") -> None:
        self.name, self.identity = name, identity
        self._model, self._config = model, inference_config(model)
        self._own = match_classes(model.categories, categories)  # -1: a detection of any class will do

    def __call__(
        self, image: NDArray[np.uint8], boxes: NDArray[np.float64], labels: NDArray[np.int32]
    ) -> list[SoftMask]:
        """Predict one soft mask per box, without an opinion on boxes that no detection matches."""
        (detections,) = predict_batch(self._model, [image], self._config)
        match = self._match(detections, boxes, labels)
        return [
            _soft_mask(detections.rles[match[row]], float(detections.scores[match[row]]))
            if row in match
            else NO_OPINION
            for row in range(len(boxes))
        ]

    def _match(
        self, detections: Instances, boxes: NDArray[np.float64], labels: NDArray[np.int32]
    ) -> dict[int, int]:
        """Match boxes and detections greedily by IoU: the detection of each box that has one."""
        iou = box_iou(boxes, detections.boxes.astype(np.float64))
        own = self._own[labels][:, None]
        iou[(own >= 0) & (own != detections.labels)] = 0
        match: dict[int, int] = {}
        for pair in np.argsort(-iou, axis=None, kind="stable").tolist():
            row, detection = divmod(pair, len(detections))
            if iou[row, detection] < MIN_IOU:
                break
            if row not in match and detection not in match.values():
                match[row] = detection
        return match


def _soft_mask(rle: Rle, score: float) -> SoftMask:
    mask, left, top = decode_in_box(rle)
    return from_binary_mask(mask > 0, left, top, score) if mask.size else NO_OPINION


def load_teacher(source: str, categories: Sequence[Category], device: str, threads: int = 1) -> Teacher:
    """Load a trained model as a teacher: a BoxCaseg, a segmenter or a detector; arguments as for `make_teacher`.

    The identity of a BoxCaseg is its weights and settings, whatever runs it. That of a detector includes what runs it,
    which decides the last digits of its logits.
    """
    folder = find_folder(source)
    model: Any = load(folder).to(device)
    name = Path(source).as_posix()
    if isinstance(model, BoxCaseg):
        runner = accelerate(model, threads)
        return BoxCasegTeacher(runner.soft_masks, name, identify(folder), model.config.threshold)
    identity = digest_model(model, [category.name for category in model.categories], model.settings)
    if isinstance(model, Segmenter):
        return SegmenterTeacher(model, name, categories, identity)
    runner = accelerate(model, threads)
    identity += " run by torch" if isinstance(runner, nn.Module) else " run by onnxruntime"
    return DetectorTeacher(runner, name, categories, identity)


def digest_model(model: nn.Module, *about: object) -> str:
    """Compute a digest of a model's weights, and of plain data that its masks depend on too, e.g. its settings."""
    digest = hashlib.blake2b(json.dumps(about, default=str).encode(), digest_size=8)
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
