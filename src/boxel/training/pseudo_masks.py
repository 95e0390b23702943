"""Masks made from boxes before a training: by a teacher of `boxel label`, or by GrabCut as hints."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
from lightning.pytorch.utilities import rank_zero_only

from boxel.data import Annotations, read, write
from boxel.data.images import read_image
from boxel.labeling.api import label_data
from boxel.masks.grabcut import grabcut_from_ellipse
from boxel.masks.rle import Rle, encode_in_box
from boxel.utils.errors import BoxelError

TORCH_DEVICES = ("cpu", "cuda", "mps")
"""What a run's `device` may be that is one of torch's too."""


def made_masks(data: Annotations, teacher: str, file: Path, device: str) -> Annotations:
    """The set with masks of the boxes that have none.

    Of several processes the first makes them, and the others read its file, in a folder that all see.

    Args:
        data: the set.
        teacher: who draws them.
        file: keeps them; what is labeled already is not labeled again.
        device: where a network runs.
    """
    if getattr(rank_zero_only, "rank", 0):
        while not file.exists():  # if the first fails, who started them ends them all
            time.sleep(1)
        return read(file, images=data.root)
    device = device if device in TORCH_DEVICES else "auto"
    return label_data(data, teacher=teacher, out=file, device=device).data


def with_hints(data: Annotations, file: Path, report: Callable[..., None]) -> Annotations:
    """The set with a hint for each instance that has a box only, from a file if it was made before.

    Args:
        data: the set.
        file: where the hinted set is kept as COCO json, so that a resumed run does not make it again.
        report: told what is done, in the way of `logging`.

    Returns:
        The set with hints as masks that are not trusted, their source `grabcut`.
    """
    wanted = data.has_box & ~data.has_segmentation & ~data.iscrowd
    rows = np.flatnonzero(wanted)
    if not len(rows):
        return data
    if file.exists():
        made = read(file, images=data.root)
        # Hints of other boxes, of a run that got no further, are made anew.
        if made.ids == rows.tolist() and np.allclose(made.boxes, data.boxes[rows], atol=0.01):
            columns = {name: getattr(data, name).copy() for name in ("segmentations", "trusted", "source")}
            for name, column in columns.items():
                column[rows] = getattr(made, name)
            return replace(data, **columns)
    report("making hints for %d boxes by GrabCut: %s", len(rows), file)
    hinted = add_hints(data, wanted)
    partial = file.with_name(f"hints.{os.getpid()}.json")  # several processes may be at it
    # Label maps stay with the set; hints are of instances, named by their rows: ids of joined sets are no numbers.
    rowwise = replace(hinted, ids=list(range(len(hinted.ids))), label_maps=[None] * len(hinted))
    write(rowwise.select_instances(rows), partial)
    partial.replace(file)
    return hinted


def add_hints(data: Annotations, wanted: np.ndarray) -> Annotations:
    """The set with a GrabCut mask, not trusted, for each wanted instance.

    Instances of an image that can't be read stay as they are.

    Args:
        data: the set.
        wanted: (N,) bool.
    """
    segmentations, trusted, source = data.segmentations.copy(), data.trusted.copy(), data.source.copy()

    def of_image(image: int) -> list[tuple[int, Rle]]:
        own = [int(i) for i in data.instances_in(image) if wanted[i]]
        if not own:
            return []
        try:
            pixels = read_image(data.image_path(image))
        except BoxelError:
            return []
        height, width = pixels.shape[:2]
        return [(i, encode_in_box(*grabcut_from_ellipse(pixels, data.boxes[i]), height, width)) for i in own]

    # OpenCV lets go of Python's lock, so threads do it, and nothing is copied.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for found in pool.map(of_image, range(len(data))):
            for instance, rle in found:
                segmentations[instance] = msgspec.json.encode(rle)
                trusted[instance], source[instance] = False, "grabcut"
    return replace(data, segmentations=segmentations, trusted=trusted, source=source)
