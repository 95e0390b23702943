"""Make masks and hints of boxes before a training, by a teacher of `boxel label`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from lightning.fabric import Fabric
from numpy.typing import NDArray

from boxel.data import Annotations, read
from boxel.labeling.api import label_data
from boxel.methods import resolve
from boxel.training.engine import run_on_first_process
from boxel.training.log import rank_zero_logger
from boxel.training.prepare import TrainingData, add_masks, merge_classes
from boxel.training.settings import Run
from boxel.utils.errors import BoxelError

logger = rank_zero_logger(__name__)

MIN_QUALITY = 0.5
"""Estimated IoU from which a mask is a hint."""


def label_boxes(run: Run, data: TrainingData, processes: Fabric) -> TrainingData:
    """Add masks of the run's teacher, if it has one, and hints, then merge the categories, which teachers may go by."""
    training, settings = data.training, run.settings
    if settings.teacher is not None:
        training = _add_teacher_masks(training, run, processes)
        resolve(run.method.check)(training)
    if getattr(settings.model, "hint_weight", 0) > 0:
        training = _add_hints(training, run, processes)
    return replace(data, training=merge_classes(training, settings.data))


def _add_teacher_masks(data: Annotations, run: Run, processes: Fabric) -> Annotations:
    """Return the dataset with masks of the boxes that have none, though not in a segmenter's images with a label map.

    Masks that are not trusted are not made again: `boxel label` has made and dropped them.
    """
    missing = _find_boxes(data)
    if run.segmenter:
        missing &= ~data.has_label_map[data.image_index]
    if not missing.any():
        return data
    targets = data.select_instances(data.trusted | ~data.has_segmentation)
    if run.segmenter:
        targets = targets.select_images(~targets.has_label_map)
    teacher, file = run.settings.teacher, run.out / "masks.json"
    logger.info("making masks of %d boxes by %s: %s", missing.sum(), teacher, file)
    made = _label(targets, teacher, file, processes)
    if made.has_mask.sum() <= targets.has_mask.sum():
        raise BoxelError(
            f"{data.file}: {teacher} made no mask of its {missing.sum()} boxes; name another `label`."
        )
    return add_masks(data, made.select_instances(~targets.has_mask))


def _add_hints(data: Annotations, run: Run, processes: Fabric) -> Annotations:
    """Return the dataset with hints: masks, not trusted, of the boxes that have none, as far as they are good."""
    boxes = np.flatnonzero(_find_boxes(data))
    if not len(boxes):
        return data
    teacher, file = run.settings.hints, run.out / "hints.json"
    logger.info("making hints for %d boxes by %s: %s", len(boxes), teacher, file)
    made = _label(data.select_instances(boxes), teacher, file, processes)
    good = made.has_mask & ~(made.quality < MIN_QUALITY)  # also those whose quality nobody knows
    if not good.any():
        logger.warning("%s: %s made no good mask of its boxes, so there are no hints", data.file, teacher)
        return data
    hinted = add_masks(data, made.select_instances(good))
    trusted = hinted.trusted.copy()
    trusted[boxes] = False
    return replace(hinted, trusted=trusted)


def _find_boxes(data: Annotations) -> NDArray[np.bool_]:
    """Return (N,) bool: the instances that have a box and no mask."""
    return data.has_box & ~data.has_segmentation & ~data.iscrowd


def _label(data: Annotations, teacher: str, file: Path, processes: Fabric) -> Annotations:
    """Return the dataset with masks of a teacher; the first process labels, and all read its file.

    In that COCO file ids are numbers; those of other formats and of joined datasets are not, and are put back.
    """
    ids, image_ids = number_ids(data.ids), number_ids(data.image_ids)
    given = np.full_like(data.source, None)  # masks to train on stay, whoever made them
    numbered = replace(data, ids=[*ids], image_ids=[*image_ids], source=given)

    def label() -> None:
        label_data(numbered, teacher=teacher, out=file, device=processes.device.type)

    run_on_first_process(processes, label)
    made = read(file, images=data.root)
    own, own_images = (
        [old[new] for new in given] for old, given in ((ids, made.ids), (image_ids, made.image_ids))
    )
    return replace(made, ids=own, image_ids=own_images)


def number_ids(ids: Sequence[int | str]) -> dict[int | str, int | str]:
    """Return the ids by numbers: by themselves if all are numbers, else by their positions from 1 on.

    Examples:
        >>> number_ids([7, 3]), number_ids([7, "again:7"])
        ({7: 7, 3: 3}, {1: 7, 2: 'again:7'})
    """
    whole = all(isinstance(one, int) for one in ids)
    return {one if whole else place: one for place, one in enumerate(ids, 1)}
