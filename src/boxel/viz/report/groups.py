"""Quality of a labeled dataset, as a whole and by groups of boxes."""

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
    """Boxes that have something in common."""

    name: str  # what they have in common
    boxes: int  # number of boxes
    masks: int  # number of boxes with a mask
    dropped: int  # number of masks that are not trusted
    quality: float  # mean quality of the masks, in [0, 1]; NaN if none is known


def known_quality(data: Annotations) -> NDArray[np.float64]:
    """Return the (N,) float64 quality of the masks in [0, 1]; NaN without a mask or such a number."""
    # Rounded to the digits of float32, whose 0.9 is slightly less than that of float64 and would miss its threshold.
    quality = data.quality.astype(np.float64).round(6)
    return np.where(data.has_segmentation & (quality >= 0) & (quality <= 1), quality, np.nan)


def group_by_category(data: Annotations) -> list[Group]:
    """Group by category, the worst first: without a mask, then by mean quality, else by share of masks not trusted."""

    def badness(group: Group) -> tuple[float, float, int]:
        quality = group.quality if np.isfinite(group.quality) else 2.0
        return quality if group.masks else -1.0, -group.dropped / max(group.masks, 1), -group.boxes

    groups = _grouped(data, data.labels, [category.name for category in data.categories])
    return sorted(groups, key=badness)


def group_by_size(data: Annotations) -> list[Group]:
    """Group by COCO's sizes, by the area of the box; an invalid box has none and is small."""
    areas = np.where(data.has_box, np.prod(data.boxes[:, 2:] - data.boxes[:, :2], axis=1), 0)
    return _grouped(data, np.digitize(areas, _BETWEEN), SIZES)


def group_by_source(data: Annotations) -> list[Group]:
    """Group by source of the mask, the one with the most first; masks without a source were in the file before."""
    masks = data.select_instances(data.has_segmentation)
    index_of: dict[str, int] = {}
    keys = [index_of.setdefault(source or "no source given", len(index_of)) for source in masks.source]
    groups = _grouped(masks, np.array(keys, dtype=np.int64), [*index_of])
    return sorted(groups, key=lambda group: -group.masks)


def _grouped(data: Annotations, keys: NDArray[Any], names: Sequence[str]) -> list[Group]:
    """Group the boxes by a key that indexes names; names without boxes are left out."""
    masked, quality = data.has_segmentation, known_quality(data)
    known = np.isfinite(quality)
    length = len(names)
    boxes, masks, dropped, rated = (
        np.bincount(keys[some], minlength=length)
        for some in (slice(None), masked, masked & ~data.trusted, known)
    )
    total = np.bincount(keys[known], weights=quality[known], minlength=length)
    mean_quality = total / np.where(rated, rated, np.nan)
    columns = zip(names, boxes, masks, dropped, mean_quality, strict=True)
    return [Group(name, int(n), int(m), int(d), float(q)) for name, n, m, d, q in columns if n]
