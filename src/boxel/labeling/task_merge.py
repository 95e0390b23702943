"""The way back from an annotation tool: merge tasks that were corrected there into their dataset."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from msgspec.structs import replace as replace_fields

from boxel.data.annotations import Annotations, ImageId, fresh_ids
from boxel.data.formats import read
from boxel.data.formats.identity import IDS_FILE
from boxel.labeling.edits import Edit, Edits, agree, apply, clear_drawn, collect, make_row
from boxel.labeling.outputs import Changes, compare, image_keys, origin_digest, state_digest
from boxel.labeling.target import find_problem
from boxel.labeling.task_folder import AddedObject, Key, TaskRecord, index_objects, task_keys
from boxel.labeling.task_marks import remove_marks
from boxel.utils.errors import BoxelError
from boxel.utils.printable import count_noun, name_ids, name_some


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
    _record: TaskRecord = field(repr=False)
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
        record, rows = self._record, index_objects(self.data)
        record.first = record.first or list(record.states)
        for row, key in enumerate(task_keys(record.output)):
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
    record = TaskRecord.load(path)
    _refuse_other(path, record, data)
    if _lacks_earlier(data, record):
        record = replace_fields(record, states=record.first, merged=[], added=[])
    found = remove_marks(read(path, format=record.format))
    changes = compare(record.output, found)
    _refuse_lost(path, record, found, changes)
    absent = [record.output.paths[image] for image in changes.removed_images]
    merged = MergedTasks(data, record, path, absent=absent)
    changes.removed_images = []
    changes.shapes += _find_undone(record, found, changes)
    edits = _join_earlier(record, collect(record.output, found, changes).rows, absent)
    taken = _choose(merged, edits, decided)
    edited = apply(data, Edits(taken))
    if problem := edited.describe_bad_masks():
        raise BoxelError(f"{path}: corrected masks cannot be used: {problem}; repair them in the tool.")
    merged.data = edited.set_fields(edited.data)
    merged.data = _clear(merged.data, np.flatnonzero(edited.own).tolist())
    _accept(merged, {edit.key for edit in edits if edit.kind in ("changed", "deleted")}, decided, all_checked)
    return merged


def _refuse_other(path: Path, record: TaskRecord, data: Annotations) -> None:
    """Refuse a dataset that has objects, but none of those that the tasks were written from."""
    if data.ids and record.output.ids and index_objects(data).keys().isdisjoint(task_keys(record.output)):
        raise BoxelError(
            f"{data.file}: has none of the objects of the tasks in {path}; name the dataset that they were written "
            "from."
        )


def _lacks_earlier(data: Annotations, record: TaskRecord) -> bool:
    """Return whether a dataset has nothing of what earlier merges have changed, e.g. as these wrote another file."""
    rows, keys = index_objects(data), task_keys(record.output)
    pairs = enumerate(zip(record.states, record.first, strict=False))
    changed = [row for row, (now, before) in pairs if now != before and keys[row] in rows]
    same = (state_digest(data, rows[keys[row]]) == record.first[row] for row in changed)
    return bool(changed) and all(same)


def _refuse_lost(path: Path, record: TaskRecord, found: Annotations, changes: Changes) -> None:
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


def _find_undone(record: TaskRecord, found: Annotations, changes: Changes) -> list[tuple[int, int]]:
    """Find the rows, and what is there now, of which an earlier merge has taken a change that was undone since."""
    images = [found.image_ids[image] for image in found.image_index.tolist()]
    place = {key: row for row, key in enumerate(zip(images, found.ids, strict=True))}
    output = record.output
    keys = [(output.image_ids[image], id) for image, id in zip(output.image_index, output.ids, strict=True)]
    changed = {row for row, _ in [*changes.shapes, *changes.classes, *changes.fields]}
    return [(row, place[keys[row]]) for row in record.merged if row not in changed and keys[row] in place]


def _join_earlier(record: TaskRecord, edits: Sequence[Edit], absent: Sequence[str]) -> list[Edit]:
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
    rows, row_of = index_objects(data), {key: row for row, key in enumerate(task_keys(record.output))}
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
            record.added.append(AddedObject(edit.image, edit.id, new.id, b""))
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
    rows, keys = index_objects(data), task_keys(record.output)
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
