"""Files anywhere: a path, or a URL of a file system that fsspec knows, e.g. ``s3://bucket/photos``."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from boxel.utils.errors import BoxelError, missing_extra, one_line
from boxel.utils.files import atomic_path

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:(:|//)")


def is_url(path: str) -> bool:
    """Return whether a path is a URL: ``s3://bucket/a``, or ``memory://a``; not a drive as in ``C:/photos``.

    Examples:
        >>> is_url("s3://bucket/photos"), is_url("C:/photos")
        (True, False)
    """
    return _SCHEME.match(path) is not None


def file_system(url: str) -> tuple[Any, str]:
    """Return the file system of a URL and the path in it.

    Raises:
        BoxelError: fsspec, or the package for the kind of URL, is not installed, or there is no such kind.
    """
    try:
        import fsspec.core
    except ImportError as error:
        raise missing_extra("a URL of images", error) from error
    try:
        return fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise BoxelError(f"{url}: cannot be opened ({one_line(error)}); install what it names.") from error


def open_url(path: str) -> Any:
    """Open a file to read its bytes; it can be used as long as it is referred to."""
    if not is_url(path):
        return open(path, "rb")
    system, inside = file_system(path)
    return system.open(inside, "rb")


def list_files(path: str, suffix: str) -> list[str]:
    """Return a file itself, or the files of a folder with a suffix, sorted; what they contain is not looked at."""
    if not is_url(path):
        given = Path(path)
        return (
            [path]
            if given.is_file()
            else sorted(str(p) for p in given.glob("*") if p.suffix.lower() == suffix)
        )
    system, inside = file_system(path)
    if system.isfile(inside):
        return [path]
    names = system.ls(inside, detail=False) if system.isdir(inside) else []
    return sorted(system.unstrip_protocol(name) for name in names if name.lower().endswith(suffix))


def join_url(folder: str, name: str) -> str:
    """Return the place of a file of a folder; one that is a URL or an absolute path stays as it is.

    Examples:
        >>> join_url("s3://bucket/photos/", "a.jpg"), join_url("photos", "/data/a.jpg")
        ('s3://bucket/photos/a.jpg', '/data/a.jpg')
    """
    if is_url(name) or not folder:
        return name
    return f"{folder.rstrip('/')}/{name}" if is_url(folder) else os.path.join(folder, name)


@contextmanager
def atomic_url(path: str) -> Iterator[Path]:
    """Yield a local path whose file takes its place at a path or URL when the block ends without an error.

    It is written under another name there, and renamed.
    """
    if not is_url(path):
        with atomic_path(path) as temporary:
            yield temporary
        return
    system, inside = file_system(path)
    with tempfile.TemporaryDirectory(prefix="boxel-") as folder:
        local = Path(folder, "file")
        yield local
        system.makedirs(inside.rpartition("/")[0], exist_ok=True)
        system.put_file(str(local), f"{inside}.partial")
        system.mv(f"{inside}.partial", inside)
