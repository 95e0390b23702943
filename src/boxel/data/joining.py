"""Join several datasets into one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from boxel.data.annotations import COLUMNS, VOID, Annotations, Category, ImageId, values_to_labels
from boxel.data.label_maps import has_background, with_plain_background
from boxel.utils.errors import BoxelError


def join(datasets: Sequence[Annotations]) -> Annotations:
    """Join the images and instances of several datasets, in their order.

    Categories of the same name become one, the first of them. An image or annotation id that an earlier dataset has
    taken is prefixed with the name of its own dataset, e.g. ``voc2007:17``.

    Args:
        datasets: At least one.

    Returns:
        The joined dataset, its paths relative to the folder that holds the images of all; if there is only one dataset,
        that dataset itself.

    Raises:
        BoxelError: The values of the label maps stand for different classes.

    Examples:
        >>> from boxel.data.samples import sample_images
        >>> data = sample_images()
        >>> len(join([data, data])) == 2 * len(data)
        True
    """
    first = datasets[0]
    if len(datasets) == 1:
        return first
    if any(map(has_background, datasets)):
        datasets = [with_plain_background(data) for data in datasets]
    names = list(dict.fromkeys(category.name for data in datasets for category in data.categories))
    roots = [data.root.resolve() for data in datasets]
    root = _common_root(roots, datasets)
    categories = _merge_categories(datasets, names)
    mapped: list[Annotations] = []
    image_ids: list[ImageId] = []
    ids: list[ImageId] = []
    columns: dict[str, list[np.ndarray]] = {name: [] for name in COLUMNS}
    for data in datasets:
        label = np.array([names.index(category.name) for category in data.categories], dtype=np.int32)
        moved = replace(data.relabel(label, categories), image_index=data.image_index + len(image_ids))
        if any(data.label_maps):
            mapped.append(moved)
        for name, parts in columns.items():
            parts.append(getattr(moved, name))
        image_ids += _free_ids(data.image_ids, image_ids, data)
        ids += _free_ids(data.ids, ids, data)
    pairs = list(zip(roots, datasets, strict=True))
    return Annotations(
        root=root,
        image_ids=image_ids,
        ids=ids,
        paths=[_relative_to(root, own / path) for own, data in pairs for path in data.paths],
        label_maps=[
            None if path is None else _relative_to(root, own / path)
            for own, data in pairs
            for path in data.label_maps
        ],
        categories=categories,
        image_extras=[extras for data in datasets for extras in data.image_extras],
        splits=[split for data in datasets for split in data.splits],
        dataset_extras=next((data.dataset_extras for data in datasets if data.dataset_extras), None),
        map_labels=_merge_map_labels(mapped),
        void=(mapped or datasets)[0].void,
        file=" + ".join(data.file for data in datasets),
        issues=[issue for data in datasets for issue in data.issues],
        **{name: np.concatenate(parts) for name, parts in columns.items()},
    )


def _common_root(roots: Sequence[Path], datasets: Sequence[Annotations]) -> Path:
    try:
        return Path(os.path.commonpath(roots))
    except ValueError as error:  # on different drives
        raise BoxelError(
            f"{datasets[1].file}: its images are on another drive than those of {datasets[0].file}."
        ) from error


def _merge_map_labels(datasets: Sequence[Annotations]) -> NDArray[np.int16]:
    """Return the one `map_labels` of all label maps."""
    if not datasets:
        return values_to_labels({})
    longest = max(len(data.map_labels) for data in datasets)
    tables = [np.pad(d.map_labels, (0, longest - len(d.map_labels)), constant_values=VOID) for d in datasets]
    for data, table in zip(datasets, tables, strict=True):
        if not np.array_equal(table, tables[0]):
            raise BoxelError(
                f"{data.file}: the values of its label maps stand for other classes than those of {datasets[0].file}; "
                "convert one of the datasets."
            )
    return tables[0]


def _merge_categories(datasets: Sequence[Annotations], names: Sequence[str]) -> tuple[Category, ...]:
    """Return the first category of each name, with distinct ids."""
    found: dict[str, Category] = {}
    for category in (category for data in datasets for category in data.categories):
        found.setdefault(category.name, category)
    taken: set[int] = set()
    for name in names:
        id = found[name].id
        while id in taken:
            id = max(taken) + 1
        taken.add(id)
        found[name] = replace(found[name], id=id)
    return tuple(found[name] for name in names)


def _free_ids(own: Sequence[ImageId], taken: Sequence[ImageId], data: Annotations) -> list[ImageId]:
    known, stem = set(taken), Path(data.file).stem
    used = known.union(own)
    names = chain([stem], (f"{stem}-{number}" for number in count(2)))
    name = next(name for name in names if used.isdisjoint(f"{name}:{id}" for id in own))
    return [f"{name}:{id}" if id in known else id for id in own]


def _relative_to(root: Path, path: Path) -> str:
    return Path(os.path.relpath(path, root)).as_posix()
