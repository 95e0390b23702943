"""A review of a dataset: its objects as they are now, and the dataset with all decisions."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from hashlib import blake2b
from typing import Any, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from boxel.data.annotations import COLUMNS, Annotations, ImageId, fresh_ids
from boxel.data.suspects import find_suspects, mark_suspect
from boxel.masks.rle import Rle, to_rle
from boxel.review.decisions import Conflict, Decision, DecisionStore, Entry, Key, State
from boxel.review.images import save_image
from boxel.utils.errors import BoxelError, nearest
from boxel.utils.printable import count_noun

logger = logging.getLogger(__name__)

YOU = "you"
"""The maker of a mask that the reviewer drew."""

STATES: tuple[State, ...] = get_args(State)
"""The states of an object; their places are the values of `Review.states`."""

_SAME_BOX = 0.02  # pixels by which two boxes may differ that are the same, as files round


class Review:
    """The objects of a dataset and what was decided about them; several threads may share one.

    Objects are counted as in the dataset; those that the reviewer adds follow. A decision about an object whose class,
    box or mask in the dataset has changed since does not count, unless the reviewer drew the mask; this is logged.

    Args:
        data: A dataset with boxes, and with masks to review.
        store: Where decisions are kept.

    Attributes:
        data: The dataset as it was read.
        ids: N ids, as in the dataset.
        image_index: (N,) int32, index of the image.
        states: (N,) int8, places in `STATES`.
        labels: (N,) int32, index of the class.
        quality: (N,) float64, estimated IoU of the mask with the ground truth; NaN if unknown.
        boxes: (N, 4) float64, xyxy pixels.
        suspects: What may be wrong with boxes, by object.
        lock: Held while a decision is taken over; hold it to see the one just made, and none after it.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from boxel.data import example_scenes
        >>> review = Review(example_scenes(), DecisionStore(Path(tempfile.mkdtemp(), "decisions.sqlite")))
        >>> review.decide(0, 0, state="rejected").version
        1
        >>> review.apply().trusted.tolist()
        [False, True, True, True, True]
    """

    def __init__(self, data: Annotations, store: DecisionStore) -> None:
        self.data, self.store = data, store
        self.names = [category.name for category in data.categories]
        self.ids, self.image_index = list(data.ids), data.image_index
        self.states = np.zeros(len(self.ids), dtype=np.int8)
        self.labels, self.quality = data.labels.copy(), data.quality.astype(np.float64)
        self.boxes = data.boxes.copy()
        self.suspects = {row: kind for kind, rows in find_suspects(data).items() for row in rows}
        self._entries: dict[int, Entry] = {}
        self.lock = threading.RLock()
        self._load()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def sides(self) -> NDArray[np.float64]:
        """(N,) pixels, square root of the area of each box."""
        return np.sqrt((self.boxes[:, 2:] - self.boxes[:, :2]).clip(min=0).prod(axis=1))

    def boxes_in(self, image: int, but: int | None = None) -> NDArray[np.float64]:
        """Return the (M, 4) boxes of the objects in an image, without deleted ones and one that is named."""
        inside = (self.image_index == image) & (self.states != STATES.index("deleted"))
        if but is not None:
            inside[but] = False
        return self.boxes[inside]

    def entry(self, row: int) -> Entry:
        """Return the object as it is now, and its version, which is 0 if nothing was decided about it."""
        with self.lock:
            return self._entries.get(row) or Entry(0, self._original(row))

    def rle(self, row: int) -> Rle | None:
        """Return the mask of an object as it is now, or None.

        Raises:
            BoxelError: The segmentation in the dataset is malformed.
        """
        mask = self.entry(row).decision.mask
        if isinstance(mask, msgspec.UnsetType):
            return self.data.rle(row)
        width, height = self.data.image_size(int(self.image_index[row]))
        try:
            return mask and to_rle(mask, height, width)
        except Exception as error:  # the file of decisions is of another dataset, or damaged
            raise BoxelError(
                f"{self.store.path}: the mask of object {self.ids[row]} cannot be read ({error}); undo its last change."
            ) from error

    def decide(self, row: int, version: int, **changes: Any) -> Entry:
        """Commit a change of an object.

        Args:
            row: The object.
            version: The version that the reviewer has seen.
            **changes: Fields of :class:`~boxel.review.decisions.Decision`.

        Raises:
            Conflict: There is a newer version.
            BoxelError: There is no such class, or the decision cannot be written.
        """
        with self.lock:
            return self._commit(row, version, msgspec.structs.replace(self.entry(row).decision, **changes))

    def restore(self, row: int, version: int, to: int) -> Entry:
        """Commit an object as it was at another version: undo, or redo.

        Version 0 is the object as the dataset has it; one that the reviewer added is deleted again.

        Raises:
            Conflict: There is a newer version than the one seen, or there is no such other version.
        """
        with self.lock:
            versions = dict(self.store.history(self._key(row)))
            if row < len(self.data.ids):
                versions[0] = self._original(row)
            elif 1 in versions:
                versions[0] = msgspec.structs.replace(versions[1], state="deleted")
            if to not in versions:
                raise Conflict(f"object {self.ids[row]} has no version {to}; look at it again.")
            return self._commit(row, version, versions[to])

    def add(self, image: int, category: str, box: tuple[float, float, float, float], **fields: Any) -> int:
        """Add an object to an image, under a new id; return its index.

        Args:
            image: Index of the image.
            category: Name of the class.
            box: xyxy pixels.
            **fields: Of :class:`~boxel.review.decisions.Decision`; it has no mask unless one is given.

        Raises:
            BoxelError: There is no such class, or the decision cannot be written.
        """
        with self.lock:
            self._check_class(category)
            decision = Decision(**{"mask": None, **fields}, category=category, box=box, added=True)
            id = next(fresh_ids([*self.ids, *self.store.ids()]))  # other sessions have added objects too
            version = self.store.add((self.data.paths[image], id), 0, b"", decision)
            row = self._append(image, id)
            self._take(row, Entry(version, decision))
            return row

    def add_image(self, name: str, content: bytes) -> int:
        """Write an image into the folder of the dataset, and return its index.

        Raises:
            BoxelError: It is not an image that boxel reads, or cannot be written.
        """
        with self.lock:
            self.data = save_image(self.data, name, content)
            return len(self.data) - 1

    def apply(self, all_checked: bool = False) -> Annotations:
        """Return the dataset as the reviewer leaves it.

        Accepted masks are trusted and have no source, as those of a person. Rejected ones are not trusted. Ignored
        objects become crowds, deleted ones are left out, added ones come last. Objects about which nothing was decided
        stay as they are.

        Args:
            all_checked: Let the other decisions count as acceptance too.
        """
        with self.lock:
            entries, states = dict(self._entries), self.states.copy()
            data = _append_rows(self.data, self.ids, self.image_index)
        columns = {name: getattr(data, name).copy() for name in _CHANGED_COLUMNS}
        for row, (_, decision) in entries.items():
            for name, value in self._to_columns(row, decision, all_checked).items():
                columns[name][row] = value
        return replace(data, **columns).select_instances(states != STATES.index("deleted"))

    def _to_columns(self, row: int, decision: Decision, all_checked: bool) -> dict[str, Any]:
        """Return the values of an object in the columns that a decision changes."""
        own = row < len(self.data.ids)
        checked = decision.state == "accepted" or (all_checked and decision.state != "open")
        columns: dict[str, Any] = {
            "labels": self.names.index(decision.category),
            "boxes": decision.box,
            "quality": np.nan if checked or decision.quality is None else decision.quality,
            "source": None if checked else decision.maker,
            "trusted": checked
            or (decision.state != "rejected" and (not own or bool(self.data.trusted[row]))),
            "iscrowd": decision.state == "ignored" or (own and bool(self.data.iscrowd[row])),
            "extras": mark_suspect(self.data.extras[row], None if checked else self.suspects.get(row))
            if own
            else None,
        }
        if decision.mask is not msgspec.UNSET:
            area = float(coco_mask.area(decision.mask)) if decision.mask else np.nan
            code = msgspec.json.encode(decision.mask) if decision.mask else None
            columns |= {"segmentations": code, "areas": area}
        return columns

    def _check_class(self, name: str) -> None:
        if name not in self.names:
            raise BoxelError(f"there is no class {name!r}.{nearest(name, self.names)}")

    def _commit(self, row: int, version: int, decision: Decision) -> Entry:
        self._check_class(decision.category)
        if version != self.entry(row).version:
            raise Conflict(f"object {self.ids[row]} was changed meanwhile; look at it again.")
        origin = self._origin(row) if row < len(self.data.ids) else b""
        try:
            entry = Entry(self.store.add(self._key(row), version, origin, decision), decision)
        except Conflict:  # with another process
            self._take(row, self.store.history(self._key(row))[-1])
            raise
        self._take(row, entry)
        return entry

    def _take(self, row: int, entry: Entry) -> None:
        """Make a decision the one that counts."""
        decision = entry.decision
        self._entries[row] = entry
        self.states[row] = STATES.index(decision.state)
        self.labels[row] = self.names.index(decision.category)
        self.quality[row] = np.nan if decision.quality is None else decision.quality
        self.boxes[row] = decision.box

    def _load(self) -> None:
        """Take over the decisions of earlier sessions."""
        rows = {self._key(row): row for row in range(len(self.ids))}
        images = {path: image for image, path in enumerate(self.data.paths)}
        changed = lost = 0
        for key, origin, entry in self.store.latest():
            decision, row = entry.decision, rows.get(key)
            has_class = decision.category in self.names
            if row is None and decision.added and has_class and key[0] in images:
                row = self._append(images[key[0]], key[1])
            if row is None:
                lost += decision.state != "deleted"
            elif has_class and self._still_holds(row, origin, decision):
                self._take(row, entry)
            else:
                self._take(row, Entry(entry.version, self._original(row)))
                changed += decision.state != "open"
        if changed:
            has_changed = count_noun(changed, "object has", "objects have")
            logger.warning("%s changed since you decided on them; look at them again", has_changed)
        if lost:
            where = "are in the file of decisions and not in the dataset; their decisions stay in the file"
            logger.warning("%s: %s %s", self.store.path, count_noun(lost, "object"), where)

    def _still_holds(self, row: int, origin: bytes, decision: Decision) -> bool:
        """Return whether a decision is about the object as it is in the dataset."""
        if row >= len(self.data.ids) or decision.maker == YOU or origin == self._origin(row):
            return True
        # The decisions may have been written into the file since.
        is_same = decision.category == self.names[self.data.labels[row]] and np.allclose(
            decision.box, self.data.boxes[row], rtol=0, atol=_SAME_BOX
        )
        return is_same and bool(decision.mask) and decision.mask == self.data.rle(row)

    def _original(self, row: int) -> Decision:
        """Return an object of the dataset as it was read."""
        quality = float(self.data.quality[row])
        return Decision(
            category=self.names[self.data.labels[row]],
            box=tuple(self.data.boxes[row].tolist()),
            maker=self.data.source[row],
            quality=None if np.isnan(quality) else quality,
        )

    def _origin(self, row: int) -> bytes:
        """Return the digest of an object of the dataset as it was read."""
        facts = (
            self.names[self.data.labels[row]],
            self.data.boxes[row].round(2).tolist(),
            self.data.segmentations[row],
        )
        return blake2b(msgspec.msgpack.encode(facts), digest_size=8).digest()

    def _key(self, row: int) -> Key:
        return self.data.paths[self.image_index[row]], self.ids[row]

    def _append(self, image: int, id: ImageId) -> int:
        """Append an object, about which a decision is taken next."""
        self.ids.append(id)
        self.image_index = np.append(self.image_index, np.int32(image))
        self.states, self.labels = np.append(self.states, np.int8(0)), np.append(self.labels, np.int32(0))
        self.quality, self.boxes = np.append(self.quality, np.nan), np.append(self.boxes, np.zeros((1, 4)), 0)
        return len(self.ids) - 1


_CHANGED_COLUMNS = (
    "labels",
    "boxes",
    "segmentations",
    "areas",
    "quality",
    "source",
    "trusted",
    "iscrowd",
    "extras",
)


def _append_rows(data: Annotations, ids: list[ImageId], image_index: NDArray[np.int32]) -> Annotations:
    """Append objects whose other columns are set later."""
    count = len(ids) - len(data.ids)
    columns: dict[str, Any] = {
        name: np.concatenate([column, np.zeros((count, *column.shape[1:]), COLUMNS[name])])
        for name in _CHANGED_COLUMNS
        for column in [getattr(data, name)]
    }
    return replace(data, ids=list(ids), image_index=image_index, **columns)
