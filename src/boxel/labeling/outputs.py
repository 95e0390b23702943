"""The outputs of a job as they were written, by which a later run finds out what a user has changed in them."""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from boxel.data.annotations import Annotations, ImageId
from boxel.data.checks.masks import MALFORMED, SEGMENTATION, Code
from boxel.data.digest import digest_path
from boxel.data.formats.extras import decode_extras
from boxel.data.provenance import has_record, without_records
from boxel.data.tightening import original_box
from boxel.labeling.store import Store
from boxel.masks.rle import to_rle
from boxel.utils.errors import BoxelError

_Key = TypeVar("_Key", bound=Hashable)

_DIGEST = 8
"""Bytes per instance and digest."""

_WAVES = np.array([0.0, 1.0, 2.3])
"""Frequencies of the weights of a sketch."""

_ROUNDING = 0.02
"""Pixels by which the coordinates of an outline may be off, on average, after another tool has rounded them."""


class Output(msgspec.Struct, array_like=True, frozen=True):
    """A file or folder as it was written. Rows are as it reads back; digests of all rows lie one after another."""

    digest: str  # of all files
    files: list[str]  # of a folder, relative to it
    paths: list[str]  # keys of its images, see `image_keys`
    image_ids: list[ImageId]
    image_index: list[int]
    ids: list[ImageId]
    own_ids: list[ImageId]  # that the rows have in the dataset
    origins: bytes  # digests of class and box in the dataset, before edits
    classes: bytes
    outlines: bytes  # of box and segmentation
    fields: bytes  # of all else that a user may set
    sketches: bytes  # of all outlines, see `_sketch`
    unreadable: int  # rows that cannot be read
    images: bytes  # all that is stated about each image
    categories: dict[str, bytes]  # by name
    others: dict[str, bytes]  # fields of the dataset, e.g. `info`
    predicted: bytes = b""  # 1 for each row that has a source

    def origin(self, row: int) -> bytes:
        """The digest of class and box of a row in the dataset; empty if a user has added it."""
        digest = self.origins[_DIGEST * row : _DIGEST * (row + 1)]
        return digest if any(digest) else b""


class Changes(msgspec.Struct):
    """How an output differs from its record, by indices of rows."""

    shapes: list[tuple[int, int]]  # (recorded, found): box or segmentation has changed, perhaps the class too
    classes: list[tuple[int, int]]  # (recorded, found): the class has changed, perhaps other fields too
    fields: list[tuple[int, int]]  # (recorded, found): something else has changed
    deleted: list[int]  # recorded
    added: list[int]  # found
    removed_images: list[int]  # recorded
    unknown_images: list[int]  # found, with instances

    def __len__(self) -> int:
        return sum(len(getattr(self, name)) for name in self.__struct_fields__)


@dataclass(frozen=True)
class Origins:
    """Where the rows of a dataset with edits come from.

    Attributes:
        ids: N ids in the dataset without edits.
        digests: Digest of class and box in that dataset, of the rows that edits have changed.
    """

    ids: list[ImageId]
    digests: Mapping[int, bytes]


def load_records(store: Store, name: str) -> list[Output]:
    """Return the records of an output, the last one last: two if a run was interrupted while it wrote the output.

    Those that cannot be read, e.g. of another version of boxel, are left out.
    """
    return _decode_records(store.outputs(name))


def find_changed_predictions(data: Annotations) -> list[ImageId]:
    """Return the ids of masks with a source that were changed since `boxel.label` wrote the file of a dataset.

    The store beside it is only read; without one, or if another process holds it, nothing is found.
    """
    path = Path(data.file).resolve().with_suffix(".sqlite")
    if not data.file.endswith(".json") or not path.is_file():
        return []
    found: dict[str, bytes] = {}
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=1.0)) as db,
    ):
        found = dict(db.execute("SELECT digest, content FROM outputs WHERE name = 'coco'").fetchall())
    records = _decode_records(found)
    if not records or digest_path(Path(data.file)) in [output.digest for output in records]:
        return []
    changes = min((compare(output, data) for output in records), key=len)
    made = data.has_mask & data.has_source
    return [data.ids[row] for _, row in changes.shapes if made[row]]


def _decode_records(found: Mapping[str, bytes]) -> list[Output]:
    records = []
    for digest, content in found.items():
        with contextlib.suppress(msgspec.MsgspecError):
            records.append(replace(msgspec.msgpack.decode(content, type=Output), digest=digest))
    return records


def list_files(folder: Path) -> list[str]:
    """List the files in a folder, relative to it."""
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def image_keys(paths: Iterable[str]) -> list[str]:
    """Return a distinct key per image: its path, numbered if a dataset lists it several times."""
    return [path if number == 1 else f"{path}\0{number}" for path, number in _number(paths)]


def _number(keys: Iterable[_Key]) -> Iterator[tuple[_Key, int]]:
    """Yield each key with the number of times that it has occurred so far."""
    count: Counter[_Key] = Counter()
    for key in keys:
        count[key] += 1
        yield key, count[key]


def record(
    found: Annotations, written: Annotations, origins: Origins, digest: str, files: list[str]
) -> Output:
    """Record an output.

    Args:
        found: The output as it reads back.
        written: The dataset that was written.
        origins: Where its rows come from.
        digest: That of its files.
        files: The files of a folder.
    """

    def digest_rows(digest: Callable[[Annotations, int], bytes]) -> bytes:
        return b"".join(digest(found, row) for row in range(len(found.ids)))

    def origin(row: int) -> bytes:
        digest = origins.digests[row] if row in origins.digests else row >= 0 and origin_digest(written, row)
        return digest or bytes(_DIGEST)

    images, rows = _align(found, written, by_place=not files)
    keys = image_keys(written.paths)
    return Output(
        digest=digest,
        files=files,
        paths=[keys[image] for image in images],
        image_ids=found.image_ids,
        image_index=found.image_index.tolist(),
        ids=found.ids,
        own_ids=[origins.ids[row] if row >= 0 else found.ids[k] for k, row in enumerate(rows)],
        origins=b"".join(map(origin, rows)),
        classes=digest_rows(_class_digest),
        outlines=digest_rows(_outline_digest),
        fields=digest_rows(_field_digest),
        sketches=b"".join(_sketch(found, row).tobytes() for row in range(len(found.ids))),
        unreadable=count_unreadable(found),
        images=b"".join(_image_digest(found, image) for image in range(len(found))),
        categories=_digest_categories(found),
        others=_digest_others(found),
        predicted=found.has_source.tobytes(),
    )


def _align(found: Annotations, written: Annotations, by_place: bool) -> tuple[list[int], list[int]]:
    """Return the image and the row of a written dataset for each that reads back, by place or by id; -1 if none.

    COCO has all rows in their order, but numbers instead of some ids; folders have their ids.
    """
    if by_place and np.array_equal(found.image_index, written.image_index) and len(found) == len(written):
        return list(range(len(written))), list(range(len(written.ids)))
    image_of = {id: i for i, id in reversed(list(enumerate(written.image_ids)))}
    images = [image_of.get(id, -1) for id in found.image_ids]
    if -1 in images:
        raise BoxelError(f"{found.file}: image {found.image_ids[images.index(-1)]} was not written.")
    row_of = dict(
        zip(_row_keys(written.image_index.tolist(), written.ids), range(len(written.ids)), strict=True)
    )
    keys = _row_keys([images[i] for i in found.image_index.tolist()], found.ids)
    return images, [row_of.get(key, -1) for key in keys]


def _row_keys(images: Iterable[int], ids: Iterable[ImageId]) -> list[tuple[int, ImageId, int]]:
    """Return a distinct key per row: image and id, numbered if an id occurs several times."""
    return [(*pair, number) for pair, number in _number(zip(images, ids, strict=True))]


def count_unreadable(data: Annotations) -> int:
    """Count the issues of a reader by which something was left out, besides images that nobody has annotated."""
    return sum("left out" in issue.repair and issue.kind != "not-annotated" for issue in data.issues)


def origin_digest(data: Annotations, row: int) -> bytes:
    """Compute the digest of the class of an instance and of the box that it was given."""
    return _digest([data.categories[data.labels[row]].name, original_box(data, row).tolist()])


def _class_digest(data: Annotations, row: int) -> bytes:
    return _digest([data.categories[data.labels[row]].name])


def _outline_digest(data: Annotations, row: int) -> bytes:
    """Compute the digest of the box and the segmentation of an instance, however that is spelled."""
    box = [round(v, 6) + 0.0 for v in data.boxes[row].tolist()]
    return _digest([box, _spell(data.segmentations[row])])


def _sketch(data: Annotations, row: int) -> NDArray[np.float64]:
    """Return a few sums by which an outline is recognized although its numbers were rounded; NaN for other shapes.

    They are the number of coordinates, and weighted sums of them: moving any of them by a pixel changes the sums by far
    more than rounding all of them does.
    """
    rings = _spell(data.segmentations[row])
    if not rings or not all(isinstance(ring, list) for ring in rings):
        return np.full(1 + len(_WAVES), np.nan)
    values = np.concatenate([data.boxes[row], *rings])
    return np.r_[len(values), np.cos(np.outer(_WAVES, np.arange(len(values)))) @ values]


def _spell(segmentation: bytes | None) -> Any:
    if segmentation is None:
        return None
    try:
        shape = SEGMENTATION.decode(segmentation)
        if not isinstance(shape, Code):
            return shape
        counts = shape.counts
        if not isinstance(counts, str):
            counts = to_rle({"size": list(shape.size), "counts": counts}, *shape.size)["counts"]
        return [*shape.size, counts]
    except MALFORMED:
        return segmentation


def _field_digest(data: Annotations, row: int) -> bytes:
    extras = decode_extras(data.extras[row])
    kept = {name: value for name, value in extras.items() if value not in (None, "", [], {})}
    return _digest([bool(data.iscrowd[row]), bool(data.trusted[row]), data.source[row], kept])


def _image_digest(data: Annotations, image: int) -> bytes:
    size = int(data.widths[image]), int(data.heights[image])
    return _digest([data.paths[image], *size, data.splits[image], decode_extras(data.image_extras[image])])


def state_digest(data: Annotations, row: int) -> bytes:
    """Compute two digests of an instance: of its class and of what a user has decided about it, and of its outline."""
    own = data.source[row] is None
    name = data.categories[data.labels[row]].name
    facts = [name, bool(data.iscrowd[row]), own, own and bool(data.trusted[row])]
    return _digest(facts) + _outline_digest(data, row)


def _digest_categories(data: Annotations) -> dict[str, bytes]:
    return {one.name: _digest([one.supercategory, decode_extras(one.extras)]) for one in data.categories}


def _digest_others(data: Annotations) -> dict[str, bytes]:
    others = decode_extras(without_records(data).dataset_extras)
    return {name: _digest([value]) for name, value in others.items()}


def find_other_changes(before: Output, found: Annotations) -> list[str]:
    """Name what has changed in an output besides its objects and the list of its images; the file is of COCO."""
    others = _digest_others(found)
    names = [name for name in before.others | others if before.others.get(name) != others.get(name)]
    used = {found.categories[label].name for label in np.unique(found.labels)}
    for name, digest in _digest_categories(found).items():
        if digest != before.categories.get(name) and (name in before.categories or name not in used):
            names.append(f"category {name}")
    recorded = dict(zip(before.image_ids, _split(before.images), strict=True))
    for image, id in enumerate(found.image_ids):
        if id in recorded and recorded[id].tobytes() != _image_digest(found, image):
            names.append(f"image {id}")
    return names


def _digest(values: list[Any]) -> bytes:
    return blake2b(msgspec.json.encode(values, order="deterministic"), digest_size=_DIGEST).digest()


def compare(before: Output, found: Annotations) -> Changes:
    """Find what has changed in an output since it was recorded; a row is identified by image and id."""
    image_of = {id: i for i, id in reversed(list(enumerate(before.image_ids)))}
    images = [image_of.get(id, -1) for id in found.image_ids]
    owners = found.image_index.tolist()
    changes = Changes([], [], [], [], [], [], sorted({image for image in owners if images[image] < 0}))
    present = set(images)
    changes.removed_images = [image for image in range(len(before.image_ids)) if image not in present]
    keys = _row_keys([images[image] for image in owners], found.ids)
    row_of = {key: row for row, key in enumerate(keys) if key[0] >= 0}
    classes, outlines, fields = map(_split, (before.classes, before.outlines, before.fields))
    sketches = np.frombuffer(before.sketches).reshape(-1, 1 + len(_WAVES))
    for row, key in enumerate(_row_keys(before.image_index, before.ids)):
        other = row_of.pop(key, None)
        if other is None:
            if key[0] in present:
                changes.deleted.append(row)
            continue
        same = _outline_digest(found, other) == outlines[row].tobytes()
        if not same and not _is_near(_sketch(found, other), sketches[row]):
            changes.shapes.append((row, other))
        elif _class_digest(found, other) != classes[row].tobytes():
            changes.classes.append((row, other))
        # A reader may take a mask for the user's own if its numbers were rounded.
        elif _field_digest(found, other) != fields[row].tobytes() and (
            same or found.source[other] is not None
        ):
            changes.fields.append((row, other))
    changes.added = list(row_of.values())
    return changes


def take_accepted(changes: Changes, before: Output, found: Annotations) -> int:
    """Count a predicted mask that has lost its `source` in a COCO file as one that the user has drawn.

    A tool that knows no `source` drops it from all masks, and the record in `info` too: then such changes are removed
    unless the class has changed.

    Returns:
        How many were removed.
    """
    own = found.has_mask & ~found.has_source
    predicted = before.predicted or bytes(len(before.ids))  # a record of an earlier version
    lost = {pair for pair in [*changes.classes, *changes.fields] if predicted[pair[0]] and own[pair[1]]}
    if not has_record(found):
        removed = lost.intersection(changes.fields)
        changes.fields = [pair for pair in changes.fields if pair not in removed]
        return len(removed)
    changes.classes = [pair for pair in changes.classes if pair not in lost]
    changes.fields = [pair for pair in changes.fields if pair not in lost]
    changes.shapes = sorted([*changes.shapes, *lost])
    return 0


def _is_near(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    """Return whether two sketches are of the same outline, but for the rounding of its numbers."""
    noise = _ROUNDING * np.sqrt(other[0])
    return bool(one[0] == other[0] and (np.abs(one - other) <= noise).all())


def _split(digests: bytes) -> NDArray[np.void]:
    return np.frombuffer(digests, dtype=f"V{_DIGEST}")


def left_out(before: Output, data: Annotations) -> tuple[int, int]:
    """Count the images of an output of which a dataset lacks instances, by class and box, and the other images."""
    index = {key: i for i, key in enumerate(image_keys(data.paths))}
    earlier: list[Counter[bytes]] = [Counter() for _ in before.paths]
    for row, image in enumerate(before.image_index):
        if origin := before.origin(row):
            earlier[image][origin] += 1
    lacking = complete = 0
    for key, rows in zip(before.paths, earlier, strict=True):
        place = index.get(key)
        own = [] if place is None else data.instances_in(place).tolist()
        now = Counter(origin_digest(data, row) for row in own)
        lacking += place is None or bool(rows - now)
        complete += place is not None and not rows - now and bool(rows)
    return lacking, complete
