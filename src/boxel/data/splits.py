"""Split the images of a dataset: make a validation share, and select one split."""

from __future__ import annotations

import logging
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from boxel.data.annotations import Annotations
from boxel.utils.errors import BoxelError, UsageError, one_line

logger = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")
"""The usual splits; a dataset may have others."""

_OTHER_NAMES = {"training": "train", "valid": "val", "validation": "val", "testing": "test"}


def standard_split(name: str) -> str:
    """Return one of `SPLITS` for what other programs call it; another name as it is.

    Examples:
        >>> [standard_split(name) for name in ("Validation", "train2017", "TEST", "night")]
        ['val', 'train', 'test', 'night']
    """
    plain = re.sub(r"[-_]?\d{4}$", "", name.strip().lower())
    standard = _OTHER_NAMES.get(plain, plain)
    return standard if standard in SPLITS else name


def split_name(folder: str) -> str | None:
    """Return the one of `SPLITS` that a folder of this name holds, if any.

    Examples:
        >>> split_name("Valid"), split_name("train2017"), split_name("images")
        ('val', 'train', None)
    """
    standard = standard_split(folder)
    return standard if standard in SPLITS else None


def find_split(folders: Iterable[str]) -> str | None:
    """Return the split that the first of some folders names, if any does.

    Examples:
        >>> find_split(["images", "valid"])
        'val'
    """
    return next(filter(None, map(split_name, folders)), None)


def find_splits(paths: Sequence[str]) -> list[str | None]:
    """Return the split that a folder of each image names; None for all unless there are several.

    Examples:
        >>> find_splits(["train/a.jpg", "x/val2017/b.jpg", "c.jpg"]), find_splits(["train/a.jpg", "train/b.jpg"])
        (['train', 'val', None], [None, None])
    """
    splits = [find_split(path.split("/")[:-1]) for path in paths]
    return splits if len({*splits} - {None}) > 1 else [None] * len(paths)


def make_split(
    data: Annotations, val_share: float, seed: int = 0, group_by: str | None = None
) -> Annotations:
    """Assign each image to the split ``train`` or ``val``, at random.

    The same images, share and seed give the same split in whatever order the images come.

    Args:
        data: A dataset that has no split.
        val_share: Share of the images to validate on, in (0, 1).
        seed: Seed of the choice.
        group_by: Regular expression; images whose file names agree in its first group, or in what it matches if it has
            none, stay together. It is searched for in the whole path if it has a slash.

    Raises:
        BoxelError: The dataset has a split, the expression is invalid or matches not all file names, or there are fewer
            than two groups.

    Examples:
        >>> from boxel.data import example_scenes
        >>> make_split(example_scenes(4), val_share=0.25).splits.count("val")
        1
    """
    if not 0 < val_share < 1:
        raise UsageError(f"`val_share` is {val_share}; it should be between 0 and 1, e.g. 0.2.")
    if any(data.splits):
        named = count_splits(split for split in data.splits if split is not None)
        raise BoxelError(f"{data.file}: the dataset has a split already ({named}); leave out `val_share`.")
    groups = defaultdict[str, list[int]](list)
    for image, path in enumerate(data.paths):
        groups[_group(data, path, group_by)].append(image)
    if len(groups) < 2:
        what = "one group" if groups and group_by else f"{len(data)} images"
        raise BoxelError(
            f"{data.file}: {what} cannot be split into `train` and `val`; give more images or groups."
        )
    wanted, chosen = val_share * len(data), list[int]()
    names = sorted(groups)
    shuffled = [groups[names[k]] for k in np.random.default_rng(seed).permutation(len(names))]
    for members in shuffled[:-1]:  # the last one is always trained on
        if abs(len(chosen) + len(members) - wanted) < abs(len(chosen) - wanted) or not chosen:
            chosen += members
    val = set(chosen)
    return replace(data, splits=["val" if image in val else "train" for image in range(len(data))])


def _group(data: Annotations, path: str, group_by: str | None) -> str:
    if group_by is None:
        return path
    name = path.replace("\\", "/")
    try:
        match = re.search(group_by, name if "/" in group_by else name.rpartition("/")[2])
    except re.error as error:
        raise UsageError(
            f"`group_by` is {group_by!r}, which is not a regular expression ({one_line(error)})."
        ) from error
    if match is None:
        raise BoxelError(
            f"{data.file}: `group_by` {group_by!r} matches nothing in {path}; match every file name."
        )
    return str(match[1] if match.re.groups else match[0])


def select_split(data: Annotations, split: str) -> Annotations:
    """Keep only the images of one split; all if the dataset has no split.

    A dataset of which all images belong to one other split is a file per split: it is kept, and a warning logged.

    Raises:
        BoxelError: There are other splits, but not this one.

    Examples:
        >>> from boxel.data import example_scenes
        >>> data = make_split(example_scenes(4), 0.25)
        >>> len(select_split(data, "val"))
        1
    """
    split = standard_split(split)
    if split in data.splits:
        return data.select_images([name == split for name in data.splits])
    if not any(data.splits):
        return data
    named = count_splits(data.splits)
    if len(set(data.splits)) == 1:
        logger.warning(
            "%s: all its images are of one split (%s); they are read as `%s`", data.file, named, split
        )
        return data
    raise BoxelError(f"{data.file}: no image belongs to the split {split!r} ({named}).")


def count_splits(splits: Iterable[str | None]) -> str:
    """Describe in words how many images each split has.

    Examples:
        >>> count_splits(["train", None, "train"])
        'train: 2, none: 1'
    """
    return ", ".join(f"{split or 'none'}: {count}" for split, count in Counter(splits).items())
