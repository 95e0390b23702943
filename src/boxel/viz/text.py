"""Text in any script, as coverage masks that are painted in a color.

OpenCV 5 comes with fonts for most scripts. What they lack, what is written from right to left, and everything under
OpenCV 4 is drawn by Pillow, with a font of the system if one has the characters.
"""

from __future__ import annotations

import unicodedata
from functools import cache, lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from boxel.viz.colors import Color

_WEIGHT = 500  # of OpenCV's font, whose regular weight is thin on a photograph
_LINE, _BASE = 1.3, 0.98  # height of a line and of what is above its base, per pixel of the size
_SYSTEM_FONTS = (
    *("DejaVuSans.ttf", "NotoSans-Regular.ttf", "Arial Unicode.ttf", "arial.ttf", "Arial.ttf"),
    *("NotoSansCJK-Regular.ttc", "msyh.ttc", "PingFang.ttc", "seguisym.ttf", "Nirmala.ttf", "LeelawUI.ttf"),
)
_MISSING = "\uffff"  # is in no font
_JOINERS = "\u200c\u200d"  # shape the characters beside them


def clean_text(text: str) -> str:
    """Return a text on one line, without control characters and marks that turn the direction of writing.

    Examples:
        >>> clean_text("traffic\\nlight\\x1b[0m\\u202e")
        'traffic light[0m'
    """
    spaced = (" " if char.isspace() else char for char in text)
    kept = (
        char for char in spaced if char in _JOINERS or unicodedata.category(char) not in ("Cc", "Cf", "Cs")
    )
    return " ".join("".join(kept).split())


def shorten(text: str, length: int) -> str:
    """Cut a text to a number of characters, with an ellipsis in its middle if it is longer.

    Examples:
        >>> shorten("a_long_name.jpg", 9)
        'a_lo….jpg'
    """
    if len(text) <= length:
        return text
    tail = (length - 1) // 2
    return f"{text[: length - 1 - tail]}\N{HORIZONTAL ELLIPSIS}{text[len(text) - tail :]}"


@lru_cache(maxsize=4096)
def text_mask(text: str, size: int) -> NDArray[np.uint8]:
    """Draw a line of text.

    Args:
        text: The text; see :func:`clean_text`.
        size: Size of the font, in pixels.

    Returns:
        (h, w) uint8 coverage, 255 inside a stroke; h depends on the size alone. It is cached: do not change it.

    Examples:
        >>> text_mask("cat", 20).shape[0] == text_mask("Ärger", 20).shape[0]
        True
    """
    font = _font_of_system(text, size) if _needs_pillow(text) else None
    if font is None and hasattr(cv2, "FontFace"):
        return _draw_with_opencv(text, size)
    return _draw_with_pillow(text, size, font)


def write_text(canvas: NDArray[np.uint8], text: str, x: int, y: int, size: int, color: Color) -> None:
    """Write a line of text into an image, in place, its top left corner at (x, y); what is outside is cut off."""
    mask = text_mask(text, size)[max(-y, 0) :, max(-x, 0) :]
    region = canvas[max(y, 0) :, max(x, 0) :][: mask.shape[0], : mask.shape[1]]
    alpha = mask[: region.shape[0], : region.shape[1], None] / 255
    region[:] = np.round(region * (1 - alpha) + np.array(color) * alpha)


def line_height(size: int) -> int:
    """Return the height of a line of text in pixels."""
    return round(_LINE * size)


def _draw_with_opencv(text: str, size: int) -> NDArray[np.uint8]:
    font: Any = _opencv_font(), size, _WEIGHT
    width = cv2.getTextSize((1, 1), text, (0, 0), *font)[2]  # type: ignore[call-overload]
    mask = np.zeros((line_height(size), width + 1), dtype=np.uint8)
    cv2.putText(mask, text, (0, round(_BASE * size)), (255,), *font)
    return mask


@cache
def _opencv_font() -> Any:
    return cv2.FontFace("sans")  # type: ignore[attr-defined]


def _needs_pillow(text: str) -> bool:
    if not hasattr(cv2, "FontFace"):
        return True
    return any(not char.isascii() and not _opencv_draws(char) for char in text)


@lru_cache(maxsize=4096)
def _opencv_draws(char: str) -> bool:
    """Return whether OpenCV draws a character; it writes a question mark for one that it lacks."""
    if char in _JOINERS or unicodedata.bidirectional(char) in ("R", "AL", "AN"):
        return False
    return not np.array_equal(_draw_with_opencv(char, 24), _draw_with_opencv("?", 24))


@lru_cache(maxsize=256)
def _font_of_system(text: str, size: int) -> ImageFont.FreeTypeFont | None:
    """Return the first font of the system that has all characters of a text."""
    for name in _SYSTEM_FONTS:
        try:
            font = ImageFont.truetype(name, size)
        except OSError:
            continue
        missing = bytes(font.getmask(_MISSING))
        if all(char in _JOINERS or bytes(font.getmask(char)) != missing for char in set(text)):
            return font
    return None


def _draw_with_pillow(text: str, size: int, font: ImageFont.FreeTypeFont | None) -> NDArray[np.uint8]:
    shown: Any = font or ImageFont.load_default(size)
    if font is None:  # Pillow's own font has little more than ASCII
        plain = unicodedata.normalize("NFKD", text)
        text = "".join(char if char.isascii() else "?" for char in plain if not unicodedata.combining(char))
    image = Image.new("L", (max(1, round(shown.getlength(text)) + 1), line_height(size)))
    ImageDraw.Draw(image).text((0, round(_BASE * size)), text, font=shown, fill=255, anchor="ls")
    return np.asarray(image)
