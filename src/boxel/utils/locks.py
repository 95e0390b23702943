"""Let one process at a time write a folder or a file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from boxel.utils.errors import BoxelError
from boxel.utils.files import hidden_name, make_parent, not_written

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
    lock = _lock(Path(folder) / LOCK, folder, "folder")
    try:
        yield
    finally:
        lock.close()  # the file stays: another process may have opened it already


@contextmanager
def lock_output(path: str | Path) -> Iterator[None]:
    """Hold a file or folder that is going to be written, from before the work until it is there.

    The lock is a hidden file beside it, which is removed at the end; its folder is created if needed. What a process
    that was killed leaves of it locks nothing. An output beside which no file can be made is used without a lock.

    Raises:
        BoxelError: Another process writes it, or its folder cannot be created.

    Examples:
        >>> import tempfile
        >>> file = f"{tempfile.mkdtemp()}/masks.json"
        >>> with lock_output(file), lock_output(file):
        ...     pass
        Traceback (most recent call last):
        boxel.utils.errors.BoxelError: ...: another run is writing to it; wait for its end, or name another output.
    """
    if not Path(path).is_dir():
        make_parent(path)
    file = Path(path).resolve()
    file = file.with_name(f"{hidden_name(file)}.lock")
    lock = None
    with suppress(OSError):
        while lock is None:
            if not file.exists():  # opening and closing it would give up a lock of this process
                file.touch()
            made = file.stat().st_ino
            lock = _lock(file, path, "output")
            # Its owner may have ended meanwhile, and removed it.
            if not file.exists() or file.stat().st_ino != made:
                lock.close()
                lock = None
    try:
        yield
    finally:
        if lock is not None:
            with suppress(OSError):
                file.unlink()  # before another process can get the lock
            lock.close()


def _lock(file: Path, path: str | Path, kind: str) -> sqlite3.Connection:
    """Lock a file for the path that it stands for; a file system without locks is used without one."""
    lock = sqlite3.connect(str(file), timeout=0.1, isolation_level=None, check_same_thread=False)
    try:
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.Error as error:
        if "database is locked" in str(error):
            lock.close()
            raise BoxelError(
                f"{path}: another run is writing to it; wait for its end, or name another {kind}."
            ) from error
    return lock
