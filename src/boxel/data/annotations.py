"""`Annotations`: a data set in memory, a column an attribute.

Every reader makes one, everything else reads it. Segmentations stay the JSON text they were read as until a mask is
asked for, which lets a set of 860,000 polygons fit into less than 2 GB.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from boxel.data.faults import Fault
from boxel.masks.rle import Rle, Segmentation, decode, to_rle
from boxel.utils.errors import BoxelError, nearest

ImageId = int | str

VOID, BACKGROUND = -1, -2
"""What `map_labels` has for values of a label map that stand for no category: pixels of which nothing is known, and
pixels that are of none."""


@dataclass(frozen=True)
class Category:
    """A class of objects, under the id its data set gave it."""

    id: int
    name: str
    supercategory: str = ""


@dataclass(frozen=True)
class Annotations:
    """Images and the instances in them.

    There are I images, K categories and N instances; instance columns have length N and share their order.

    Attributes:
        root: folder that `paths` are relative to.
        image_ids: I original ids.
        paths: I image files, relative to `root`.
        widths: (I,) int32 pixels; 0 where the file does not say.
        heights: (I,) int32 pixels; 0 where the file does not say.
        categories: K categories; an instance's `labels` index them.
        ids: N original annotation ids.
        image_index: (N,) int32, index into the images.
        labels: (N,) int32 in [0, K).
        boxes: (N, 4) float64, xyxy pixels of the upright image.
        iscrowd: (N,) bool.
        segmentations: (N,) object, a COCO segmentation as JSON bytes, or None where there is only a box.
        quality: (N,) float32 in [0, 1], estimated IoU of the mask with the truth; NaN where unknown.
        source: (N,) object, who made the mask (`str`), or None.
        trusted: (N,) bool, False for a mask that training should not learn from.
        areas: (N,) float64 square pixels, by which COCO calls an instance small, medium or large, as the file
            gives them; NaN where it doesn't.
        label_maps: I paths of class-label images relative to `root`, None where an image has none.
        map_labels: (V,) int16, the label in [0, K) that each value of a label map stands for, or `VOID`, or
            `BACKGROUND`; values from V up are void. If not given, categories have their ids as values, and what is left
            of 0 and `void` is background and void.
        void: the value that stands for "unlabeled" in label maps as they are written.
        file: the annotation file or folder read, for messages.
        faults: what the reader found wrong and left out.
    """

    root: Path
    image_ids: list[ImageId]
    paths: list[str]
    widths: NDArray[np.int32]
    heights: NDArray[np.int32]
    categories: tuple[Category, ...]
    ids: list[ImageId]
    image_index: NDArray[np.int32]
    labels: NDArray[np.int32]
    boxes: NDArray[np.float64]
    iscrowd: NDArray[np.bool_]
    segmentations: NDArray[np.object_]
    quality: NDArray[np.float32] = None  # type: ignore[assignment]  # filled below
    source: NDArray[np.object_] = None  # type: ignore[assignment]
    trusted: NDArray[np.bool_] = None  # type: ignore[assignment]
    areas: NDArray[np.float64] = None  # type: ignore[assignment]
    label_maps: list[str | None] = None  # type: ignore[assignment]
    map_labels: NDArray[np.int16] = None  # type: ignore[assignment]
    void: int = 255
    file: str = ""
    faults: list[Fault] = field(default_factory=list)

    def __post_init__(self) -> None:
        n = len(self.image_index)
        defaults = {
            "quality": lambda: np.full(n, np.nan, dtype=np.float32),
            "source": lambda: np.full(n, None, dtype=object),
            "trusted": lambda: np.ones(n, dtype=bool),
            "areas": lambda: np.full(n, np.nan),
            "label_maps": lambda: [None] * len(self.image_ids),
            "map_labels": lambda: values_to_labels(_values_of(self) if any(self.label_maps) else {}),
        }
        for name, make in defaults.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, make())

    def __len__(self) -> int:
        """Number of images."""
        return len(self.image_ids)

    def __repr__(self) -> str:
        masks = int(self.has_mask.sum())
        return (
            f"Annotations({len(self)} images, {len(self.labels)} instances, {masks} with masks, "
            f"{len(self.categories)} categories, from {self.file or 'memory'!r})"
        )

    @property
    def has_label_map(self) -> NDArray[np.bool_]:
        """(I,) bool: the image has a label map."""
        return np.array([name is not None for name in self.label_maps], dtype=bool)

    @property
    def has_segmentation(self) -> NDArray[np.bool_]:
        """(N,) bool: the instance has a mask, trusted or not."""
        return np.array([s is not None for s in self.segmentations], dtype=bool)

    @property
    def has_mask(self) -> NDArray[np.bool_]:
        """(N,) bool: the instance has a mask that may be learned from or evaluated against."""
        return self.has_segmentation & self.trusted

    @property
    def has_made_mask(self) -> NDArray[np.bool_]:
        """(N,) bool: the instance has such a mask, and it is told who made it, as of those of `boxel label`."""
        return self.has_mask & np.array([name is not None for name in self.source], dtype=bool)

    @property
    def has_box(self) -> NDArray[np.bool_]:
        """(N,) bool: the box is finite and has an area."""
        extent = self.boxes[:, 2:] - self.boxes[:, :2]
        return np.all(np.isfinite(extent) & (extent > 0), axis=1)

    def image_path(self, image: int) -> Path:
        """The file of the image at this index."""
        return self.root / self.paths[image]

    def instances_of(self, image: int) -> NDArray[np.int64]:
        """Indices of the instances in one image, in the order of the file."""
        order, starts = self._by_image()
        return order[starts[image] : starts[image + 1]]

    def segmentation(self, instance: int) -> Segmentation | None:
        """The instance's segmentation as COCO writes it, or None."""
        raw = self.segmentations[instance]
        return None if raw is None else msgspec.json.decode(raw)

    def rle(self, instance: int, size: tuple[int, int] | None = None) -> Rle | None:
        """The instance's mask as a compressed run-length code, or None where there is only a box.

        Args:
            instance: index of the instance.
            size: (height, width) of the image, where the file does not say.

        Raises:
            BoxelError: the segmentation is malformed.
        """
        image = int(self.image_index[instance])
        height, width = size or (int(self.heights[image]), int(self.widths[image]))
        try:
            segmentation = self.segmentation(instance)
            return None if segmentation is None else to_rle(segmentation, height, width)
        except Exception as error:  # pycocotools raises bare Exception and TypeError too
            raise BoxelError(
                f"{self.file}: the segmentation of annotation {self.ids[instance]} (image {self.image_ids[image]}) "
                f"can't be read ({error}); `boxel check --repair` drops it and keeps the box."
            ) from error

    def area(self, instance: int) -> float:
        """Square pixels of an instance as COCO counts them: what the file says, else what polygons enclose.

        Raises:
            BoxelError: the segmentation is malformed.
        """
        if np.isfinite(self.areas[instance]):
            return float(self.areas[instance])
        segmentation = self.segmentation(instance)
        if segmentation is None:
            width, height = self.boxes[instance, 2:] - self.boxes[instance, :2]
            return float(width * height)
        if isinstance(segmentation, dict):
            area = _area_of_code(segmentation)
            return float(coco_mask.area(self.rle(instance))) if area is None else area
        corners = [np.asarray(polygon, dtype=np.float64).reshape(-1, 2).T for polygon in segmentation]
        return round(float(sum(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2 for x, y in corners)), 4)

    def mask(self, instance: int, size: tuple[int, int] | None = None) -> NDArray[np.uint8] | None:
        """(H, W) uint8 mask of zeros and ones, or None where there is only a box."""
        rle = self.rle(instance, size)
        return None if rle is None else decode(rle)

    def select_instances(self, keep: NDArray[Any]) -> Annotations:
        """The same images with only some instances.

        Args:
            keep: (N,) bool, or indices in the order wanted.
        """
        keep = np.flatnonzero(keep) if np.asarray(keep).dtype == bool else np.asarray(keep, dtype=np.int64)
        columns = {name: getattr(self, name)[keep] for name in _INSTANCE_ARRAYS}
        return replace(self, ids=[self.ids[i] for i in keep], **columns)

    def select_images(self, keep: Sequence[int] | NDArray[Any]) -> Annotations:
        """Only some images, with their instances.

        Args:
            keep: (I,) bool, or indices in the order wanted.
        """
        keep = np.flatnonzero(keep) if np.asarray(keep).dtype == bool else np.asarray(keep, dtype=np.int64)
        new_index = np.full(len(self), -1, dtype=np.int32)
        new_index[keep] = np.arange(len(keep), dtype=np.int32)
        inside = self.select_instances(new_index[self.image_index] >= 0)
        return replace(
            inside,
            image_ids=[self.image_ids[i] for i in keep],
            paths=[self.paths[i] for i in keep],
            label_maps=[self.label_maps[i] for i in keep],
            widths=self.widths[keep],
            heights=self.heights[keep],
            image_index=new_index[inside.image_index],
        )

    def select_categories(self, names: Sequence[str]) -> Annotations:
        """Only the named categories, relabeled in the order given.

        Raises:
            BoxelError: a name is not a category of this set.
        """
        known = self._names_with(names)
        new_label = np.full(len(known) + 1, -1, dtype=np.int32)
        new_label[[known.index(name) for name in names]] = np.arange(len(names), dtype=np.int32)
        return self.relabel(new_label, [self.categories[known.index(name)] for name in names])

    def rename_categories(self, names: Mapping[str, str]) -> Annotations:
        """The same set under other category names; categories that come to one name become one, the first of them.

        Args:
            names: new name by old name; categories that are not in it keep theirs.

        Raises:
            BoxelError: an old name is not a category of this set.
        """
        known = self._names_with(names)
        renamed = [names.get(name, name) for name in known]
        kept = list(dict.fromkeys(renamed))
        new_label = np.array([kept.index(name) for name in renamed], dtype=np.int32)
        return self.relabel(
            new_label, [replace(self.categories[renamed.index(name)], name=name) for name in kept]
        )

    def class_agnostic(self, name: str = "object") -> Annotations:
        """All categories merged into one."""
        return self.relabel(np.zeros(len(self.categories), dtype=np.int32), [Category(1, name)])

    def relabel(self, new_label: NDArray[np.int32], categories: Sequence[Category]) -> Annotations:
        """The same images under other categories.

        Args:
            new_label: (K,) or more, index into ``categories`` by the old label; -1 leaves a category's instances out,
                and makes its pixels in label maps background where these know one, else void.
            categories: the new ones.
        """
        inside = self.select_instances(new_label[self.labels] >= 0)
        left_out = BACKGROUND if BACKGROUND in self.map_labels else VOID
        map_labels, known = self.map_labels.copy(), self.map_labels >= 0
        map_labels[known] = np.where(new_label >= 0, new_label, left_out)[map_labels[known]]
        return replace(
            inside, labels=new_label[inside.labels], categories=tuple(categories), map_labels=map_labels
        )

    def without_masks(self) -> Annotations:
        """The same set with boxes only, and no label maps."""
        nothing = np.full(len(self.labels), None, dtype=object)
        return replace(self, segmentations=nothing, label_maps=[None] * len(self))

    def _names_with(self, wanted: Iterable[str]) -> list[str]:
        """Names of the categories, all of the wanted ones among them."""
        known = [category.name for category in self.categories]
        for name in wanted:
            if name not in known:
                raise BoxelError(f"{self.file}: there is no category {name!r}.{nearest(name, known)}")
        return known

    def _by_image(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        cached = self.__dict__.get("_order")
        if cached is None:
            order = np.argsort(self.image_index, kind="stable")
            starts = np.searchsorted(self.image_index[order], np.arange(len(self) + 1))
            cached = (order, starts)
            object.__setattr__(self, "_order", cached)
        return cached


def _area_of_code(code: Mapping[str, Any]) -> float | None:
    """The area of a compressed code whose end is sound, without checking each run; None for any other."""
    counts = code.get("counts")
    if not isinstance(counts, str) or not "0" <= counts[-1:] < "P":
        return None  # its last number does not end, so that pycocotools would read on
    try:
        height, width = code["size"]
        area = float(coco_mask.area({"size": [height, width], "counts": counts}))
        return area if area <= height * width else None
    except (LookupError, TypeError, ValueError, OverflowError):
        return None


def _values_of(data: Annotations) -> dict[int, int]:
    """What values stand for where no reader has said so."""
    ids = {category.id: label for label, category in enumerate(data.categories)}
    return {0: BACKGROUND, data.void: VOID} | ids


def values_to_labels(labels: Mapping[int, int]) -> NDArray[np.int16]:
    """`map_labels` of an `Annotations` from the label of each value; all other values are void."""
    known = {value: label for value, label in labels.items() if 0 <= value <= MAX_VALUE}
    table = np.full(max(known, default=-1) + 1, VOID, dtype=np.int16)
    table[list(known)] = list(known.values())
    return table


MAX_VALUE = 65535
"""The highest value of a pixel of a PNG."""

_INSTANCE_ARRAYS = tuple(
    f.name
    for f in fields(Annotations)
    if f.name
    in {"image_index", "labels", "boxes", "iscrowd", "segmentations", "quality", "source", "trusted", "areas"}
)
