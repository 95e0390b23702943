"""Label shards of a table of boxes, one after another, in a process of any engine."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boxel.data.annotations import Annotations
from boxel.data.checks.masks import drop_masks, judge_masks
from boxel.data.formats.box_table import BoxTable, Header, write_table
from boxel.distributed.images import bring_images
from boxel.distributed.plan import Shard
from boxel.labeling.api import load_teachers
from boxel.labeling.config import LabelConfig
from boxel.labeling.quality import Calibration
from boxel.labeling.shard import KEEP, LABEL, ImageMasks, assign_roles, fill_masks, label_shard, make_labeler
from boxel.labeling.teachers import make_teacher
from boxel.utils.urls import atomic_url, join_url

LABELED, KEPT, EMPTY, CROWD, NO_BOX, FAILED = "labeled", "kept", "empty", "crowd", "no-box", "failed"
"""What became of a box: it got a mask, kept the one it had, got none since no object was seen in it, is a crowd, has no
area, or its image could not be labeled."""

_ERRORS = {
    EMPTY: "no object was seen in the box, or it lies outside the image",
    NO_BOX: "the box has no area",
}


@dataclass(frozen=True)
class Task:
    """All that a process needs to label shards; it can be sent to another machine.

    Attributes:
        boxes: Path or URL of the table.
        header: What its metadata state.
        images: Path or URL of the folder of the images.
        out: Path or URL of the folder of the shards.
        teachers: Names of the teachers.
        config: Settings.
        threads: Threads of the networks.
        calibration: The calibration of the quality, without its reference; None for the one that teachers have.
        has_reference: Whether the calibration reads the votes of the bundled network.
    """

    boxes: str
    header: Header
    images: str
    out: str
    teachers: Sequence[str]
    config: LabelConfig
    threads: int
    calibration: Calibration | None = None
    has_reference: bool = False


@dataclass
class ShardResult:
    """What became of the boxes of a shard.

    Attributes:
        shard: The shard.
        counts: Number of boxes by what became of them.
        failure: Why the first image that failed could not be labeled; empty if none failed.
        seconds: Seconds of ``fetching`` images, ``labeling`` and ``writing``.
        image_bytes: Bytes of the images that were read.
    """

    shard: Shard
    counts: Counter[str] = field(default_factory=Counter)
    failure: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    image_bytes: int = 0


class ShardWorker:
    """Labels shards; its teachers are loaded once."""

    def __init__(self, task: Task) -> None:
        self.task, config = task, task.config
        self.table = BoxTable(task.boxes, task.header)
        teachers, calibration = load_teachers(
            list(task.teachers), config, self.table.categories, threads=task.threads
        )
        if task.calibration is not None:
            calibration = task.calibration
            if task.has_reference:
                reference = make_teacher("boxcaseg", (), config.device, config.box_slack, task.threads)
                calibration = replace(calibration, reference=reference)
        self.labeler = make_labeler(teachers, config, calibration)

    def __call__(self, shard: Shard) -> ShardResult:
        """Label a shard and write its masks."""
        data = self.table.read("", shard.start, shard.stop)
        data = drop_masks(data, judge_masks(data).bad & ~data.iscrowd)
        roles = assign_roles(data, self.task.config.relabel)
        started = time.perf_counter()
        found, fetching, image_bytes = self._label(data, roles)
        labeled = time.perf_counter()
        filled, masked, _ = fill_masks(data, found)
        failures = {one.image: one.failure for one in found if one.failure}
        status = _judge(data, roles, masked, failures)
        errors = [
            failures[image] if what == FAILED else _ERRORS.get(what)
            for what, image in zip(status, data.image_index.tolist(), strict=True)
        ]
        with atomic_url(join_url(self.task.out, shard.name)) as temporary:
            write_table(filled, temporary, self.task.header, status, errors)
        seconds = {
            "fetching": fetching,
            "labeling": labeled - started - fetching,
            "writing": time.perf_counter() - labeled,
        }
        return ShardResult(shard, Counter(status), next(iter(failures.values()), ""), seconds, image_bytes)

    def _label(self, data: Annotations, roles: NDArray[np.int8]) -> tuple[list[ImageMasks], float, int]:
        """Return the masks of images in their order, the seconds that were waited for images, and their bytes."""
        wanted, found = np.unique(data.image_index[roles == LABEL]).tolist(), list[ImageMasks]()
        waited, size, asked = 0.0, 0, time.perf_counter()
        for here in bring_images(self.task.images, data.paths, wanted):
            waited += time.perf_counter() - asked
            size += sum(os.path.getsize(path) for path in here.paths if os.path.exists(path))
            paths = list(data.paths)
            for image, path in zip(here.images, here.paths, strict=True):
                paths[image] = path
            origins = dict(zip(here.images, here.origins, strict=True))
            lost = [image for image in here.images if here.failure and not os.path.exists(paths[image])]
            found += [ImageMasks(image, failure=here.failure) for image in lost]
            images = [image for image in here.images if image not in {*lost}]
            for one in label_shard(replace(data, paths=paths, root=Path()), images, self.labeler, roles):
                named = one.failure.replace(paths[one.image], origins[one.image])
                found.append(one._replace(failure=named))
            asked = time.perf_counter()
        return sorted(found, key=lambda one: one.image), waited, size


def _judge(
    data: Annotations, roles: NDArray[np.int8], masked: NDArray[np.bool_], failures: dict[int, Any]
) -> list[str]:
    """Return what became of each box."""
    failed = np.isin(data.image_index, [*failures])
    kinds = {
        CROWD: data.iscrowd,
        NO_BOX: ~data.has_box,
        LABELED: masked,
        KEPT: roles == KEEP,
        FAILED: failed,
    }
    return np.select([*kinds.values()], [*kinds], EMPTY).tolist()
