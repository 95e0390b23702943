"""Build annotations row by row, as every reader does."""

from __future__ import annotations

import codecs
import os
import re
import sys
from array import array
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np

from boxel.data.annotations import Annotations, Category, ImageId
from boxel.data.formats.names import ImageFinder, resolve_images, stay_inside
from boxel.data.issues import Issue
from boxel.data.splits import standard_split
from boxel.utils.errors import BoxelError, one_line

T = TypeVar("T")

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

MALFORMED = (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError)
"""What JSON raises that is broken, or that is not what it should be."""

JSON_TOKEN = re.compile(rb'("[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z))(\s*:)?|[\[\]{}]', re.DOTALL)
"""A JSON string, which may be cut off, with the colon that makes it a key; or what opens or closes a list or object."""

# A JSON string, or a number that Python writes and JSON forbids.
_NON_FINITE = re.compile(rb'"(?:[^"\\]|\\.)*(?:"|\\?\Z)|NaN|Infinity', re.DOTALL)


class Builder:
    """Columns of an `Annotations` while they grow, by its names; compact, so that a million rows stay small."""

    def __init__(self) -> None:
        self.image_ids: list[ImageId] = []
        self.paths: list[str] = []
        self.widths = array("i")
        self.heights = array("i")
        self.label_maps: list[str | None] = []
        self.splits: list[str | None] = []
        self.image_extras: list[bytes | None] = []
        self.ids: list[ImageId] = []
        self.image_index = array("i")
        self.labels = array("i")
        self.boxes = array("d")
        self.iscrowd = array("b")
        self.segmentations: list[bytes | None] = []
        self.quality = array("f")
        self.source: list[str | None] = []
        self.trusted = array("b")
        self.areas = array("d")
        self.extras: list[bytes | None] = []
        self.issues: list[Issue] = []

    def add_image(
        self,
        id: ImageId,
        path: str,
        width: int = 0,
        height: int = 0,
        label_map: str | None = None,
        split: str | None = None,
        extras: bytes | None = None,
    ) -> int:
        """Append an image and return its index; see `Annotations`."""
        self.image_ids.append(id)
        self.paths.append(path)
        self.widths.append(width)
        self.heights.append(height)
        self.label_maps.append(label_map)
        self.splits.append(standard_split(split) if split else None)
        self.image_extras.append(extras)
        return len(self.image_ids) - 1

    def add(
        self,
        id: ImageId,
        image: int,
        label: int,
        box: Sequence[float],
        segmentation: bytes | None = None,
        iscrowd: bool = False,
        quality: float | None = None,
        source: str | None = None,
        trusted: bool = True,
        area: float | None = None,
        extras: bytes | None = None,
    ) -> None:
        """Append an instance of the image at an index, with an xyxy box; see `Annotations`."""
        self.ids.append(id)
        self.image_index.append(image)
        self.labels.append(label)
        self.boxes.extend(box)
        self.segmentations.append(segmentation)
        self.iscrowd.append(iscrowd)
        self.quality.append(float("nan") if quality is None else quality)
        self.source.append(None if source is None else sys.intern(source))
        self.trusted.append(trusted)
        self.areas.append(float("nan") if area is None or not 0 <= area < float("inf") else area)
        self.extras.append(extras)

    def sort_labels(self, found: Iterable[str], names: Sequence[str]) -> None:
        """Replace labels that count the names of classes as they were found by their places in a list of names."""
        place = {name: k for k, name in reversed(list(enumerate(names)))}
        order = [place[name] for name in found]
        self.labels = array("i", (order[label] for label in self.labels))

    def report(
        self,
        kind: str,
        file: Path | str,
        what: str,
        image_id: ImageId | None = None,
        annotation_id: ImageId | None = None,
        /,
        repair: str = "left out",
        **values: Any,
    ) -> None:
        """Append an issue; ``what`` continues the name of the file."""
        message = f"{file}: {what}"
        self.issues.append(Issue(kind, message, str(file), image_id, annotation_id, values, repair))

    def report_numbering(self, file: Path, unknown: Sequence[str], words: str) -> None:
        """Report that all category ids seem to be shifted, by those that are not listed and the change that is due."""
        what = (
            f"the category ids {', '.join(unknown[:5])} of annotations are not listed, but all are if {words}: they "
            "may be counted from another number, and then every class is wrong; correct the ids before anything else."
        )
        self.report("category-numbering", file, what, repair="")

    def has_valid_name(self, path: str) -> bool:
        """Return whether a path is valid text, which JSON and SQLite need; if not, report an issue."""
        try:
            path.encode()
        except UnicodeEncodeError:
            printable = os.fsencode(path).decode("utf-8", "backslashreplace")
            what = "this file name is not UTF-8; it is left out. Rename the file."
            self.report("bad-file", printable, what)
            return False
        return True

    def find_images(self, finder: ImageFinder, file: Path, stay: bool = True) -> None:
        """Replace the names of the images by the paths that they stand for in a folder; see `resolve_images`.

        Unless ``stay`` is False, no path leads out of the folder, whatever the names hold.
        """
        stated = [stay_inside(path) for path in self.paths] if stay else self.paths
        self.paths, problems = resolve_images(finder, stated)
        for i, what in problems.items():
            self.report("ambiguous-image", file, what, self.image_ids[i], repair="")

    def build(
        self, root: Path, categories: Sequence[Category], file: Path, extras: bytes | None = None
    ) -> Annotations:
        """Return the finished dataset; ``extras`` are those of the whole."""
        columns = vars(self) | {"boxes": np.reshape(self.boxes, (-1, 4))}
        return Annotations(
            root=root, categories=tuple(categories), file=str(file), dataset_extras=extras, **columns
        )


_FIELD = re.compile(r"required field `(\w+)`|at `\$\.(\w+)")


def explain_json_error(error: BaseException, text: bytes) -> str:
    """Return why a JSON text cannot be decoded, e.g. ``bbox is "left"``: the field that is wrong, and its value."""
    message = one_line(error)
    if "Input data was truncated" in message:
        return "it ends too early" if text.strip() else "it is empty"
    try:
        text.decode()
    except UnicodeDecodeError as bad:
        line = text[: bad.start].count(b"\n") + 1
        return f"its text is not UTF-8, first in line {line}; save it as UTF-8"
    missing, field = match.groups() if (match := _FIELD.search(message)) else (None, None)
    if missing or not isinstance(error, msgspec.ValidationError):
        return f"it has no {missing}" if missing else message
    try:
        value = bytes(msgspec.json.decode(text, type=dict[str, msgspec.Raw])[field]) if field else text
    except (msgspec.MsgspecError, KeyError):  # it was repaired before it was decoded
        return message
    return f"{field or 'it'} is {one_line(value.decode(errors='replace'), 60)}"


def read_bytes(path: Path) -> bytes:
    """Read the content of a file; a `BoxelError` states why it cannot be read."""
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = getattr(error, "strerror", None) or error
        raise BoxelError(f"{path}: cannot be read ({reason}); check the path.") from error


def read_head(path: Path, size: int = 1 << 16) -> bytes:
    """Read the first bytes of a text file, all if -1, without a byte order mark; UTF-16 that has one is converted."""
    with open(path, "rb") as stream:
        head = stream.read(size)
    if head.startswith(_UTF16):
        return head.decode("utf-16", "ignore").encode()
    return head.removeprefix(codecs.BOM_UTF8)


def read_utf8(path: Path) -> bytes:
    """Read the content of a text file in UTF-8, without a byte order mark; UTF-16 that has one is converted."""
    content = read_bytes(path)
    if content.startswith(_UTF16):
        try:
            return content.decode("utf-16").encode()
        except UnicodeError as error:
            raise BoxelError(f"{path}: the text is not valid UTF-16; save it as UTF-8.") from error
    return content.removeprefix(codecs.BOM_UTF8)


def decode_loosely(content: bytes, decode: Callable[[bytes], T]) -> T:
    """Decode JSON; the NaN and Infinity that Python writes become null and a number out of range."""
    try:
        return decode(content)
    except msgspec.DecodeError:
        valid = {b"NaN": b"null", b"Infinity": b"1e999"}
        repaired = _NON_FINITE.sub(lambda match: valid.get(match[0], match[0]), content)
        if repaired == content:
            raise
        return decode(repaired)


def parse_json(content: bytes, path: Path, decode: Callable[[bytes], T], what: str) -> T:
    """Decode the content of a JSON file loosely; a `BoxelError` states that it is not ``what``, and why."""
    try:
        return decode_loosely(content, decode)
    except MALFORMED as error:
        why = explain_json_error(error, content)
        raise BoxelError(f"{path}: this is not {what} ({why}); check that it is complete.") from error


def read_text(path: Path) -> str:
    """Read a text file without its byte order mark; a `BoxelError` states that it has another encoding."""
    content = read_utf8(path)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        reason = f"it is not valid UTF-8, first in line {line}"
        raise BoxelError(f"{path}: the text cannot be decoded ({reason}); save it as UTF-8.") from error
