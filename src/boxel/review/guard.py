"""Keep other sites, other users and oversized requests away from a local page."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any, TypeAlias
from urllib.parse import parse_qs

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_BODY = 4_000_000
"""Maximum bytes of a request."""

MAX_IMAGE = 60_000_000
"""Maximum bytes of an image that is sent."""

_SAFE_METHODS = ("GET", "HEAD")
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data: blob:; "
    "form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


class Guard:
    """Pass on only requests that come from the page itself.

    A request needs the token: in the link that is opened first, which is answered by a cookie and the link without the
    token, and then in the cookie. Its `Host` must be this server, which a page that another name leads to (DNS
    rebinding) does not state. Requests that other sites cause are refused, and so is a body that is too large.

    Args:
        app: What answers requests that pass.
        token: The secret of the link.
        port: The port of the server.
    """

    _TOO_LARGE = 413, f"a request has at most {MAX_BODY:,} bytes, and an image {MAX_IMAGE:,}"

    def __init__(self, app: App, token: str, port: int) -> None:
        self.app, self.token, self.port = app, token, port
        self.hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost")}
        self.cookie = f"boxel-{port}"  # cookies of one host are shared by all its ports

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]
        }
        refusal = self._refuse(scope, headers)
        if refusal is not None:
            await answer(send, *refusal)
        elif self._is_link(scope):
            cookie = f"{self.cookie}={self.token}; HttpOnly; SameSite=Strict; Path=/"
            await answer(send, 303, "", {"location": "/", "set-cookie": cookie})
        else:
            with suppress(asyncio.CancelledError):  # the server ends, and waits no longer
                await self._pass_on(scope, receive, send)

    def _refuse(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        """Return the status and the reason why a request is refused, or None."""
        host = headers.get("host", "")
        if host not in self.hosts:
            return 421, "this server answers requests to its own address only"
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return 403, "requests that another site causes are refused"
        if scope["method"] not in _SAFE_METHODS and headers.get("origin") != f"http://{host}":
            return 403, "changes are accepted from the page itself only"
        if self._is_too_large(scope, headers):
            return self._TOO_LARGE
        cookies = _read_cookies(headers.get("cookie", ""), self.cookie)
        if not self._is_link(scope) and not any(map(self._knows, cookies)):
            return 401, "open the link that `boxel review` has printed"
        return None

    def _is_link(self, scope: Scope) -> bool:
        """Return whether it is the request of the link with the token."""
        if scope["path"] != "/" or scope["method"] != "GET":
            return False
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])
        return self._knows(given[0])

    def _knows(self, token: str) -> bool:
        return hmac.compare_digest(token.encode(), self.token.encode())

    def _is_too_large(self, scope: Scope, headers: dict[str, str]) -> bool:
        length = headers.get("content-length", "0")
        return not length.isdecimal() or int(length) > self._max_body(scope)

    def _max_body(self, scope: Scope) -> int:
        return MAX_IMAGE if scope["path"] == "/api/images" else MAX_BODY

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the application answer a request that has arrived as a whole, and add headers."""
        body = bytearray()
        more = scope["method"] not in _SAFE_METHODS
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self._max_body(scope):  # in chunks, so that its length was not stated
                await answer(send, *self._TOO_LARGE)
                return
        messages = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def receive_body() -> MutableMapping[str, Any]:
            return messages.pop() if messages else await receive()

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                own = {name for name, _ in message["headers"]}
                added = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
                added = [(name, value) for name, value in added if name not in own]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        await self.app(scope, receive_body, send_with_headers)


def _read_cookies(text: str, name: str) -> list[str]:
    """Return the values of the cookies of a name; what other servers of this host have set may be malformed."""
    pairs = (pair.strip().partition("=") for pair in text.split(";"))
    return [value for found, _, value in pairs if found == name]


async def answer(send: Send, status: int, reason: str, headers: dict[str, str] | None = None) -> None:
    """Answer with a reason as JSON."""
    body = json.dumps({"error": reason}).encode() if reason else b""
    own = {"content-type": "application/json", "content-length": str(len(body))}
    named = _HEADERS | own | (headers or {})
    pairs = [(name.encode(), value.encode()) for name, value in named.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
