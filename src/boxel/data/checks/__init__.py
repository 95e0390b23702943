"""Find what is wrong with a dataset, and repair a copy of it.

Each family of issues is a file of functions that take a `RepairState`, report what they find and repair it in the same
step, so that what `check` reports and what `repair` does cannot drift apart.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np

from boxel.data.annotations import Annotations
from boxel.data.checks import boxes, geometry, ids, images, mask_issues
from boxel.data.checks.changes import RepairRecord, undo_repair
from boxel.data.checks.repair_state import RepairState
from boxel.data.checks.statistics import Statistics
from boxel.data.issues import Issue
from boxel.utils.errors import BoxelError

__all__ = [
    "RepairRecord",
    "RepairState",
    "Statistics",
    "check",
    "collect_statistics",
    "inspect_dataset",
    "repair",
    "repair_with_record",
    "undo_repair",
]


def check(data: Annotations | str | Path, images: str | Path | None = None) -> list[Issue]:
    """List everything that is wrong with a dataset and its images, all of which are decoded.

    A dataset with boxes only is fine.

    Args:
        data: Annotations, or a file or folder in any format that `boxel.read` knows.
        images: Folder of the images if they are not beside such a file.

    Returns:
        The reader's issues, then those of images, masks, boxes and ids, each in the order of the file.

    Examples:
        >>> from boxel.data.samples import sample_images
        >>> check(sample_images())
        []
    """
    return inspect_dataset(data, images).issues


def repair(data: Annotations) -> tuple[Annotations, list[Issue]]:
    """Repair a copy of a dataset.

    Returns:
        The copy, and the issues of the original as `check` lists them. An issue whose ``repair`` is empty is left as it
        was; the copy has no other.

    Examples:
        >>> from dataclasses import replace
        >>> from boxel.data.samples import sample_images
        >>> data = sample_images()
        >>> copy, issues = repair(replace(data, boxes=data.boxes[:, [2, 3, 0, 1]]))
        >>> issues[0].kind, bool((copy.boxes == data.boxes).all())
        ('box-inverted', True)
    """
    state = _run_checks(data)
    return state.repaired, state.issues


def repair_with_record(data: Annotations) -> tuple[Annotations, list[Issue], RepairRecord]:
    """Repair a copy of a dataset, and record each change so that `undo_repair` can take it back.

    Returns:
        The copy, the issues, and the record.

    Examples:
        >>> from dataclasses import replace
        >>> from boxel.data.samples import sample_images
        >>> data = sample_images()
        >>> inverted = replace(data, boxes=data.boxes[:, [2, 3, 0, 1]])
        >>> copy, issues, record = repair_with_record(inverted)
        >>> len(record) == len(data.boxes), bool((undo_repair(copy, record)[0].boxes == inverted.boxes).all())
        (True, True)
    """
    state = _run_checks(data)
    return state.repaired, state.issues, state.record


def collect_statistics(data: Annotations | str | Path, images: str | Path | None = None) -> Statistics:
    """Count what a dataset holds, and look at its images, all of which are decoded.

    Args:
        data: Annotations, or a file or folder in any format that `boxel.read` knows.
        images: Folder of the images if they are not beside such a file.

    Examples:
        >>> from boxel.data import example_scenes
        >>> statistics = collect_statistics(example_scenes())
        >>> statistics.images, statistics.masks["trusted"] == statistics.instances
        (1, True)
    """
    return inspect_dataset(data, images).statistics


def inspect_dataset(
    data: Annotations | str | Path,
    images: str | Path | None = None,
    class_list: str | Path | None = None,
) -> RepairState:
    """Decode all images of a dataset once, and find out what it holds and what is wrong with it; see `boxel.read`."""
    from boxel.data.formats import read_as_written, recognize  # which themselves ask `checks` what a mask is

    data = data if isinstance(data, Annotations) else read_as_written(data, images, class_list=class_list)
    state = _run_checks(data)
    if data.file:
        with suppress(BoxelError):
            state.format = recognize(data.file)
    return state


@np.errstate(over="ignore", invalid="ignore")  # of absurd numbers, each of which is reported
def _run_checks(data: Annotations) -> RepairState:
    """Find and repair all issues of a dataset."""
    state = RepairState(data)
    ids.check_references(state)
    boxes.check_not_empty(state)
    if not state.image_ids:
        return state
    ids.check_categories(state)
    images.check_files(state)
    images.check_label_maps(state)
    ids.check_image_ids(state)
    ids.check_image_files(state)
    mask_issues.check_shapes(state)
    geometry.check_layout(state)
    geometry.check_rotations(state)
    geometry.check_tracks(state)
    boxes.check_corners(state)
    boxes.check_sizes(state)
    mask_issues.check_agreement(state)
    mask_issues.check_rectangles(state)
    boxes.check_duplicates(state)
    ids.check_annotation_ids(state)
    boxes.check_all_crowd(state)
    return state
