"""Progress in lines; the bar is rich's own."""

import io
import sys

import pytest

from boxel.utils import progress as module
from boxel.utils.progress import progress


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_a_line_now_and_then_with_rate_and_time_left(clock):
    told = []
    with progress(1200, "boxes", told.append) as advance:
        for _ in range(6):
            clock[0] += 10
            advance(100)
    assert told == [
        "200 of 1,200 boxes, 10.0 a second, 1.7 min left",
        "400 of 1,200 boxes, 10.0 a second, 1.3 min left",
        "600 of 1,200 boxes, 10.0 a second, 1.0 min left",
    ]


def test_what_takes_no_time_says_nothing():
    told = []
    with progress(3, "boxes", told.append) as advance:
        advance(3)
    assert told == []


def test_on_a_terminal_there_is_a_bar(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    with progress(2000, "boxes", lambda text: pytest.fail("a line beside the bar")) as advance:
        advance(500)
        advance(1500)
    assert "2000/2000" in terminal.getvalue() and "boxes/s" in terminal.getvalue()
