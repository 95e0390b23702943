"""Progress as lines; the bar is rich's own."""

import io
import logging
import sys

import pytest

from boxel.utils import progress as module
from boxel.utils.progress import describe_time_left, progress


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_lines_are_logged_occasionally_with_rate_and_time_left(clock, caplog):
    caplog.set_level(logging.INFO, logger="boxel")
    with progress(1200, "boxes") as advance:
        for _ in range(6):
            clock[0] += 10
            advance(100)
    assert caplog.messages == [
        "200 of 1,200 boxes, 10.0 per second, 1.7 min left",
        "400 of 1,200 boxes, 10.0 per second, 1.3 min left",
        "600 of 1,200 boxes, 10.0 per second, 1.0 min left",
    ]


def test_slow_units_have_seconds_each(clock, caplog):
    caplog.set_level(logging.INFO, logger="boxel")
    with progress(4, "images") as advance:
        for _ in range(3):
            clock[0] += 30
            advance(1)
    assert caplog.messages == [
        "1 of 4 images, 30.0 s each, 1.5 min left",
        "2 of 4 images, 30.0 s each, 1.0 min left",
        "3 of 4 images, 30.0 s each, 30 s left",
    ]


def test_the_time_left_has_the_unit_that_suits_it():
    assert [describe_time_left(seconds) for seconds in (0, 0.4, 59.4, 59.6, 7_000, 7_199, 86_400)] == [
        "0 s left",
        "0 s left",
        "59 s left",
        "1.0 min left",
        "116.7 min left",
        "2.0 h left",
        "24.0 h left",
    ]


def test_a_short_job_logs_nothing(caplog):
    caplog.set_level(logging.INFO, logger="boxel")
    with progress(3, "boxes") as advance:
        advance(3)
    assert caplog.messages == []


def test_a_terminal_shows_a_bar(monkeypatch, caplog):
    caplog.set_level(logging.INFO, logger="boxel")

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress(2000, "boxes") as advance:
        advance(500)
        advance(1500)
    assert "2000/2000" in terminal.getvalue() and "boxes/s" in terminal.getvalue()
    assert caplog.messages == []
