"""Images in tar files, as WebDataset has them: ``a.tar/000123.jpg`` is the image ``000123.jpg`` of ``a.tar``."""

from __future__ import annotations

import os
import tarfile
from functools import lru_cache
from typing import NamedTuple

_TAR = ".tar/"


class _Place(NamedTuple):
    """Where a member lies in its tar file, in bytes."""

    start: int
    size: int


def split_member(path: str | os.PathLike[str]) -> tuple[str, str] | None:
    """Return the tar file of an image and its name in there; None for an image that is a file.

    Examples:
        >>> split_member("data/shard-0.tar/a/1.jpg"), split_member("data/1.jpg")
        (('data/shard-0.tar', 'a/1.jpg'), None)
    """
    text = os.fspath(path)
    tar, found, name = text.partition(_TAR)
    tar += _TAR[:-1]
    return (tar, name) if found and name and not os.path.isdir(tar) else None


def member_size(tar: str, name: str) -> int:
    """Return the bytes of a member.

    Raises:
        FileNotFoundError: There is no such file in the tar file.
        OSError: The tar file cannot be read.
    """
    return _find(tar, name).size


def read_member(tar: str, name: str) -> bytes:
    """Return the content of a member; raises as `member_size` does."""
    place = _find(tar, name)
    with open(tar, "rb") as file:
        file.seek(place.start)
        return file.read(place.size)


def _find(tar: str, name: str) -> _Place:
    status = os.stat(tar)
    places, damage = _list_members(tar, status.st_mtime_ns, status.st_size)
    if name in places:
        return places[name]
    if damage:
        raise OSError(f"{tar} is not a tar file, or damaged: {damage}")
    raise FileNotFoundError(f"{tar} has no {name}")


@lru_cache(maxsize=256)
def _list_members(tar: str, changed: int, size: int) -> tuple[dict[str, _Place], str]:
    """List the whole files in a tar file, and state its damage; it is read again if it has changed.

    Of several of one name the last counts.
    """
    places = dict[str, _Place]()
    try:
        with tarfile.open(tar, mode="r:") as members:
            for member in members:
                if member.isreg() and member.offset_data + member.size <= size:
                    places[member.name.removeprefix("./")] = _Place(member.offset_data, member.size)
    except tarfile.TarError as error:
        return places, str(error)
    return places, ""
