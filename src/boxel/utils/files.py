"""Write a file or a folder completely or not at all."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path

from boxel.utils.errors import OutputError
from boxel.utils.frames import stored_in

# What numbers processes: each container does, perhaps with the name of the host.
_PROCESSES = Path("/proc/self/ns/pid")
_HOST = blake2b(
    f"{socket.gethostname()} {_PROCESSES.exists() and _PROCESSES.stat().st_ino}".encode(), digest_size=3
).hexdigest()
_swept: set[Path] = set()

UMASK = os.umask(0)
os.umask(UMASK)  # it can only be read by setting it, which no thread should do later


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that takes its place when the block ends without an error.

    The block may create a file or a folder. A link stays a link: its target is replaced. If the block raises, the
    temporary path is removed and ``path`` stays as it was. What earlier processes left in its folder when they were
    killed is removed once per process.

    Args:
        path: The file or folder to write. Its parent folder is created if needed.

    Yields:
        A path in the same folder and with the same suffix, distinct for each process and thread.

    Raises:
        BoxelError: The folder cannot be created, or ``path`` cannot be written.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic_path(f"{folder}/labels/boxes.txt") as file:
        ...         _ = file.write_text("0 0 8 8")
        ...     os.listdir(f"{folder}/labels")
        ['boxes.txt']
    """
    target = Path(path).resolve()
    make_parent(path)
    temporary = partial_path(target)
    remove(temporary)
    if target.parent not in _swept:
        _swept.add(target.parent)
        remove_leftovers(target)
    try:
        yield temporary
        if temporary.is_dir():
            _replace_folder(temporary, target)
        else:
            temporary.chmod(0o666 & ~UMASK)  # safetensors, for one, writes files that nobody else can read
            os.replace(temporary, target)
    except OSError as error:
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        own = next((name for name in names if name.startswith(str(temporary))), None)
        if own is None and (names or error.errno is None):
            raise  # of something else than what is written
        raise not_written(f"{path}{(own or '').removeprefix(str(temporary))}", error) from error
    finally:
        remove(temporary)


def partial_path(path: str | Path) -> Path:
    """Return the temporary path beside a file or folder that `atomic_path` writes to, for this process and thread."""
    target = Path(path).resolve()
    owner = f"{_HOST}.{os.getpid()}.{threading.get_ident():x}"
    return target.with_name(f"{hidden_name(target)}.{owner}.partial{target.suffix}")


def hidden_name(target: Path) -> str:
    """Return the beginning of the names of hidden files beside a path: short, as its own may be as long as possible."""
    return f".{blake2b(os.fsencode(target.name), digest_size=6).hexdigest()}"


def remove_leftovers(path: str | Path) -> None:
    """Remove what processes of this machine that were killed have left in the folder of a file or folder to write.

    One that was killed between two renamings had put the old folder aside: it is put back.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     remove_leftovers(f"{folder}/masks_yolo")
    """
    target = Path(path).resolve()
    for left in sorted(target.parent.glob(f".*.{_HOST}.*.partial*")):
        process, own = left.name.split(".")[3], left.name.startswith(f"{hidden_name(target)}.")
        if not process.isdecimal() or _is_running(int(process)):
            continue
        with suppress(OSError):  # another process has been faster
            if left.suffix != ".old" or (own and target.exists()):
                remove(left)
            elif own:
                left.rename(target)


def _is_running(process: int) -> bool:
    if sys.platform == "win32":  # where signal 0 is Ctrl-C
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        return True
    return True


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in UTF-8, completely or not at all.

    Raises:
        BoxelError: It cannot be written.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_text(Path(folder, "a.txt"), "one")
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def not_written(path: str | Path, error: OSError) -> OutputError:
    """Return the error that names a file which cannot be written, and what to do."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    remedy = "free some space, or write to another disk" if full else "check the folder"
    return OutputError(f"{path}: cannot be written ({error.strerror or error}); {remedy}.")


def make_parent(path: str | Path) -> None:
    """Create the folder of a file; raise a :class:`BoxelError` if it cannot be created or written to."""
    folder = Path(path).resolve().parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError
    except OSError as error:
        denied = isinstance(error, PermissionError)
        reason = f"no permission to write into {folder}" if denied else error.strerror
        raise OutputError(f"{path}: cannot be written ({reason}); check the folder.") from error


@contextmanager
def scratch_folder(path: str | Path) -> Iterator[Path]:
    """Yield a new folder beside a file or folder that is written; it is removed at the end of the block."""
    folder = partial_path(path)
    try:
        folder.mkdir()
        yield folder
    finally:
        remove(folder)


def is_file(path: Path) -> bool:
    """Return whether there is a file, or the video of a frame; not if its name, of unknown origin, cannot be one."""
    try:
        return os.path.isfile(stored_in(path))
    except (OSError, ValueError):  # it is too long, or has a null byte
        return False


def remove(path: Path) -> None:
    """Remove a file or a folder with all that is in it; do nothing if there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _replace_folder(new: Path, target: Path) -> None:
    """Rename a folder to ``target``, in one step if the system can.

    Otherwise a folder that is there is put aside first, and back if the renaming fails.
    """
    old = new.with_name(f"{new.name}.old")
    remove(old)
    if target.exists():
        if _exchange(new, target):
            remove(new)
            return
        target.rename(old)
    try:
        new.rename(target)
    except BaseException:
        if old.exists():
            old.rename(target)
        raise
    remove(old)


def _exchange(one: Path, other: Path) -> bool:
    """Let two paths change places, or return False if the system or the file system cannot do that in one step."""
    names = {"linux": "renameat2", "darwin": "renameatx_np"}
    here, exchange = (-100 if sys.platform == "linux" else -2), 2  # AT_FDCWD, RENAME_EXCHANGE or RENAME_SWAP
    if sys.platform not in names:
        return False
    try:
        rename = getattr(ctypes.CDLL(None), names[sys.platform])
    except (OSError, AttributeError):
        return False
    return bool(rename(here, os.fsencode(one), here, os.fsencode(other), ctypes.c_uint(exchange)) == 0)
