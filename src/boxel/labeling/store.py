"""What a labeling job has made so far, in an SQLite file, so that it can go on after any interruption."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from boxel.utils.errors import BoxelError

COMMIT_SECONDS = 1.0
"""What was done in so long is one commit: the most that an interruption loses, beside the images under way."""


class Row(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The mask of one instance.

    Attributes:
        position: of the instance among those of its image, in the order of the annotations.
        segmentation: run-length code as JSON bytes.
        quality: estimated IoU of the mask with the truth, in [0, 1]; None where unknown.
        source: who made it.
        trusted: False for a mask that was dropped.
    """

    position: int
    segmentation: bytes
    quality: float | None
    source: str
    trusted: bool


class ImageRows(NamedTuple):
    """What was made of one image.

    Attributes:
        digest: of all that the masks were made from, but for the settings.
        path: of the image, relative to the folder of the set.
        width: pixels.
        height: pixels.
        rows: of the instances that got a mask.
    """

    digest: bytes
    path: str
    width: int
    height: int
    rows: list[Row]


class Store:
    """The file, held by one process at a time.

    Images are kept by the digest of what went into them, so that an image that changes is simply not there, and nothing
    is ever overwritten. A commit is one transaction under SQLite's rollback journal, which the next process rolls back
    if it was cut short. (The write-ahead log would be faster and asks for shared memory, which network drives lack.)

    Args:
        path: the file; None keeps everything in a temporary one.

    Raises:
        BoxelError: the file can't be opened, is another program's, or another process holds it.
    """

    def __init__(self, path: Path | None = None):
        self.path = path
        with self._told():
            # An empty name is a file of SQLite's own, gone when it is closed.
            self._db = sqlite3.connect(str(path or ""), timeout=1.0, isolation_level=None)
            try:
                self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
                with self._transaction():
                    self._prepare()
            except BaseException:
                self._db.close()
                raise

    def _prepare(self) -> None:
        """Make the tables where there are none."""
        tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE sql != ''")}
        if tables - {"facts", "images"}:
            raise BoxelError(f"{self.path}: this file is another program's; name another --out.")
        self._db.execute("CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL)")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS images (digest BLOB PRIMARY KEY, path TEXT NOT NULL, "
            "width INTEGER NOT NULL, height INTEGER NOT NULL, rows BLOB NOT NULL)"
        )

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *error: object) -> None:
        self._db.close()

    def fact(self, name: str) -> Any:
        """What was kept under a name; None where nothing was."""
        with self._told():
            found = self._db.execute("SELECT value FROM facts WHERE name = ?", [name]).fetchone()
        return None if found is None else json.loads(found[0])

    def keep_fact(self, name: str, value: Any) -> None:
        """Keep plain data under a name."""
        with self._told():
            self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", [name, json.dumps(value)])

    def agree(self, settings: Mapping[str, Any]) -> None:
        """Keep the settings that masks depend on, or compare them with those under which there are masks already.

        Raises:
            BoxelError: they differ.
        """
        now, before = json.loads(json.dumps(settings)), self.fact("settings")
        if before is None or not self.known():
            self.keep_fact("settings", now)
            return
        changed = [
            f"{name} was {_shown(before, name)} and is {_shown(now, name)}"
            for name in dict.fromkeys([*before, *now])
            if before.get(name) != now.get(name)
        ]
        if changed:
            raise BoxelError(
                f"{self.path}: its masks were made with other settings ({'; '.join(changed)}); give the same settings "
                "to go on, or name another --out."
            )

    def known(self) -> dict[bytes, str]:
        """The path of each image that is done, by digest."""
        with self._told():
            return dict(self._db.execute("SELECT digest, path FROM images"))

    def add(self, batch: Sequence[ImageRows]) -> None:
        """Commit what was made of some images: all of it or, if the process ends meanwhile, nothing."""
        encode = msgspec.msgpack.encode
        with self._told(), self._transaction():
            self._db.executemany(
                "INSERT INTO images VALUES (?, ?, ?, ?, ?) ON CONFLICT (digest) DO NOTHING",
                [(*image[:4], encode(image.rows)) for image in batch],
            )

    def __iter__(self) -> Iterator[ImageRows]:
        """Every image that is done, one at a time."""
        decoder = msgspec.msgpack.Decoder(list[Row])
        with self._told():
            for row in self._db.execute("SELECT digest, path, width, height, rows FROM images"):
                image = ImageRows(*row)
                yield image._replace(rows=decoder.decode(row[4]))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN EXCLUSIVE")
        with self._db:  # commits, or rolls back on an error
            yield

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            what = "another run is writing to it" if "locked" in str(error) else str(error)
            raise BoxelError(f"{self.path}: can't be used ({what}); what it holds already stays.") from error
        except (sqlite3.DatabaseError, msgspec.MsgspecError) as error:
            raise BoxelError(
                f"{self.path}: is no file of a labeling job, or damaged ({error}); remove it to begin anew, or name "
                "another --out."
            ) from error


class Batch:
    """Images that are done, committed together once a second, and when it is closed: also by an interruption."""

    def __init__(self, store: Store):
        self._store, self._images, self._committed = store, list[ImageRows](), time.monotonic()

    def add(self, image: ImageRows) -> None:
        """Take an image that is done."""
        self._images.append(image)
        if time.monotonic() - self._committed >= COMMIT_SECONDS:
            self.close()
            self._committed = time.monotonic()

    def close(self) -> None:
        """Commit what is left."""
        images, self._images = self._images, []
        if images:
            self._store.add(images)


def _shown(settings: Mapping[str, Any], name: str) -> str:
    return json.dumps(settings[name]) if name in settings else "not there"
