"""Serve masks to an annotation tool until the user ends it."""

from __future__ import annotations

import base64
import ipaddress
import logging
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fastapi import FastAPI

from boxel.labeling.box_segmenter import BoxSegmenter
from boxel.review.app import answer_errors
from boxel.review.guard import App, Guard, Scope
from boxel.review.serve import listen, run_app
from boxel.serving import cvat, label_studio
from boxel.serving.images import ImageSource
from boxel.utils.errors import BoxelError

logger = logging.getLogger(__name__)

MAX_BODY = 100_000_000
"""Maximum bytes of a request; CVAT sends images in it."""


@dataclass(frozen=True)
class ServeConfig:
    """Where masks are served, to whom and from which images.

    Args:
        teacher: What predicts the masks, as for :class:`~boxel.BoxSegmenter`.
        device: Where the teacher runs.
        host: The address to listen at.
        port: The port; the usual one of the tool or another free one if None.
        token: Password of each request (HTTP Basic, any user name); None for no password.
        images: Folder of Label Studio's local files; None for none.
        hosts: Hosts that images may come from, besides Label Studio itself.
    """

    teacher: str = "boxcaseg"
    device: str = "auto"
    host: str = "127.0.0.1"
    port: int | None = None
    token: str | None = None
    images: str | Path | None = None
    hosts: Sequence[str] = ()


def serve_tool(
    tool: Literal["label-studio", "cvat"],
    config: ServeConfig | None = None,
    on_start: Callable[[str], None] = print,
) -> None:
    """Answer an annotation tool until Ctrl-C or SIGTERM.

    Args:
        tool: The tool.
        config: Where, to whom and from which images.
        on_start: Receives the address once requests are accepted.

    Raises:
        BoxelError: The teacher cannot be loaded, or the port cannot be used.
    """
    config = config or ServeConfig()
    warn_if_open(config.host, config.token)
    trusts = bool(config.token) or is_loopback(config.host)
    source = ImageSource(config.images, config.hosts, trusts)
    segmenter = BoxSegmenter(config.teacher, device=config.device, workers=1)
    app = FastAPI(title="boxel", docs_url=None, redoc_url=None, openapi_url=None)
    answer_errors(app, log_error)
    module = cvat if tool == "cvat" else label_studio
    with listen_announced(config.port, config.host, module.DEFAULT_PORT) as listener:
        port = listener.getsockname()[1]
        if tool == "cvat":
            cvat.add_cvat(app, segmenter, config.teacher, port)
        else:
            label_studio.add_label_studio(app, segmenter, config.teacher, source)
        guard = ToolGuard(app, config.token or "", port)
        run_app(guard, listener, lambda: on_start(f"http://{config.host}:{port}"))


def listen_announced(port: int | None, host: str, default: int) -> socket.socket:
    """Listen as `boxel review` does, and warn of another port than the one that tools and scripts know."""
    listener = listen(port, host, default)
    if port is None and listener.getsockname()[1] != default:
        logger.warning("port %d is in use; a free one is taken", default)
    return listener


def warn_if_open(host: str, token: str | None) -> None:
    """Warn if other machines may send requests without a password."""
    if not is_loopback(host) and not token:
        logger.warning(
            "`host` %s is open to other machines, and so are your images; protect them with `token`", host
        )


def log_error(error: BoxelError) -> str:
    """Log the error of a request, and return what is answered."""
    logger.warning("%s", error)
    return str(error)


def is_loopback(host: str) -> bool:
    """Return whether an address is of this machine only."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class ToolGuard(Guard):
    """Pass on only requests of programs, with the password if there is one; those of browsers are refused."""

    _MAX_BODY = MAX_BODY
    _PAGES = 403, "requests of web pages are refused; connect Label Studio or CVAT itself"

    def __init__(self, app: App, token: str, port: int) -> None:
        super().__init__(app, token, port)
        self._TOO_LARGE = 413, f"a request has at most {self._MAX_BODY:,} bytes"

    def _refuse(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        if "origin" in headers or headers.get("sec-fetch-site", "none") != "none":
            return self._PAGES
        if self._is_too_large(scope, headers):
            return self._TOO_LARGE
        if self.token and not self._knows(_read_password(headers.get("authorization", ""))):
            return 401, "give the token of `boxel serve` as the password of Basic authentication"
        return None

    def _is_link(self, scope: Scope) -> bool:
        return False

    def _max_body(self, scope: Scope) -> int:
        return self._MAX_BODY


def _read_password(header: str) -> str:
    """Return the password of Basic authentication; empty if there is none."""
    kind, _, coded = header.partition(" ")
    try:
        pair = base64.b64decode(coded, validate=True).decode() if kind.lower() == "basic" else ""
    except ValueError:
        return ""
    return pair.partition(":")[2]
