"""What is wrong with a data set, and a copy of it in which that is mended.

Each family of faults is a file with functions that take a `Work`, report what they find and mend it there
in the same step, so that what `check` names and what `repair` does can't drift apart.
"""

from __future__ import annotations

import numpy as np

from boxel.data.annotations import Annotations
from boxel.data.check import boxes, ids, images, masks
from boxel.data.check.repair_state import Work
from boxel.data.check.report import faults_as_json, summary
from boxel.data.faults import Fault

__all__ = ["check", "faults_as_json", "repair", "summary"]


def check(data: Annotations) -> list[Fault]:
    """Everything wrong with a data set and its images, all of which are decoded.

    A set that has only boxes is sound.

    Returns:
        What the reader found, then images, masks, boxes and ids, each in the order of the file.
    """
    return repair(data)[1]


def repair(data: Annotations) -> tuple[Annotations, list[Fault]]:
    """A mended copy of a data set.

    Returns:
        The copy, and the faults of the original as `check` gives them. A fault whose ``repair`` is empty is
        left as it was; the copy has no other.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # of absurd numbers, each of which is reported
        return _repair(Work(data))


def _repair(work: Work) -> tuple[Annotations, list[Fault]]:
    ids.references(work)
    boxes.none_at_all(work)
    if not work.image_ids:
        return work.mended(), work.faults
    ids.categories(work)
    images.files(work)
    images.label_maps(work)
    ids.image_ids(work)
    masks.shapes(work)
    boxes.corners(work)
    boxes.small(work)
    masks.disagreement(work)
    boxes.duplicates(work)
    ids.annotation_ids(work)
    boxes.all_crowd(work)
    return work.mended(), work.faults
