"""`boxel serve` as a process, the requests of the tools, and a small Label Studio that has images."""

import base64
import json
import re
import signal
import subprocess
import sys
import threading
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from boxel import BoxSegmenter
from boxel.data.images import read_image
from boxel.data.synthetic import write_scenes

REQUESTS = Path(__file__).with_name("requests")
BOX = [12.8, 19.2, 76.8, 76.8]  # of the requests, in an image of 128 x 96 pixels


class Server:
    """`boxel serve` with some flags; `with` ends it as Ctrl-C does, and fails if it has logged a traceback."""

    def __init__(self, *flags: str, env: dict[str, str] | None = None) -> None:
        self.flags, self.env = flags, env

    def __enter__(self) -> "Server":
        command = [sys.executable, "-m", "boxel", "serve", "--port", "0", *self.flags]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen(command, text=True, env=self.env, **pipes)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"listening at http://[\w.]+:(\d+)\n", line)
        assert found, line + self.process.communicate()[1]
        self.port = int(found[1])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.send_signal(signal.SIGINT)
        self.out, self.err = self.process.communicate(timeout=30)
        self.code = self.process.returncode
        assert "Traceback" not in self.err, self.err

    def request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """Send a request as Python's `requests` does; return the status and the answer."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        content = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"content-type": "application/json"} if content is not None else {}
        connection.request(method, path, content, sent | (headers or {}))
        answer = connection.getresponse()
        raw = answer.read()
        connection.close()
        assert answer.headers["content-type"] == "application/json"
        return answer.status, json.loads(raw)


class Studio:
    """A server with images, which records what it is asked; `with` starts and ends it."""

    def __init__(self, files: dict[str, bytes], key: str | None = None) -> None:
        self.files, self.key = files, key
        self.redirects: dict[str, str] = {}
        self.seen: list[tuple[str, str | None]] = []  # path and key of each request
        self.token = b'{"access": "short-lived"}'
        self.barrier: threading.Barrier | None = None
        studio = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                given = self.headers.get("authorization")
                studio.seen.append((self.path, given))
                if studio.barrier is not None:
                    studio.barrier.wait(20)
                if self.path in studio.redirects:
                    self.send_response(302)
                    self.send_header("location", studio.redirects[self.path])
                    self.end_headers()
                    return
                allowed = studio.key is None or given == studio.key
                body = studio.files.get(self.path) if allowed else b""
                self.send_response(404 if body is None else 200 if allowed else 401)
                self.end_headers()
                self.wfile.write(body or b"")

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                studio.seen.append((self.path, body.decode()))
                self.send_response(200)
                self.end_headers()
                self.wfile.write(studio.token)

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> "Studio":
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *args: object) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two images of 128 x 96 pixels."""
    return write_scenes(tmp_path_factory.mktemp("scenes"), 2, seed=3, height=96, width=128).root


@pytest.fixture(scope="session")
def content(photos: Path) -> bytes:
    """The content of an image file."""
    return next(photos.rglob("000000.png")).read_bytes()


@pytest.fixture(scope="session")
def pixels(photos: Path) -> NDArray[np.uint8]:
    """The pixels of the same image."""
    return read_image(next(photos.rglob("000000.png")))


@pytest.fixture(scope="session")
def data_uri(content: bytes) -> str:
    """The same image as an address."""
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


@pytest.fixture(scope="session")
def segmenter() -> BoxSegmenter:
    """What the server should answer with."""
    return BoxSegmenter(workers=1)


@pytest.fixture(scope="session")
def serve() -> type[Server]:
    """What starts a server."""
    return Server


@pytest.fixture(scope="session")
def studio() -> type[Studio]:
    """What starts a Label Studio."""
    return Studio


@pytest.fixture()
def load() -> Any:
    """What reads a recorded request, with the words in it replaced."""

    def load(name: str, **words: str) -> Any:
        text = (REQUESTS / f"{name}.json").read_text()
        for word, value in words.items():
            text = text.replace(word, value)
        return json.loads(text)

    return load
