"""Several data sets as one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from boxel.data.annotations import VOID, Annotations, Category, ImageId, values_to_labels
from boxel.utils.errors import BoxelError


def join(sets: Sequence[Annotations]) -> Annotations:
    """One set of the images and instances of several, in their order.

    Categories of one name become one, the first of them. An image or annotation id that an earlier set has taken gets
    the name of its own set before it, as in ``voc2007:17``.

    Args:
        sets: one at least.

    Returns:
        The set, its paths relative to the folder that holds the images of all; the set itself where there is only one.

    Raises:
        BoxelError: the values of their label maps stand for different classes.
    """
    first = sets[0]
    if len(sets) == 1:
        return first
    names = list(dict.fromkeys(category.name for data in sets for category in data.categories))
    roots = [data.root.resolve() for data in sets]
    try:
        root = Path(os.path.commonpath(roots))
    except ValueError as error:  # on different drives
        raise BoxelError(
            f"{sets[1].file}: its images are on another drive than those of {first.file}."
        ) from error
    categories = _categories(sets, names)
    mapped: list[Annotations] = []
    image_ids: list[ImageId] = []
    ids: list[ImageId] = []
    columns: dict[str, list[np.ndarray]] = {name: [] for name in _COLUMNS}
    for data in sets:
        label = np.array([names.index(category.name) for category in data.categories], dtype=np.int32)
        moved = replace(data.relabel(label, categories), image_index=data.image_index + len(image_ids))
        if any(data.label_maps):
            mapped.append(moved)
        for name, parts in columns.items():
            parts.append(getattr(moved, name))
        image_ids += _free(data.image_ids, image_ids, data)
        ids += _free(data.ids, ids, data)
    return Annotations(
        root=root,
        image_ids=image_ids,
        ids=ids,
        paths=[_from(root, own, path) for own, data in zip(roots, sets, strict=True) for path in data.paths],
        label_maps=[
            None if path is None else _from(root, own, path)
            for own, data in zip(roots, sets, strict=True)
            for path in data.label_maps
        ],
        categories=categories,
        map_labels=_one_table(mapped),
        void=(mapped or sets)[0].void,
        file=" + ".join(data.file for data in sets),
        faults=[fault for data in sets for fault in data.faults],
        **{name: np.concatenate(parts) for name, parts in columns.items()},
    )


def _one_table(sets: Sequence[Annotations]) -> NDArray[np.int16]:
    """What the values of all label maps stand for."""
    if not sets:
        return values_to_labels({})
    longest = max(len(data.map_labels) for data in sets)
    tables = [np.pad(d.map_labels, (0, longest - len(d.map_labels)), constant_values=VOID) for d in sets]
    for data, table in zip(sets, tables, strict=True):
        if not np.array_equal(table, tables[0]):
            raise BoxelError(
                f"{data.file}: the values of its label maps stand for other classes than those of {sets[0].file}; "
                "convert one of the sets."
            )
    return tables[0]


def _categories(sets: Sequence[Annotations], names: Sequence[str]) -> tuple[Category, ...]:
    """The first category of each name, under an id of its own."""
    found: dict[str, Category] = {}
    for category in (category for data in sets for category in data.categories):
        found.setdefault(category.name, category)
    taken: set[int] = set()
    for name in names:
        id = found[name].id
        while id in taken:
            id = max(taken) + 1
        taken.add(id)
        found[name] = replace(found[name], id=id)
    return tuple(found[name] for name in names)


def _free(own: Sequence[ImageId], taken: Sequence[ImageId], data: Annotations) -> list[ImageId]:
    known = set(taken)
    name = Path(data.file).stem
    return [f"{name}:{id}" if id in known else id for id in own]


def _from(root: Path, own: Path, path: str) -> str:
    return Path(os.path.relpath(own / path, root)).as_posix()


_COLUMNS = (
    *("widths", "heights", "image_index", "labels", "boxes", "iscrowd"),
    *("segmentations", "quality", "source", "trusted", "areas"),
)
