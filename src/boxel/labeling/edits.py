"""Edits that a user makes in the outputs of a labeling job: how they are found, kept and applied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Literal

import msgspec
import numpy as np
from msgspec.structs import replace as replace_fields
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from boxel.data.annotations import COLUMNS, Annotations, Category, ImageId, fresh_ids
from boxel.data.checks.masks import judge_masks
from boxel.data.formats.coco_writer import with_original
from boxel.data.formats.extras import decode_extras, set_field
from boxel.data.formats.layout import file_stems
from boxel.data.formats.rotated import CORNERS, is_rotated
from boxel.data.label_maps import UNDECIDED
from boxel.data.suspects import mark_suspect
from boxel.data.tightening import FIELD as ORIGINAL_BOX
from boxel.labeling.outputs import Changes, Origins, Output, image_keys, origin_digest
from boxel.labeling.store import Store
from boxel.masks.boxes import paired_box_iou
from boxel.masks.rle import to_rle
from boxel.utils.errors import BoxelError
from boxel.utils.printable import count_noun, name_ids

_SAME_IOU = 0.99
"""Minimum IoU of the boxes and of the masks of one edit in two formats."""

_FIELDS = ("iscrowd", "source", "trusted", "extras")
"""Fields of a row that do not belong to its shape."""

_RANK = {"fields": 0, "class": 1, "changed": 2, "added": 3}
"""Kinds of edits that leave an instance; of two the higher one counts."""


class Row(msgspec.Struct, array_like=True, frozen=True):
    """An instance as a user left it."""

    category: Category
    box: tuple[float, float, float, float]
    segmentation: bytes | None
    iscrowd: bool
    source: str | None
    trusted: bool
    extras: bytes | None


class Edit(msgspec.Struct, array_like=True, frozen=True):
    """What a user did to one instance, by the key of its image and its id in the dataset.

    Its box or segmentation was changed, only its class or its other fields were, it was deleted, or it was added.
    """

    image: str
    id: ImageId
    kind: Literal["changed", "class", "fields", "deleted", "added"]
    origin: bytes = b""  # digest of class and box in the dataset; empty if a user has added it
    row: Row | None = None  # None if it was deleted

    @property
    def key(self) -> tuple[str, ImageId]:
        """The key by which it differs from the edits of other instances."""
        return self.image, self.id


class Edits(msgspec.Struct, array_like=True):
    """All that a user has edited."""

    rows: list[Edit] = []
    images: list[str] = []  # keys of the images that were removed

    def __len__(self) -> int:
        return len(self.rows) + len(self.images)


def load_edits(store: Store) -> Edits:
    """Return the edits of earlier runs; those that cannot be read are a :class:`BoxelError`."""
    content = store.edits()
    try:
        return Edits() if content is None else msgspec.msgpack.decode(content, type=Edits)
    except msgspec.MsgspecError as error:
        raise BoxelError(
            f"{store.path}: the edits of earlier runs in it cannot be read ({error}); discard them with `overwrite`."
        ) from error


def collect(before: Output, found: Annotations, changes: Changes) -> Edits:
    """Return the changes of an output as edits of the dataset."""

    def edit(kind: Any, recorded: int, row: Row | None = None) -> Edit:
        image, origin = before.image_index[recorded], before.origin(recorded)
        return Edit(before.paths[image], before.own_ids[recorded], kind, origin, row)

    key_of = dict(zip(before.image_ids, before.paths, strict=True))
    rows = [edit("changed", recorded, make_row(found, other, True)) for recorded, other in changes.shapes]
    rows += [edit("class", recorded, make_row(found, other, False)) for recorded, other in changes.classes]
    rows += [edit("fields", recorded, make_row(found, other, False)) for recorded, other in changes.fields]
    rows += [edit("deleted", recorded) for recorded in changes.deleted]
    for other in changes.added:
        key = key_of[found.image_ids[found.image_index[other]]]
        rows.append(Edit(key, found.ids[other], "added", row=make_row(found, other, True)))
    return Edits(rows, [before.paths[image] for image in changes.removed_images])


def make_row(found: Annotations, row: int, drawn: bool) -> Row:
    """Return an instance; what a user has drawn has no source, is trusted, not suspect, and has the user's box."""
    extras, box = found.extras[row], found.boxes[row]
    return Row(
        category=found.categories[found.labels[row]],
        box=tuple(box.tolist()),
        segmentation=found.segmentations[row],
        iscrowd=bool(found.iscrowd[row]),
        source=None if drawn else found.source[row],
        trusted=drawn or bool(found.trusted[row]),
        extras=clear_drawn(extras, box) if drawn else extras,
    )


def clear_drawn(extras: bytes | None, box: NDArray[np.float64]) -> bytes | None:
    """Return the extras of an instance that a user has drawn, without what they state about the one before."""
    extras = mark_suspect(extras, None)
    for name in (ORIGINAL_BOX, UNDECIDED):
        extras = set_field(extras, name, None)
    return extras if is_rotated(decode_extras(extras), box) else set_field(extras, CORNERS, None)


def describe(changes: Changes, before: Output, found: Annotations) -> str:
    """Describe the changes of an output, with the ids that it has."""
    has_mask = found.has_segmentation
    parts = [
        ("mask", "kept as trusted", [found.ids[k] for _, k in changes.shapes if has_mask[k]]),
        ("object", "without a mask kept", [found.ids[k] for _, k in changes.shapes if not has_mask[k]]),
        ("object", "with another class kept", [found.ids[k] for _, k in changes.classes]),
        ("object", "with other fields kept", [found.ids[k] for _, k in changes.fields]),
        ("object", "deleted", [before.ids[k] for k in changes.deleted]),
        ("object", "added", [found.ids[k] for k in changes.added]),
        ("image", "removed", [before.image_ids[k] for k in changes.removed_images]),
    ]
    return ", ".join(
        f"{count_noun(len(ids), what)} {outcome} ({name_ids(ids, 'id')})"
        for what, outcome, ids in parts
        if ids
    )


def join(found: Mapping[str, Edits]) -> Edits:
    """Join the edits of several outputs, by name; refuse an instance that was edited differently in two of them."""
    joined: dict[tuple[str, ImageId], tuple[str, Edit]] = {}
    added: list[Edit] = []
    for name, edits in found.items():
        for edit in edits.rows:
            if edit.kind == "added":
                added += [] if _is_among(edit, added) else [edit]
                continue
            other_name, other = joined.setdefault(edit.key, (name, edit))
            if agree(edit, other):
                continue
            if "fields" not in (edit.kind, other.kind) or edit.kind == other.kind:
                raise BoxelError(
                    f"annotation {edit.id} of {edit.image} was edited differently in {other_name} and in {name}; undo "
                    "one of the edits, or discard both with `overwrite`."
                )
            fields, shape = sorted((edit, other), key=lambda one: one.kind != "fields")
            joined[edit.key] = (name, _join_fields(shape, fields))
    images = dict.fromkeys(image for edits in found.values() for image in edits.images)
    return Edits([*(edit for _, edit in joined.values()), *added], list(images))


def _join_fields(edit: Edit, fields: Edit) -> Edit:
    """Return an edit with the fields of another, but for those by which a mask that a user has drawn is known."""
    if edit.row is None or fields.row is None:
        return edit
    names = ("iscrowd", "extras") if edit.kind == "changed" else _FIELDS
    return replace_fields(edit, row=_with_fields(edit.row, fields.row, names))


def _is_among(edit: Edit, others: Sequence[Edit]) -> bool:
    return any(other.image == edit.image and agree(edit, other) for other in others)


def agree(one: Edit, other: Edit) -> bool:
    """Return whether two edits of an instance are the same, but for the precision of formats."""
    a, b = one.row, other.row
    if a == b or a is None or b is None or one.kind != other.kind:
        return a == b and one.kind == other.kind
    if one.kind == "fields":
        return all(getattr(a, name) == getattr(b, name) for name in _FIELDS)
    if one.kind == "class":
        return a.category.name == b.category.name
    if a.category.name != b.category.name or (a.segmentation is None) != (b.segmentation is None):
        return False
    if a.segmentation is None:
        return bool(paired_box_iou(np.array([a.box]), np.array([b.box]))[0] >= _SAME_IOU)
    # Boxes follow masks, or are left behind.
    return a.segmentation == b.segmentation or _mask_iou(a, b) >= _SAME_IOU


def _mask_iou(a: Row, b: Row) -> float:
    """Compute the IoU of two segmentations; 0 if one is not a mask."""
    shapes = [msgspec.json.decode(row.segmentation or b"[]") for row in (a, b)]
    size = np.ceil(np.maximum(a.box, b.box)[[3, 2]]).astype(int).tolist()
    height, width = next((shape["size"] for shape in shapes if isinstance(shape, dict)), size)
    try:
        codes = [to_rle(shape, height, width) for shape in shapes]
    except ValueError:
        return 0.0
    return float(coco_mask.iou(codes[:1], codes[1:], [0])[0, 0])


def merge(earlier: Edits, new: Edits, taken: Sequence[ImageId]) -> Edits:
    """Add new edits to those of earlier runs.

    Args:
        earlier: Those of earlier runs.
        new: Those that were found now.
        taken: Ids that instances of the dataset have.
    """
    rows = {edit.key: edit for edit in earlier.rows}
    fresh = fresh_ids(chain(taken, (edit.id for edit in chain(earlier.rows, new.rows))))
    known = {*taken, *(edit.id for edit in earlier.rows)}
    for edit in new.rows:
        before = rows.get(edit.key)
        if edit.kind == "added":
            if before is not None and before.kind == "deleted":  # it is there again
                rows[edit.key] = replace_fields(edit, kind="changed", origin=before.origin)
            elif not _is_among(edit, [other for other in rows.values() if other.kind == "added"]):
                edit = replace_fields(edit, id=next(fresh)) if edit.id in known else edit
                rows[edit.key] = edit
        elif edit.row is None and before is not None and before.kind == "added":
            del rows[edit.key]
        elif before is None or before.row is None or edit.row is None:
            rows[edit.key] = edit
        else:
            row = edit.row if edit.kind == "changed" else _with_fields(before.row, edit.row)
            row = replace_fields(row, category=edit.row.category) if edit.kind == "class" else row
            kind = edit.kind if _RANK[edit.kind] > _RANK[before.kind] else before.kind
            rows[edit.key] = replace_fields(before, row=row, kind=kind)
    return Edits(list(rows.values()), list(dict.fromkeys([*earlier.images, *new.images])))


def _with_fields(row: Row, fields: Row, names: Sequence[str] = _FIELDS) -> Row:
    """Return a row with the fields that do not belong to its shape from another."""
    return replace_fields(row, **{name: getattr(fields, name) for name in names})


@dataclass(frozen=True)
class Edited:
    """A dataset with the edits of a user.

    Attributes:
        data: The dataset.
        own: (N,) bool, the instances that the user has drawn or changed.
        origins: Where its rows come from.
        fields: Rows whose other fields the user has changed, which are set after labeling.
        edits: The edits.
    """

    data: Annotations
    own: NDArray[np.bool_]
    origins: Origins
    fields: dict[int, Edit]
    edits: Edits

    def describe_bad_masks(self) -> str:
        """Describe the masks by the user that cannot be used; empty if all can."""
        data = self.data.select_instances(self.own & self.data.has_segmentation)
        judgment = judge_masks(data)
        return judgment.describe(data.ids, judgment.broken) if judgment.broken.any() else ""

    def set_fields(self, data: Annotations) -> Annotations:
        """Set the fields that a user has changed in the dataset after it was labeled."""
        if not self.fields:
            return data
        columns = {name: getattr(data, name).copy() for name in _FIELDS}
        for instance, edit in self.fields.items():
            # Some readers take a mask for the user's own if its class has been changed.
            seen = edit.kind == "class" and edit.row is not None and edit.row.source is None
            for name in ("iscrowd", "extras") if seen else _FIELDS:
                columns[name][instance] = getattr(edit.row, name)
        return replace(data, **columns)


def apply(data: Annotations, edits: Edits, written: Output | None = None) -> Edited:
    """Apply edits to a dataset.

    An edit belongs to the instance that has the class and box of the one that was edited, or else its id. An instance
    that was changed and is not in the dataset any more is kept as one that was added.

    Args:
        data: The dataset.
        edits: The edits.
        written: The COCO file with the numbers that stand for ids which are text: they stay what they were.
    """
    if not edits:
        return Edited(data, np.zeros(len(data.ids), dtype=bool), Origins(data.ids, {}), {}, edits)
    edit_of, added, away = _locate(data, edits)
    renumbered = _with_written_ids(data, written)
    added = _with_free_ids(added, [*data.ids, *renumbered.ids])
    edit_of |= dict(enumerate(added, start=len(data.ids)))
    ids = [*data.ids, *(edit.id for edit in added)]
    keys, removed = image_keys(data.paths), set(edits.images)
    whole = _set_rows(_append(renumbered, added, keys), edit_of)
    kept_images = np.array([key not in removed for key in keys], dtype=bool)
    kept = kept_images[whole.image_index]
    kept[[row for row, edit in edit_of.items() if edit.row is None]] = False
    rows = np.flatnonzero(kept).tolist()
    placed = {place: edit_of[row] for place, row in enumerate(rows) if row in edit_of}
    own = np.zeros(len(rows), dtype=bool)
    own[[row for row, edit in placed.items() if edit.kind in ("changed", "added")]] = True
    return Edited(
        data=whole.select_instances(kept).select_images(kept_images),
        own=own,
        origins=Origins([ids[row] for row in rows], {row: edit.origin for row, edit in placed.items()}),
        fields={row: edit for row, edit in placed.items() if edit.kind in ("class", "fields")},
        edits=Edits([*edit_of.values(), *away], edits.images),
    )


def _locate(data: Annotations, edits: Edits) -> tuple[dict[int, Edit], list[Edit], list[Edit]]:
    """Return the edit of each row that has one, the instances to add, and the edits of images that are not there."""
    index = {key: image for image, key in enumerate(image_keys(data.paths))}
    by_image: dict[str, list[Edit]] = {}
    for edit in edits.rows:
        by_image.setdefault(edit.image, []).append(edit)
    edit_of: dict[int, Edit] = {}
    added: list[Edit] = []
    away: list[Edit] = []
    for key, own in by_image.items():
        if key not in index:
            away += own
            continue
        rows = data.instances_in(index[key]).tolist()
        digests = {row: origin_digest(data, row) for row in rows}
        left = [edit for edit in own if edit.kind != "added"]
        for by_id, by_origin in ((True, True), (False, True), (True, False)):
            for edit in list(left):
                fitting = (
                    row
                    for row in rows
                    if row not in edit_of
                    and (not by_id or data.ids[row] == edit.id)
                    and (not by_origin or digests[row] == edit.origin)
                )
                row = next(fitting, None)
                if row is not None:
                    left.remove(edit)
                    edit_of[row] = replace_fields(edit, id=data.ids[row], origin=digests[row])
        added += [edit for edit in own if edit.kind == "added"]
        added += [
            replace_fields(edit, kind="added", origin=b"")
            for edit in left
            if edit.kind in ("changed", "class")
        ]
    return edit_of, added, away


def _with_free_ids(added: Sequence[Edit], taken: Sequence[ImageId]) -> list[Edit]:
    known, fresh = set(taken), fresh_ids([*taken, *(edit.id for edit in added)])
    free = []
    for edit in added:
        free.append(replace_fields(edit, id=next(fresh)) if edit.id in known else edit)
        known.add(free[-1].id)
    return free


def _append(data: Annotations, added: Sequence[Edit], keys: Sequence[str]) -> Annotations:
    """Append instances, whose columns are set later."""
    if not added:
        return data
    index = {key: image for image, key in enumerate(keys)}
    names = [name for name in COLUMNS if name not in ("widths", "heights")]
    filler = {name: np.zeros((len(added), *getattr(data, name).shape[1:]), COLUMNS[name]) for name in names}
    filler["image_index"] = np.array([index[edit.image] for edit in added])
    columns: dict[str, Any] = {name: np.concatenate([getattr(data, name), filler[name]]) for name in names}
    ids = [*data.ids, *(edit.id for edit in added)]
    return replace(data, ids=ids, **columns)


def _set_rows(data: Annotations, edit_of: Mapping[int, Edit]) -> Annotations:
    """Set the columns of the instances that a user has changed or added; of a class alone, only the label."""
    categories = list(data.categories)
    label_of = {category.name: label for label, category in reversed(list(enumerate(categories)))}
    columns = {
        name: getattr(data, name).copy()
        for name in COLUMNS
        if name not in ("widths", "heights", "image_index")
    }
    for row, edit in edit_of.items():
        own, is_added = edit.row, edit.kind == "added"
        if own is None or edit.kind == "fields":
            continue
        label = int(columns["labels"][row])
        if is_added or categories[label].name != own.category.name:
            label = label_of.get(own.category.name, len(categories))
        if label == len(categories):
            ids = {category.id for category in categories}
            id = own.category.id if own.category.id not in ids else max(ids) + 1
            label_of[own.category.name] = label
            categories.append(replace(own.category, id=id))
        columns["labels"][row] = label
        if edit.kind == "class":
            continue
        values = {
            "boxes": own.box,
            "iscrowd": own.iscrowd,
            "segmentations": own.segmentation,
            "quality": np.nan,
            "source": own.source,
            "trusted": own.trusted,
            "areas": np.nan,
            "extras": columns["extras"][row] if own.extras is None and not is_added else own.extras,
        }
        for name, value in values.items():
            columns[name][row] = value
    return replace(data, categories=tuple(categories), **columns)


def _with_written_ids(data: Annotations, written: Output | None) -> Annotations:
    """Give images and instances the numbers that a COCO file has instead of their ids, which are text."""
    if written is None or written.ids == written.own_ids:
        return data
    keys = image_keys(data.paths)
    image_ids = dict(zip(written.paths, written.image_ids, strict=True))
    owners = (written.paths[image] for image in written.image_index)
    numbers = dict(zip(zip(owners, written.own_ids, strict=True), written.ids, strict=True))
    images = [image_ids.get(key, id) for key, id in zip(keys, data.image_ids, strict=True)]
    ids = [
        numbers.get((keys[image], id), id)
        for image, id in zip(data.image_index.tolist(), data.ids, strict=True)
    ]
    stems = file_stems(data.paths)
    extras = data.extras.copy()
    for row, (id, before) in enumerate(zip(ids, data.ids, strict=True)):
        if str(before).rpartition(":")[0] != stems[data.image_index[row]]:
            extras[row] = with_original(extras[row], before, id)
    image_extras = [
        extra if before == stem else with_original(extra, before, id)
        for extra, before, id, stem in zip(data.image_extras, data.image_ids, images, stems, strict=True)
    ]
    return replace(data, image_ids=images, ids=ids, extras=extras, image_extras=image_extras)
