"""What a reviewer decided, each decision committed to an SQLite file before it counts."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec

from boxel.data.annotations import ImageId
from boxel.masks.rle import Rle
from boxel.utils.errors import BoxelError

VERSION = 1
"""Version of what the file holds; raise it if an older boxel could not read it, or this one an older file."""

State: TypeAlias = Literal["open", "accepted", "rejected", "ignored", "deleted"]

Key: TypeAlias = tuple[str, ImageId]
"""An object, by the path of its image and its id in the dataset."""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """An object as a reviewer left it.

    Attributes:
        state: ``open`` (undecided), ``accepted``, ``rejected`` (the mask is wrong), ``ignored`` (neither object nor
            background), or ``deleted`` (there is no such object).
        category: Name of its class.
        box: xyxy pixels.
        mask: run-length code, None if the object has only a box; unset if it is that of the dataset.
        maker: What made the mask: a teacher, ``you`` if the reviewer drew in it, or None if that is unknown.
        quality: Estimated IoU of the mask with the ground truth; None if unknown.
        added: The dataset does not have the object: the reviewer added it.

    Examples:
        >>> Decision(state="accepted", category="cat", box=(0, 0, 4, 4)).maker is None
        True
    """

    state: State = "open"
    category: str
    box: tuple[float, float, float, float]
    mask: Rle | msgspec.UnsetType | None = msgspec.UNSET
    maker: str | None = None
    quality: float | None = None
    added: bool = False


class Entry(NamedTuple):
    """A decision about an object, with its number among those about the object, from 1 up."""

    version: int
    decision: Decision


class Conflict(BoxelError):
    """A decision about an object that somebody else has changed meanwhile."""


class DecisionStore:
    """All decisions about the objects of a dataset, in the order in which they were made; none is ever overwritten.

    A decision states the version of the object that the reviewer has seen. If there is a newer one by now, from another
    tab or another process, the decision is refused. Several threads may share a store.

    Args:
        path: The file; it is created if it is missing.

    Raises:
        BoxelError: The file cannot be opened, or belongs to another program.

    Examples:
        >>> import tempfile
        >>> store = DecisionStore(Path(tempfile.mkdtemp(), "decisions.sqlite"))
        >>> store.add(("a.jpg", 7), 0, b"", Decision(state="accepted", category="cat", box=(0, 0, 4, 4)))
        1
        >>> [entry.decision.state for entry in store.history(("a.jpg", 7))]
        ['accepted']
    """

    def __init__(self, path: Path) -> None:
        self.path, self._lock = path, threading.Lock()
        with self._boxel_errors():
            self._db = sqlite3.connect(str(path), timeout=5.0, isolation_level=None, check_same_thread=False)
            try:
                self._prepare()
            except BaseException:
                self._db.close()
                raise

    def _prepare(self) -> None:
        """Create the table if it is missing."""
        tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE sql != ''")}
        if tables - {"decisions"}:
            raise BoxelError(
                f"{self.path}: this file belongs to another program; name another one for the decisions."
            )
        if tables and self._db.execute("PRAGMA user_version").fetchone() != (VERSION,):
            raise BoxelError(f"{self.path}: another version of boxel has written it; use that version.")
        if not tables:
            # At once, so that another process sees the table with its version, or neither.
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS decisions (number INTEGER PRIMARY KEY, image TEXT NOT NULL, "
                "object TEXT NOT NULL, version INTEGER NOT NULL, origin BLOB NOT NULL, content BLOB NOT NULL, "
                "time TEXT NOT NULL, UNIQUE (image, object, version))"
            )
            self._write_version()
            self._db.execute("COMMIT")

    def check_writable(self) -> None:
        """Raise an error if no decision could be committed, e.g. because the file is for reading only."""
        with self._boxel_errors(), self._lock:
            self._write_version()

    def _write_version(self) -> None:
        self._db.execute(f"PRAGMA user_version = {VERSION}")

    def add(self, key: Key, version: int, origin: bytes, decision: Decision) -> int:
        """Commit a decision.

        Args:
            key: The object.
            version: The version that the reviewer has seen; 0 if nothing has been decided before.
            origin: Digest of the object in the dataset, by which a later session knows whether it has changed.
            decision: The object as the reviewer leaves it.

        Returns:
            The new version.

        Raises:
            Conflict: There is a newer version.
        """
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        row = [key[0], json.dumps(key[1]), version + 1, origin, msgspec.msgpack.encode(decision), now]
        try:
            with self._boxel_errors(), self._lock:
                self._db.execute(
                    "INSERT INTO decisions (image, object, version, origin, content, time) VALUES (?, ?, ?, ?, ?, ?)",
                    row,
                )
        except sqlite3.IntegrityError:
            raise Conflict(f"object {key[1]} of {key[0]} was changed meanwhile; look at it again.") from None
        return version + 1

    def latest(self) -> Iterator[tuple[Key, bytes, Entry]]:
        """Yield each object that was decided on, with the digest of its origin and the last decision about it."""
        rows = self._fetch(
            "SELECT image, object, origin, version, content FROM decisions JOIN (SELECT image, object, "
            "MAX(version) AS version, MIN(number) AS first FROM decisions GROUP BY image, object) "
            "USING (image, object, version) ORDER BY first"
        )
        for image, id, origin, version, content in rows:
            yield (image, json.loads(id)), origin, self._entry(version, content)

    def count(self) -> int:
        """Return the number of decisions so far."""
        return int(self._fetch("SELECT COUNT(*) FROM decisions")[0][0])

    def decided_after(self, count: int) -> set[Key]:
        """Return the objects about which there is a decision after the first ones that was not undone."""
        rows = self._fetch("SELECT DISTINCT image, object FROM decisions WHERE number > ?", count)
        keys = {(image, json.loads(id)) for image, id in rows}
        return {key for key, _, (_, decision) in self.latest() if key in keys and decision.state != "open"}

    def ids(self) -> set[ImageId]:
        """Return the ids of all objects that were decided on, in any image."""
        return {json.loads(id) for (id,) in self._fetch("SELECT DISTINCT object FROM decisions")}

    def history(self, key: Key) -> list[Entry]:
        """Return all decisions about an object, the first one first."""
        rows = self._fetch(
            "SELECT version, content FROM decisions WHERE image = ? AND object = ? ORDER BY version",
            key[0],
            json.dumps(key[1]),
        )
        return [self._entry(*row) for row in rows]

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def _entry(self, version: int, content: bytes) -> Entry:
        with self._boxel_errors():
            return Entry(version, msgspec.msgpack.decode(content, type=Decision))

    def _fetch(self, query: str, *values: str | int) -> list[Any]:
        with self._boxel_errors(), self._lock:
            return self._db.execute(query, values).fetchall()

    @contextmanager
    def _boxel_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.IntegrityError:
            raise
        except sqlite3.OperationalError as error:
            raise BoxelError(
                f"{self.path}: cannot be used ({error}); what is in it stays, so free the disk or name another file."
            ) from error
        except (sqlite3.DatabaseError, msgspec.MsgspecError) as error:
            raise BoxelError(
                f"{self.path}: is not a file of decisions, or damaged ({error}); restore a copy of it, or name "
                "another file."
            ) from error
