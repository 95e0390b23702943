"""A review page that runs in a process of its own, as users start it."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page

from boxel.data import write
from boxel.data.annotations import Annotations
from boxel.data.synthetic import write_scenes
from boxel.labeling import label


class Server:
    """`boxel review` of a masks file; `with` ends it as Ctrl-C does. `start` goes to the process."""

    def __init__(self, masks: Path, *flags: str, **start: Any) -> None:
        self.masks, self.flags, self.start = masks, flags, start

    def __enter__(self) -> "Server":
        command = [sys.executable, "-m", "boxel", "review", str(self.masks), *self.flags]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen(command, text=True, **pipes, **self.start)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)/\?token=(\S+)", line)
        assert found, line + self.process.communicate()[1]
        self.link, self.port, self.token = found[0], int(found[1]), found[2]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.out, self.err = self.process.communicate(timeout=30)

    def kill(self) -> None:
        """End the process at once, as a crash does."""
        self.process.kill()
        self.out, self.err = self.process.communicate()

    def request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str | None] | None = None
    ) -> tuple[int, Any]:
        """Send what the page would send, with other headers; return the status and the answer."""
        sent: dict[str, str | None] = {"cookie": f"boxel-{self.port}={self.token}"}
        if method != "GET":
            sent |= {"origin": f"http://127.0.0.1:{self.port}", "content-type": "application/json"}
        sent |= headers or {}
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        content = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        given = {name: value for name, value in sent.items() if value is not None}
        connection.request(method, path, content, given)
        answer = connection.getresponse()
        raw = answer.read()
        connection.close()
        is_json = answer.headers.get("content-type", "").startswith("application/json")
        return answer.status, json.loads(raw) if is_json and raw else raw

    def change(self, row: int, version: int, **change: Any) -> tuple[int, Any]:
        """Change an object."""
        return self.request("POST", f"/api/objects/{row}", {"version": version, "change": change})


@pytest.fixture(scope="session")
def serve() -> type[Server]:
    """What starts a review page, for tests with flags of their own."""
    return Server


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Annotations:
    """Four scenes with masks of a teacher, whose quality is 0.3 to 0.95 in the order of the file."""
    data = write_scenes(tmp_path_factory.mktemp("scenes"), 4, seed=3, height=96, width=128)
    labeled = label(data.without_masks(), teacher="ellipse")
    labeled.quality[:] = np.linspace(0.3, 0.95, len(labeled.quality))
    return labeled


@pytest.fixture()
def masks(scenes: Annotations, tmp_path: Path) -> Path:
    """The masks file of the scenes, in a folder of its own."""
    write(scenes, tmp_path / "masks.json")
    return tmp_path / "masks.json"


@pytest.fixture()
def server(masks: Path, scenes: Annotations) -> Iterator[Server]:
    """A review page of the scenes."""
    with Server(masks, "--images", str(scenes.root)) as running:
        yield running


@pytest.fixture()
def page(browser: Browser, server: Server) -> Iterator[Page]:
    """A tab with the review page of the scenes; messages of errors in it fail the test."""
    with new_tab(browser, server.link) as tab:
        yield tab


@contextmanager
def new_tab(
    browser: Browser, link: str, width: int = 1100, height: int = 750, first: str = "#grid button"
) -> Iterator[Page]:
    """Open a link in a browser of its own, without the cookies of others."""
    context = browser.new_context(viewport={"width": width, "height": height})
    context.set_default_timeout(15_000)
    tab, errors = context.new_page(), list[str]()
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.goto(link)
    tab.wait_for_selector(first)
    yield tab
    message = tab.text_content("#message")
    context.close()
    print("message:", message)
    assert not errors
