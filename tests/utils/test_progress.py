"""Progress as lines; the bar is rich's own."""

import io
import logging
import sys

import pytest

from boxel.utils import progress as module
from boxel.utils.progress import progress


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
