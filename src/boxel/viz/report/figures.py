"""What a labeled set comes to: the quality of its masks, whole and by groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boxel.data.annotations import Annotations

SIZES = ("small", "medium", "large")
"""COCO's sizes."""

_BETWEEN = (32**2, 96**2)  # square pixels that part them


@dataclass(frozen=True)
class Group:
    """Boxes that have something in common.

    Attributes:
        name: what they have in common.
        boxes: how many they are.
        masks: how many of them have a mask.
        dropped: how many of the masks are not trusted.
        quality: mean quality of the masks, in [0, 1]; NaN where none is known.
    """

    name: str
    boxes: int
    masks: int
    dropped: int
    quality: float


def quality_of(data: Annotations) -> NDArray[np.float64]:
    """(N,) float64 quality in [0, 1] of the masks of a set; NaN where there is no mask or no such number."""
    # To the digits that float32 has: its 0.9 is a little less than that of float64, and would miss its threshold.
    quality = data.quality.astype(np.float64).round(6)
    return np.where(data.has_segmentation & (quality >= 0) & (quality <= 1), quality, np.nan)


def by_category(data: Annotations) -> list[Group]:
    """A group for each category that has boxes, the worst first.

    That is one without any mask, then by mean quality from the lowest up, and where none is known by the share of masks
    that are not trusted.
    """

    def badness(group: Group) -> tuple[float, float, int]:
        quality = group.quality if np.isfinite(group.quality) else 2.0
        return quality if group.masks else -1.0, -group.dropped / max(group.masks, 1), -group.boxes

    groups = _grouped(data, data.labels, [category.name for category in data.categories])
    return sorted(groups, key=badness)


def by_size(data: Annotations) -> list[Group]:
    """A group for each of COCO's sizes that boxes have, by the area of the box; a faulty box has none and is small."""
    areas = np.where(data.has_box, np.prod(data.boxes[:, 2:] - data.boxes[:, :2], axis=1), 0)
    return _grouped(data, np.digitize(areas, _BETWEEN), SIZES)


def by_source(data: Annotations) -> list[Group]:
    """A group for each maker of masks, the one with the most first; a mask that names none was in the file before."""
    masks = data.select_instances(data.has_segmentation)
    index_of: dict[str, int] = {}
    keys = [index_of.setdefault(source or "no source given", len(index_of)) for source in masks.source]
    groups = _grouped(masks, np.array(keys, dtype=np.int64), [*index_of])
    return sorted(groups, key=lambda group: -group.masks)


def _grouped(data: Annotations, keys: NDArray[Any], names: Sequence[str]) -> list[Group]:
    """The boxes by a key that indexes names; names without boxes are left out."""
    masked, quality = data.has_segmentation, quality_of(data)
    known = np.isfinite(quality)
    length = len(names)
    boxes, masks, dropped, rated = (
        np.bincount(keys[some], minlength=length)
        for some in (slice(None), masked, masked & ~data.trusted, known)
    )
    total = np.bincount(keys[known], weights=quality[known], minlength=length)
    quality_of_group = total / np.where(rated, rated, np.nan)
    columns = zip(names, boxes, masks, dropped, quality_of_group, strict=True)
    return [Group(name, int(n), int(m), int(d), float(q)) for name, n, m, d, q in columns if n]
