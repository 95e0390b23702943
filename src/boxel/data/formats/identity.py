"""Keep what folders of files have no place for: original ids, and the fields of instances that the format lacks.

It lies in a file of its own, `IDS_FILE`. An instance finds its row there by class and geometry, not by its place in the
list, so that rows may be added, deleted, moved and edited by other tools.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from boxel.data.annotations import Annotations, Category, ImageId, fresh_ids
from boxel.data.formats.builder import Builder, read_utf8
from boxel.data.formats.extras import as_objects, decode_extras, encode_extras, merge_edits
from boxel.data.formats.rotated import CORNERS
from boxel.data.images import image_size
from boxel.data.splits import standard_split
from boxel.masks.boxes import box_iou
from boxel.utils.errors import BoxelError, one_line
from boxel.utils.files import atomic_path

if TYPE_CHECKING:
    from boxel.data.formats.layout import Export

logger = logging.getLogger(__name__)

IDS_FILE = "boxel-ids.json"

_MIN_IOU = 0.5
"""Minimum box IoU of an instance with the one that it was when the folder was written, if it has been edited."""

_SAME = 0.02
"""Maximum difference in pixels between the sides of a box that is written and read again without a change."""

_OF_BOX = CORNERS, "original_box"
"""Extras that are of no use once the box has been edited."""

_SAME_AREA = 0.001
"""Maximum difference between the areas of a mask that is written and read again without a change, relative."""


class _Row(Struct, omit_defaults=True, gc=False):
    """An instance as it was written; box and mask area are those that it is read with."""

    id: ImageId
    category: str
    box: tuple[float, float, float, float]
    mask_area: float | None = None  # None if it is only a box
    original_box: tuple[float, float, float, float] | None = None
    iscrowd: bool = False
    quality: float | None = None
    source: str | None = None
    trusted: bool = True
    area: float | None = None
    extras: dict[str, Any] | None = None


class _Image(Struct, omit_defaults=True):
    id: ImageId
    width: int = 0
    height: int = 0
    split: str | None = None
    extras: dict[str, Any] | None = None
    annotations: list[_Row] = []


class _Category(Struct, omit_defaults=True):
    id: int
    name: str
    supercategory: str = ""
    extras: dict[str, Any] | None = None
    written: str = ""  # its name in the other files, if they cannot hold it


class _Ids(Struct, omit_defaults=True):
    categories: list[_Category] = []
    images: dict[str, _Image] = {}
    extras: dict[str, Any] | None = None


def write_ids(export: Export) -> None:
    """Write the `IDS_FILE` of a dataset."""
    data = export.data
    images = {
        stem: _Image(
            data.image_ids[i],
            int(data.widths[i]),
            int(data.heights[i]),
            data.splits[i],
            decode_extras(data.image_extras[i]) or None,
            [_row(export, row) for row in export.rows[i]],
        )
        for i, stem in enumerate(export.stems)
    }
    categories = []
    for category, name in zip(data.categories, export.class_names, strict=True):
        extras, written = decode_extras(category.extras) or None, name if name != category.name else ""
        categories.append(_Category(category.id, category.name, category.supercategory, extras, written))
    content = _Ids(categories, images, decode_extras(data.dataset_extras) or None)
    with atomic_path(export.folder / IDS_FILE) as temporary:
        temporary.write_bytes(msgspec.json.encode(content))


def _row(export: Export, i: int) -> _Row:
    data, box, mask_area = export.data, export.boxes[i], float(export.mask_areas[i])
    x0, y0, x1, y1 = (round(v, 6) for v in box.tolist())
    moved = np.abs(box - data.boxes[i]).max() > 1e-6
    return _Row(
        id=data.ids[i],
        category=data.categories[data.labels[i]].name,
        box=(x0, y0, x1, y1),
        mask_area=None if np.isnan(mask_area) else round(mask_area, 4),
        original_box=tuple(data.boxes[i].tolist()) if moved else None,
        iscrowd=bool(data.iscrowd[i]),
        quality=None if np.isnan(data.quality[i]) else round(float(data.quality[i]), 6),
        source=data.source[i],
        trusted=bool(data.trusted[i]),
        area=None if np.isnan(data.areas[i]) else float(data.areas[i]),
        extras=decode_extras(data.extras[i]) or None,
    )


class Ids:
    """The content of a folder's `IDS_FILE`; empty if there is none or, which becomes an issue, it cannot be read."""

    def __init__(self, folder: Path, rows: Builder) -> None:
        self.file = folder / IDS_FILE
        self._ids = _Ids()
        if self.file.is_file():
            try:
                self._ids = msgspec.json.decode(read_utf8(self.file), type=_Ids)
            except (msgspec.MsgspecError, BoxelError, ValueError, RecursionError) as error:
                what = f"cannot be read ({one_line(error)}); ids are made from file names."
                rows.report("bad-ids", self.file, what, repair="delete the file")

    @property
    def names(self) -> list[str]:
        """Names of the categories."""
        return [category.name for category in self._ids.categories]

    @property
    def image_ids(self) -> dict[str, ImageId]:
        """Id of each image by the stem of its files."""
        return {stem: image.id for stem, image in self._ids.images.items()}

    @property
    def stems_by_id(self) -> dict[ImageId, str]:
        """Stem of the image that each annotation was in."""
        return {row.id: stem for stem, image in self._ids.images.items() for row in image.annotations}

    def mask_areas(self, stem: str) -> set[float | None]:
        """Areas of the masks that an image was written with."""
        return {row.mask_area for row in self._ids.images.get(stem, _Image(0)).annotations}

    def image_size(self, image: Path, stem: str) -> tuple[int, int]:
        """Return the (width, height) of an image as its file states, else as recorded; zeros if neither is known."""
        with contextlib.suppress(BoxelError):
            return image_size(image)
        known = self._ids.images.get(stem, _Image(0))
        valid = 0 <= known.width < 2**31 and 0 <= known.height < 2**31
        return (known.width, known.height) if valid else (0, 0)

    def restore(
        self,
        data: Annotations,
        stems: Sequence[str],
        held: Held | None = None,
        held_rows: Sequence[bool] | None = None,
        by_id: bool = False,
    ) -> Annotations:
        """Restore what the file holds, by the stem of each image's files, in a dataset read without it.

        An instance gets the id, the crowd flag and the extras of the row that it matches. One whose box and mask have
        not been edited also gets its original box, its quality, source, trust and area. An instance without a row
        keeps the fresh id that the reader gave it. If any is new or gone, this is logged.

        Args:
            data: The dataset as read; what has been edited in it since it was written comes first.
            stems: Stem of each image's files.
            held: What the format holds itself.
            held_rows: (N,) bool, the format itself holds the id and the fields of the instance, which stay as read.
            by_id: The format itself holds ids, by which instances find their rows before all else.
        """
        if not self._ids.images and not self._ids.categories:
            return data
        return _merge_read(self._restore(data, stems, held_rows, by_id), data, held or Held())

    def restore_by_id(self, data: Annotations, stems: Sequence[str], held: Held) -> Annotations:
        """Restore a dataset of a format that holds ids and extras itself.

        An instance whose id is in the file is the one with that id, wherever it has been moved to.
        """
        restored = self.restore(data, stems, held, by_id=True)
        if restored is data:
            return data
        known = {str(row.id): row.id for image in self._ids.images.values() for row in image.annotations}
        final, taken = list(restored.ids), {*restored.ids}
        for i, read in enumerate(data.ids):  # one that has been moved to another image
            if (id := known.get(str(read))) is not None and id not in taken:
                final[i] = id
                taken.add(id)
        return replace(restored, ids=final)

    def _restore(
        self, data: Annotations, stems: Sequence[str], held: Sequence[bool] | None, by_id: bool
    ) -> Annotations:
        known_as = {c.written: c.name for c in self._ids.categories if c.written}
        own = [replace(c, name=known_as.get(c.name, c.name)) for c in data.categories]
        data = replace(data, categories=tuple(own))
        written = [row.id for image in self._ids.images.values() for row in image.annotations]
        restored = _Restored(data, held, {*written})
        for i, stem in enumerate(stems):
            known = self._ids.images.get(stem)
            if known is not None:
                restored.set_image(i, known)
                restored.set_rows(data.instances_in(i), known.annotations, by_id)
        matched = int(restored.matched.sum())
        new = int(len(restored.matched) - matched)
        gone = sum(len(self._ids.images[s].annotations) for s in {*stems} & self._ids.images.keys()) - matched
        if new or gone:
            logger.info("%s: %d annotations matched, %d new, %d gone", data.file, matched, new, max(gone, 0))
        found = replace(restored.build(), dataset_extras=encode_extras(self._ids.extras))
        return _restore_categories(found, self._ids.categories)


class _Restored:
    """Columns of a dataset while the rows of its `IDS_FILE` are put back into it."""

    def __init__(self, data: Annotations, held: Sequence[bool] | None, written: set[ImageId]) -> None:
        self.data, self.written = data, written
        self.held = np.zeros(len(data.ids), dtype=bool) if held is None else np.array(held, dtype=bool)
        self.held_ids = {data.ids[i] for i in np.flatnonzero(self.held)}
        self.image_ids, self.ids = list(data.image_ids), list(data.ids)
        self.image_extras, self.splits = list(data.image_extras), list(data.splits)
        self.columns = {
            name: getattr(data, name).copy()
            for name in ("boxes", "iscrowd", "quality", "source", "trusted", "areas", "extras")
        }
        self.matched = self.held & np.array([id in written for id in data.ids], dtype=bool)
        self.names = [category.name for category in data.categories]

    def set_image(self, image: int, known: _Image) -> None:
        self.image_ids[image] = known.id
        self.image_extras[image] = encode_extras(known.extras) or self.image_extras[image]
        if self.splits[image] is None:
            self.splits[image] = standard_split(known.split) if known.split else None

    def set_rows(self, instances: NDArray[np.int64], rows: Sequence[_Row], by_id: bool) -> None:
        """Restore the instances of an image."""
        instances = instances[~self.held[instances]]
        rows = [row for row in rows if row.id not in self.held_ids]
        boxes = self.data.boxes[instances]
        names = [self.names[label] for label in self.data.labels[instances]]
        ids = [str(self.data.ids[i]) for i in instances] if by_id else None
        pairs = match_rows(boxes, names, rows, ids)
        for k, (row, same_box) in pairs.items():
            instance = int(instances[k])
            self._set_row(instance, row, same_box)

    def _has_same_mask(self, instance: int, row: _Row) -> bool:
        if self.data.segmentations[instance] is None or row.mask_area is None:
            return self.data.segmentations[instance] is None and row.mask_area is None
        try:
            area = self.data.area(instance)
        except BoxelError:
            return False
        return abs(area - row.mask_area) <= max(_SAME_AREA * row.mask_area, 0.05)

    def _set_row(self, instance: int, row: _Row, same_box: bool) -> None:
        self.matched[instance] = True
        self.ids[instance] = row.id
        self.columns["iscrowd"][instance] = row.iscrowd
        extras = {key: v for key, v in (row.extras or {}).items() if same_box or key not in _OF_BOX}
        if extras:
            self.columns["extras"][instance] = encode_extras(extras)
        if same_box and self._has_same_mask(instance, row):
            if row.original_box is not None:
                self.columns["boxes"][instance] = row.original_box
            self.columns["quality"][instance] = np.nan if row.quality is None else row.quality
            self.columns["source"][instance] = row.source
            self.columns["areas"][instance] = np.nan if row.area is None else row.area
            self.columns["trusted"][instance] = row.trusted

    def build(self) -> Annotations:
        """Return the dataset; instances without a row get ids that no other has or had."""
        taken = self.written | self.held_ids
        fresh = fresh_ids(taken)
        numbered = all(isinstance(id, int) for id in self.written)
        for i in np.flatnonzero(~self.matched & ~self.held).tolist():
            if numbered or self.ids[i] in taken:
                self.ids[i] = next(fresh)
        return replace(
            self.data,
            image_ids=self.image_ids,
            ids=self.ids,
            image_extras=self.image_extras,
            splits=self.splits,
            **self.columns,
        )


def match_rows(
    boxes: NDArray[np.float64],
    names: Sequence[str],
    rows: Sequence[_Row],
    ids: Sequence[str] | None = None,
) -> dict[int, tuple[_Row, bool]]:
    """Match the instances of an image with the rows that they were written as.

    Rows of the same id come first, if ids are given; then rows of the same class and box, in their order; then rows of
    the same class, the best overlap first; then rows of the same box whose class has been changed.

    Args:
        boxes: (n, 4) xyxy boxes of the instances.
        names: n names of their classes.
        rows: The rows.
        ids: n texts of the ids of the instances.

    Returns:
        For the index of each instance that matches, its row, and whether the box is still the same.
    """
    if not len(boxes) or not rows:
        return {}
    written = np.array([row.box for row in rows])
    same_box = np.abs(boxes[:, None] - written[None]).max(axis=2) <= _SAME
    same_class = np.array(names, dtype=object)[:, None] == np.array([r.category for r in rows], dtype=object)
    overlap = box_iou(boxes, written)
    conditions = [same_box & same_class, same_class & (overlap >= _MIN_IOU), same_box]
    score = np.select(conditions, [3.0, 1 + overlap, 1.0], 0.0)
    if ids is not None:
        score += 4.0 * (np.array(ids)[:, None] == np.array([str(row.id) for row in rows]))
    # Of equal pairs the ones with the closest places come first: duplicates keep their order.
    places = np.abs(np.arange(len(boxes))[:, None] - np.arange(len(rows)))
    pairs: dict[int, tuple[_Row, bool]] = {}
    used: set[int] = set()
    for flat in np.lexsort((places.ravel(), -score.ravel())).tolist():
        k, m = divmod(flat, len(rows))
        if score[k, m] <= 0:
            break
        if k not in pairs and m not in used:
            pairs[k] = rows[m], bool(same_box[k, m])
            used.add(m)
    return pairs


def _restore_categories(data: Annotations, known: Sequence[_Category]) -> Annotations:
    """Put the known categories first, in their order, then others that instances use."""
    categories = [Category(c.id, c.name, c.supercategory, encode_extras(c.extras)) for c in known]
    used = set(data.labels.tolist())
    new_label = np.zeros(len(data.categories), dtype=np.int32)
    label_of = {category.name: label for label, category in reversed(list(enumerate(categories)))}
    for label, category in enumerate(data.categories):
        if category.name not in label_of and label in used:
            taken = {c.id for c in categories}
            id = category.id if category.id not in taken else max(taken) + 1
            label_of[category.name] = len(categories)
            categories.append(replace(category, id=id))
        new_label[label] = label_of.get(category.name, -1)
    return data.relabel(new_label, categories)


Hold = Callable[[dict[str, Any], str | None], dict[str, Any]]
"""Returns what a format holds of extras, as its reader reads it, given the source of the instance too."""


def hold_nothing(extras: dict[str, Any], source: str | None) -> dict[str, Any]:
    """Return the extras that a format holds which has a place for none."""
    return {}


def hold_keys(*keys: str) -> Hold:
    """Return the `Hold` of a format that holds these keys of extras as they are, and no others."""
    return lambda extras, source: {key: extras[key] for key in keys if key in extras}


@dataclass(frozen=True)
class Held:
    """What a format holds itself, so that it stays as read: what is not read has been deleted.

    Attributes:
        extras: Returns what it holds of the extras of an instance.
        image_extras: Returns what it holds of those of an image.
        columns: Columns of the dataset.
    """

    extras: Hold = hold_nothing
    image_extras: Hold = hold_nothing
    columns: Collection[str] = ()


def _merge_read(restored: Annotations, read: Annotations, held: Held) -> Annotations:
    """Return restored annotations with what was read, which may have been edited since; see `merge_edits`."""

    def merge(known: bytes | None, read: bytes | None, hold: Hold, source: str | None) -> bytes | None:
        old = {} if known is read else decode_extras(known)
        return encode_extras(merge_edits(old, hold(old, source), decode_extras(read)))

    rows = zip(restored.extras, read.extras, restored.source, strict=True)
    images = zip(restored.image_extras, read.image_extras, strict=True)
    columns: dict[str, Any] = {name: getattr(read, name) for name in held.columns}
    return replace(
        restored,
        extras=as_objects([merge(known, new, held.extras, source) for known, new, source in rows]),
        image_extras=[merge(known, new, held.image_extras, None) for known, new in images],
        **columns,
    )
