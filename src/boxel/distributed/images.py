"""Bring images from URLs of any file system to this machine; of a tar file, as WebDataset has them, all in one pass."""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import NamedTuple

from boxel.utils.ahead import work_ahead
from boxel.utils.errors import one_line
from boxel.utils.printable import count_noun
from boxel.utils.tars import split_member
from boxel.utils.urls import is_url, join_url, open_url

_TOGETHER = 64  # images of URLs that are fetched at once, while those before them are labeled
_STREAMS = 8


class LocalImages(NamedTuple):
    """Some images of a list, on this machine.

    Attributes:
        images: Their places in the list.
        paths: Their files; one that could not be found does not exist.
        origins: Where they come from.
        failure: Why some files do not exist, if that is due to their tar file; else empty.
    """

    images: list[int]
    paths: list[str]
    origins: list[str]
    failure: str = ""


def bring_images(folder: str, names: Sequence[str], images: Iterable[int]) -> Iterator[LocalImages]:
    """Bring images to this machine, some at a time; what was fetched is removed when the next ones are asked for.

    Args:
        folder: Path or URL of the folder of the images.
        names: Names of all images; one that is a URL or an absolute path is not relative to the folder.
        images: Places of those that are wanted.

    Yields:
        Each image once; first those that are here already.

    Raises:
        OSError: A file system cannot be reached, or refuses.
    """
    local, remote, tars = dict[int, str](), dict[int, str](), dict[str, dict[int, str]]()
    for image in images:
        place = join_url(folder, names[image])
        if not is_url(place):
            local[image] = place
        elif member := split_member(place):
            tars.setdefault(member[0], {})[image] = place
        else:
            remote[image] = place
    if local:
        yield LocalImages([*local], [*local.values()], [*local.values()])
    items = [*remote.items()]
    groups = [dict(items[start : start + _TOGETHER]) for start in range(0, len(items), _TOGETHER)]
    with (
        ThreadPoolExecutor(1) as pool,
        closing(work_ahead(pool, _fetch, [*groups, *tars.values()], 1)) as parts,
    ):
        for places, future in parts:
            fetched, failure = future.result()
            with fetched as here:
                paths = [os.path.join(here, str(image)) for image in places]
                yield LocalImages([*places], paths, [*places.values()], failure)


def _fetch(places: dict[int, str]) -> tuple[tempfile.TemporaryDirectory[str], str]:
    """Fetch images into a folder, under the numbers that they have; return it, and what is wrong with a tar file."""
    folder, failure = tempfile.TemporaryDirectory(prefix="boxel-"), ""
    targets = {place: os.path.join(folder.name, str(image)) for image, place in places.items()}
    try:
        member = split_member(next(iter(targets)))
        if member:
            failure = _extract(member[0], targets)
        else:
            with ThreadPoolExecutor(_STREAMS) as pool:
                list(pool.map(_copy, targets, targets.values()))
    except BaseException:
        folder.cleanup()
        raise
    return folder, failure


def _copy(place: str, target: str) -> None:
    try:
        with open_url(place) as source, open(target, "wb") as file:
            shutil.copyfileobj(source, file)
    except FileNotFoundError:
        if os.path.exists(target):
            os.remove(target)


def _extract(tar: str, targets: dict[str, str]) -> str:
    """Take images out of a tar file, which is read once from its beginning; return what is wrong with the file."""
    target = None
    try:
        with open_url(tar) as stream, tarfile.open(fileobj=stream, mode="r|*") as members:
            for member in members:
                target = targets.get(f"{tar}/{member.name.removeprefix('./')}")
                if target and member.isfile():
                    with members.extractfile(member) as source, open(target, "wb") as file:  # type: ignore[union-attr]
                        shutil.copyfileobj(source, file)
    except FileNotFoundError:
        return ""
    except (tarfile.TarError, EOFError, zlib.error) as error:
        if target and os.path.exists(target):
            os.remove(target)  # it may be a part only
        count = sum(not os.path.exists(path) for path in targets.values())
        images = count_noun(count, "image")
        return f"{tar}: the tar file is cut or damaged ({one_line(error)}), so {images} cannot be read; replace it."
    return ""
