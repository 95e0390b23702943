"""Tasks for an annotation tool: the images of masks to correct, worst first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from boxel.data.annotations import Annotations
from boxel.data.formats import read_as_written, write_as_given
from boxel.data.formats.cvat_writer import ID_ATTRIBUTE
from boxel.data.formats.extras import as_objects, decode_extras, get_dict
from boxel.data.formats.identity import IDS_FILE
from boxel.data.formats.layout import file_stems, name_images, place_images
from boxel.data.images import describe_missing
from boxel.labeling.outputs import Origins, record, state_digest
from boxel.labeling.review import NextMask
from boxel.labeling.target import naming_path
from boxel.labeling.task_folder import TaskRecord, index_objects, task_keys
from boxel.labeling.task_marks import MARK_ATTRIBUTE, add_mark, describe_mark, remove_marks
from boxel.utils.errors import BoxelError, UsageError, nearest
from boxel.utils.files import atomic_path, make_parent, scratch_folder

LABELS_FILE = "labels.json"
"""The labels of CVAT's tasks, to paste where a task is created."""

TOOLS = ("labelme", "cvat", "label-studio")
"""Formats of the tools that tasks are written for."""


def write_tasks(
    data: Annotations, chosen: Sequence[NextMask], folder: str | Path, format: str, decided: int = 0
) -> None:
    """Write the images of some masks as tasks of an annotation tool.

    The names of the images begin with their places, as tools order them by name. All objects of these images are
    there, those to correct first and with a mark: a description in LabelMe, an attribute in CVAT, a text of the region
    in Label Studio. Masks are polygons.

    Args:
        data: A labeled dataset with its images.
        chosen: The masks to correct, by `choose_next`, in the order wanted.
        folder: The folder to write, which must not exist.
        format: ``labelme``, ``cvat`` or ``label-studio``.
        decided: How many decisions of the review page there are; see `decided_before`.

    Raises:
        BoxelError: The folder exists, or an image is missing, or a link to files that are not images.

    Examples:
        >>> from boxel.data import example_scenes
        >>> from boxel.labeling import choose_next, label
        >>> masks = label(example_scenes(3).without_masks(), teacher="ellipse")
        >>> write_tasks(masks, choose_next(masks, 1), masks.root / "tasks", "labelme")
        >>> sorted(file.name[:2] for file in (masks.root / "tasks").glob("*.json"))
        ['1_', 'bo']
    """
    if format not in TOOLS:
        raise UsageError(f"`to` is {format!r}; it can be {', '.join(TOOLS)}.{nearest(format, list(TOOLS))}")
    path = Path(folder)
    if path.exists():
        raise UsageError(
            f"{path}: there is such a file or folder already; merge and remove it, or name a new one."
        )
    selected = _select(data, [one.instance for one in chosen])
    marks = [describe_mark(data, one) for one in chosen]
    names = name_images(file_stems(selected.paths), selected.paths)
    names = [f"{place:0{len(str(len(names)))}}_{name}" for place, name in enumerate(names, 1)]
    extras = [
        add_mark(text, format, marks[row] if row < len(marks) else "", selected.ids[row])
        for row, text in enumerate(selected.extras)
    ]
    make_parent(path)
    with atomic_path(path) as temporary, scratch_folder(path.with_name(f"{path.name}-images")) as images:
        if unusable := place_images(selected, images, names):
            raise BoxelError(unusable[0])
        ordered = replace(selected, root=images, paths=names, extras=as_objects(extras))
        options: Any = {} if format == "labelme" else {"polygons": True}
        with naming_path(temporary, path):
            write_as_given(ordered, temporary, format, **options)
        found = remove_marks(read_as_written(temporary, format=format))
        output = record(found, selected, Origins(selected.ids, {}), "", [IDS_FILE])
        rows = index_objects(selected)
        keys = task_keys(output)
        known = TaskRecord(
            format=format,
            decided=decided,
            output=output,
            states=[state_digest(selected, rows[key]) for key in keys],
            marked=[row for row, key in enumerate(keys) if rows[key] < len(marks)],
        )
        known.save(temporary)
        if format == "cvat":
            (temporary / LABELS_FILE).write_bytes(
                msgspec.json.format(msgspec.json.encode(_cvat_labels(ordered)), indent=1)
            )


def _select(data: Annotations, instances: Sequence[int]) -> Annotations:
    """Return the images of some instances in their order; the instances come first, then the others there."""
    images = list(dict.fromkeys(data.image_index[instances].tolist()))
    others = np.isin(data.image_index, images)
    others[instances] = False
    ordered = data.select_instances(np.array([*instances, *np.flatnonzero(others)], dtype=np.int64))
    selected = replace(ordered.select_images(images), splits=[None] * len(images))
    paths = [selected.image_path(image) for image in range(len(images))]
    if missing := describe_missing(paths):
        raise BoxelError(f"{data.file}: {missing}")
    return selected


def _cvat_labels(data: Annotations) -> list[dict[str, Any]]:
    """Return the labels of a dataset as CVAT takes them when a task is created."""
    plain = {"mutable": False, "input_type": "text", "default_value": "", "values": [""]}
    names = [dict.fromkeys((MARK_ATTRIBUTE, ID_ATTRIBUTE)) for _ in data.categories]
    for label, extras in zip(data.labels.tolist(), data.extras, strict=True):
        names[label] |= dict.fromkeys(get_dict(decode_extras(extras), "attributes"))
    return [
        {"name": category.name, "attributes": [{"name": name} | plain for name in used]}
        for category, used in zip(data.categories, names, strict=True)
    ]
