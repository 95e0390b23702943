"""A model as a web service: COCO JSON, the same as `boxel predict`, and what it refuses."""

import base64
import io
import json
import signal
import struct
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import boxel
from boxel.cli import main
from boxel.models.pretrained import model_folder
from boxel.serving.model import MAX_WAITING

Server: TypeAlias = Any  # of conftest.py

pytestmark = pytest.mark.slow
JPEG = {"content-type": "image/jpeg"}
BASIC = {"authorization": "Basic " + base64.b64encode(b"any:secret").decode()}
BOXES = str(model_folder("boxcaseg") / "model.onnx")


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The bundled BoxInst as a file."""
    pytest.importorskip("onnx", reason="onnx is not installed: pip install 'boxel[onnx]'")
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    boxel.export("boxinst", path)
    return str(path)


@pytest.fixture(scope="module")
def server(serve: Any, detector: str) -> Iterator[Server]:
    """A server of the detector."""
    with serve(detector) as running:
        yield running


def to_png(width: int, height: int) -> bytes:
    """A PNG of zeros, whatever its size: a decompression bomb."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def test_the_server_describes_its_model(server: Server, detector: str) -> None:
    assert server.request("GET", "/health") == (200, {"status": "ok"})
    status, about = server.request("GET", "/")
    assert status == 200 and about["kind"] == "detector" and about["model"] == "model.onnx"
    assert about["categories"] == [{"id": c.id, "name": c.name} for c in boxel.load(detector).categories]
    assert about["max_pixels"] == 64_000_000 and about["boxel"] == boxel.__version__


def test_an_image_becomes_coco(
    server: Server, detector: str, content: bytes, pixels: NDArray[np.uint8]
) -> None:
    status, answer = server.request("POST", "/predict", content, {"content-type": "image/png"})
    assert status == 200 and answer["images"] == [{"id": 1, "width": 128, "height": 96}]
    expected = json.loads(json.dumps(boxel.load(detector).predict(pixels).to_coco(1)))
    assert len(expected) > 1
    assert [{name: row[name] for name in expected[0]} for row in answer["annotations"]] == expected
    assert [row["id"] for row in answer["annotations"]] == list(range(1, len(expected) + 1))
    assert {row["iscrowd"] for row in answer["annotations"]} == {0}
    coded = base64.b64encode(content).decode()
    status, two = server.request("POST", "/predict?score_threshold=0.3", {"images": [coded, coded]})
    kept = [row for row in expected if row["score"] >= 0.3]
    assert status == 200 and 0 < len(kept) < len(expected)
    assert [(row["image_id"], row["score"]) for row in two["annotations"]] == [
        (image, row["score"]) for image in (1, 2) for row in kept
    ]
    (area,) = {row["area"] for row in two["annotations"] if row["score"] == kept[0]["score"]}
    assert area == boxel.load(detector).predict(pixels).masks[0].sum()


def test_masks_of_given_boxes(serve: Any, content: bytes, pixels: NDArray[np.uint8]) -> None:
    boxes = [[12.8, 19.2, 76.8, 76.8], [40, 10, 100, 60]]
    coded = base64.b64encode(content).decode()
    expected = json.loads(json.dumps(boxel.load(BOXES).predict(pixels, boxes).to_coco(1)))
    with serve(BOXES) as server:
        status, answer = server.request("POST", "/predict", {"images": [coded], "boxes": [boxes]})
        assert status == 200
        assert [{name: row[name] for name in expected[0]} for row in answer["annotations"]] == expected
        for body, message in [
            ({"images": [coded]}, "give `boxes`, a list of them for each image"),
            ({"images": [coded], "boxes": [[[0, 0, 5]]]}, "boxes.0.0.3: Field required"),
            (
                {"images": [coded], "boxes": [[[500, 0, 510, 9]]]},
                "a box does not meet the image of 128 x 96 pixels",
            ),
        ]:
            status, answer = server.request("POST", "/predict", body)
            assert status == 422 and message in answer["error"]


def test_fifty_clients_at_once_get_the_answer_of_one(server: Server, content: bytes) -> None:
    expected = server.request("POST", "/predict", content, JPEG)
    busy: list[int] = []

    def ask(client: int) -> tuple[int, Any]:
        while True:
            connection = HTTPConnection("127.0.0.1", server.port, timeout=120)
            connection.request("POST", "/predict", content, JPEG)
            answer = connection.getresponse()
            body = json.loads(answer.read())
            connection.close()
            if answer.status != 503:
                return answer.status, body
            assert body["error"].startswith(f"{MAX_WAITING} requests are waiting; send it again")
            assert answer.headers["retry-after"] == "1"
            busy.append(client)
            time.sleep(1)

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(ask, range(50)))
    assert all(answer == expected for answer in answers) and busy
    assert server.request("GET", "/health")[0] == 200


def test_bombs_and_garbage_cost_a_sentence(server: Server, content: bytes) -> None:
    gray = io.BytesIO()
    Image.new("L", (20, 10)).save(gray, "png")
    for body, headers, message in [
        (to_png(9000, 9000), JPEG, "image 1 has 9000 x 9000 pixels, more than 64,000,000; shrink it."),
        (to_png(60000, 60000), JPEG, "more than 178956970 pixels"),
        (content[:300], JPEG, "image 1: the image is truncated"),
        (b"garbage", JPEG, "not a known image format"),
        (b"", JPEG, "the request has no image; send the bytes of an image file"),
        (b"{", {}, "the body: Invalid JSON"),
        (b'{"images": []}', {}, "images: List should have at least 1 item"),
        (b'{"images": ["%%%"]}', {}, "an image is not base64"),
        (b'{"photos": 1}', {}, "images: Field required"),
        (b'{"images": ["aaaa"], "boxes": [[]]}', {}, "predicts without boxes"),
        (b'{"images": ' + json.dumps(["aaaa"] * 33).encode() + b"}", {}, "at most 32 items"),
    ]:
        status, answer = server.request("POST", "/predict", body, headers)
        assert status == 422 and message in answer["error"] and "\n" not in answer["error"], answer
    for text in ("high", "2", "nan", "-1"):
        status, answer = server.request("POST", f"/predict?score_threshold={text}", content, JPEG)
        assert status == 422 and "score_threshold" in answer["error"]
    assert server.request("POST", "/predict", gray.getvalue(), JPEG)[0] == 200
    assert server.request("GET", "/predict")[0] == 405 and server.request("GET", "/nothing")[0] == 404
    status, answer = server.request("POST", "/predict", b"", {"content-length": "60000001"})
    assert status == 413 and answer["error"] == "a request has at most 60,000,000 bytes"


def test_only_programs_with_the_token_are_answered(serve: Any, content: bytes) -> None:
    with serve(BOXES, "--token", "secret") as server:
        for headers in ({}, {"authorization": "Basic !"}, {"authorization": "Basic YTpi"}):
            assert server.request("GET", "/health", headers=headers)[0] == 401
            assert server.request("POST", "/predict", content, headers)[0] == 401
        assert server.request("GET", "/health", headers=BASIC) == (200, {"status": "ok"})
        for headers in ({"origin": "http://a.b"}, {"sec-fetch-site": "same-origin"}):
            status, answer = server.request("GET", "/", headers=BASIC | headers)
            assert status == 403 and answer["error"].startswith("requests of web pages are refused")
        assert server.request("GET", "/", headers=BASIC | {"host": "evil.example"})[0] == 421


def test_running_requests_are_answered_when_the_server_ends(
    serve: Any, detector: str, content: bytes
) -> None:
    with serve(detector) as server:
        with ThreadPoolExecutor(4) as pool:
            answers = [pool.submit(server.request, "POST", "/predict", content, JPEG) for _ in range(4)]
            time.sleep(0.3)
            server.process.send_signal(signal.SIGTERM)
            assert [answer.result()[0] for answer in answers] == [200] * 4
        server.process.wait(timeout=30)
    assert server.code == 0


def test_a_run_folder_is_served_by_torch(serve: Any, content: bytes) -> None:
    with serve("boxinst") as server:
        status, answer = server.request("POST", "/predict", content, JPEG)
    assert status == 200 and len(answer["annotations"]) > 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("serve", "give either a model to serve, or with --for the annotation tool"),
        ("serve x.onnx --for cvat", "give either a model to serve, or with --for the annotation tool"),
        ("serve x.onnx", "x.onnx: there is no such file; check the path."),
        ("serve x.onnx --teacher boxcaseg", "--teacher does nothing here, since a model is served"),
    ],
)
def test_what_cannot_be_served(line: str, message: str, capsys, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(line.split()) in (1, 2)
    assert message in capsys.readouterr().err
