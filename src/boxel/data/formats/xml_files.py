"""XML files in the encoding that they declare, in what tools write under that name, or in UTF-8 all the same."""

from __future__ import annotations

import codecs
import contextlib
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import defusedxml.ElementTree

_HEAD = 1 << 16
_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    b"<\0": "utf-16-le",
    b"\0<": "utf-16-be",
}
_DECLARATION = re.compile(rb"\s*<\?xml[^>]*?\?>")
_ENCODING = re.compile(rb"encoding\s*=\s*[\"']([\w.:-]{1,40})[\"']")
_SUPERSETS = {"gb2312": "gb18030", "gbk": "gb18030", "big5": "big5hkscs", "shift_jis": "cp932"}
"""What tools write under the name of an older encoding."""
_MULTIBYTE = ("gb", "big5", "euc", "shift", "cp9", "iso2022")
_TEXT_ENCODING = re.compile(r"(utf|gb|big5|iso|latin|cp|windows|euc|shift|koi8|us-ascii|ascii|mac)[\w.:-]*")

_ELEMENT = re.compile(r"<([\w.:-]+)")
_PROLOG = {"<?": "?>", "<!--": "-->", "<!": ">"}
"""What may come before the outermost element, by its beginning, and its end."""


@contextlib.contextmanager
def open_xml(file: Path) -> Iterator[tuple[Any, Any]]:
    """Open an XML file as a stream in UTF-8, with the parser for it; expat itself knows few encodings.

    Raises:
        ValueError: The encoding that the file declares is not known, or its text is neither in that nor in UTF-8.
    """
    with open(file, "rb") as stream:
        head = stream.read(_HEAD)
        encoding = next((name for mark, name in _MARKS.items() if head.startswith(mark)), "")
        start = 0
        if not encoding:
            declaration = _DECLARATION.match(head)
            start = declaration.end() if declaration else 0
            encoding = _check_encoding(stream, head[:start])
        stream.seek(start)
        target = ElementTree.TreeBuilder()
        parser = defusedxml.ElementTree.DefusedXMLParser(target=target, encoding="utf-8")
        try:
            yield stream if encoding == "utf-8" else codecs.EncodedFile(stream, "utf-8", encoding), parser
        except ElementTree.ParseError as error:
            if encoding != "utf-8" or _find_highest(stream, start, "utf-8"):
                raise
            raise ValueError("its text is not UTF-8, and it declares no other encoding") from error


def _check_encoding(stream: BinaryIO, declaration: bytes) -> str:
    """Return the encoding that a declaration states, or UTF-8 if the text, after an editor, is that instead."""
    stated = _ENCODING.search(declaration)
    name = stated[1].decode("ascii", "replace").lower() if stated else "utf-8"
    encoding = _SUPERSETS.get(name.replace("-", "_"), name)
    try:
        known = codecs.lookup(encoding).name if _TEXT_ENCODING.fullmatch(encoding) else ""
    except LookupError:
        known = ""
    if not known:
        raise ValueError(f"the encoding that it declares, {name}, is not known")
    # A declaration that is readable as ASCII is not in UTF-16.
    if known.startswith("utf"):
        return "utf-8"
    # Editors save as UTF-8 and leave the declaration. Two letters of East Asia may be one in UTF-8 by chance.
    highest = _find_highest(stream, len(declaration), "utf-8")
    if highest >= ("\u0800" if known.startswith(_MULTIBYTE) else "\x80"):
        return "utf-8"
    if not _find_highest(stream, len(declaration), known):
        if not highest:
            raise ValueError(f"its text is not {name.upper()}")
        return "utf-8"
    return known


def _find_highest(stream: BinaryIO, start: int, encoding: str) -> str:
    """Return the highest character of a text; empty if it is not in an encoding."""
    stream.seek(start)
    decoder = codecs.getincrementaldecoder(encoding)()
    highest = "\0"
    with contextlib.suppress(UnicodeError):
        while chunk := stream.read(_HEAD):
            highest = max(highest, max(decoder.decode(chunk), default=""))
        return max(highest, max(decoder.decode(b"", final=True), default=""))
    return ""


def find_root(file: Path) -> str:
    """Return the name of the outermost element of an XML file; empty if it does not begin like one."""
    with open(file, "rb") as stream:
        head = stream.read(_HEAD)
    encoding = next((name for mark, name in _MARKS.items() if head.startswith(mark)), "utf-8")
    text = head.decode(encoding, "replace").removeprefix("\ufeff")
    place = 0
    while place >= 0:
        place += len(text[place:]) - len(text[place:].lstrip())
        end = next((end for start, end in _PROLOG.items() if text.startswith(start, place)), None)
        if end is None:
            match = _ELEMENT.match(text, place)
            return match[1] if match else ""
        # A DOCTYPE may have declarations of its own.
        if end == ">" and 0 <= text.find("[", place) < text.find(">", place):
            place = text.find("]", place)
        place = text.find(end, place) + len(end) if text.find(end, place) >= 0 else -1
    return ""


def to_pixels(text: str | None) -> int:
    """Return the width or height that a text states in whole pixels; 0 if it states none."""
    try:
        value = float(text or 0)
    except ValueError:
        return 0
    return int(value) if 0 <= value < 2**31 else 0
