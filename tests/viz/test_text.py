"""Text in drawings: which characters are drawn, and how large."""

import cv2
import numpy as np
import pytest

from boxel.viz import text
from boxel.viz.text import clean_text, shorten, text_mask, write_text


@pytest.fixture
def without_opencv_fonts(monkeypatch):
    """OpenCV 4, which has no fonts."""
    monkeypatch.delattr(cv2, "FontFace", raising=False)
    text_mask.cache_clear()
    yield
    text_mask.cache_clear()


@pytest.mark.skipif(not hasattr(cv2, "FontFace"), reason="OpenCV 4 has no fonts")
@pytest.mark.parametrize("name", ["Äpfel", "猫", "行人", "Жук", "κόσμος", "자동차"])
def test_names_of_most_scripts_are_drawn(name):
    masks = [text_mask(char, 24) for char in dict.fromkeys(name)]
    missing = text_mask("?", 24)
    assert all(mask.any() and not np.array_equal(mask, missing) for mask in masks)
    assert len({mask.tobytes() for mask in masks}) == len(masks)


def test_size_is_that_of_the_text():
    small, large = text_mask("cat", 12), text_mask("cat", 24)
    assert large.shape[0] == pytest.approx(2 * small.shape[0], abs=1)
    assert large.shape[1] == pytest.approx(2 * small.shape[1], abs=4)
    assert text_mask("cat gÄ", 12).shape[0] == small.shape[0]
    assert small.max() > 200 and not small[0].any() and not small[-1].any()


def test_without_fonts_of_opencv_or_the_system_letters_are_drawn_plainly(without_opencv_fonts, monkeypatch):
    monkeypatch.setattr(text, "_SYSTEM_FONTS", ("no such font.ttf",))
    text._font_of_system.cache_clear()
    assert np.array_equal(text_mask("Ä", 20), text_mask("A", 20))
    assert np.array_equal(text_mask("猫", 20), text_mask("?", 20))
    assert text_mask("cat", 20).any()
    text._font_of_system.cache_clear()


def test_control_characters_are_left_out():
    assert clean_text("a\nb\x00\x1b]0;x\x07") == "a b]0;x"
    assert clean_text("abc\u202edef\ud800") == "abcdef"
    assert clean_text(" \t\r\n") == ""


def test_a_long_text_is_cut_in_its_middle():
    assert shorten("abcdefghij", 10) == "abcdefghij"
    assert shorten("abcdefghij", 5) == "ab\N{HORIZONTAL ELLIPSIS}ij"


def test_text_is_written_in_its_color_and_cut_at_the_border():
    canvas = np.zeros((30, 40, 3), dtype=np.uint8)
    write_text(canvas, "mmmmmmmmmm", 30, 20, 20, (255, 0, 0))
    assert (
        canvas[..., 0].any()
        and not canvas[..., 1:].any()
        and not canvas[:20].any()
        and not canvas[:, :30].any()
    )
    write_text(canvas, "m", 100, 100, 20, (255, 0, 0))
    write_text(canvas, "m", -5, -5, 20, (0, 255, 0))
    assert canvas[..., 1].any()
