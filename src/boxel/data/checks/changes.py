"""The record of a repair: every change with the values before and after, from which the original can be restored."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from boxel.data.annotations import Annotations, Category, ImageId
from boxel.utils.errors import BoxelError, one_line
from boxel.utils.files import atomic_path


class _Table(NamedTuple):
    """What the changes of images, or of annotations, have in common.

    Attributes:
        kind: What `RepairState.kinds` calls a row.
        word: What a sentence calls it.
        columns: The columns of an `Annotations` by their names in a record; images and labels are positions there.
    """

    kind: str
    word: str
    columns: dict[str, str]


_IMAGES = _Table(
    "image",
    "image",
    {"id": "image_ids", "file_name": "paths", "width": "widths", "height": "heights"}
    | {"label_map": "label_maps", "extras": "image_extras", "split": "splits"},
)
_INSTANCES = _Table(
    "instance",
    "annotation",
    {"id": "ids", "image": "image_index", "label": "labels", "box": "boxes", "segmentation": "segmentations"}
    | {"area": "areas"}
    | {name: name for name in ("iscrowd", "quality", "source", "trusted", "extras")},
)


class Change(Struct, omit_defaults=True):
    """A change of an image or of an annotation.

    Attributes:
        file: The annotation file.
        kinds: Kinds of the issues that led to it; empty for what is not an issue, e.g. an unknown size that was read.
        image_id: Original id of the image.
        annotation_id: Original id of the annotation; None for an image.
        position: Its position among the images or the annotations of the original.
        before: The values that changed, by name; all of them if it was left out.
        after: The new values; None if it was left out.
    """

    file: str
    kinds: list[str]
    image_id: ImageId | None
    annotation_id: ImageId | None
    position: int
    before: dict[str, Any]
    after: dict[str, Any] | None = None


class _Category(Struct, omit_defaults=True):
    id: int
    name: str
    supercategory: str = ""
    extras: str | None = None


class RepairRecord(Struct):
    """All that a repair changed.

    Attributes:
        annotations: The original file or folder.
        images: Images that were left out or changed.
        instances: Annotations that were left out or changed.
        categories: All categories of the original.
        category_positions: Position in `categories` of each category of the repaired dataset.
        issues: All issues of the original in the form of `issues_to_json`.
        left_out_by_reader: Those of entries that were left out when the original was read, which no undo puts back.
    """

    annotations: str
    images: list[Change]
    instances: list[Change]
    categories: list[_Category]
    category_positions: list[int]
    issues: list[dict[str, Any]] = []
    left_out_by_reader: list[dict[str, Any]] = []

    def __len__(self) -> int:
        """Number of changes."""
        merged = len(self.categories) - len(self.category_positions)
        return len(self.images) + len(self.instances) + merged

    def write(self, path: str | Path) -> None:
        """Write the record as a JSON file."""
        with atomic_path(path) as temporary:
            temporary.write_bytes(self._encode())

    def is_in(self, path: Path) -> bool:
        """Return whether a file holds this record."""
        return path.read_bytes() == self._encode()

    def _encode(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self), indent=1)

    @classmethod
    def is_record(cls, path: Path) -> bool:
        """Return whether a file holds a record."""
        with suppress(BoxelError):
            return bool(cls.read(path).annotations)
        return False

    @classmethod
    def read(cls, path: str | Path) -> RepairRecord:
        """Read a record.

        Raises:
            BoxelError: The file cannot be read or is not a record.
        """
        try:
            return msgspec.json.decode(Path(path).read_bytes(), type=cls)
        except (OSError, msgspec.MsgspecError, ValueError) as error:
            raise BoxelError(
                f"{path}: this is not a record of a repair ({one_line(error)}); name the file that `repair` wrote."
            ) from error


def compare(
    before: Annotations,
    after: Annotations,
    kept: NDArray[np.bool_],
    kept_images: NDArray[np.bool_],
    category_positions: Sequence[int],
    kinds: Mapping[tuple[str, int], list[str]],
) -> RepairRecord:
    """Compare a dataset with its repaired copy.

    Args:
        before: The original.
        after: The copy.
        kept: (N,) bool, the instances that are in the copy.
        kept_images: (I,) bool, the images that are in the copy.
        category_positions: Position of each category of the copy among those of the original.
        kinds: Kinds of issues by what they concern, ``image`` or ``instance``, and its position.
    """
    images, rows = np.flatnonzero(kept_images), np.flatnonzero(kept)
    labels = np.array([*category_positions, -1])[after.labels] if len(after.labels) else after.labels
    # The copy, but with images and categories numbered as in the original.
    image_index = images[after.image_index] if len(rows) else after.image_index
    aligned = replace(after, labels=labels, image_index=image_index.astype(np.int32))
    changed_images = _find_changes(_IMAGES, before, aligned, images, kinds)
    changed_instances = _find_changes(_INSTANCES, before, aligned, rows, kinds)
    for change in changed_instances:
        if change.after is None and not change.kinds:  # it goes with its image
            change.kinds = kinds.get(("image", int(before.image_index[change.position])), [])
    categories = [_Category(c.id, c.name, c.supercategory, _to_json(c.extras)) for c in before.categories]
    return RepairRecord(before.file, changed_images, changed_instances, categories, list(category_positions))


def _find_changes(
    table: _Table,
    before: Annotations,
    after: Annotations,
    positions: NDArray[np.int64],
    kinds: Mapping[tuple[str, int], list[str]],
) -> list[Change]:
    """Return the changes of images or annotations in their order; ``positions`` are those of the rows that are left."""
    place = {i: k for k, i in enumerate(positions.tolist())}
    changed: dict[int, list[str]] = {}
    for name, column in table.columns.items():
        for k in _differences(getattr(before, column), getattr(after, column), positions):
            changed.setdefault(int(positions[k]), []).append(name)
    count = len(getattr(before, table.columns["id"]))
    changed |= {i: [*table.columns] for i in range(count) if i not in place}  # left out
    changes = []
    for i, names in sorted(changed.items()):
        image = i if table is _IMAGES else int(before.image_index[i])
        image_id = before.image_ids[image] if 0 <= image < len(before) else None
        id = None if table is _IMAGES else before.ids[i]
        old = _values(before, table, i, names)
        new = _values(after, table, place[i], names) if i in place else None
        changes.append(Change(before.file, kinds.get((table.kind, i), []), image_id, id, i, old, new))
    return changes


def _differences(before: Any, after: Any, positions: NDArray[np.int64]) -> list[int]:
    """Return where a column differs from the same rows of the original."""
    if isinstance(before, np.ndarray) and before.dtype != object:
        old = before[positions]
        equal = (old == after) | (np.isnan(old) & np.isnan(after)) if old.dtype.kind == "f" else old == after
        rows = equal if equal.ndim == 1 else equal.all(axis=1)
        return np.flatnonzero(~rows).tolist()
    pairs = enumerate(zip(positions.tolist(), after, strict=True))
    return [k for k, (i, new) in pairs if type(before[i]) is not type(new) or before[i] != new]


def _values(data: Annotations, table: _Table, i: int, names: Sequence[str]) -> dict[str, Any]:
    return {name: _to_json(getattr(data, table.columns[name])[i]) for name in names}


def _to_json(value: Any) -> Any:
    """Return a value of a column so that JSON holds it exactly; numbers that are not finite become their names."""
    if isinstance(value, np.ndarray):
        return [_to_json(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return str(value) if isinstance(value, float) and not np.isfinite(value) else value


def undo_repair(data: Annotations, record: RepairRecord) -> tuple[Annotations, list[str]]:
    """Undo a repair: take back each change, and put back what was left out, where it was.

    Edits made since the repair stay: a value is taken back only if it is the one that the repair set.

    Args:
        data: The repaired dataset.
        record: What the repair changed.

    Returns:
        The original, and a sentence per change that cannot be taken back since it was edited.

    Raises:
        BoxelError: The record is of another dataset.

    Examples:
        >>> from boxel.data import example_scenes, repair_with_record
        >>> copy, _, record = repair_with_record(example_scenes())
        >>> undo_repair(copy, record)[1]
        []
    """
    if len(data.categories) != len(record.category_positions):  # a record that cannot be this dataset's
        raise BoxelError(
            f"{data.file}: it has {len(data.categories)} categories, but the repair of {record.annotations} left "
            f"{len(record.category_positions)}; name the record of this dataset."
        )
    try:
        return _undo(data, record)
    except (LookupError, TypeError, ValueError) as error:
        raise BoxelError(
            f"{data.file}: the record of {record.annotations} does not fit it ({one_line(error)}); name the record of "
            "this dataset."
        ) from error


def _undo(data: Annotations, record: RepairRecord) -> tuple[Annotations, list[str]]:
    columns = {field.name: copy(getattr(data, field.name)) for field in fields(data)}
    images, rows = _order(len(data), record.images), _order(len(data.ids), record.instances)
    position_of_image = np.array([p for p, k in enumerate(images) if k >= 0], dtype=np.int64)
    columns["image_index"] = position_of_image[data.image_index] if len(data.ids) else data.image_index
    columns["labels"] = np.array([*record.category_positions, -1])[data.labels]
    columns["categories"] = tuple(
        Category(c.id, c.name, c.supercategory, None if c.extras is None else c.extras.encode())
        for c in record.categories
    )
    lost: list[str] = []
    for table, order, changes in ((_IMAGES, images, record.images), (_INSTANCES, rows, record.instances)):
        left_out = {change.position: change for change in changes if change.after is None}
        for name, column in table.columns.items():
            columns[column] = _merge(columns[column], order, name, column, left_out)
        position_of = {columns[table.columns["id"]][p]: p for p, k in enumerate(order) if k >= 0}
        for change in changes:
            if change.after is None:
                continue
            id = change.image_id if table is _IMAGES else change.annotation_id
            position = position_of.get(change.after.get("id", id), change.position)
            if not _take_back(columns, table.columns, change, position):
                lost.append(f"{data.file}: {table.word} {id} was edited after the repair and stays as it is.")
    return Annotations(**columns | {"issues": []}), lost


def _order(count: int, changes: Sequence[Change]) -> list[int]:
    """Return the original's rows in order: the index of each in the copy; of one that was left out, its position as
    ``-1 - position``."""
    order: list[int] = []
    following = 0
    for position in sorted(change.position for change in changes if change.after is None):
        before = min(position - len(order), count - following)
        order += [*range(following, following + before), -1 - position]
        following += before
    return [*order, *range(following, count)]


def _merge(old: Any, order: list[int], name: str, column: str, left_out: dict[int, Change]) -> Any:
    """Return a column with the values of the rows that were left out, each in its place."""
    values = [_from_json(column, left_out[-1 - k].before[name]) if k < 0 else old[k] for k in order]
    if isinstance(old, list):
        return values
    merged = np.empty((len(values), *old.shape[1:]), dtype=old.dtype)
    for position, value in enumerate(values):
        merged[position] = value
    return merged


def _take_back(columns: dict[str, Any], names: dict[str, str], change: Change, i: int) -> bool:
    """Set the values before a change at a position; return False, with none set, if one is not what the repair set."""
    if i >= len(columns[names["id"]]):
        return False
    for name, value in (change.after or {}).items():
        if not _means_same(name, _to_json(columns[names[name]][i]), value):
            return False
    for name, value in change.before.items():
        columns[names[name]][i] = _from_json(names[name], value)
    return True


def _means_same(name: str, one: Any, other: Any) -> bool:
    """Return whether two values of a record mean the same: a file may round numbers, and format JSON in another way."""
    if one == other:
        return True
    if name == "box":
        sides, other_sides = np.array([one, other], dtype=float)
        return bool(np.allclose(sides, other_sides, rtol=1e-9, atol=1e-6, equal_nan=True))
    if name in ("extras", "segmentation") and one is not None and other is not None:
        with suppress(ValueError):  # a segmentation that is not JSON
            return bool(json.loads(one) == json.loads(other))
    return False


def _from_json(column: str, value: Any) -> Any:
    """Return a value as the column holds it."""
    if column in ("segmentations", "extras", "image_extras"):
        return None if value is None else value.encode()
    if column == "boxes":
        return [float(number) for number in value]
    return float(value) if column in ("quality", "areas") else value
