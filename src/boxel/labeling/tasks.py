"""Tasks for an annotation tool: the images of masks to correct, worst first, and the way back into the dataset."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec.structs import replace as replace_fields

from boxel.data.annotations import Annotations, ImageId, fresh_ids
from boxel.data.checks.masks import judge_masks
from boxel.data.formats import read, write_as_given
from boxel.data.formats.cvat_writer import ID_ATTRIBUTE
from boxel.data.formats.extras import as_objects, decode_extras, encode_extras, get_dict, get_list, get_text
from boxel.data.formats.identity import IDS_FILE
from boxel.data.formats.layout import image_names, place_images
from boxel.data.images import describe_missing
from boxel.labeling.edits import Edit, Edited, Edits, agree, apply, clear_drawn, collect, make_row
from boxel.labeling.outputs import (
    Changes,
    Origins,
    Output,
    compare,
    image_keys,
    origin_digest,
    record,
    state_digest,
)
from boxel.labeling.review import NextMask
from boxel.labeling.target import find_problem, naming_path
from boxel.utils.errors import BoxelError, UsageError, nearest, one_line
from boxel.utils.files import atomic_path, make_parent, scratch_folder
from boxel.utils.printable import count_noun, name_ids, name_some

TASKS_FILE = "boxel-tasks.msgpack"
"""The file in a folder of tasks by which `merge_tasks` knows what the tool was given."""

LABELS_FILE = "labels.json"
"""The labels of CVAT's tasks, to paste where a task is created."""

TOOLS = ("labelme", "cvat", "label-studio")
"""Formats of the tools that tasks are written for."""

_MARK = "to correct: "
_ATTRIBUTE = "correct"
_MARKED = ("attributes", "flags", "description", "label_studio")

Key = tuple[str, ImageId]
"""An object, by the path of its image and its id in the dataset."""


class _Added(msgspec.Struct, array_like=True, frozen=True):
    """An object that a merge has added to the dataset."""

    image: str
    id: ImageId  # as the folder reads
    own_id: ImageId  # in the dataset
    state: bytes


class _Record(msgspec.Struct, array_like=True):
    """What a folder of tasks was written from. Rows are those of `output`."""

    format: str
    date: str
    output: Output
    states: list[bytes]  # of each row in the dataset, see `state_digest`; empty after a conflict
    marked: list[int]  # rows to correct
    merged: list[int] = []  # rows that a merge has changed
    added: list[_Added] = []
    first: list[bytes] = []  # `states` before the first merge; empty if there was none

    @classmethod
    def load(cls, folder: Path) -> _Record:
        """Read the record in a folder of tasks."""
        file = folder / TASKS_FILE
        if not file.is_file():
            raise BoxelError(f"{folder}: `boxel next --to` has not written these tasks; name their folder.")
        try:
            return msgspec.msgpack.decode(file.read_bytes(), type=cls)
        except msgspec.MsgspecError as error:
            raise BoxelError(
                f"{file}: is damaged or of another version of boxel ({one_line(error)}); put the original file back."
            ) from error

    def save(self, folder: Path) -> None:
        """Write the record into a folder of tasks."""
        with atomic_path(folder / TASKS_FILE) as file:
            file.write_bytes(msgspec.msgpack.encode(self))


def write_tasks(data: Annotations, chosen: Sequence[NextMask], folder: str | Path, format: str) -> None:
    """Write the images of some masks as tasks of an annotation tool.

    The names of the images begin with their places, as tools order them by name. All objects of these images are
    there, those to correct first and with a mark: a description in LabelMe, an attribute in CVAT, a text of the region
    in Label Studio. Masks are polygons.

    Args:
        data: A labeled dataset with its images.
        chosen: The masks to correct, by `choose_next`, in the order wanted.
        folder: The folder to write, which must not exist.
        format: ``labelme``, ``cvat`` or ``label-studio``.

    Raises:
        BoxelError: The folder exists, or an image is missing, or a link to files that are not images.

    Examples:
        >>> from boxel.data import example_scenes
        >>> from boxel.labeling import choose_next, label
        >>> masks = label(example_scenes(3).without_masks(), teacher="ellipse")
        >>> write_tasks(masks, choose_next(masks, 1), masks.root / "tasks", "labelme")
        >>> sorted(file.name[:2] for file in (masks.root / "tasks").glob("*.json"))
        ['1_', 'bo']
    """
    if format not in TOOLS:
        raise UsageError(f"`to` is {format!r}; it can be {', '.join(TOOLS)}.{nearest(format, list(TOOLS))}")
    path = Path(folder)
    if path.exists():
        raise UsageError(
            f"{path}: there is such a file or folder already; merge and remove it, or name a new one."
        )
    selected = _select(data, [one.instance for one in chosen])
    marks = [_describe(data, one) for one in chosen]
    _, names = image_names(selected.paths)
    names = [f"{place:0{len(str(len(names)))}}_{name}" for place, name in enumerate(names, 1)]
    extras = [
        _mark(text, format, marks[row] if row < len(marks) else "", selected.ids[row])
        for row, text in enumerate(selected.extras)
    ]
    make_parent(path)
    with atomic_path(path) as temporary, scratch_folder(path.with_name(f"{path.name}-images")) as images:
        if unusable := place_images(selected, images, names):
            raise BoxelError(unusable[0])
        ordered = replace(selected, root=images, paths=names, extras=as_objects(extras))
        options: Any = {} if format == "labelme" else {"polygons": True}
        with naming_path(temporary, path):
            write_as_given(ordered, temporary, format, **options)
        found = _unmark(read(temporary, format=format))
        output = record(found, selected, Origins(selected.ids, {}), "", [IDS_FILE])
        rows = _index(selected)
        keys = _keys(output)
        known = _Record(
            format=format,
            date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            output=output,
            states=[state_digest(selected, rows[key]) for key in keys],
            marked=[row for row, key in enumerate(keys) if rows[key] < len(marks)],
        )
        known.save(temporary)
        if format == "cvat":
            (temporary / LABELS_FILE).write_bytes(
                msgspec.json.format(msgspec.json.encode(_cvat_labels(ordered)), indent=1)
            )


@dataclass
class MergedTasks:
    """A dataset with what was corrected in tasks, and what became of each object.

    Attributes:
        data: The dataset.
        corrected: Ids of objects with another mask or box, which are trusted.
        accepted: Ids of masks to correct that were left as they are, and are trusted now.
        classes: Ids of objects with another class.
        fields: Ids of objects with other fields.
        deleted: Ids of objects that were deleted.
        added: Ids of new objects.
        kept: Ids of objects that were changed in the dataset since the tasks were written, and stay so.
        waiting: Ids of masks to correct that were left as they are, and are not accepted.
        absent: Paths of the images that did not come back.
    """

    data: Annotations
    _record: _Record = field(repr=False)
    _folder: Path = field(repr=False)
    corrected: list[ImageId] = field(default_factory=list)
    accepted: list[ImageId] = field(default_factory=list)
    classes: list[ImageId] = field(default_factory=list)
    fields: list[ImageId] = field(default_factory=list)
    deleted: list[ImageId] = field(default_factory=list)
    added: list[ImageId] = field(default_factory=list)
    kept: list[ImageId] = field(default_factory=list)
    waiting: list[ImageId] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    _settled: set[Key] = field(default_factory=set, repr=False)  # they are as the tool has them

    def __len__(self) -> int:
        """Number of objects that were merged."""
        return sum(
            map(len, (self.corrected, self.accepted, self.classes, self.fields, self.deleted, self.added))
        )

    def remember(self) -> None:
        """Note in the folder of the tasks what was merged; call it once the dataset is written."""
        record, rows = self._record, _index(self.data)
        record.first = record.first or list(record.states)
        for row, key in enumerate(_keys(record.output)):
            if key in self._settled and key in rows:
                record.states[row] = state_digest(self.data, rows[key])
        record.added = [
            replace_fields(one, state=state_digest(self.data, rows[one.image, one.own_id]))
            for one in record.added
            if (one.image, one.own_id) in rows
        ]
        record.save(self._folder)

    def summary(self) -> str:
        """State what was merged, and what was not."""
        parts = [
            ("object", "corrected", self.corrected),
            ("mask", "accepted", self.accepted),
            ("object", "with another class", self.classes),
            ("object", "with other fields", self.fields),
            ("object", "deleted", self.deleted),
            ("object", "added", self.added),
        ]
        done = [
            f"{count_noun(len(ids), what)} {how} ({name_ids(ids, 'id')})" for what, how, ids in parts if ids
        ]
        lines = [f"merged: {', '.join(done) or 'nothing new'}"]
        if self.kept:
            count = f"{count_noun(len(self.kept), 'object')} ({name_ids(self.kept, 'id')})"
            lines.append(f"not merged: {count}, changed in the dataset since the tasks were written")
        if self.waiting:
            count = f"{count_noun(len(self.waiting), 'mask')} to correct ({name_ids(self.waiting, 'id')})"
            lines.append(f"left as they were: {count}; if they are right, `all_checked` accepts them")
        if self.absent:
            lines.append(
                f"did not come back: {count_noun(len(self.absent), 'image')} ({name_some(self.absent)})"
            )
        return "\n".join(lines)


def tasks_date(folder: str | Path) -> str:
    """Return when tasks were written, in ISO 8601.

    Examples:
        >>> tasks_date("nowhere")
        Traceback (most recent call last):
        boxel.utils.errors.BoxelError: nowhere: `boxel next --to` has not written these tasks; name their folder.
    """
    return _Record.load(Path(folder)).date


def merge_tasks(
    data: Annotations, folder: str | Path, *, all_checked: bool = False, decided: Collection[Key] = ()
) -> MergedTasks:
    """Merge tasks that were corrected in an annotation tool into the dataset that they were written from.

    Objects are identified by image and id. Those that were corrected or added are the user's: they are trusted and have
    no source. All others stay as they are, and so does what the user has changed in the dataset since, unlike a
    mask that a teacher has predicted again. The folder remembers what was merged, so that the same tasks can
    be corrected further and merged again; into a dataset that has none of it, all is merged as for the first time.

    Args:
        data: The dataset.
        folder: The folder that `write_tasks` wrote, with the files as the tool saved or exported them.
        all_checked: Accept the masks to correct that were left as they are, too.
        decided: Objects that stay as they are, by the paths of their images and their ids.

    Raises:
        BoxelError: The folder is not one of tasks, not all of it can be read, or they are of another dataset.

    Examples:
        >>> from boxel.data import example_scenes
        >>> from boxel.labeling import choose_next, label, write_tasks
        >>> masks = label(example_scenes(3).without_masks(), teacher="ellipse")
        >>> tasks = masks.root / "tasks_to_merge"
        >>> write_tasks(masks, choose_next(masks, 1), tasks, "labelme")
        >>> len(merge_tasks(masks, tasks, all_checked=True).accepted)
        1
    """
    path = Path(folder)
    record = _Record.load(path)
    _refuse_other(path, record, data)
    if _lacks_earlier(data, record):
        record = replace_fields(record, states=record.first, merged=[], added=[])
    found = _unmark(read(path, format=record.format))
    changes = compare(record.output, found)
    _refuse_lost(path, record, found, changes)
    absent = [record.output.paths[image] for image in changes.removed_images]
    merged = MergedTasks(data, record, path, absent=absent)
    changes.removed_images = []
    changes.shapes += _find_undone(record, found, changes)
    edits = _join_earlier(record, collect(record.output, found, changes).rows, absent)
    taken = _choose(merged, edits, decided)
    edited = apply(data, Edits(taken))
    _refuse_bad_masks(path, edited)
    merged.data = edited.set_fields(edited.data)
    merged.data = _clear(merged.data, np.flatnonzero(edited.own).tolist())
    _accept(merged, {edit.key for edit in edits if edit.kind in ("changed", "deleted")}, decided, all_checked)
    return merged


def _refuse_other(path: Path, record: _Record, data: Annotations) -> None:
    """Refuse a dataset that has objects, but none of those that the tasks were written from."""
    if data.ids and record.output.ids and _index(data).keys().isdisjoint(_keys(record.output)):
        raise BoxelError(
            f"{data.file}: has none of the objects of the tasks in {path}; name the dataset that they were written "
            "from."
        )


def _lacks_earlier(data: Annotations, record: _Record) -> bool:
    """Return whether a dataset has nothing of what earlier merges have changed, e.g. as these wrote another file."""
    rows, keys = _index(data), _keys(record.output)
    pairs = enumerate(zip(record.states, record.first, strict=False))
    changed = [row for row, (now, before) in pairs if now != before and keys[row] in rows]
    same = (state_digest(data, rows[keys[row]]) == record.first[row] for row in changed)
    return bool(changed) and all(same)


def _refuse_lost(path: Path, record: _Record, found: Annotations, changes: Changes) -> None:
    """Refuse tasks that cannot be read completely, or that the tool was not given."""
    output = record.output
    if changes.unknown_images and (path / IDS_FILE).is_file():
        names = name_some([found.paths[image] for image in changes.unknown_images])
        raise BoxelError(f"{path}: has objects in images that are not of these tasks, {names}; remove them.")
    if problem := find_problem(path, found, output, changes):
        raise BoxelError(f"{path}: {problem}.")
    if output.ids and len(changes.deleted) == sum(
        i not in changes.removed_images for i in output.image_index
    ):
        raise BoxelError(
            f"{path}: none of the {count_noun(len(output.ids), 'object')} of these tasks is there; import the "
            "annotations into the tool before you correct and export them."
        )


def _find_undone(record: _Record, found: Annotations, changes: Changes) -> list[tuple[int, int]]:
    """Find the rows, and what is there now, of which an earlier merge has taken a change that was undone since."""
    images = [found.image_ids[image] for image in found.image_index.tolist()]
    place = {key: row for row, key in enumerate(zip(images, found.ids, strict=True))}
    output = record.output
    keys = [(output.image_ids[image], id) for image, id in zip(output.image_index, output.ids, strict=True)]
    changed = {row for row, _ in [*changes.shapes, *changes.classes, *changes.fields]}
    return [(row, place[keys[row]]) for row in record.merged if row not in changed and keys[row] in place]


def _join_earlier(record: _Record, edits: Sequence[Edit], absent: Sequence[str]) -> list[Edit]:
    """Turn objects that an earlier merge has added into objects that were changed or deleted since."""
    earlier = {(one.image, one.id): one for one in record.added if one.image not in absent}
    joined = []
    for edit in edits:
        before = earlier.pop(edit.key, None) if edit.kind == "added" else None
        joined.append(edit if before is None else replace_fields(edit, kind="changed", id=before.own_id))
    return joined + [Edit(one.image, one.own_id, "deleted") for one in earlier.values()]


def _choose(merged: MergedTasks, edits: Sequence[Edit], decided: Collection[Key]) -> list[Edit]:
    """Choose the edits to take over: what is in the dataset already, or has been decided there since, is left out."""
    data, record = merged.data, merged._record
    rows, row_of = _index(data), {key: row for row, key in enumerate(_keys(record.output))}
    states = {key: record.states[row] for key, row in row_of.items()}
    states |= {(one.image, one.own_id): one.state for one in record.added}
    fresh = fresh_ids([*data.ids, *record.output.own_ids])
    lists = {"changed": merged.corrected, "class": merged.classes, "fields": merged.fields}
    lists |= {"deleted": merged.deleted, "added": merged.added}
    images = {path: image for image, path in enumerate(image_keys(data.paths))}
    taken = []
    for edit in edits:
        row = rows.get(edit.key)
        if edit.kind == "added":
            own = data.instances_in(images[edit.image]).tolist() if edit.image in images else []
            if any(_is_done(data, row, edit) for row in own):
                continue
            new = replace_fields(edit, id=next(fresh))
            record.added.append(_Added(edit.image, edit.id, new.id, b""))
        elif row is None:
            merged.kept += [] if edit.kind == "deleted" else [edit.id]
            continue
        elif _is_done(data, row, edit):
            merged._settled.add(edit.key)
            continue
        elif edit.key in decided or _is_decided(data, row, states[edit.key]):
            merged.kept.append(edit.id)
            continue
        else:
            new = replace_fields(edit, origin=origin_digest(data, row))
        taken.append(new)
        lists[edit.kind].append(new.id)
        merged._settled.add(new.key)
    changed = {row_of[key] for key in merged._settled if key in row_of}
    record.merged = sorted({*record.merged, *changed})
    return taken


def _is_done(data: Annotations, row: int, edit: Edit) -> bool:
    """Return whether an instance is as an edit wants it."""
    drawn = edit.kind in ("changed", "added")
    if drawn and not (data.source[row] is None and data.trusted[row]):
        return False
    return agree(edit, replace_fields(edit, row=make_row(data, row, drawn)))


def _is_decided(data: Annotations, row: int, before: bytes) -> bool:
    """Return whether a user has changed an instance since it had a state; a teacher may have."""
    now = state_digest(data, row)
    facts = len(now) // 2
    return now != before if data.source[row] is None else now[:facts] != before[:facts]


def _accept(
    merged: MergedTasks, edited: Collection[Key], decided: Collection[Key], all_checked: bool
) -> None:
    """Accept the masks to correct that are as the tool was given them, or list them."""
    data, record = merged.data, merged._record
    rows, keys = _index(data), _keys(record.output)
    accepted: list[int] = []
    for marked in record.marked:
        key, row = keys[marked], rows.get(keys[marked], -1)
        is_own = data.source[row] is None and data.trusted[row]
        if row < 0 or is_own or key in edited or key in decided or key[0] in merged.absent:
            continue
        same = state_digest(data, row) == record.states[marked] or key in merged._settled
        if all_checked and same:
            accepted.append(row)
            merged._settled.add(key)
        (merged.accepted if all_checked and same else merged.waiting).append(key[1])
    merged.data = _clear(data, accepted)


def _clear(data: Annotations, rows: Sequence[int]) -> Annotations:
    """Make instances the user's: trusted, without an estimate of their quality, and without marks."""
    columns = {name: getattr(data, name).copy() for name in ("quality", "source", "trusted", "extras")}
    columns["quality"][rows], columns["source"][rows], columns["trusted"][rows] = np.nan, None, True
    for row in rows:
        columns["extras"][row] = clear_drawn(data.extras[row], data.boxes[row])
    return replace(data, **columns)


def _refuse_bad_masks(path: Path, edited: Edited) -> None:
    data = edited.data.select_instances(edited.own & edited.data.has_segmentation)
    judgment = judge_masks(data)
    if judgment.broken.any():
        what = judgment.describe(data.ids, judgment.broken)
        raise BoxelError(f"{path}: corrected masks cannot be used: {what}; repair them in the tool.")


def _cvat_labels(data: Annotations) -> list[dict[str, Any]]:
    """Return the labels of a dataset as CVAT takes them when a task is created."""
    plain = {"mutable": False, "input_type": "text", "default_value": "", "values": [""]}
    names = [dict.fromkeys((_ATTRIBUTE, ID_ATTRIBUTE)) for _ in data.categories]
    for label, extras in zip(data.labels.tolist(), data.extras, strict=True):
        names[label] |= dict.fromkeys(get_dict(decode_extras(extras), "attributes"))
    return [
        {"name": category.name, "attributes": [{"name": name} | plain for name in used]}
        for category, used in zip(data.categories, names, strict=True)
    ]


def _keys(output: Output) -> list[Key]:
    """Return the key in the dataset of each row of an output."""
    return [(output.paths[i], id) for i, id in zip(output.image_index, output.own_ids, strict=True)]


def _index(data: Annotations) -> dict[Key, int]:
    """Return the index of each object of a dataset."""
    paths = image_keys(data.paths)
    return {
        (paths[i], id): row
        for row, (i, id) in enumerate(zip(data.image_index.tolist(), data.ids, strict=True))
    }


def _select(data: Annotations, instances: Sequence[int]) -> Annotations:
    """Return the images of some instances in their order; the instances come first, then the others there."""
    images = list(dict.fromkeys(data.image_index[instances].tolist()))
    others = np.isin(data.image_index, images)
    others[instances] = False
    ordered = data.select_instances(np.array([*instances, *np.flatnonzero(others)], dtype=np.int64))
    selected = replace(ordered.select_images(images), splits=[None] * len(images))
    paths = [selected.image_path(image) for image in range(len(images))]
    if missing := describe_missing(paths):
        raise BoxelError(f"{data.file}: {missing}")
    return selected


def _describe(data: Annotations, one: NextMask) -> str:
    """Return the mark of a mask to correct."""
    quality = data.quality[one.instance]
    return f"{_MARK}{one.reason}" + ("" if np.isnan(quality) else f"; quality {quality:.2f}")


def _mark(extras: bytes | None, format: str, text: str, id: ImageId) -> bytes | None:
    """Return the extras of an object to correct with what the tool shows; CVAT gets the id of each object, too."""
    fields = decode_extras(extras)
    if format == "cvat":
        fields["attributes"] = {_ATTRIBUTE: text, ID_ATTRIBUTE: str(id)} | get_dict(fields, "attributes")
    elif text and format == "labelme":
        fields["description"] = "\n".join(filter(None, [text, get_text(fields, "description")]))
        fields["flags"] = {_ATTRIBUTE: True} | get_dict(fields, "flags")
    elif text:
        others = get_dict(fields, "label_studio")
        meta = get_dict(others, "meta")
        fields["label_studio"] = others | {"meta": meta | {"text": [text, *get_list(meta, "text")]}}
    return encode_extras(fields)


def _unmark(data: Annotations) -> Annotations:
    """Return a dataset without what `_mark` has added."""
    extras = [_remove_mark(text) for text in data.extras]
    return replace(data, extras=as_objects(extras))


def _remove_mark(extras: bytes | None) -> bytes | None:
    fields = decode_extras(extras)
    for name in ("attributes", "flags"):
        fields[name] = {key: v for key, v in get_dict(fields, name).items() if key != _ATTRIBUTE}
    lines = get_text(fields, "description").split("\n")
    fields["description"] = "\n".join(line for line in lines if not line.startswith(_MARK))
    others = get_dict(fields, "label_studio")
    meta = get_dict(others, "meta")
    texts = [text for text in get_list(meta, "text") if not str(text).startswith(_MARK)]
    meta = {key: v for key, v in (meta | {"text": texts}).items() if v}
    fields["label_studio"] = {key: v for key, v in (others | {"meta": meta}).items() if v}
    return encode_extras({key: v for key, v in fields.items() if v not in ("", {}) or key not in _MARKED})
