"""Make masks of boxes before a training: by a teacher of `boxel label`, or by GrabCut as hints."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
from lightning.fabric import Fabric
from numpy.typing import NDArray

from boxel.data import Annotations, read, write
from boxel.data.images import read_image
from boxel.labeling.api import label_data
from boxel.masks.grabcut import grabcut_from_ellipse
from boxel.masks.rle import Rle, encode_in_box
from boxel.methods import resolve
from boxel.training.engine import run_on_first_process
from boxel.training.log import rank_zero_logger
from boxel.training.prepare import TrainingData, add_masks, merge_classes, replace_columns
from boxel.training.settings import Run
from boxel.utils.errors import BoxelError
from boxel.utils.files import atomic_path

logger = rank_zero_logger(__name__)


def label_boxes(run: Run, data: TrainingData, processes: Fabric) -> TrainingData:
    """Add masks of the run's teacher, if it has one, then merge the categories, which the teacher may have gone by."""
    training = data.training
    if run.settings.teacher is not None:
        training = _add_teacher_masks(training, run, processes)
        resolve(run.method.check)(training)
    return replace(data, training=merge_classes(training, run.settings.data))


def _add_teacher_masks(data: Annotations, run: Run, processes: Fabric) -> Annotations:
    """Return the dataset with masks of the boxes that have none, though not in a segmenter's images with a label map.

    The first process labels, and all of them read the file that it has written. Masks that are not trusted are not made
    again: `boxel label` has made and dropped them.
    """
    teacher, file = run.settings.teacher, run.out / "masks.json"
    missing = ~data.has_segmentation & ~data.iscrowd & data.has_box
    if run.segmenter:
        missing &= ~data.has_label_map[data.image_index]
    if not missing.any():
        return data
    targets = data.select_instances(data.trusted | ~data.has_segmentation)
    if run.segmenter:
        targets = targets.select_images(~targets.has_label_map)

    def label() -> None:
        logger.info("making masks of %d boxes by %s: %s", missing.sum(), teacher, file)
        label_data(targets, teacher=teacher, out=file, device=processes.device.type)

    run_on_first_process(processes, label)
    made = read(file, images=targets.root)
    if made.has_mask.sum() <= targets.has_mask.sum():
        raise BoxelError(
            f"{data.file}: {teacher} made no mask of its {missing.sum()} boxes; name another `label`."
        )
    return add_masks(data, made)


def with_hints(data: Annotations, file: Path) -> Annotations:
    """Return the dataset with a GrabCut mask, not trusted, for each instance that has only a box.

    The COCO file keeps the hints, so that a resumed run does not make them again.
    """
    wanted = data.has_box & ~data.has_segmentation & ~data.iscrowd
    rows = np.flatnonzero(wanted)
    if not len(rows):
        return data
    if file.exists():
        made = read(file, images=data.root)
        if made.ids == list(rows) and np.allclose(made.boxes, data.boxes[rows], atol=0.01):
            return replace_columns(data, rows, made, ("segmentations", "trusted", "source"))
    logger.info("making hints for %d boxes by GrabCut: %s", len(rows), file)
    hinted = add_hints(data, wanted)
    # Hints are named by their rows, since ids of joined datasets are not numbers; label maps stay with the dataset.
    rowwise = replace(hinted, ids=list(range(len(hinted.ids))), label_maps=[None] * len(hinted))
    with atomic_path(file) as temporary:  # several processes may write it
        write(rowwise.select_instances(rows), temporary)
    return hinted


def add_hints(data: Annotations, wanted: NDArray[np.bool_]) -> Annotations:
    """Return the dataset with a GrabCut mask, not trusted, for each `wanted` (N,) instance whose image can be read."""
    segmentations, trusted, source = data.segmentations.copy(), data.trusted.copy(), data.source.copy()

    def cut_image(image: int) -> list[tuple[int, Rle]]:
        own = [int(i) for i in data.instances_in(image) if wanted[i]]
        if not own:
            return []
        try:
            pixels = read_image(data.image_path(image))
        except BoxelError:
            return []
        height, width = pixels.shape[:2]
        return [(i, encode_in_box(*grabcut_from_ellipse(pixels, data.boxes[i]), height, width)) for i in own]

    # OpenCV releases the GIL, so threads are enough.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for cuts in pool.map(cut_image, range(len(data))):
            for instance, rle in cuts:
                segmentations[instance] = msgspec.json.encode(rle)
                trusted[instance], source[instance] = False, "grabcut"
    return replace(data, segmentations=segmentations, trusted=trusted, source=source)
