"""Keep the progress of a labeling job in an SQLite file, so that it can be resumed after any interruption."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from boxel.masks.rle import Rle
from boxel.utils.errors import BoxelError

VERSION = 1
"""Version of what the file holds; raise it if an older boxel could not read it, or this one an older file."""

COMMIT_SECONDS = 1.0
"""Seconds of work per commit: the maximum that an interruption loses, besides the images in progress."""


class MaskRow(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The mask of one instance."""

    position: int  # of the instance among those of its image, in the order of the annotations
    segmentation: bytes  # run-length code as JSON
    quality: float | None  # estimated IoU of the mask with the ground truth, in [0, 1]; None if unknown
    source: str  # names of the teachers
    trusted: bool  # False for a mask that was dropped
    area: int  # in pixels
    suspect: str | None = None  # what may be wrong with the box
    distance: float | None = None  # of its cues from those that the quality was calibrated on
    undecided: Rle | None = None  # pixels about which no teacher has an opinion


class ImageRows(NamedTuple):
    """The masks of one image."""

    digest: bytes  # of all that the masks were made from, except for the settings
    path: str  # relative to the folder of the dataset
    width: int
    height: int
    rows: list[MaskRow]  # of the instances that got a mask


class Store:
    """The file of a job, held by one process at a time.

    Images are stored by the digest of what went into them: an image that changes is simply missing, and nothing is ever
    overwritten. A commit is one transaction under SQLite's rollback journal, which the next process rolls back if it
    was cut short. (The write-ahead log would be faster but needs shared memory, which network drives lack.)

    Without a path it is a temporary file. One that cannot be opened, belongs to another program or is held by another
    process is a :class:`BoxelError`.
    """

    def __init__(self, path: Path | None = None):
        self.path = path
        with self._boxel_errors():
            # An empty name is a temporary file of SQLite's own, removed when it is closed.
            self._db = sqlite3.connect(str(path or ""), timeout=1.0, isolation_level=None)
            try:
                self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
                with self._transaction():
                    self._prepare()
            except BaseException:
                self._db.close()
                raise

    def _prepare(self) -> None:
        """Create the tables that are missing."""
        tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE sql != ''")}
        if tables - {"facts", "images", "outputs", "edits"}:
            raise BoxelError(f"{self.path}: this file belongs to another program; name another `out`.")
        if tables and self._db.execute("PRAGMA user_version").fetchone() != (VERSION,):
            raise BoxelError(
                f"{self.path}: another version of boxel has written it, which alone can resume its job; name another "
                f"`out`, and label {Path(str(self.path)).with_suffix('.json').name} to keep the masks that are in it."
            )
        self._db.execute(f"PRAGMA user_version = {VERSION}")
        self._db.execute("CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL)")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS images (digest BLOB PRIMARY KEY, path TEXT NOT NULL, "
            "width INTEGER NOT NULL, height INTEGER NOT NULL, rows BLOB NOT NULL)"
        )
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS outputs (name TEXT, digest TEXT, content BLOB NOT NULL, "
            "PRIMARY KEY (name, digest))"
        )
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS edits (number INTEGER PRIMARY KEY, content BLOB NOT NULL)"
        )

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *error: object) -> None:
        self._db.close()

    def get(self, name: str) -> Any:
        """Return the plain data stored under a name, or None."""
        found = self._execute("SELECT value FROM facts WHERE name = ?", name)
        return json.loads(found[0][0]) if found else None

    def put(self, name: str, value: Any) -> None:
        """Store plain data under a name."""
        self._execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", name, json.dumps(value))

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        """Store the settings that masks depend on, or refuse them if those of existing masks differ."""
        now, before = json.loads(json.dumps(settings)), self.get("settings")
        if before is None or not self.paths():
            self.put("settings", now)
            return
        changed = describe_changes(before, now)
        if changed:
            raise BoxelError(
                f"{self.path}: its masks were made with other settings ({changed}); give the same settings "
                "to resume, or name another `out`; with its masks file as the input, what you corrected is kept."
            )

    def paths(self) -> dict[bytes, str]:
        """Return the path of each finished image by its digest."""
        return dict(self._execute("SELECT digest, path FROM images"))

    def add(self, batch: Sequence[ImageRows]) -> None:
        """Commit some images: all of them or, if the process ends meanwhile, none."""
        encode = msgspec.msgpack.encode
        with self._boxel_errors(), self._transaction():
            self._db.executemany(
                "INSERT INTO images VALUES (?, ?, ?, ?, ?) ON CONFLICT (digest) DO NOTHING",
                [(*image[:4], encode(image.rows)) for image in batch],
            )

    def __iter__(self) -> Iterator[ImageRows]:
        """Iterate over the finished images."""
        decoder = msgspec.msgpack.Decoder(list[MaskRow])
        with self._boxel_errors():
            for row in self._db.execute("SELECT digest, path, width, height, rows FROM images"):
                image = ImageRows(*row)
                yield image._replace(rows=decoder.decode(row[4]))

    def outputs(self, name: str) -> dict[str, bytes]:
        """Return the records of an output by its digest: one, or two if a run was interrupted while it wrote it."""
        return dict(self._execute("SELECT digest, content FROM outputs WHERE name = ? ORDER BY rowid", name))

    def output_names(self) -> list[str]:
        """Return the names of all outputs that have a record."""
        return [name for (name,) in self._execute("SELECT DISTINCT name FROM outputs")]

    def edits(self) -> bytes | None:
        """Return the record of a user's edits, or None."""
        found = self._execute("SELECT content FROM edits")
        return found[0][0] if found else None

    def add_output(self, name: str, digest: str, output: msgspec.Struct, edits: msgspec.Struct) -> None:
        """Record an output that is about to take its place, beside the one that is there, and the edits in it."""
        encode = msgspec.msgpack.encode
        with self._boxel_errors(), self._transaction():
            self._db.execute(
                "INSERT OR REPLACE INTO outputs VALUES (?, ?, ?)", [name, digest, encode(output)]
            )
            self._db.execute("INSERT OR REPLACE INTO edits VALUES (1, ?)", [encode(edits)])

    def keep_output(self, name: str, digest: str) -> None:
        """Forget all records of an output but the one with a digest, which has taken its place."""
        self._execute("DELETE FROM outputs WHERE name = ? AND digest != ?", name, digest)

    def _execute(self, statement: str, *values: str) -> list[Any]:
        with self._boxel_errors():
            return self._db.execute(statement, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN EXCLUSIVE")
        with self._db:  # commits, or rolls back on an error
            yield

    @contextmanager
    def _boxel_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            what = "another run is writing to it" if "locked" in str(error) else str(error)
            raise BoxelError(f"{self.path}: cannot be used ({what}); nothing in it is lost.") from error
        except (sqlite3.DatabaseError, msgspec.MsgspecError) as error:
            raise BoxelError(
                f"{self.path}: is not the file of a labeling job, or damaged ({error}); remove it to start from "
                "scratch, or name another `out`."
            ) from error


class Batch:
    """Finished images, committed together once per second and when the batch is closed, e.g. by an interruption."""

    def __init__(self, store: Store):
        self._store, self._images, self._committed = store, list[ImageRows](), time.monotonic()

    def add(self, image: ImageRows) -> None:
        """Add a finished image."""
        self._images.append(image)
        if time.monotonic() - self._committed >= COMMIT_SECONDS:
            self.close()
            self._committed = time.monotonic()

    def close(self) -> None:
        """Commit the remaining images."""
        images, self._images = self._images, []
        if images:
            self._store.add(images)


def describe_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """State which settings, as plain data, have other values than before; empty if none has.

    Examples:
        >>> describe_changes({"drop": 0.0, "flip": False}, {"drop": 0.5, "flip": False})
        'drop was 0.0 and is 0.5'
    """
    return "; ".join(
        f"{name} was {_format(before, name)} and is {_format(now, name)}"
        for name in dict.fromkeys([*before, *now])
        if before.get(name) != now.get(name)
    )


def _format(settings: Mapping[str, Any], name: str) -> str:
    return json.dumps(settings[name]) if name in settings else "missing"
