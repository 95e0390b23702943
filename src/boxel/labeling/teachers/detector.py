"""A trained model as a teacher: what it finds in a photo labels the boxes that it agrees with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from torch import nn
from torchvision.ops import box_iou

from boxel.data.annotations import Category
from boxel.exporting.accelerate import fastest
from boxel.labeling.teachers.base import NO_OPINION, SoftMask, Teacher
from boxel.labeling.teachers.boxcaseg import BoxCasegTeacher
from boxel.labeling.teachers.segmenter import SegmenterTeacher
from boxel.labeling.teachers.shapes import exact
from boxel.masks.rle import Rle, decode
from boxel.models.boxcaseg import BoxCaseg
from boxel.models.inference import inference_config, predict_batch
from boxel.models.instances import Instances
from boxel.models.io import load
from boxel.models.semantic.model import Segmenter


class ModelTeacher:
    """Any model that finds instances, asked about boxes that are given.

    Each box gets the mask of the instance found that overlaps it most, an instance for a box. Where the model knows a
    box's category by its name, the instance must be of that category; else it may be of any.

    Attributes:
        name: of the teacher.
        identity: text that changes with the model's weights and settings.

    Args:
        model: in eval mode, with `detect`, `categories` and `settings`; or what runs it.
        name: as above.
        categories: of the boxes, in the order of their labels.
        identity: as above.
        min_iou: least IoU of a box with that of an instance.
    """

    def __init__(
        self,
        model: Any,
        name: str,
        categories: Sequence[Category],
        identity: str = "",
        min_iou: float = 0.5,
    ):
        self.name, self.identity = name, identity
        self._model, self._looking, self._min_iou = model, inference_config(model), min_iou
        known = [category.name for category in model.categories]
        # For each label of the data set the model's own label; -1 where any will do.
        self._own = np.array([known.index(c.name) if c.name in known else -1 for c in categories], dtype=int)

    def __call__(
        self, image: NDArray[np.uint8], boxes: NDArray[np.float64], labels: NDArray[np.int32]
    ) -> list[SoftMask]:
        """One soft mask a box; no opinion and a score of 0 where no instance matches. See `Teacher`."""
        (found,) = predict_batch(self._model, [image], self._looking)
        instance_of = self._match(found, boxes, labels)
        return [
            _soft(found.rles[instance_of[row]], float(found.scores[instance_of[row]]))
            if row in instance_of
            else NO_OPINION
            for row in range(len(boxes))
        ]

    def _match(
        self, found: Instances, boxes: NDArray[np.float64], labels: NDArray[np.int32]
    ) -> dict[int, int]:
        """The instance of each box that has one: pairs in the order of their IoU, each box and instance once."""
        iou = box_iou(torch.from_numpy(boxes), torch.from_numpy(found.boxes).double()).numpy()
        own = self._own[labels][:, None]
        iou[(own >= 0) & (own != found.labels)] = 0
        instance_of: dict[int, int] = {}
        for pair in np.argsort(-iou, axis=None, kind="stable").tolist():
            row, instance = divmod(pair, len(found))
            if iou[row, instance] < self._min_iou:
                break
            if row not in instance_of and instance not in instance_of.values():
                instance_of[row] = instance
        return instance_of


def _soft(rle: Rle, score: float) -> SoftMask:
    x, y, w, h = coco_mask.toBbox(rle).astype(int).tolist()
    if not w:
        return NO_OPINION
    soft = exact(decode(rle)[y : y + h, x : x + w] > 0, x, y)
    return SoftMask(soft.logits, soft.window, score)


def load_teacher(
    source: str, categories: Sequence[Category], device: str = "cpu", threads: int = 1
) -> Teacher:
    """A trained model as a teacher.

    A BoxCaseg makes masks of the boxes, a segmenter says which of their pixels are of their class, and any other is
    asked for its own instances.

    Its identity tells its weights and what runs it: the last digits of its numbers depend on both.

    Args:
        source: a model folder, the name of a model that comes with boxel, or a model's id on the Hugging Face hub.
        categories: of the boxes, in the order of their labels.
        device: where it runs.
        threads: that an image may take on the CPU where onnxruntime runs the model.

    Raises:
        BoxelError: it can't be loaded.
    """
    model: Any = load(source).to(device)
    name = Path(source).as_posix()
    if isinstance(model, Segmenter):
        return SegmenterTeacher(model, name, categories, digest_of(model, *_about(model)))
    runner = fastest(model, threads)
    how = "torch" if isinstance(runner, nn.Module) else "onnxruntime"
    if isinstance(model, BoxCaseg):
        return BoxCasegTeacher(runner, name, f"{digest_of(model, asdict(model.config))} run by {how}")
    return ModelTeacher(runner, name, categories, f"{digest_of(model, *_about(model))} run by {how}")


def _about(model: Any) -> tuple[list[str], dict[str, Any]]:
    """What a model's masks depend on besides its weights."""
    return [category.name for category in model.categories], model.settings


def digest_of(model: nn.Module, *about: Any) -> str:
    """A digest of a model's weights, wherever they were read from.

    Args:
        model: the model.
        *about: plain data that its masks depend on too, as its settings.
    """
    digest = hashlib.blake2b(json.dumps(about, default=str).encode(), digest_size=8)
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
