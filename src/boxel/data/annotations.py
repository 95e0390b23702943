"""`Annotations`: a dataset in memory, one column per attribute.

Every reader returns one and everything else takes one. Segmentations stay the JSON text they were read as until a mask
is asked for, so that a dataset of 860,000 polygons fits into less than 2 GB.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from multiprocessing.context import get_spawning_popen
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from boxel.data.images import image_size
from boxel.data.issues import Issue
from boxel.data.sharing import SharedFile
from boxel.masks.rle import Rle, Segmentation, decode, polygon_area, to_rle
from boxel.utils.errors import BoxelError, import_package, nearest
from boxel.utils.printable import count_noun

if TYPE_CHECKING:
    import pandas

ImageId = int | str

VOID, BACKGROUND = -1, -2
"""Entries of `map_labels` for values of a label map that stand for no category: unknown pixels, and background."""

OBJECT = "object"
"""The one category of a class-agnostic dataset."""

MAX_VALUE = 65535
"""The maximum value of a pixel of a PNG."""

_INSTANCE_DTYPES = {
    "image_index": np.int32,
    "labels": np.int32,
    "boxes": np.float64,
    "iscrowd": np.bool_,
    "segmentations": np.object_,
    "quality": np.float32,
    "source": np.object_,
    "trusted": np.bool_,
    "areas": np.float64,
    "extras": np.object_,
}
COLUMNS = {"widths": np.int32, "heights": np.int32} | _INSTANCE_DTYPES
"""The types of the columns that are arrays, of images and of instances."""

_IMAGE_LISTS = ("image_ids", "paths", "label_maps", "image_extras", "splits")


@dataclass(frozen=True)
class Category:
    """A class of objects, with the id that its dataset gave it.

    Attributes:
        extras: JSON text of an object with the fields that boxel does not use, e.g. names of keypoints; None if none.

    Examples:
        >>> Category(3, "cat").name
        'cat'
    """

    id: int
    name: str
    supercategory: str = ""
    extras: bytes | None = None


@dataclass(frozen=True, repr=False)
class Annotations:
    """Images and the instances in them.

    There are I images, K categories and N instances; instance columns have length N and share their order. Arrays are
    C-contiguous and of the types below.

    Attributes:
        root: Folder that `paths` are relative to.
        image_ids: I original ids.
        paths: I image files, relative to `root`.
        widths: (I,) int32 pixels; 0 if unknown.
        heights: (I,) int32 pixels; 0 if unknown.
        categories: K categories, which `labels` index.
        ids: N original annotation ids.
        image_index: (N,) int32, index of the instance's image.
        labels: (N,) int32 in [0, K).
        boxes: (N, 4) float64, xyxy pixels of the upright image.
        iscrowd: (N,) bool.
        segmentations: (N,) object, a COCO segmentation as JSON bytes, or None if there is only a box.
        quality: (N,) float32 in [0, 1], estimated IoU of the mask with the ground truth; NaN if unknown.
        source: (N,) object, what made the mask (`str`), or None.
        trusted: (N,) bool, False for a mask that training should ignore.
        areas: (N,) float64 square pixels as the file gives them, by which COCO calls an instance small, medium or
            large; NaN if unknown.
        label_maps: I paths of class-label images relative to `root`, None for an image without one.
        map_labels: (V,) int16, for each value of a label map its label in [0, K), `VOID` or `BACKGROUND`; values from V
            up are void. By default each category's id is its value, 0 is background, and `void` is void.
        void: The value that stands for void in label maps as they are written.
        extras: (N,) object, JSON text of an object with the fields of the instance that boxel does not use, e.g.
            ``attributes`` and ``track_id`` of COCO; None if there are none.
        image_extras: I such texts on the images, e.g. ``coco_url``.
        dataset_extras: Such a text on the whole dataset, e.g. ``info`` and ``licenses``.
        splits: I names of the split that an image belongs to, e.g. ``train`` and ``val``; None if to none.
        file: The annotation file or folder that was read, for messages.
        issues: What the reader found wrong.

    Examples:
        >>> from boxel.data.samples import sample_images
        >>> data = sample_images().select_categories(["cat"])
        >>> data.mask(0).shape, data.boxes.shape
        ((300, 451), (1, 4))
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
    extras: NDArray[np.object_] = None  # type: ignore[assignment]
    image_extras: list[bytes | None] = None  # type: ignore[assignment]
    dataset_extras: bytes | None = None
    splits: list[str | None] = None  # type: ignore[assignment]
    file: str = ""
    issues: list[Issue] = field(default_factory=list)

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(self.root))
        n = len(self.image_index)
        # Unless a reader has stated another label, a value stands for the category with that id.
        ids = {0: BACKGROUND, self.void: VOID} | {c.id: label for label, c in enumerate(self.categories)}
        defaults = {
            "quality": lambda: np.full(n, np.nan, dtype=np.float32),
            "source": lambda: np.full(n, None, dtype=object),
            "trusted": lambda: np.ones(n, dtype=bool),
            "areas": lambda: np.full(n, np.nan),
            "extras": lambda: np.full(n, None, dtype=object),
            "label_maps": lambda: [None] * len(self.image_ids),
            "image_extras": lambda: [None] * len(self.image_ids),
            "splits": lambda: [None] * len(self.image_ids),
            "map_labels": lambda: values_to_labels(ids if any(self.label_maps) else {}),
        }
        for name, make in defaults.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, make())
        for name, dtype in COLUMNS.items():
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), dtype=dtype))

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle all; but a process that this one starts, e.g. to decode images, reads the columns from one file."""
        if get_spawning_popen() is None:
            return super().__reduce_ex__(protocol)
        return self._shared_file.reduce(type(self))

    def __getstate__(self) -> dict[str, Any]:
        """Return the columns, without what is computed from them."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @cached_property
    def _shared_file(self) -> SharedFile:
        return SharedFile(self)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.image_ids)

    def __repr__(self) -> str:
        return f"Annotations({self}, from {self.file or 'memory'!r})"

    def __str__(self) -> str:
        masks = int(self.has_mask.sum())
        return (
            f"{count_noun(len(self), 'image')}, {count_noun(len(self.labels), 'instance')}, {masks:,} with masks, "
            f"{count_noun(len(self.categories), 'category', 'categories')}"
        )

    def _repr_html_(self) -> str:
        """Show counts and a few images with their boxes and masks in a notebook."""
        from boxel.data.notebook import to_html

        return to_html(self)

    def to_frame(self) -> pandas.DataFrame:
        """Return one row per instance: ids, file, category, box, and what is known of its mask.

        Raises:
            BoxelError: pandas is not installed.
        """
        pandas = import_package("pandas", "to_frame()")
        names = np.array([category.name for category in self.categories] or [""], dtype=object)
        columns = {
            "id": self.ids,
            "image_id": [self.image_ids[image] for image in self.image_index],
            "file_name": [self.paths[image] for image in self.image_index],
            "category": names[self.labels],
            **{name: self.boxes[:, k] for k, name in enumerate(("x0", "y0", "x1", "y1"))},
            "iscrowd": self.iscrowd,
            "has_mask": self.has_segmentation,
            "quality": self.quality,
            "source": self.source,
            "trusted": self.trusted,
        }
        return pandas.DataFrame(columns)

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
        """(N,) bool: the instance has a trusted mask, to train on or to evaluate against."""
        return self.has_segmentation & self.trusted

    @property
    def has_source(self) -> NDArray[np.bool_]:
        """(N,) bool: it is stated what made the mask, so a user did not draw it."""
        return np.array([name is not None for name in self.source], dtype=bool)

    @property
    def has_generated_mask(self) -> NDArray[np.bool_]:
        """(N,) bool: the instance has a trusted mask with a `source`, e.g. one that `boxel label` made."""
        return self.has_mask & self.has_source

    @property
    def has_box(self) -> NDArray[np.bool_]:
        """(N,) bool: the box is finite and not empty."""
        extent = self.boxes[:, 2:] - self.boxes[:, :2]
        return np.all(np.isfinite(extent) & (extent > 0), axis=1)

    def image_path(self, image: int) -> Path:
        """Return the file of the image at this index."""
        return self.root / self.paths[image]

    def image_size(self, image: int) -> tuple[int, int]:
        """Return the (width, height) of an image as recorded, else as its file states; zeros if neither is known."""
        width, height = int(self.widths[image]), int(self.heights[image])
        if width and height:
            return width, height
        try:
            return image_size(self.image_path(image))
        except BoxelError:
            return 0, 0

    def instances_in(self, image: int) -> NDArray[np.int64]:
        """Return the indices of the instances in one image, in the order of the file."""
        order, starts = self._by_image
        return order[starts[image] : starts[image + 1]]

    def segmentation(self, instance: int) -> Segmentation | None:
        """Return the instance's segmentation as COCO writes it, or None."""
        raw = self.segmentations[instance]
        return None if raw is None else msgspec.json.decode(raw)

    def rle(self, instance: int, size: tuple[int, int] | None = None) -> Rle | None:
        """Return the instance's mask as a compressed run-length code, or None if there is only a box.

        Args:
            instance: Index of the instance.
            size: (height, width) of the image, if the file does not state it.

        Raises:
            BoxelError: The segmentation is malformed.
        """
        image = int(self.image_index[instance])
        try:
            segmentation = self.segmentation(instance)
            if segmentation is None:
                return None
            height, width = size or self.image_size(image)[::-1]
            if not height or not width:
                raise ValueError("the size of its image is unknown")
            return to_rle(segmentation, height, width)
        except Exception as error:  # pycocotools raises bare Exception and TypeError too
            raise BoxelError(
                f"{self.file}: the segmentation of annotation {self.ids[instance]} (image {self.image_ids[image]}) "
                f"cannot be read ({error}); `boxel check --repair` drops it and keeps the box."
            ) from error

    def area(self, instance: int) -> float:
        """Return the area of an instance in square pixels as COCO counts it: as recorded, else within its polygons.

        Raises:
            BoxelError: The segmentation is malformed.
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
        polygons = [np.asarray(polygon, dtype=np.float64).reshape(-1, 2) for polygon in segmentation]
        return round(sum(map(polygon_area, polygons)), 4)

    def mask(self, instance: int, size: tuple[int, int] | None = None) -> NDArray[np.uint8] | None:
        """Return the (H, W) uint8 mask of zeros and ones, or None if there is only a box; see `rle`."""
        rle = self.rle(instance, size)
        return None if rle is None else decode(rle)

    def select_instances(self, keep: Sequence[int] | NDArray[np.bool_ | np.integer]) -> Annotations:
        """Keep all images but only some instances.

        Args:
            keep: (N,) bool, or indices in the order wanted.
        """
        keep = _to_indices(keep)
        columns = {name: getattr(self, name)[keep] for name in _INSTANCE_DTYPES}
        return replace(self, ids=[self.ids[i] for i in keep], **columns)

    def select_images(self, keep: Sequence[int] | NDArray[np.bool_ | np.integer]) -> Annotations:
        """Keep only some images, with their instances.

        Args:
            keep: (I,) bool, or indices in the order wanted.
        """
        keep = _to_indices(keep)
        new_index = np.full(len(self), -1, dtype=np.int32)
        new_index[keep] = np.arange(len(keep), dtype=np.int32)
        inside = self.select_instances(new_index[self.image_index] >= 0)
        columns: dict[str, Any] = {name: [getattr(self, name)[i] for i in keep] for name in _IMAGE_LISTS}
        columns |= {"widths": self.widths[keep], "heights": self.heights[keep]}
        return replace(inside, image_index=new_index[inside.image_index], **columns)

    def select_categories(self, names: Sequence[str]) -> Annotations:
        """Keep only the named categories, relabeled in the order given.

        Raises:
            BoxelError: A name is not a category of this dataset.
        """
        known = self._names_with(names)
        new_label = np.full(len(known) + 1, -1, dtype=np.int32)
        new_label[[known.index(name) for name in names]] = np.arange(len(names), dtype=np.int32)
        return self.relabel(new_label, [self.categories[known.index(name)] for name in names])

    def rename_categories(self, names: Mapping[str, str]) -> Annotations:
        """Rename categories; those that get the same name are merged into the first of them.

        Args:
            names: New name by old name; categories that are not in it keep theirs.

        Raises:
            BoxelError: An old name is not a category of this dataset.
        """
        known = self._names_with(names)
        renamed = [names.get(name, name) for name in known]
        kept = list(dict.fromkeys(renamed))
        new_label = np.array([kept.index(name) for name in renamed], dtype=np.int32)
        categories = [replace(self.categories[renamed.index(name)], name=name) for name in kept]
        return self.relabel(new_label, categories)

    def class_agnostic(self, name: str = OBJECT) -> Annotations:
        """Merge all categories into one."""
        return self.relabel(np.zeros(len(self.categories), dtype=np.int32), [Category(1, name)])

    def relabel(self, new_label: NDArray[np.int32], categories: Sequence[Category]) -> Annotations:
        """Replace the categories.

        Args:
            new_label: (K,) or more, index into ``categories`` by the old label; -1 drops a category's instances, and
                turns its pixels in label maps into background if they have one, else into void.
            categories: The new ones.
        """
        inside = self.select_instances(new_label[self.labels] >= 0)
        left_out = BACKGROUND if BACKGROUND in self.map_labels else VOID
        map_labels, known = self.map_labels.copy(), self.map_labels >= 0
        map_labels[known] = np.where(new_label >= 0, new_label, left_out)[map_labels[known]]
        return replace(
            inside, labels=new_label[inside.labels], categories=tuple(categories), map_labels=map_labels
        )

    def ignore_small(self, min_side: float) -> Annotations:
        """Mark instances as crowds, which training ignores, if a side of their box is under ``min_side`` pixels."""
        sides = self.boxes[:, 2:] - self.boxes[:, :2]
        return replace(self, iscrowd=self.iscrowd | (sides.min(axis=1, initial=np.inf) < min_side))

    def without_masks(self) -> Annotations:
        """Drop all masks and label maps, and keep the boxes."""
        return self.keep_masks([])

    def keep_masks(self, instances: Sequence[int] | NDArray[np.bool_ | np.integer]) -> Annotations:
        """Keep the masks of some instances only, drop label maps, and keep all boxes.

        Args:
            instances: (N,) bool, or indices.
        """
        kept = np.full(len(self.labels), None, dtype=object)
        rows = _to_indices(instances)
        kept[rows] = self.segmentations[rows]
        return replace(self, segmentations=kept, label_maps=[None] * len(self))

    def _names_with(self, wanted: Iterable[str]) -> list[str]:
        """Return the names of the categories after checking that the wanted ones are among them."""
        known = [category.name for category in self.categories]
        for name in wanted:
            if name not in known:
                raise BoxelError(f"{self.file}: there is no category {name!r}.{nearest(name, known)}")
        return known

    @cached_property
    def _by_image(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        order = np.argsort(self.image_index, kind="stable")
        return order, np.searchsorted(self.image_index[order], np.arange(len(self) + 1))


def _to_indices(chosen: Sequence[int] | NDArray[np.bool_ | np.integer]) -> NDArray[np.int64]:
    """Return what is chosen by indices, or by True for each, as indices."""
    is_mask = np.asarray(chosen).dtype == bool
    return np.flatnonzero(chosen) if is_mask else np.asarray(chosen, dtype=np.int64)


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


def values_to_labels(labels: Mapping[int, int]) -> NDArray[np.int16]:
    """Build the `map_labels` of an `Annotations` from the label of each value; all other values are void.

    Examples:
        >>> values_to_labels({0: BACKGROUND, 2: 0}).tolist()
        [-2, -1, 0]
    """
    known = {value: label for value, label in labels.items() if 0 <= value <= MAX_VALUE}
    table = np.full(max(known, default=-1) + 1, VOID, dtype=np.int16)
    table[list(known)] = list(known.values())
    return table


def fresh_ids(taken: Iterable[ImageId]) -> Iterator[int]:
    """Iterate over the whole numbers above all that are taken."""
    # Digits in a string count too, since some formats write both alike.
    numbers = [int(id) for id in taken if not isinstance(id, str) or (id.isdecimal() and len(id) < 19)]
    return itertools.count(max(numbers, default=0) + 1)
