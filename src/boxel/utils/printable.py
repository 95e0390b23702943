"""Text that is shown: counts in words, and no control character from a file of unknown origin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TextIO

_CONTROLS = (*range(0x20), *range(0x7F, 0xA0))  # the latter hold what terminals take for escapes of one byte
_DIRECTIONS = (*range(0x2028, 0x202F), *range(0x2066, 0x206A))  # these reorder or break a line
_SURROGATES = range(0xD800, 0xE000)  # of file names that are not UTF-8; they cannot be encoded
_ESCAPES = {code: f"\\x{code:02x}" for code in _CONTROLS if chr(code) not in "\n\t"}
_ESCAPES |= {code: f"\\u{code:04x}" for code in (*_DIRECTIONS, *_SURROGATES)}
_MAX_LINE = 4000  # characters; of a longer line, the middle is left out


def printable(text: str) -> str:
    r"""Escape control characters, except for the ends of lines and tabs.

    Examples:
        >>> print(printable("cat\x1b[2J"))
        cat\x1b[2J
    """
    return text.translate(_ESCAPES)


def printable_line(text: str) -> str:
    r"""Escape the control characters of a line, which a name of unknown origin must not end either, nor make endless.

    Examples:
        >>> print(printable_line("cat\nno issues found"))
        cat\nno issues found
    """
    if len(text) > _MAX_LINE:
        text = f"{text[: _MAX_LINE // 2]} ... {text[-_MAX_LINE // 2 :]}"
    return printable(text).replace("\n", "\\n")


def count_noun(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number and what it counts; the plural is the noun with an s, unless it is given.

    Examples:
        >>> count_noun(1, "image"), count_noun(1200, "image"), count_noun(2, "entry", "entries")
        ('1 image', '1,200 images', '2 entries')
    """
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def name_some(names: Sequence[object], maximum: int = 5) -> str:
    """Name the first of some things, and count the others.

    Examples:
        >>> name_some([3, 5, 8, 9], maximum=2)
        '3, 5 and 2 more'
    """
    more = f" and {len(names) - maximum:,} more" if len(names) > maximum else ""
    return ", ".join(map(str, names[:maximum])) + more


def name_ids(ids: Sequence[object], noun: str = "annotation") -> str:
    """Name the first of some ids after what they belong to, for a pair of brackets.

    Examples:
        >>> name_ids([7]), name_ids([1, 2], "id")
        ('annotation 7', 'ids 1, 2')
    """
    return f"{noun}{'s' * (len(ids) > 1)} {name_some(ids)}"


class PrintableStream:
    """A stream of text whose control characters are escaped.

    Args:
        stream: Where to write.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream

    @property
    def rich_proxied_file(self) -> TextIO:
        """The stream itself, which rich asks for: its bars need control characters, and it escapes those of others."""
        return self._stream

    def write(self, text: str) -> int:
        """Write a text."""
        return self._stream.write(printable(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
