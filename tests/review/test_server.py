"""The review page as a process: many clients, crashes, signals, ports and files that cannot be written."""

import ctypes
import json
import logging
import os
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import numpy as np
import pytest

from boxel.data import Annotations, read, write
from boxel.review import (
    DecisionStore,
    Review,
    ReviewConfig,
    apply_decisions,
    decisions_path,
    serve_review,
)
from boxel.review.requests import SetState, Stroke
from boxel.review.service import ReviewService
from boxel.utils.errors import BoxelError

Server: TypeAlias = Any  # of conftest.py

CLIENTS = 50
STATES = ("accepted", "rejected", "ignored", "open")


@pytest.fixture(scope="module")
def shared(serve: Any, scenes: Annotations, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A page for the tests that leave its process alone."""
    masks = tmp_path_factory.mktemp("shared") / "masks.json"
    write(scenes, masks)
    with serve(masks, "--images", str(scenes.root), "--teacher", "none") as running:
        yield running
    assert "Traceback" not in running.err, running.err


def flags(scenes: Annotations) -> list[str]:
    return ["--images", str(scenes.root), "--teacher", "none"]


def run_review(*words: str | Path, **start: Any) -> "subprocess.CompletedProcess[str]":
    """A `boxel review` that ends by itself."""
    command = [sys.executable, "-m", "boxel", "review", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **start)


def stored(masks: Path) -> dict[int, list[tuple[int, str]]]:
    """Versions and states by id of the object, as another program reads them from the file."""
    with closing(sqlite3.connect(decisions_path(masks))) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        rows = db.execute("SELECT object, version, content FROM decisions ORDER BY number").fetchall()
    found: dict[int, list[tuple[int, str]]] = {}
    for id, version, content in rows:
        state = msgspec.msgpack.decode(content)["state"]
        found.setdefault(json.loads(id), []).append((version, state))
    return found


def decide(scenes: Annotations, file: Path, row: int, **changes: Any) -> None:
    """Decide about an object as an earlier session did."""
    review = Review(scenes, DecisionStore(file))
    review.decide(row, review.entry(row).version, **changes)
    review.store.close()


def read_version(server: Server, row: int) -> int:
    status, found = server.request("GET", f"/api/objects?rows={row}")
    assert status == 200
    return found[0]["version"]


# --- Many clients


def test_one_of_many_clients_wins_a_version(shared: Server) -> None:
    with ThreadPoolExecutor(CLIENTS) as pool:
        for version in range(3):
            answers = list(
                pool.map(
                    lambda client, version=version: shared.change(
                        0, version, kind="state", state=STATES[client % 4]
                    ),
                    range(CLIENTS),
                )
            )
            assert Counter(status for status, _ in answers) == {200: 1, 409: CLIENTS - 1}
            (winner,) = [answer for status, answer in answers if status == 200]
            assert winner["version"] == version + 1
            now = shared.request("GET", "/api/objects/0")[1]
            assert (now["version"], now["state"]) == (version + 1, winner["state"])
            losers = {answer["error"] for status, answer in answers if status == 409}
            assert losers == {"object 1 was changed meanwhile; look at it again."}


def test_nothing_that_many_clients_decide_is_lost(shared: Server) -> None:
    count = len(shared.request("GET", "/api/selection")[1]["rows"])
    confirmed: list[tuple[int, int, str]] = []

    def decide(client: int) -> None:
        row, state = 1 + client % (count - 1), STATES[client % 4]
        for _ in range(200):
            status, answer = shared.change(row, read_version(shared, row), kind="state", state=state)
            if status == 200:
                confirmed.append((answer["id"], answer["version"], state))
                return
            assert status == 409
        raise AssertionError("never won")

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(decide, range(CLIENTS)))
    found = stored(shared.masks)
    in_file = [(id, *one) for id, versions in found.items() for one in versions if id != 1]
    assert len(confirmed) == CLIENTS and sorted(confirmed) == sorted(in_file)
    for versions in found.values():
        assert [version for version, _ in versions] == list(range(1, len(versions) + 1))
    counts = shared.request("GET", "/api/progress")[1]
    latest = Counter(versions[-1][1] for versions in found.values())
    assert {state: counts[state] for state in STATES} == {
        state: latest[state] + (count - len(found) if state == "open" else 0) for state in STATES
    }


def test_many_clients_that_add_objects_get_one_each(shared: Server) -> None:
    names = [kind["name"] for kind in shared.request("GET", "/api/dataset")[1]["categories"]]

    def add(client: int) -> Any:
        new = {"category": names[client % len(names)], "box": [client, 1, client + 9, 30]}
        return shared.request("POST", f"/api/images/{client % 4}/objects", new)

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(add, range(12)))
    assert {status for status, _ in answers} == {200}
    assert len({answer["id"] for _, answer in answers}) == len({answer["row"] for _, answer in answers}) == 12
    for client, (_, answer) in enumerate(answers):
        now = shared.request("GET", f"/api/objects/{answer['row']}")[1]
        assert (
            now["box"] == [client, 1, client + 9, 30] and names[now["category"]] == names[client % len(names)]
        )


@pytest.mark.slow
def test_two_processes_share_a_file_of_decisions(serve: Any, masks: Path, scenes: Annotations) -> None:
    confirmed: list[tuple[int, int, str]] = []
    with serve(masks, *flags(scenes)) as first, serve(masks, *flags(scenes)) as second:

        def decide(client: int) -> None:
            server, row, state = (first, second)[client % 2], client % 3, STATES[client % 4]
            for _ in range(200):
                status, answer = server.change(row, read_version(server, row), kind="state", state=state)
                if status == 200:
                    confirmed.append((answer["id"], answer["version"], state))
                    return
                assert status == 409, answer
            raise AssertionError("never won")

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(decide, range(24)))
        new = {"category": scenes.categories[0].name, "box": [1, 1, 20, 20]}
        added = [
            server.request("POST", f"/api/images/{image}/objects", new)
            for image in (0, 1)
            for server in (first, second, second, first)
        ]
    in_file = [(id, *one) for id, versions in stored(masks).items() for one in versions]
    assert len(confirmed) == 24 and sorted(confirmed) == sorted(one for one in in_file if one[0] <= 3)
    assert {status for status, _ in added} == {200}
    assert len({answer["id"] for _, answer in added}) == 8

    assert run_review(masks, *flags(scenes), "--export", masks.parent / "out.json").returncode == 0
    assert len(read(masks.parent / "out.json", scenes.root).ids) == len(scenes.ids) + 8


def test_the_id_of_an_object_that_left_the_dataset_is_not_given_again(
    masks: Path, scenes: Annotations
) -> None:
    last, file = len(scenes.ids) - 1, decisions_path(masks)
    decide(scenes, file, last, state="rejected")
    review = Review(scenes.select_instances(range(last)), DecisionStore(file))
    row = review.add(int(scenes.image_index[last]), scenes.categories[0].name, (1.0, 1.0, 20.0, 20.0))
    assert review.ids[row] == scenes.ids[last] + 1


# --- The end of a process


@pytest.mark.slow
def test_what_was_confirmed_before_a_crash_is_there_after_it(
    serve: Any, masks: Path, scenes: Annotations
) -> None:
    confirmed: list[tuple[int, int, str]] = []

    def decide(row: int) -> None:
        version = 0
        while True:
            state = STATES[version % 4]
            try:
                status, answer = running.change(row, version, kind="state", state=state)
            except OSError:
                return
            except Exception as error:  # the answer broke off
                assert type(error).__module__ == "http.client", error
                return
            assert status == 200
            version = answer["version"]
            confirmed.append((answer["id"], version, state))

    with serve(masks, *flags(scenes)) as running:
        threads = [threading.Thread(target=decide, args=[row]) for row in range(8)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 20
        while len(confirmed) < 100 and time.monotonic() < deadline:
            time.sleep(0.01)
        running.kill()
        for thread in threads:
            thread.join()
    assert len(confirmed) >= 100

    with serve(masks, *flags(scenes)) as later:
        versions = [read_version(later, row) for row in range(8)]
    found = stored(masks)
    in_file = {(id, *one) for id, many in found.items() for one in many}
    assert set(confirmed) <= in_file and len(in_file) <= len(confirmed) + 8
    assert versions == [found[id][-1][0] for id in scenes.ids[:8]]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_the_server_with_a_summary(
    serve: Any, masks: Path, scenes: Annotations, kind: signal.Signals
) -> None:
    with serve(masks, *flags(scenes)) as running:
        assert running.change(0, 0, kind="state", state="accepted")[0] == 200
        idle = socket.create_connection(("127.0.0.1", running.port))  # as browsers keep them
        before = time.monotonic()
        running.process.send_signal(kind)
        out, err = running.process.communicate(timeout=10)
        idle.close()
    assert time.monotonic() - before < 5
    assert running.process.returncode == 0 and err == ""
    assert f"objects: {len(scenes.ids) - 1} open, 1 accepted; " in out
    assert f"decisions: {decisions_path(masks)}\n" in out
    assert f"boxel review {masks} --images {scenes.root} --export reviewed.json" in out


@pytest.mark.slow
def test_a_request_that_never_ends_does_not_keep_the_server_from_ending(
    serve: Any, masks: Path, scenes: Annotations
) -> None:
    with serve(masks, *flags(scenes)) as running:
        host = f"127.0.0.1:{running.port}"
        head = (
            f"POST /api/objects/0 HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\nContent-Length: 9\r\n"
        )
        hanging = socket.create_connection(("127.0.0.1", running.port))
        hanging.sendall(f"{head}Cookie: boxel-{running.port}={running.token}\r\n\r\n{{".encode())
        assert running.request("GET", "/api/progress")[0] == 200
        before = time.monotonic()
        running.process.send_signal(signal.SIGTERM)
        out, err = running.process.communicate(timeout=10)
        hanging.close()
    assert time.monotonic() - before < 5
    assert running.process.returncode == 0 and "objects: " in out
    assert "Traceback" not in err


def test_the_link_can_be_opened_as_soon_as_it_is_printed(scenes: Annotations, tmp_path: Path) -> None:
    links = []

    def open_link(link: str) -> None:
        links.append(link)
        with socket.create_connection(("127.0.0.1", int(link.split(":")[2].split("/")[0])), timeout=5):
            raise KeyboardInterrupt  # ends the server before it has started

    counts = serve_review(scenes, tmp_path / "decisions.sqlite", on_start=open_link)
    assert len(links) == 1 and counts["open"] == len(scenes.ids)


# --- Ports


def test_a_port_in_use_leaves_no_file_of_decisions_open(
    scenes: Annotations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = list[Path]()
    monkeypatch.setattr(DecisionStore, "close", lambda store: closed.append(store.path))
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(BoxelError, match="cannot be used"):
        serve_review(scenes, tmp_path / "decisions.sqlite", port=other.getsockname()[1])
    assert closed == [tmp_path / "decisions.sqlite"]


@pytest.mark.slow
def test_a_port_in_use_is_named(shared: Server, masks: Path) -> None:
    done = run_review(masks, "--teacher", "none", "--port", str(shared.port))
    assert done.returncode == 2 and done.stdout == ""
    what = f"port {shared.port} cannot be used (Address already in use); name another one, or none for a free one."
    assert done.stderr.strip() == f"boxel: {what}"


@pytest.mark.slow
def test_without_a_port_any_free_one_is_taken(
    serve: Any, shared: Server, masks: Path, scenes: Annotations
) -> None:
    with serve(masks, *flags(scenes)) as other:
        assert other.port != shared.port
        assert other.request("GET", "/api/progress")[0] == 200
        # Each has its own cookie and token.
        stolen = {"cookie": f"boxel-{other.port}={shared.token}; boxel-{shared.port}={shared.token}"}
        assert other.request("GET", "/api/progress", headers=stolen)[0] == 401


def drop_rights() -> None:
    """Let a process of the administrator, too, obey the permissions of files and ports, as in a container."""
    libc = ctypes.CDLL(None)
    for right in (1, 2, 10):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_NET_BIND_SERVICE
        libc.prctl(24, right, 0, 0, 0)  # PR_CAPBSET_DROP; what is executed next starts without it


needs_linux = pytest.mark.skipif(
    sys.platform != "linux", reason="the rights of the administrator are dropped"
)


@pytest.mark.slow
@needs_linux
@pytest.mark.parametrize(
    ("port", "problem"),
    [("1", "Permission denied"), ("65536", "ports end at 65535")],
)
def test_ports_that_cannot_be_used_are_explained(masks: Path, port: str, problem: str) -> None:
    if port == "1" and Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text().strip() == "0":
        pytest.skip("every program may use port 1 here")
    done = run_review(masks, "--teacher", "none", "--port", port, preexec_fn=drop_rights)
    assert done.returncode == 2
    assert f"boxel: port {port} cannot be used ({problem})" in done.stderr and "Traceback" not in done.stderr


# --- Files of decisions


@pytest.mark.slow
@needs_linux
@pytest.mark.parametrize("what", ["file", "folder", "new file in the folder"])
def test_decisions_that_cannot_be_written_are_refused_at_the_start(
    masks: Path, scenes: Annotations, what: str
) -> None:
    folder = masks.parent / "decided"
    folder.mkdir()
    file = folder / "masks.sqlite"
    if not what.startswith("new"):
        decide(scenes, file, 0, state="rejected")
    locked = file if what == "file" else folder
    locked.chmod(0o444 if what == "file" else 0o555)
    try:
        words = [masks, *flags(scenes), "--decisions", file]
        done = run_review(*words, preexec_fn=drop_rights)
        assert done.returncode == 1 and done.stdout == ""
        assert done.stderr.startswith(
            (f"boxel: {file}: cannot be used (", f"boxel: {file}: cannot be written (")
        )
        assert "Traceback" not in done.stderr
        if not what.startswith("new"):  # reading them is enough to export
            done = run_review(*words, "--export", masks.parent / "out.json", preexec_fn=drop_rights)
            assert done.returncode == 0 and "1 rejected" in done.stdout
            assert not read(masks.parent / "out.json", scenes.root).trusted[0]
    finally:
        locked.chmod(0o755)


def limit_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (24 * 1024, 24 * 1024))


@pytest.mark.slow
def test_a_full_disk_loses_nothing_that_was_confirmed(serve: Any, masks: Path, scenes: Annotations) -> None:
    confirmed = []
    with serve(masks, *flags(scenes), preexec_fn=limit_files) as running:
        for version in range(1000):
            status, answer = running.change(0, version, kind="state", state=STATES[version % 4])
            if status != 200:
                break
            confirmed.append((version + 1, STATES[version % 4]))
        assert status == 422 and len(confirmed) > 20
        what = answer["error"]
        assert what.startswith("masks.review.sqlite: cannot be used (") and "what is in it stays" in what
        assert read_version(running, 0) == len(confirmed)  # as the page shows it
        assert running.request("GET", "/api/objects/0/thumbnail")[0] == 200
    assert running.process.returncode == 0 and "Traceback" not in running.err
    assert stored(masks) == {scenes.ids[0]: confirmed}

    with serve(masks, *flags(scenes)) as later:
        assert later.change(0, len(confirmed), kind="state", state="open")[0] == 200


@pytest.mark.slow
def test_a_file_that_another_program_has_locked_is_explained(shared: Server) -> None:
    with closing(sqlite3.connect(decisions_path(shared.masks), isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        version = read_version(shared, 2)
        status, answer = shared.change(2, version, kind="state", state="ignored")
        assert status == 422 and "cannot be used (database is locked)" in answer["error"]
        other.execute("ROLLBACK")
    assert shared.change(2, version, kind="state", state="ignored")[0] == 200


def test_decisions_about_another_dataset_change_nothing(
    masks: Path, scenes: Annotations, caplog: pytest.LogCaptureFixture
) -> None:
    file = decisions_path(masks)
    decide(scenes, file, 0, state="rejected")
    decide(scenes, file, 1, state="accepted", maker="you")
    before = file.read_bytes()
    other = replace(scenes, paths=[f"other-{path}" for path in scenes.paths])
    with caplog.at_level(logging.WARNING):
        found, counts = apply_decisions(other, file)
    assert counts["open"] == len(scenes.ids) and found.trusted.tolist() == scenes.trusted.tolist()
    assert f"{file}: 2 objects are in the file of decisions and not in the dataset" in caplog.text
    assert file.read_bytes() == before


@pytest.mark.slow
def test_a_database_of_another_program_is_left_alone(masks: Path, scenes: Annotations) -> None:
    file = masks.parent / "bookmarks.sqlite"
    with closing(sqlite3.connect(file)) as db:
        db.execute("CREATE TABLE bookmarks (url TEXT)")
    before = file.read_bytes()
    done = run_review(masks, *flags(scenes), "--decisions", file)
    assert done.returncode == 1 and "this file belongs to another program" in done.stderr
    assert file.read_bytes() == before and os.listdir(masks.parent).count("bookmarks.sqlite-journal") == 0


def test_a_box_that_is_no_number_costs_nothing_else(scenes: Annotations, tmp_path: Path) -> None:
    scenes = replace(scenes, boxes=scenes.boxes.copy())
    scenes.boxes[1] = np.nan, 3, np.inf, 9
    service = ReviewService(Review(scenes, DecisionStore(tmp_path / "a.sqlite")), None, ReviewConfig())
    assert service.detail(1)["box"] == [0, 3, 0, 9]
    json.dumps([service.detail(0), service.image_detail(0)], allow_nan=False)
    assert service.change(1, 0, SetState(kind="state", state="deleted"))["state"] == "deleted"


def test_a_stroke_that_changes_nothing_is_no_decision(scenes: Annotations, tmp_path: Path) -> None:
    service = ReviewService(Review(scenes, DecisionStore(tmp_path / "a.sqlite")), None, ReviewConfig())
    x, y = ((scenes.boxes[0, :2] + scenes.boxes[0, 2:]) / 2).tolist()
    inside = Stroke(kind="brush", points=[(x, y)], radius=2, add=True)
    with pytest.raises(BoxelError, match="this changes nothing in the mask"):
        service.change(0, 0, inside)
    assert service.review.entry(0).version == 0
    assert service.change(0, 0, inside.model_copy(update={"add": False}))["corrected"]
