"""Find the images of a dataset by the names and ids that another program gave them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property

from boxel.data.annotations import Annotations


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
        """Images by the lower-case name of their file, and by `name/` without the suffix."""
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
        found = self._by_name.get(base) or self._by_name.get(_stem(base)) or []
        if len(found) > 1:
            common = [_count_common(parts, self._parts[image]) for image in found]
            found = [image for image, count in zip(found, common, strict=True) if count == max(common)]
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
            if image is None and image_id.strip().lstrip("0").isdecimal():
                image = self.by_id.get(int(image_id))
        return image

    @cached_property
    def numbers(self) -> dict[int, int]:
        """Images by the number that is the name of their file."""
        stems = [(_stem(parts[-1])[:-1], image) for image, parts in enumerate(self._parts)]
        named = [(int(stem), image) for stem, image in stems if stem.isdecimal() and len(stem) < 19]
        counts = Counter(number for number, _ in named)
        return {number: image for number, image in named if counts[number] == 1}


def _stem(name: str) -> str:
    """Return a file name without its suffix, ended by a slash, which no file name has."""
    stem, dot, suffix = name.rpartition(".")
    return f"{stem if dot and stem and len(suffix) < 6 else name}/"


def _count_common(a: Sequence[str], b: Sequence[str]) -> int:
    """Return how many of the last parts of two paths are the same."""
    pairs = zip(reversed(a), reversed(b), strict=False)
    return next((i for i, (own, other) in enumerate(pairs) if own != other), min(len(a), len(b)))
