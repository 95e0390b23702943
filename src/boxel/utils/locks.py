"""Let one process at a time write into a folder."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from boxel.utils.errors import BoxelError
from boxel.utils.files import not_written

LOCK = ".lock"


@contextmanager
def lock_folder(folder: str | Path) -> Iterator[None]:
    """Hold a folder, which is created if needed, while the block runs.

    The lock is that of SQLite on an empty file, which works on every system and ends with the process, however it ends.
    A file system without locks is used without one.

    Raises:
        BoxelError: Another process, or another thread, holds the folder, or it cannot be created.

    Examples:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> with lock_folder(folder), lock_folder(folder):
        ...     pass
        Traceback (most recent call last):
        boxel.utils.errors.BoxelError: ...: another run is writing to it; wait for its end, or name another folder.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise not_written(folder, error) from error
    lock = sqlite3.connect(
        str(Path(folder) / LOCK), timeout=0.1, isolation_level=None, check_same_thread=False
    )
    try:
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.Error as error:
        if "database is locked" in str(error):
            lock.close()
            raise BoxelError(
                f"{folder}: another run is writing to it; wait for its end, or name another folder."
            ) from error
    try:
        yield
    finally:
        lock.close()  # the file stays: another process may have opened it already
