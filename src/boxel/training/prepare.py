"""Which instances are learned from their mask, which from their box, and which images are kept for validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from boxel.data.annotations import Annotations, Category
from boxel.utils.errors import BoxelError, nearest

MOST_REPEATS = 10
"""How often an image with a true mask is shown in an epoch at most."""


def add_masks(data: Annotations, masks: Annotations, flag: str = "--masks") -> Annotations:
    """The set with the masks another file has for some of its instances, matched by annotation id.

    Args:
        data: boxes, perhaps with masks of their own, which are kept where `masks` has none.
        masks: annotations with the same ids.
        flag: that named them.

    Raises:
        BoxelError: not one instance matches.
    """
    theirs = {
        (masks.ids[i], masks.image_ids[masks.image_index[i]]): i for i in np.flatnonzero(masks.has_mask)
    }
    segmentations, areas, trusted = data.segmentations.copy(), data.areas.copy(), data.trusted.copy()
    source, quality = data.source.copy(), data.quality.copy()
    found = 0
    for i, annotation in enumerate(data.ids):
        other = theirs.get((annotation, data.image_ids[data.image_index[i]]))
        if other is not None:
            segmentations[i], areas[i], trusted[i] = masks.segmentations[other], masks.areas[other], True
            source[i], quality[i] = masks.source[other], masks.quality[other]
            found += 1
    if not found:
        raise BoxelError(
            f"{masks.file}: none of its masks belongs to an annotation id of {data.file}; check {flag}."
        )
    return replace(
        data, segmentations=segmentations, areas=areas, trusted=trusted, source=source, quality=quality
    )


def repeats_of(data: Annotations, share: float) -> NDArray[np.int64]:
    """How often each image is to be shown in an epoch, that few with true masks are not lost among many without.

    An image is of the few where it has a label map, or where all its instances have masks that were given and not made.
    It is of the many where one has no such mask.

    Args:
        data: the set.
        share: what the few are to be of both.

    Returns:
        (I,) 1, and of the few what the share comes to when rounded, `MOST_REPEATS` at most.
    """
    given = data.has_mask & ~data.has_generated_mask
    guessed, drawn = np.zeros((2, len(data)), dtype=bool)
    guessed[data.image_index[~given & ~data.iscrowd]] = True
    drawn[data.image_index[given & ~data.iscrowd]] = True
    few = data.has_label_map | (drawn & ~guessed)
    repeats = np.ones(len(data), dtype=np.int64)
    if few.any():
        wanted = share / (1 - share) * (guessed & ~few).sum() / few.sum()
        repeats[few] = min(max(round(wanted), 1), MOST_REPEATS)
    return repeats


def keep_masks_of(data: Annotations, classes: Sequence[str]) -> Annotations:
    """Masks of some categories only; the other instances keep their boxes (BoxInst, Tables 6 and 7).

    Label maps, which tell of all categories, are left out.

    Args:
        data: the set.
        classes: names of the categories that keep their masks; none leaves boxes alone.

    Raises:
        BoxelError: a name is not a category of the set.
    """
    known = [category.name for category in data.categories]
    for name in classes:
        if name not in known:
            raise BoxelError(
                f"{data.file}: data.mask_classes names {name!r}, no category of the set.{nearest(name, known)}"
            )
    labels = [known.index(name) for name in classes]
    segmentations = data.segmentations.copy()
    segmentations[~np.isin(data.labels, labels)] = None
    return replace(data, segmentations=segmentations, label_maps=[None] * len(data))


def check_instances(data: Annotations) -> None:
    """Raise a :class:`BoxelError` where a set has no instance to learn from."""
    if not len(data) or data.iscrowd.all():
        raise BoxelError(
            f"{data.file}: there is no instance to learn from in {len(data)} images, under the categories "
            f"{', '.join(category.name for category in data.categories) or '(none)'} and with crowds and boxes under "
            "data.min_box ignored; `boxel check` tells what else was left out."
        )


def check_instances_or_labels(data: Annotations) -> None:
    """Raise a :class:`BoxelError` where a set has neither an instance nor a label map to learn from."""
    if not any(data.label_maps):
        check_instances(data)


def check_masks(data: Annotations) -> None:
    """Raise a :class:`BoxelError` where no instance of a set has a mask to learn from."""
    check_instances(data)
    if not (data.has_mask & ~data.iscrowd).any():
        raise BoxelError(
            f"{data.file}: none of its {len(data.labels)} instances has a mask to learn from; `boxel label` makes "
            "masks of boxes."
        )


def check_labels(data: Annotations) -> None:
    """Raise a :class:`BoxelError` where no pixel of a set is of a class that is known."""
    if not any(data.label_maps) and not data.has_mask.any():
        raise BoxelError(
            f"{data.file}: not one of its {len(data)} images has a label map or a mask to learn from; --label makes "
            "masks of its boxes first."
        )


def under_categories(data: Annotations, categories: Sequence[Category]) -> Annotations:
    """The set under another set's categories, matched by name; instances of other categories are left out.

    Args:
        data: the set.
        categories: the other set's, in the order of the labels.

    Raises:
        BoxelError: the two have no category in common.
    """
    names = [category.name for category in categories]
    label = [names.index(category.name) if category.name in names else -1 for category in data.categories]
    if max(label, default=-1) < 0:
        raise BoxelError(
            f"{data.file}: none of its categories is one of those to learn ({', '.join(names[:10])})."
        )
    return data.relabel(np.array(label, dtype=np.int32), categories)


def split(
    data: Annotations, share: float, seed: int, among: NDArray[np.bool_] | None = None
) -> tuple[Annotations, Annotations | None]:
    """Training and validation images, drawn by image with a seed.

    Args:
        data: the set.
        share: of the images that go to validation; at least one does where it is above 0.
        seed: the same seed splits alike.
        among: (I,) bool, images that may go to validation, of which the share is; all where None.

    Returns:
        Training and validation set; the latter None for a share of 0, or with one image to draw from.
    """
    drawn = np.arange(len(data)) if among is None else np.flatnonzero(among)
    if share <= 0 or len(drawn) < 2:
        return data, None
    order = np.random.default_rng(seed).permutation(drawn)
    kept = np.ones(len(data), dtype=bool)
    kept[order[: min(max(round(len(drawn) * share), 1), len(drawn) - 1)]] = False
    return data.select_images(kept), data.select_images(~kept)
