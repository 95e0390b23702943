"""Serve the review page on this machine until the user ends it."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import uvicorn

from boxel.data import Annotations
from boxel.labeling.box_segmenter import BoxSegmenter
from boxel.review.app import make_app
from boxel.review.config import ReviewConfig
from boxel.review.decisions import DecisionStore
from boxel.review.guard import Guard
from boxel.review.selection import count_states
from boxel.review.service import ReviewService
from boxel.review.session import Review
from boxel.utils.errors import UsageError

HOST = "127.0.0.1"
"""The page is for this machine only."""

DEFAULT_PORT = 8765
"""The port if none is given; if another program uses it, any free one."""

_MAX_WAIT = 2  # seconds for requests that are under way when the server ends


def serve_review(
    data: Annotations,
    decisions: str | Path,
    config: ReviewConfig | None = None,
    port: int | None = None,
    device: str = "auto",
    on_start: Callable[[str], None] = print,
) -> dict[str, int]:
    """Serve the review page until Ctrl-C or SIGTERM.

    Args:
        data: A dataset with boxes and masks.
        decisions: SQLite file of the decisions; it is created if it is missing.
        config: What the page is for; its `teacher` is loaded, unless it is empty.
        port: The port; `DEFAULT_PORT` or another free one if None.
        device: Where the teacher runs.
        on_start: Receives the link of the page once it can be opened.

    Returns:
        The number of objects by state.

    Raises:
        BoxelError: The port is in use, or the file of the decisions cannot be used.
    """
    config = config or ReviewConfig()
    categories = [category.name for category in data.categories]
    segmenter = None
    if config.teacher:
        segmenter = BoxSegmenter(config.teacher, device=device, categories=categories, workers=1)
    with closing(DecisionStore(Path(decisions))) as store:
        store.check_writable()
        review = Review(data, store)
        service = ReviewService(review, segmenter, config)
        with listen(port, HOST, DEFAULT_PORT) as listener:
            chosen = listener.getsockname()[1]
            token = secrets.token_urlsafe(24)
            app = Guard(make_app(service), token, chosen)
            run_app(app, listener, lambda: on_start(f"http://{HOST}:{chosen}/?token={token}"))
    return count_states(review)


def run_app(
    app: Guard, listener: socket.socket, on_start: Callable[[], None], max_wait: int = _MAX_WAIT
) -> None:
    """Answer requests until Ctrl-C or SIGTERM; `on_start` is called once they are accepted.

    Those that are under way at the end have some seconds left.
    """
    try:
        with _sigterm_as_ctrl_c():
            on_start()
            uvicorn.Server(_configure(app, max_wait)).run(sockets=[listener])
    except KeyboardInterrupt:  # which uvicorn raises again once it has closed
        pass


def _configure(app: Guard, max_wait: int) -> uvicorn.Config:
    """Return the settings of a server that behaves alike whatever uvicorn finds installed."""
    return uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=max_wait,
    )


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """Let SIGTERM, too, become a `KeyboardInterrupt` once the server has closed."""
    if threading.current_thread() is not threading.main_thread():  # only that one receives signals
        yield
        return
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def listen(port: int | None, host: str, default: int) -> socket.socket:
    """Return a socket that listens on a port, or on the default one or a free one: connections wait for answers."""
    for wanted in (port,) if port is not None else (default, 0):
        try:
            return socket.create_server((host, wanted))
        except OSError as error:
            number = error.errno or 0  # negative if the host has no address
            problem = os.strerror(number) if number > 0 else error.strerror or str(error)
        except OverflowError:
            problem = "ports end at 65535"
    where = f"port {wanted}" if host == HOST else f"{host}:{wanted}"
    raise UsageError(f"{where} cannot be used ({problem}); name another one, or none for a free one.")
