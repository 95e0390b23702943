"""Find the images of a dataset by the names and ids that another program gave them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property

from boxel.data.annotations import Annotations
from boxel.data.images import SUFFIXES

_SUFFIXES = SUFFIXES | {".txt"}  # of images, and of what a YOLO writes on them


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
    def _parts(self) -> list[list[str]]:
        return [path.replace("\\", "/").split("/") for path in self.data.paths]

    @cached_property
    def _by_name(self) -> dict[str, list[int]]:
        """Images by the name of their file in lower case, and by this without the suffix and with a slash."""
        found: dict[str, list[int]] = {}
        for image, parts in enumerate(self._parts):
            name = parts[-1].lower()
            if name:
                found.setdefault(name, []).append(image)
                found.setdefault(_stem(name), []).append(image)
        return found

    def find_name(self, name: str, image_id: int | str | None = None) -> int | None:
        """Return the index of the image with a file name; of several, the one with the longest path or the id."""
        parts = name.replace("\\", "/").split("/")
        base = parts[-1].lower()
        found = next(
            (self._by_name[key] for key in (base, f"{base}/", _stem(base)) if key in self._by_name), []
        )
        if len(found) > 1:
            ranks = [self._rank(image, parts) for image in found]
            found = [image for image, rank in zip(found, ranks, strict=True) if rank == max(ranks)]
        if len(found) > 1:
            found = [image for image in found if self.data.image_ids[image] == image_id]
        return found[0] if len(found) == 1 else None

    def _rank(self, image: int, parts: Sequence[str]) -> tuple[int, bool]:
        """Return how many of the last folders of an image are those of a path, and whether its name is the same."""
        *folders, name = self._parts[image]
        pairs = enumerate(zip(reversed(folders), reversed(parts[:-1]), strict=False))
        common = next((i for i, (own, other) in pairs if own != other), min(len(folders), len(parts) - 1))
        return common, name == parts[-1]

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
        stems = [(_stem(parts[-1].lower())[:-1], image) for image, parts in enumerate(self._parts)]
        named = [(int(stem), image) for stem, image in stems if stem.isdecimal() and len(stem) < 19]
        counts = Counter(number for number, _ in named)
        return {number: image for number, image in named if counts[number] == 1}


def _stem(name: str) -> str:
    """Return a file name without its suffix, ended by a slash, which no file name has."""
    stem, dot, suffix = name.rpartition(".")
    return f"{stem if f'{dot}{suffix}' in _SUFFIXES else name}/"


def to_integer(text: str) -> int | str:
    """Return the whole number that a text states, e.g. ``"0012"`` or ``"3.0"``; the text if it is none."""
    whole = text.strip().removesuffix(".0")
    return int(whole) if whole.isdecimal() and len(whole) < 19 else text
