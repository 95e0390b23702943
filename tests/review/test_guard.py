"""The review page under attack: by other sites, by other programs, and by images and names of unknown origin."""

import asyncio
import io
import json
import re
import shutil
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

from boxel.data import Annotations, read, write
from boxel.masks.rle import decode
from boxel.review import DecisionStore, Review
from boxel.review.app import make_app
from boxel.review.config import ReviewConfig
from boxel.review.guard import Guard
from boxel.review.service import ReviewService
from boxel.utils.errors import BoxelError

Server: TypeAlias = Any  # of conftest.py

OPEN = {"version": 0, "change": {"kind": "state", "state": "open"}}
POLICY = "default-src 'none'; script-src 'self'"


@pytest.fixture(scope="module")
def server(serve: Any, scenes: Annotations, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A page that all tests of this file attack; whatever they send, it logs no error and no secret."""
    masks = tmp_path_factory.mktemp("attacked") / "masks.json"
    write(scenes, masks)
    with serve(masks, "--images", str(scenes.root), "--teacher", "none") as running:
        yield running
    assert "Traceback" not in running.err, running.err
    assert running.token not in running.out + running.err


def exchange(server: Server, *data: bytes, pause: float = 0.0) -> bytes:
    """Send bytes as they are; return all that comes back until the connection is closed, or is silent."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        for part in data:
            connection.sendall(part)
            time.sleep(pause)
        connection.settimeout(1)
        answer = b""
        try:
            while part := connection.recv(1 << 16):
                answer += part
        except TimeoutError:
            pass
        return answer


def head(server: Server, method: str, path: str, *lines: str) -> bytes:
    """The head of a request as the page sends it."""
    own = [
        f"Host: 127.0.0.1:{server.port}",
        f"Cookie: boxel-{server.port}={server.token}",
        f"Origin: http://127.0.0.1:{server.port}",
        "Content-Type: application/json",
    ]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *own, *lines, "", ""]).encode()


def read_headers(server: Server, path: str, *lines: str, method: str = "GET") -> tuple[int, dict[str, str]]:
    """The status and the headers of an answer."""
    answer = exchange(server, head(server, method, path, "Connection: close", *lines))
    status, *rest = answer.split(b"\r\n\r\n")[0].decode().split("\r\n")
    return int(status.split()[1]), {
        name.lower(): value for line in rest for name, _, value in [line.partition(": ")]
    }


def assert_nothing_changed(server: Server) -> None:
    status, objects = server.request("GET", "/api/objects?rows=0,1,2")
    assert status == 200 and [one["version"] for one in objects] == [0, 0, 0]


# --- The token


@pytest.mark.parametrize("path", ["/", "/page/main.js", "/api/dataset", "/api/objects/0", "/nothing"])
@pytest.mark.parametrize("cookie", [None, "", "boxel-{port}=", "boxel-{port}=x", "boxel-{port}", "=;;="])
def test_requests_without_the_token_are_refused(server: Server, path: str, cookie: str | None) -> None:
    headers = {"cookie": cookie and cookie.format(port=server.port)}
    expected = 401, {"error": "open the link that `boxel review` has printed"}
    assert server.request("GET", path, headers=headers) == expected


@pytest.mark.parametrize(
    "cookie",
    [
        "boxel-1={token}",
        "boxel={token}",
        "token={token}",
        "Boxel-{port}={token}",
        "boxel-{port}={token}x",
        'boxel-{port}="{token}"',
    ],
)
def test_the_token_counts_in_its_own_cookie_only(server: Server, cookie: str) -> None:
    headers = {"cookie": cookie.format(token=server.token, port=server.port)}
    assert server.request("GET", "/api/dataset", headers=headers)[0] == 401
    assert server.request("POST", "/api/objects/0", OPEN, headers)[0] == 401


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/dataset?token={token}"),
        ("GET", "/page/main.js?token={token}"),
        ("GET", "//?token={token}"),
        ("GET", "/{token}"),
        ("GET", "/?token={token}x"),
        ("GET", "/?token="),
        ("GET", "/?token=%C3%A9%00"),
        ("GET", "/?token=x&token={token}"),
        ("GET", "/?TOKEN={token}"),
        ("HEAD", "/?token={token}"),
        ("POST", "/?token={token}"),
    ],
)
def test_the_token_in_an_address_opens_the_link_only(server: Server, method: str, path: str) -> None:
    path = path.format(token=server.token)
    assert server.request(method, path, headers={"cookie": None})[0] == 401


def test_the_link_becomes_a_cookie_that_scripts_and_other_sites_cannot_use(server: Server) -> None:
    status, headers = read_headers(server, f"/?token={server.token}", "Cookie: a=b")
    assert status == 303 and headers["location"] == "/" and headers["cache-control"] == "no-store"
    name, *attributes = headers["set-cookie"].split("; ")
    assert name == f"boxel-{server.port}={server.token}"
    assert sorted(attributes) == ["HttpOnly", "Path=/", "SameSite=Strict"]


@pytest.mark.parametrize(
    "other", ['a={"x": [1, 2]}', "a[b]=1", "a=1;;b", "=", "a=\xe9", "boxel-{port}=of an earlier session"]
)
def test_cookies_of_other_servers_on_this_host_lock_nobody_out(server: Server, other: str) -> None:
    cookie = (
        f"{other.format(port=server.port) if 'port' in other else other}; boxel-{server.port}={server.token}"
    )
    assert server.request("GET", "/api/progress", headers={"cookie": cookie})[0] == 200


# --- Other sites


@pytest.mark.parametrize(
    "host",
    [
        "evil.com",
        "evil.com:{port}",
        "127.0.0.1.evil.com:{port}",
        "127.0.0.1",
        "127.0.0.1:1",
        "127.0.0.1:{port}0",
        "127.0.0.1.:{port}",
        "localhost.:{port}",
        "LOCALHOST:{port}",
        "2130706433:{port}",
        "0.0.0.0:{port}",
        "[::1]:{port}",
        "evil@127.0.0.1:{port}",
        "127.0.0.1:{port}, evil.com",
        "",
    ],
)
def test_names_that_lead_to_this_machine_are_refused(server: Server, host: str) -> None:
    headers = {"host": host.format(port=server.port)}
    expected = 421, {"error": "this server answers requests to its own address only"}
    assert server.request("GET", "/api/dataset", headers=headers) == expected
    assert server.request("GET", f"/?token={server.token}", headers=headers) == expected
    origin = {"origin": f"http://{headers['host']}"}
    assert server.request("POST", "/api/objects/0", OPEN, headers | origin) == expected


def test_localhost_is_this_server_too(server: Server) -> None:
    local = f"localhost:{server.port}"
    assert server.request("GET", "/", headers={"host": local})[0] == 200
    assert server.request("POST", "/", {}, {"host": local, "origin": f"http://{local}"})[0] == 405


def test_requests_without_one_host_are_refused(server: Server) -> None:
    cookie = f"Cookie: boxel-{server.port}={server.token}\r\n"
    assert b" 421 " in exchange(server, f"GET /api/dataset HTTP/1.0\r\n{cookie}\r\n".encode())[:20]
    assert b" 400 " in exchange(server, f"GET /api/dataset HTTP/1.1\r\n{cookie}\r\n".encode())[:20]
    assert b" 400 " in exchange(server, head(server, "GET", "/", "Host: evil.com"))[:20]


@pytest.mark.parametrize(
    "origin",
    [
        None,
        "",
        "null",
        "http://evil.com",
        "http://127.0.0.1",
        "http://127.0.0.1:1",
        "https://127.0.0.1:{port}",
        "http://127.0.0.1:{port}/",
        "http://localhost:{port}",
        "http://127.0.0.1:{port}.evil.com",
    ],
)
def test_changes_from_other_origins_are_refused(server: Server, origin: str | None) -> None:
    headers = {"origin": origin and origin.format(port=server.port)}
    expected = 403, {"error": "changes are accepted from the page itself only"}
    assert server.request("POST", "/api/objects/0", OPEN, headers) == expected
    assert_nothing_changed(server)


@pytest.mark.parametrize("site", ["cross-site", "same-site", "anything"])
def test_what_browsers_mark_as_from_another_site_is_refused(server: Server, site: str) -> None:
    headers = {"sec-fetch-site": site}
    for path in ("/", f"/?token={server.token}", "/api/dataset", "/api/objects/0/thumbnail"):
        assert server.request("GET", path, headers=headers)[0] == 403
    assert server.request("POST", "/api/objects/0", OPEN, headers)[0] == 403
    assert_nothing_changed(server)


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "HEAD"])
def test_other_methods_do_nothing(server: Server, method: str) -> None:
    for path in ("/", "/api/objects/0", "/api/images/0/objects", "/api/export"):
        assert server.request(method, path, OPEN)[0] == 405
        assert server.request(method, path, headers={"origin": "http://evil.com"})[0] in (403, 405)
    _, headers = read_headers(server, "/api/objects/0", method=method)
    assert not [name for name in headers if name.startswith("access-control")]
    assert_nothing_changed(server)


def test_a_preflight_of_another_site_gets_no_permission(server: Server) -> None:
    asked = ["Access-Control-Request-Method: POST", "Access-Control-Request-Private-Network: true"]
    status, headers = read_headers(server, "/api/objects/0", *asked, method="OPTIONS")
    assert status == 405 and not [name for name in headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "path", ["/", "/page/main.js", "/api/dataset", "/nothing", "/api/objects/99999", "/api/objects?rows=x"]
)
def test_every_answer_has_the_headers_that_protect_it(server: Server, path: str) -> None:
    _, headers = read_headers(server, path, "Origin: http://evil.com")
    assert headers["content-security-policy"].startswith(POLICY)
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["cache-control"] == "no-store"
    assert not {"access-control-allow-origin", "server"} & headers.keys()


def test_refusals_are_not_kept_by_caches_either(server: Server) -> None:
    status, headers = read_headers(server, "/api/dataset", "Sec-Fetch-Site: cross-site")
    assert status == 403 and headers["cache-control"] == "no-store"
    assert headers["content-security-policy"].startswith(POLICY)


def test_pictures_are_kept_by_this_browser_only(server: Server) -> None:
    status, headers = read_headers(server, "/api/objects/0/thumbnail?version=0")
    assert status == 200 and headers["cache-control"].startswith("private, ")


def test_the_server_listens_on_the_loopback_address_only(server: Server) -> None:
    for address in ("127.0.0.2", "::1"):
        with pytest.raises(OSError):
            socket.create_connection((address, server.port), timeout=2)


# --- Files


@pytest.mark.parametrize(
    "path",
    [
        "/page/../guard.py",
        "/page/%2e%2e/guard.py",
        "/page/..%2fguard.py",
        "/page/..%5cguard.py",
        "/page/%252e%252e/guard.py",
        "/page/....//guard.py",
        "/page//etc/passwd",
        "/page/%2fetc%2fpasswd",
        "/page/C:%5cWindows%5cwin.ini",
        "/page/main.js%00",
        "/page/%00",
        "/page/%ff%fe",
        "/page/",
        "/page/" + "a" * 5000,
        "/page/" + "a/" * 2000,
        "/etc/passwd",
        "//etc/passwd",
    ],
)
def test_files_outside_the_page_are_not_found(server: Server, path: str) -> None:
    assert server.request("GET", path) == (404, {"error": "Not Found"})


def get_answer(app: Any, path: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    """What an application answers to a GET request, without a server."""
    sent: list[Any] = []
    received: list[dict[str, Any]] = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> dict[str, Any]:
        return received.pop() if received else await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    raw = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b""}
    asyncio.run(app({**scope, "root_path": "", "scheme": "http", "headers": raw}, receive, send))
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


def test_links_out_of_the_folder_of_the_page_are_not_followed(
    scenes: Annotations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "page").mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "page" / "own.txt").write_text("own")
    (tmp_path / "page" / "link.txt").symlink_to(tmp_path / "secret.txt")
    monkeypatch.setattr("boxel.review.app.files", lambda package: tmp_path)
    store = DecisionStore(tmp_path / "decisions.sqlite")
    app = make_app(ReviewService(Review(scenes, store), None, ReviewConfig()))
    assert get_answer(app, "/page/own.txt") == (200, b"own")
    assert get_answer(app, "/page/link.txt") == (404, b'{"error":"Not Found"}')


def test_an_error_in_boxel_itself_becomes_a_sentence(
    scenes: Annotations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = ReviewService(
        Review(scenes, DecisionStore(tmp_path / "decisions.sqlite")), None, ReviewConfig()
    )
    monkeypatch.setattr(service, "describe", lambda: 1 / 0)
    guard = Guard(make_app(service), "secret", 80)
    found: list[tuple[int, bytes]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        with pytest.raises(ZeroDivisionError):  # which the server logs
            await guard(scope, receive, send)

    found.append(get_answer(app, "/api/dataset", {"host": "127.0.0.1:80", "cookie": "boxel-80=secret"}))
    assert found == [(500, b'{"error":"this failed in boxel itself; the terminal shows where"}')]


# --- Bodies


def test_a_body_that_is_too_large_is_refused_whether_stated_or_not(server: Server) -> None:
    expected = 413, {"error": "a request has at most 4,000,000 bytes, and an image 60,000,000"}
    assert server.request("POST", "/api/objects/0", b" " * 4_000_001) == expected
    start = head(server, "POST", "/api/objects/0", "Transfer-Encoding: chunked")
    chunks = [b"%x\r\n%s\r\n" % (size, b" " * size) for size in [100_000] * 40 + [1]]
    answer = exchange(server, start, *chunks)
    assert b" 413 " in answer[:20] and answer.endswith(
        b'{"error": "a request has at most 4,000,000 bytes, and an image 60,000,000"}'
    )
    assert b" 413 " in exchange(server, head(server, "POST", "/", f"Content-Length: {10**19}"))[:20]
    assert_nothing_changed(server)


def test_a_body_of_the_maximum_size_is_read(server: Server) -> None:
    body = json.dumps(OPEN | {"version": 7}).encode()
    assert server.request("POST", "/api/objects/0", body + b" " * (4_000_000 - len(body)))[0] == 409


def test_a_slow_body_keeps_nobody_waiting(server: Server) -> None:
    body = json.dumps(OPEN | {"version": 7}).encode()
    start = head(server, "POST", "/api/objects/0", f"Content-Length: {len(body)}", "Connection: close")
    slow = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(100)]
    for connection in slow:
        connection.sendall(start + body[:5])
    before = time.monotonic()
    assert server.request("GET", "/api/progress")[0] == 200
    assert time.monotonic() - before < 3
    slow[0].sendall(body[5:])
    assert b" 409 " in slow[0].recv(1000)[:20]
    for connection in slow:
        connection.close()
    assert_nothing_changed(server)


@pytest.mark.parametrize("lines", [["Content-Length: 1000"], ["Transfer-Encoding: chunked"]])
def test_a_body_that_breaks_off_changes_nothing(server: Server, lines: list[str]) -> None:
    body = json.dumps(OPEN).encode()
    chunk = b"%x\r\n%s\r\n" % (len(body), body)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(head(server, "POST", "/api/objects/0", *lines) + chunk)
    assert_nothing_changed(server)


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",  # TLS
        b"\r\n" * 10,
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 20_000 + b"\r\n",
        b"GET /" + b"a" * 100_000,
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    ],
)
def test_what_is_not_http_is_refused(server: Server, data: bytes) -> None:
    try:
        answer = exchange(server, data)
    except ConnectionError:  # closed while the rest was sent
        answer = b""
    assert not answer or b" 400 " in answer[:20]
    assert_nothing_changed(server)


def test_there_are_no_web_sockets(server: Server) -> None:
    lines = [
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: eA==",
    ]
    assert read_headers(server, "/", *lines)[0] in (200, 400)


STATE = b'{"version":0,"change":{"kind":"state","state":"open"}'
BRUSH = b'{"version":0,"change":{"kind":"brush","radius":3,"add":true,"points":'
POLYGON = b'{"version":0,"change":{"kind":"polygon","before":[],"after":'
BOX = b'{"version":0,"change":{"kind":"box","box":'


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"{",
        STATE,
        STATE + b"}}",
        b'{"version":0,"version":1}',
        b"\xff\xfe{}",
        b"\xef\xbb\xbf{}",
        b"[" * 200_000,
        b'{"a":' * 100_000,
        b'{"version":' + b"1" * 100_000 + b"}",
        STATE + b',"more":1}',
        STATE.replace(b'"open"', b'"open","more":1') + b"}",
        STATE.replace(b'"open"', b'"gone"') + b"}",
        STATE.replace(b'"open"', b"null") + b"}",
        STATE.replace(b'"kind":"state",', b"") + b"}",
        STATE.replace(b'"kind":"state"', b'"kind":"\\ud800"') + b"}",
        STATE.replace(b'"kind":"state"', b'"kind":["state"]') + b"}",
        STATE.replace(b'"kind":"state"', b'"kind":"' + b"x" * 100_000 + b'"') + b"}",
        *(
            STATE.replace(b":0,", b":%s," % value) + b"}"
            for value in (b"-1", b"0.5", b"NaN", b"1e400", b'"x"', b"null", b"[0]", b"{}")
        ),
        b'{"version":0,"\\ud800":1,"change":{"kind":"state","state":"open"}}',
        b'{"version":0,"change":{"kind":"category","category":"\\ud800"}}',
        b'{"version":0,"change":{"kind":"category","category":"\\u0000<script>"}}',
        b'{"version":0,"change":{"kind":"category","category":"' + b"x" * 1_000_000 + b'"}}',
        b'{"version":0,"change":{"kind":"restore","to":-1}}',
        *(
            BOX + value + b"}}"
            for value in (
                b"[NaN,0,9,9]",
                b"[0,0,9,Infinity]",
                b"[-Infinity,0,9,9]",
                b"[0,0,1e400,9]",
                b"[0,0,1" + b"0" * 400 + b",9]",
                b"[0,0,9]",
                b"[0,0,9,9,9]",
                b'["a",0,9,9]',
                b"[5,5,5,5]",
                b"[-9,-9,-1,-1]",
                b"{}",
            )
        ),
        *(
            BRUSH + value + b"}}"
            for value in (
                b"[]",
                b"[[1]]",
                b"[[1,2,3]]",
                b"[1,2]",
                b"[[1,NaN]]",
                b"[[1,1e308]]",
                b"[" + b",".join([b"[1,1]"] * 20_001) + b"]",
                b"[" + b",".join([b"0"] * 1_900_000) + b"]",
                b"[" * 5000 + b"]" * 5000,
            )
        ),
        *(
            BRUSH.replace(b":3,", b":%s," % value) + b"[[1,1]]}}"
            for value in (b"0", b"-1", b"NaN", b"1e9", b"null", b'"a"')
        ),
        BRUSH.replace(b"true", b"5") + b"[[1,1]]}}",
        POLYGON + b"[[0,0],[5e6,0],[0,5]]}}",
        POLYGON + b"[[0,0],[NaN,0],[0,5]]}}",
    ],
    ids=lambda body: body[:60].decode("latin-1") + (f"_{len(body)}" if len(body) > 60 else ""),
)
def test_malformed_changes_are_refused_in_one_sentence(server: Server, body: bytes) -> None:
    status, answer = server.request("POST", "/api/objects/0", body)
    assert status in (400, 422)
    assert answer.keys() == {"error"} and 5 < len(answer["error"]) < 450
    assert "/" not in answer["error"] and "Traceback" not in answer["error"]
    assert_nothing_changed(server)


def test_a_version_that_is_a_huge_number_is_not_the_current_one(server: Server) -> None:
    assert server.request("POST", "/api/objects/0", OPEN | {"version": 10**400})[0] == 409
    huge = {"version": 0, "change": {"kind": "restore", "to": 10**400}}
    assert server.request("POST", "/api/objects/0", huge)[0] == 409


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None]
)
def test_bodies_that_forms_of_other_sites_could_send_are_refused(server: Server, kind: str | None) -> None:
    assert server.request("POST", "/api/objects/0", OPEN, {"content-type": kind})[0] == 422
    assert_nothing_changed(server)


def test_a_polygon_of_huge_edges_cannot_take_the_memory(server: Server) -> None:
    zigzag = [[(-1) ** i * 400_000, i % 90] for i in range(20_000)]
    change = {"kind": "polygon", "before": [], "after": zigzag}
    status, answer = server.request("POST", "/api/objects/0", {"version": 0, "change": change})
    assert status == 422
    assert "the edges of a polygon have at most 5,000,000 pixels" in answer["error"]


@pytest.mark.parametrize(
    "row", ["-1", "11", "999999999999999999999", "9" * 5000, "1.5", "0x1", "%00", "1e3", "nan"]
)
def test_objects_and_images_that_do_not_exist_are_refused(server: Server, row: str) -> None:
    for path in (
        "/api/objects/{}",
        "/api/objects/{}/thumbnail",
        "/api/objects/{}/vertices",
        "/api/objects?rows={}",
    ):
        status, answer = server.request("GET", path.format(row))
        assert status in (404, 422) and len(answer["error"]) < 200
    assert server.request("POST", f"/api/objects/{row}", OPEN)[0] in (404, 422)
    assert server.request("POST", f"/api/images/{row}/objects", {"category": "x", "box": [0, 0, 9, 9]})[
        0
    ] in (404, 422)


@pytest.mark.parametrize(
    "rows",
    [
        "",
        ",",
        "1,",
        ",1",
        "1,,2",
        "1 2",
        "1;2",
        "\u0661",
        "1,-1",
        "[1]",
        ",".join(["1"] * 201),
        "1," * 3000 + "1",
    ],
)
def test_lists_of_objects_are_checked(server: Server, rows: str) -> None:
    assert server.request("GET", f"/api/objects?rows={quote(rows)}")[0] in (404, 422)


@pytest.mark.parametrize(
    "query",
    [
        "x0=nan&y0=0&x1=9&y1=9&width=9",
        "x0=0&y0=0&x1=inf&y1=9&width=9",
        "x0=0&y0=0&x1=1e400&y1=9&width=9",
        "x0=50&y0=0&x1=9&y1=9&width=9",
        "x0=5&y0=5&x1=5&y1=5&width=9",
        "x0=-9&y0=-9&x1=-1&y1=-1&width=9",
        "x0=1e300&y0=0&x1=1e301&y1=9&width=9",
        "x0=0&y0=0&x1=9&y1=9&width=0",
        "x0=0&y0=0&x1=9&y1=9&width=2049",
        "x0=0&y0=0&x1=9&y1=9&width=999999999999",
        "x0=0&y0=0&x1=9&y1=9&width=-9",
        "x0=0&y0=0&x1=9&y1=9",
        "x0=&y0=&x1=&y1=&width=",
        "x0=0&y0=0&x1=9&y1=9&width=9&width=9999",
    ],
)
def test_windows_that_make_no_sense_are_refused(server: Server, query: str) -> None:
    status, answer = server.request("GET", f"/api/images/0/part?{query}")
    assert status == 422 and len(answer["error"]) < 200


def test_a_huge_window_is_only_as_large_as_the_image(server: Server) -> None:
    query = "x0=-1e300&y0=-1e300&x1=1e300&y1=1e300&width=2048"
    status, content = server.request("GET", f"/api/images/0/part?{query}")
    assert status == 200 and Image.open(io.BytesIO(content)).size == (128, 96)


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("order=worst&order=file", 200),
        ("order=nothing", 422),
        ("state=" + "x" * 10_000, 422),
        ("min_quality=nan&max_quality=-inf", 200),
        ("image=" + "9" * 30, 200),
        ("image=-1", 200),
        ("category=%00%3Cscript%3E", 404),
        ("category=%ff%fe", 404),
        ("unknown=1&" * 5000, 200),
        ("suspect=2", 422),
    ],
)
def test_selections_are_checked(server: Server, query: str, status: int) -> None:
    assert server.request("GET", f"/api/selection?{query}")[0] == status


def test_no_error_names_a_folder_or_the_token(server: Server, scenes: Annotations) -> None:
    answers = [
        server.request(method, path, body, headers)
        for method, path, body, headers in [
            ("GET", "/nothing", None, {}),
            ("GET", f"/page/{server.token}", None, {}),
            ("GET", f"/api/objects/{server.token}", None, {}),
            ("POST", "/api/objects/0", b"{", {}),
            ("POST", "/api/objects/0", OPEN | {"version": 3}, {}),
            ("POST", "/api/objects/0", {"version": 0, "change": {"kind": "category", "category": "?"}}, {}),
            ("POST", "/api/objects/0", OPEN, {"origin": None}),
            ("GET", "/", None, {"cookie": None}),
        ]
    ]
    text = json.dumps(answers)
    assert all(status >= 400 for status, _ in answers)
    assert not re.search(
        rf"Traceback|\.py|{server.token}|{scenes.root}|{server.masks.parent}|{Path.home()}", text
    )


@pytest.mark.slow
def test_the_log_holds_neither_the_token_nor_requests(serve: Any, masks: Path, scenes: Annotations) -> None:
    with serve(masks, "--images", str(scenes.root), "--teacher", "none") as running:
        running.request("GET", f"/?token={running.token}")
        running.request("GET", "/api/objects/0")
        running.request("POST", "/api/objects/0", b"{")
        exchange(running, b"GET /?token=" + running.token.encode() + b" HTTP/1.1\r\nbroken\r\n\r\n")
        with socket.create_connection(("127.0.0.1", running.port)) as connection:
            connection.sendall(head(running, "POST", "/api/objects/0", "Content-Length: 100") + b"{")
    assert running.token not in running.out + running.err
    assert "Traceback" not in running.err and "/api/" not in running.err


# --- Images and names of unknown origin

SCRIPT = "<script>alert(1)</script>"
NAMES = [SCRIPT, "\x01\x1b[31m\x7f\x85", "\u2028\u202e\ufeff", "\U0001f600 caf\u00e9", "</title>\"'&`\\"]


def write_bomb(path: Path, side: int) -> None:
    """Write a small PNG file that claims to be huge."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    size = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", size), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))


PROBLEMS = {  # by the place of the image
    0: "{name}: the image is missing; put the file there or leave the image out.",
    1: "{name}: the image is truncated (",
    2: "{name}: the image has more than 178956970 pixels (",
    3: "{name}: the image has 40 x 30 pixels, but its annotations state 128 x 96, so its boxes may lie elsewhere;",
}


@pytest.fixture(scope="module")
def damaged(serve: Any, scenes: Annotations, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A page of scenes with unusable images, and a tall one, and with class and file names that attack pages."""
    folder = tmp_path_factory.mktemp("damaged")
    images = folder / "images"
    shutil.copytree(scenes.root, images)
    names = [f"{SCRIPT[:8]}{place} '&\U0001f600.png" for place in range(4)]
    for path, name in zip(scenes.paths, names, strict=True):
        (images / path).rename(images / name)
    (images / names[0]).unlink()
    (images / names[1]).write_bytes((images / names[1]).read_bytes()[:3000])
    write_bomb(images / names[2], 60_000)
    Image.new("RGB", (40, 30)).save(images / names[3])
    kinds = [replace(kind, name=name) for kind, name in zip(scenes.categories, NAMES, strict=False)]
    write(replace(scenes, paths=names, root=images, categories=kinds), folder / "masks.json")
    content = json.loads((folder / "masks.json").read_text())
    content["images"].append({"id": 50, "file_name": "tall.png", "width": 1, "height": 70_000})
    more = {"id": 500, "image_id": 50, "category_id": content["categories"][0]["id"], "iscrowd": 0}
    content["annotations"].append(more | {"bbox": [0, 0, 1, 70_000], "area": 70_000})
    Image.new("RGB", (1, 70_000)).save(images / "tall.png")
    (folder / "masks.json").write_text(json.dumps(content))
    with serve(folder / "masks.json", "--teacher", "none") as running:
        yield running
    assert "Traceback" not in running.err, running.err


def find_row(server: Server, image: int) -> int:
    status, found = server.request("GET", f"/api/selection?order=file&image={image}")
    assert status == 200
    return found["rows"][0]


@pytest.mark.parametrize("image", PROBLEMS)
def test_an_unusable_image_costs_its_own_objects_only(damaged: Server, image: int) -> None:
    row = find_row(damaged, image)
    status, found = damaged.request("GET", f"/api/objects/{row}")
    problem = PROBLEMS[image].format(name=found["file"])
    assert status == 200 and found["problem"].startswith(problem) and found["mask"] is not None
    assert (found["width"], found["height"]) == (128, 96)
    for path in (f"objects/{row}/thumbnail", f"images/{image}/part?x0=0&y0=0&x1=9&y1=9&width=9"):
        status, answer = damaged.request("GET", f"/api/{path}")
        assert status == 422 and answer["error"].startswith(problem)
    for change in (
        {"kind": "brush", "points": [[5, 5]], "radius": 3, "add": True},
        {"kind": "polygon", "before": [], "after": [[0, 0], [5, 0], [5, 5]]},
        {"kind": "box", "box": [0, 0, 20, 20]},
    ):
        status, answer = damaged.change(row, 0, **change)
        assert status == 422 and answer["error"].startswith(problem)


@pytest.mark.parametrize("image", PROBLEMS)
def test_a_decision_about_an_unusable_image_is_confirmed(damaged: Server, image: int) -> None:
    row = find_row(damaged, image) + 1
    status, found = damaged.change(row, 0, kind="state", state="rejected")
    assert status == 200 and (found["version"], found["state"]) == (1, "rejected")


def test_parts_of_a_tall_image_stay_within_what_jpeg_can_hold(damaged: Server) -> None:
    status, content = damaged.request("GET", "/api/images/4/part?x0=0&y0=0&x1=1&y1=70000&width=1")
    assert status == 200 and Image.open(io.BytesIO(content)).size == (1, 2048)
    assert damaged.request("GET", f"/api/objects/{find_row(damaged, 4)}/thumbnail")[0] == 200


def test_names_that_attack_pages_arrive_as_they_are(damaged: Server) -> None:
    status, found = damaged.request("GET", "/api/dataset")
    given = [kind["name"] for kind in found["categories"]]
    assert status == 200 and given == NAMES[: len(given)] and len(given) >= 4
    for name in given:
        assert damaged.request("GET", f"/api/selection?category={quote(name)}")[0] == 200
    row = find_row(damaged, 0)
    status, found = damaged.request("GET", f"/api/objects?rows={row}")
    assert status == 200 and found[0]["file"] == f"{SCRIPT[:8]}0 '&\U0001f600.png"
    status, found = damaged.request(
        "POST", f"/api/objects/{row}", {"version": 0, "change": {"kind": "category", "category": given[1]}}
    )
    assert status == 200 and found["category"] == 1
    status, found = damaged.request("GET", "/api/export")
    assert status == 200 and [kind["name"] for kind in found["categories"]] == given


def test_names_that_are_no_text_do_not_reach_the_page(masks: Path, scenes: Annotations) -> None:
    content = masks.read_text()
    assert content.count('"name":"cross"') == 1
    masks.write_text(content.replace('"name":"cross"', '"name":"\\ud800"'))
    with pytest.raises(BoxelError, match=r"masks\.json"):
        read(masks, scenes.root)


def test_a_mask_of_another_size_in_the_file_of_decisions_costs_its_object_only(
    scenes: Annotations, tmp_path: Path
) -> None:
    review = Review(scenes, DecisionStore(tmp_path / "decisions.sqlite"))
    review.decide(0, 0, mask={"size": [3, 4], "counts": "0<"}, maker="you")
    review.decide(1, 0, mask={"size": [96, 128], "counts": "garbage"}, maker="you")
    service = ReviewService(review, None, ReviewConfig())
    for row in (0, 1):
        found = service.detail(row)
        assert found["mask"] is None
        assert found["problem"].startswith(
            f"decisions.sqlite: the mask of object {review.ids[row]} cannot be read ("
        )
    assert service.detail(2)["problem"] is None
    review.restore(0, 1, to=0)
    np.testing.assert_array_equal(decode(review.rle(0)), decode(scenes.rle(0)))
