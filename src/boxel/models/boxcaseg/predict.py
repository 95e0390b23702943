"""Masks of boxes that are given, or that a detector has found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from boxel.data.annotations import Annotations
from boxel.data.images import read_image
from boxel.masks.rle import Rle, encode_in_box
from boxel.models.boxcaseg.model import BoxCaseg, certainty, cut_masks
from boxel.models.predict import Instances, PredictConfig
from boxel.models.predict_files import predict_files
from boxel.utils.errors import BoxelError

CHUNK = 8
"""Crops that go through the network at once: more take no less time each on a CPU, whose caches they leave."""


class Segmenter(Protocol):
    """What cuts crops and tells their logits: a :class:`BoxCaseg`, or an exported file that stands for one."""

    def crops_of(
        self, image: NDArray[np.uint8], boxes: NDArray[np.float64]
    ) -> tuple[Tensor, Tensor, Tensor, NDArray[np.float64]]:
        """Crops, rows, columns and windows, as of :meth:`BoxCaseg.crops_of`."""
        ...

    def segment(self, crops: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """(B, S / 4, S / 4) logits, as of :meth:`BoxCaseg.segment`."""
        ...


@torch.inference_mode()
def soft_masks(
    model: Segmenter, image: NDArray[np.uint8], boxes: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float32]]:
    """Logits of the object in each box.

    Args:
        model: in eval mode.
        image: (H, W, 3) RGB.
        boxes: (N, 4) xyxy pixels, partly inside the image.

    Returns:
        logits (N, s, s), the windows (N, 4) they cover, xyxy pixels of the image, and scores (N,) in [0, 1].
    """
    logits, windows, scores = [], [], []
    for at in range(0, len(boxes), CHUNK):
        *shown, about = model.crops_of(image, boxes[at : at + CHUNK])
        found = model.segment(*shown).float()
        logits.append(found.cpu().numpy())
        scores.append(certainty(found).cpu().numpy())
        windows.append(about)
    if not logits:
        return np.zeros((0, 1, 1), np.float32), np.zeros((0, 4)), np.zeros(0, np.float32)
    return np.concatenate(logits), np.concatenate(windows), np.concatenate(scores)


def box_masks(
    model: BoxCaseg, image: NDArray[np.uint8], boxes: NDArray[np.float64]
) -> tuple[list[Rle], NDArray]:
    """The mask of the object in each box, cut to the box; arguments as for :func:`soft_masks`.

    Returns:
        N run-length codes of the image's size, and scores (N,) in [0, 1].
    """
    height, width = image.shape[:2]
    logits, windows, scores = soft_masks(model, image, boxes)
    cut = cut_masks(logits, windows, np.asarray(boxes, dtype=np.float64), height, width)
    return [encode_in_box(mask, left, top, height, width) for mask, left, top in cut], scores


def segment_found(
    model: BoxCaseg,
    detector: Any,
    paths: Sequence[Path],
    config: PredictConfig | None = None,
    report: Callable[[str], None] = print,
) -> Iterator[tuple[int, Instances]]:
    """The instances that a detector finds in image files, with this model's masks in place of its own.

    Args:
        model: in eval mode.
        detector: a model that finds instances.
        paths: the image files.
        config: how photos are shown to the detector; its own training size where None.
        report: is told of each file that can't be read.

    Yields:
        Index of a file, and its instances, scored by the detector.
    """
    for at, found in predict_files(detector, paths, config, report=report):
        codes, _ = box_masks(model, read_image(paths[at]), found.boxes.astype(np.float64))
        yield at, replace(found, masks=codes)


def segment_given(
    model: BoxCaseg, data: Annotations, paths: Sequence[Path], report: Callable[[str], None] = print
) -> Iterator[tuple[int, Instances]]:
    """Masks of the boxes that an annotated set has for image files.

    Args:
        model: in eval mode.
        data: boxes of images, told by their file names.
        paths: the image files.
        report: is told of each file that can't be read or that the set does not know.

    Yields:
        Index of a file, and its instances, scored by the certainty of their masks.
    """
    index = {Path(path).name: image for image, path in enumerate(data.paths)}
    for at, path in enumerate(paths):
        if path.name not in index:
            report(f"skipped: {path}: {data.file} has no image of this name.")
            continue
        try:
            photo = read_image(path)
        except BoxelError as error:
            report(f"skipped: {error}")
            continue
        own = data.instances_of(index[path.name])
        own = own[data.has_box[own] & ~data.iscrowd[own]]
        codes, scores = box_masks(model, photo, data.boxes[own])
        order = np.argsort(-scores, kind="stable")
        yield (
            at,
            Instances(
                boxes=data.boxes[own][order].astype(np.float32),
                scores=scores[order],
                labels=data.labels[own][order].astype(np.int64),
                masks=[codes[k] for k in order],
                categories=data.categories,
            ),
        )
