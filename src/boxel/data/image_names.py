"""Names of images as other machines and programs write them, and the images of a dataset that they stand for."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import takewhile
from urllib.parse import unquote, urlsplit

from boxel.data.annotations import Annotations
from boxel.data.images import SUFFIXES
from boxel.data.splits import split_name
from boxel.utils.frames import frame_stem

_SUFFIXES = SUFFIXES | {".txt", ".json", ".xml", ".mat", ".npy", ".dcm"}
"""Suffixes of images, and of the files that other programs name after them."""


def to_posix(stated: str) -> str:
    r"""Return a stated name as a path with slashes: backslashes turned, and of a URL only its path.

    Examples:
        >>> to_posix(r"images\a.jpg"), to_posix("https://host/x/a%20b.jpg?size=1")
        ('images/a.jpg', 'x/a b.jpg')
    """
    is_url = "://" in stated and re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", stated)
    if is_url:
        stated = unquote(urlsplit(stated).path)
    name = stated.replace("\\", "/").replace("\0", "_")
    return name.lstrip("/") if is_url else name


def split_path(stated: str) -> list[str]:
    r"""Return the folders and the file of a stated name, without what leads to them or out of them.

    Examples:
        >>> split_path(r"C:\data\..\a.jpg"), split_path("/etc/./a.jpg")
        (['data', 'a.jpg'], ['etc', 'a.jpg'])
    """
    parts = to_posix(stated).split("/")
    return [part for part in parts if part not in ("", ".", "..") and not re.fullmatch("[A-Za-z]:", part)]


def find_stem(name: str) -> str:
    """Return a file name without the suffix of an image or a label file; what else follows a dot belongs to it.

    Examples:
        >>> find_stem("a.1.JPG"), find_stem("a.1")
        ('a.1', 'a.1')
    """
    if frame := frame_stem(name):
        return frame
    stem, dot, suffix = name.rpartition(".")
    return stem if stem and f"{dot}{suffix}".lower() in _SUFFIXES else name


def fold_name(name: str) -> str:
    """Return a name as systems compare that ignore case, write letters with their accents apart, or drop spaces.

    Examples:
        >>> fold_name("Gro\u0308ße.JPG ") == fold_name("größe.jpg")
        True
    """
    return unicodedata.normalize("NFC", name).strip().lower()


def choose_path(wanted: Sequence[str], found: Sequence[Sequence[str]]) -> list[int]:
    """Return which of several paths, each in parts, agree best with a wanted one.

    The last folders that two have in common count, first whatever their case, then also by case, and then the file. An
    image of one split is not that of another.
    """
    split = _find_splits(wanted)
    ranks = {
        k: (_common(wanted, path, fold_name), _common(wanted, path, str), path[-1:] == wanted[-1:])
        for k, path in enumerate(found)
        if not split or not (other := _find_splits(path)) or split & other
    }
    return [k for k, rank in ranks.items() if rank == max(ranks.values())]


def _find_splits(path: Sequence[str]) -> set[str]:
    """Return the splits that the last two folders of a path are called like, e.g. ``train/images`` or its reverse."""
    return set(filter(None, map(split_name, path[-3:-1])))


def _common(wanted: Sequence[str], path: Sequence[str], key: Callable[[str], str]) -> int:
    pairs = zip(reversed(wanted[:-1]), reversed(path[:-1]), strict=False)
    return sum(1 for _ in takewhile(lambda pair: key(pair[0]) == key(pair[1]), pairs))


class NameIndex:
    """Finds paths by names that another program gave their files; see `fold_name`."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths, self.parts = paths, [split_path(path) for path in paths]
        self.by_name: dict[str, list[int]] = {}
        self.by_stem: dict[str, list[int]] = {}
        for k, base in enumerate(map(_fold_base, self.parts)):
            if base:
                self.by_name.setdefault(base, []).append(k)
                self.by_stem.setdefault(find_stem(base), []).append(k)

    def find(self, name: str) -> list[int]:
        """Return the places of the paths that fit a name equally well by their base name, or else by their stem."""
        parts = split_path(name)
        base = _fold_base(parts)
        bare = find_stem(base)  # of a.jpg.png, that may be the name of its image
        by_name, by_stem = self.by_name, self.by_stem
        found = by_name.get(base) or by_stem.get(base) or by_name.get(bare) or by_stem.get(bare, [])
        return [found[k] for k in choose_path(parts, [self.parts[k] for k in found])]


def _fold_base(parts: Sequence[str]) -> str:
    return fold_name(parts[-1]) if parts else ""


class ImageNames:
    """Finds the images of a dataset by names that another program gave them."""

    def __init__(self, data: Annotations):
        self.data = data
        self.by_id = {image_id: image for image, image_id in enumerate(data.image_ids)}

    @cached_property
    def _by_text(self) -> dict[str, int]:
        """Images by their ids as text."""
        return {str(image_id): image for image_id, image in self.by_id.items()}

    @cached_property
    def _index(self) -> NameIndex:
        return NameIndex(self.data.paths)

    def find_name(self, name: str, image_id: int | str | None = None) -> int | None:
        """Return the index of the image with a file name; of several, the one with the longest path or the id."""
        found = self._index.find(name)
        if len(found) > 1:
            found = [image for image in found if self.data.image_ids[image] == image_id]
        return found[0] if len(found) == 1 else None

    def find_id(self, image_id: int | str) -> int | None:
        """Return the index of the image with an id, which may be written as text, or be the name of its file."""
        image = self.by_id.get(image_id)
        if image is None:
            image = self._by_text.get(str(image_id))
        if image is None and isinstance(image_id, str):
            image = self.find_name(image_id)
            if image is None:
                image = self.by_id.get(to_integer(image_id))
        return image

    @cached_property
    def numbers(self) -> dict[int, int]:
        """Images by the number that is the name of their file."""
        stems = [(find_stem(parts[-1]), image) for image, parts in enumerate(self._index.parts) if parts]
        named = [(int(stem), image) for stem, image in stems if stem.isdecimal() and len(stem) < 19]
        counts = Counter(number for number, _ in named)
        return {number: image for number, image in named if counts[number] == 1}


def to_integer(text: str) -> int | str:
    """Return the whole number that a text states, e.g. ``"0012"`` or ``"3.0"``; the text if it is none."""
    whole = text.strip().removesuffix(".0")
    return int(whole) if whole.isdecimal() and len(whole) < 19 else text
