"""Label Studio as the client: requests as its version 1.23 sends them, and images where it has them."""

import json
import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray

from boxel import BoxSegmenter, __version__
from boxel.cli import main
from boxel.data.formats.brush import decode_brush
from boxel.masks.rle import mask_iou, to_rle
from boxel.serving.serve import listen_announced

Server: TypeAlias = Any  # of conftest.py

BOX = [12.8, 19.2, 76.8, 76.8]  # of the requests
KEY = "0123456789abcdef0123456789abcdef01234567"
BASIC = {"authorization": "Basic Ym94ZWw6c2VjcmV0"}  # boxel:secret


@pytest.fixture(scope="module")
def server(serve: Any, photos: Path) -> Iterator[Server]:
    """A server for the tests that need no flags of their own."""
    with serve("--for", "label-studio", "--images", str(photos)) as running:
        yield running


def rectangle(box: list[float], label: str = "dog", **more: Any) -> dict[str, Any]:
    """A region in an image of 128 x 96 pixels."""
    x0, y0, x1, y1 = box
    value = {"x": x0 / 1.28, "y": y0 / 0.96, "width": (x1 - x0) / 1.28, "height": (y1 - y0) / 0.96}
    return {
        "id": "a",
        "type": "rectanglelabels",
        "value": value | {"rotation": 0, "rectanglelabels": [label]} | more,
    }


def masks(answer: dict[str, Any], task: int = 0) -> list[NDArray[np.bool_]]:
    """The masks of an answer."""
    return [
        decode_brush(region["value"]["rle"], region["original_height"], region["original_width"])
        for region in answer["results"][task]["result"]
    ]


# --- Connecting


def test_the_server_introduces_itself(server: Server, load: Any) -> None:
    version = f"boxel {__version__} boxcaseg"
    assert server.request("GET", "/health") == (200, {"status": "UP", "model_class": "boxel"})
    setup = load("label_studio_setup", STUDIO="http://localhost:8080")
    assert server.request("POST", "/setup", setup) == (200, {"model_version": version})
    assert server.request("GET", "/versions") == (200, {"versions": [version]})
    assert server.request("POST", "/webhook", {"action": "ANNOTATION_CREATED"}) == (200, {})


def test_a_token_is_the_password_of_each_request(serve: Any, load: Any, data_uri: str) -> None:
    with serve("--for", "label-studio", "--token", "secret", "--teacher", "ellipse") as server:
        request = load("label_studio_drawn", IMAGE=data_uri)
        for headers in ({}, {"authorization": "Basic Ym94ZWw6d3Jvbmc="}, {"authorization": "Basic ?"}):
            for method, path in (("GET", "/health"), ("POST", "/predict")):
                status, answer = server.request(method, path, request if method == "POST" else None, headers)
                assert status == 401 and "token" in answer["error"]
        assert server.request("GET", "/health", headers=BASIC)[0] == 200
        assert server.request("POST", "/predict", request, BASIC)[0] == 200
    assert "secret" not in server.out + server.err


# --- Masks


def test_a_drawn_box_gets_the_mask_of_the_segmenter(
    server: Server, load: Any, data_uri: str, segmenter: BoxSegmenter, pixels: NDArray[np.uint8]
) -> None:
    status, answer = server.request("POST", "/predict", load("label_studio_drawn", IMAGE=data_uri))
    assert status == 200
    expected = segmenter(pixels, [BOX])
    (mask,) = masks(answer)
    assert mask.sum() > 500 and np.array_equal(mask, expected.masks[0])
    (region,) = answer["results"][0]["result"]
    quality = round(float(expected.quality[0]), 6)
    assert region.pop("value").pop("brushlabels") == ["dog"] and len(region.pop("id")) >= 8
    assert region == {
        "type": "brushlabels",
        "from_name": "mask",
        "to_name": "img",
        "original_width": 128,
        "original_height": 96,
        "image_rotation": 0,
        "score": quality,
        "meta": {"text": [f"quality {quality:.2f}"]},
    }
    assert answer["results"][0]["score"] == quality
    assert answer["results"][0]["model_version"] == answer["model_version"]


def test_the_boxes_of_a_task_get_a_mask_each(
    server: Server, load: Any, data_uri: str, segmenter: BoxSegmenter, pixels: NDArray[np.uint8]
) -> None:
    other = [40.0, 10.0, 100.0, 60.0]
    request = load("label_studio_drawn", IMAGE=data_uri)
    request["params"]["context"] = None
    (task,) = request["tasks"]
    task["predictions"] = [{"result": [rectangle([1, 1, 9, 9])]}, {"result": [rectangle(other, "cat")]}]

    def predict() -> tuple[list[NDArray[np.bool_]], list[str]]:
        status, answer = server.request("POST", "/predict", request)
        assert status == 200
        labels = [region["value"]["brushlabels"] for region in answer["results"][0]["result"]]
        return masks(answer), [label for (label,) in labels]

    (mask,), labels = predict()  # the latest prediction
    assert labels == ["cat"] and np.array_equal(mask, segmenter(pixels, [other]).masks[0])
    task["annotations"] = [
        {"was_cancelled": True, "result": [rectangle([1, 1, 9, 9])]},
        {"result": [{"id": "b", "type": "choices", "value": {"choices": ["blurred"]}}]},
        {"result": [rectangle(BOX), rectangle(other, "cat")]},
    ]
    both, labels = predict()  # an annotation counts more
    assert labels == ["dog", "cat"] and np.array_equal(both, segmenter(pixels, [BOX, other]).masks)
    task["annotations"][2]["result"] = [rectangle([50, 20, 80, 60], rotation=90)]
    (mask,), _ = predict()  # a rotated box counts as the box around it
    assert np.array_equal(mask, segmenter(pixels, [[10, 20, 50, 50]]).masks[0])


def test_a_project_with_polygons_gets_polygons(
    server: Server, load: Any, data_uri: str, segmenter: BoxSegmenter, pixels: NDArray[np.uint8]
) -> None:
    request = load("label_studio_drawn", IMAGE=data_uri, BrushLabels="PolygonLabels")
    status, answer = server.request("POST", "/predict", request)
    (region,) = answer["results"][0]["result"]
    assert status == 200 and region["type"] == "polygonlabels"
    assert region["value"]["polygonlabels"] == ["dog"] and region["value"]["closed"] is True
    ring = np.array(region["value"]["points"]) * [1.28, 0.96]
    expected = segmenter(pixels, [BOX]).rles[0]
    assert mask_iou(to_rle([ring.ravel().tolist()], 96, 128), expected) > 0.95


def test_nothing_drawn_is_no_prediction(server: Server, load: Any, data_uri: str) -> None:
    request = load("label_studio_drawn", IMAGE=data_uri)
    version = f"boxel {__version__} boxcaseg"
    empty = [{"result": [], "score": 0.0, "model_version": version}]
    outside = rectangle([-50, -50, -10, -10])
    for result in ([], [{"type": "keypointlabels", "value": {"x": 1, "y": 1}}], [outside]):
        request["params"]["context"] = {"result": result}
        assert server.request("POST", "/predict", request)[1]["results"] == empty
        request["params"]["context"] = None
        request["tasks"][0]["annotations"] = [{"result": result}]
        assert server.request("POST", "/predict", request)[1]["results"] == [[]]


def test_a_task_that_has_no_image_costs_only_itself(server: Server, load: Any, data_uri: str) -> None:
    request = load("label_studio_drawn", IMAGE=data_uri)
    good, bad = request["tasks"][0], {"id": 8, "data": {"photo": "data:image/png;base64,AAAA"}}
    request["tasks"] = [good, bad, {"id": 9, "data": {}}, good]
    status, answer = server.request("POST", "/predict", request)
    found = [len(result["result"]) if result else 0 for result in answer["results"]]
    assert status == 200 and found == [1, 0, 0, 1]
    request["tasks"] = [bad]
    status, answer = server.request("POST", "/predict", request)
    assert status == 422 and answer["error"].startswith("the data URI: the image cannot be decoded")


# --- Images


def test_images_come_from_label_studio_with_its_key(
    serve: Any, studio: Any, load: Any, content: bytes, segmenter: BoxSegmenter, pixels: NDArray[np.uint8]
) -> None:
    files = {"/data/upload/3/a%20b.png": content, "/data/local-files/?d=b.png": content, "/x.png": content}
    expected = segmenter(pixels, [BOX]).masks
    with serve("--for", "label-studio") as server, studio(files, f"Token {KEY}") as source:
        status, answer = server.request(
            "POST", "/predict", load("label_studio_drawn", IMAGE="/data/upload/3/a b.png")
        )
        assert status == 422 and answer["error"].startswith("Label Studio has not stated its address")
        assert server.request("POST", "/setup", load("label_studio_setup", STUDIO=source.address))[0] == 200
        places = ("/data/upload/3/a b.png", "upload/3/a b.png", "/data/local-files/?d=b.png")
        for address in (*places, f"{source.address}/x.png"):
            status, answer = server.request("POST", "/predict", load("label_studio_drawn", IMAGE=address))
            assert status == 200 and np.array_equal(masks(answer), expected)
        cloud = load("label_studio_drawn", IMAGE="s3://bucket/c.png")
        assert server.request("POST", "/predict", cloud)[0] == 422
        assert source.seen[-1] == ("/tasks/7/presign/?fileuri=czM6Ly9idWNrZXQvYy5wbmc=", f"Token {KEY}")
        source.key = "Token other"
        status, answer = server.request("POST", "/predict", load("label_studio_drawn", IMAGE="/x.png"))
        assert status == 422 and answer["error"].endswith("set the variable LABEL_STUDIO_API_KEY.")
    assert KEY not in server.out + server.err


def test_a_personal_access_token_is_exchanged(serve: Any, studio: Any, load: Any, content: bytes) -> None:
    with studio({"/x.png": content}, "Bearer short-lived") as source:
        env = {**os.environ, "LABEL_STUDIO_API_KEY": "aaa.bbb.ccc"}
        with serve(
            "--for", "label-studio", "--from", source.address, "--teacher", "ellipse", env=env
        ) as server:
            status, answer = server.request("POST", "/predict", load("label_studio_drawn", IMAGE="/x.png"))
        assert status == 200 and len(masks(answer)) == 1
        assert source.seen == [
            ("/api/token/refresh", json.dumps({"refresh": "aaa.bbb.ccc"})),
            ("/x.png", "Bearer short-lived"),
        ]


@pytest.mark.parametrize("token", [b"[]", b"{}", b'{"access": 3}', b"no JSON"])
def test_a_token_that_is_none_is_refused(
    serve: Any, studio: Any, load: Any, content: bytes, token: bytes
) -> None:
    with studio({"/x.png": content}) as source:
        source.token = token
        env = {**os.environ, "LABEL_STUDIO_API_KEY": "aaa.bbb.ccc"}
        with serve(
            "--for", "label-studio", "--from", source.address, "--teacher", "ellipse", env=env
        ) as server:
            status, answer = server.request("POST", "/predict", load("label_studio_drawn", IMAGE="/x.png"))
    assert status == 422 and answer["error"].startswith("/x.png cannot be fetched (")
    assert [path for path, _ in source.seen] == ["/api/token/refresh"]


def test_local_files_are_read_in_their_folder(
    server: Server, load: Any, photos: Path, segmenter: BoxSegmenter
) -> None:
    file = next(photos.rglob("000001.png"))
    address = f"/data/local-files/?d={file.relative_to(photos).as_posix()}"
    status, answer = server.request("POST", "/predict", load("label_studio_drawn", IMAGE=address))
    assert status == 200 and np.array_equal(masks(answer), segmenter(file, [BOX]).masks)


def test_the_key_goes_to_label_studio_alone(serve: Any, studio: Any, load: Any, content: bytes) -> None:
    with studio({"/x.png": content}) as other, studio({}) as source:
        host = other.address.removeprefix("http://")
        with serve("--for", "label-studio", "--from", host, "--teacher", "ellipse") as server:
            server.request("POST", "/setup", load("label_studio_setup", STUDIO=source.address))
            source.redirects["/moved.png"] = f"{other.address}/x.png"
            for address in (f"{other.address}/x.png", "/moved.png"):
                assert server.request("POST", "/predict", load("label_studio_drawn", IMAGE=address))[0] == 200
        assert other.seen == [("/x.png", None), ("/x.png", None)]
        assert source.seen == [("/moved.png", f"Token {KEY}")]


def test_two_requests_are_answered_at_the_same_time(
    serve: Any, studio: Any, load: Any, content: bytes, segmenter: BoxSegmenter, pixels: NDArray[np.uint8]
) -> None:
    with serve("--for", "label-studio") as server, studio({"/x.png": content}) as source:
        server.request("POST", "/setup", load("label_studio_setup", STUDIO=source.address))
        source.barrier = threading.Barrier(2)  # no image is sent before both are asked for
        first, second = (load("label_studio_drawn", IMAGE="/x.png") for _ in range(2))
        second["params"]["context"]["result"] = [rectangle([40, 10, 100, 60])]
        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(lambda body: server.request("POST", "/predict", body), (first, second)))
        for (status, answer), box in zip(answers, (BOX, [40, 10, 100, 60]), strict=True):
            assert status == 200 and np.array_equal(masks(answer), segmenter(pixels, [box]).masks)


# --- Hostile requests


@pytest.mark.parametrize(
    "address",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://localhost:22/x.png",
        "http://images.example.com@169.254.169.254/",
        "//169.254.169.254/x.png",
        "file:///etc/passwd",
        "ftp://localhost/x.png",
        "/etc/passwd",
        "/data/local-files/?d=../../../../etc/passwd",
        "/data/local-files/?d=/etc/passwd",
        "/data/local-files/?d=%00",
        "/data/local-files/?d=link.png",
        "http://[::1",
        "http://",
        "data:image/png;base64,????",
        "data:image/svg+xml,<svg/>",
        "x" * 100_000,
    ],
)
def test_no_other_file_or_host_is_read(server: Server, load: Any, photos: Path, address: str) -> None:
    link = photos / "link.png"
    if not link.is_symlink():
        (photos.parent / "outside.png").write_bytes(next(photos.rglob("000000.png")).read_bytes())
        link.symlink_to(photos.parent / "outside.png")
    server.request(
        "POST", "/setup", load("label_studio_setup", STUDIO="http://127.0.0.1:9")
    )  # nothing listens
    status, answer = server.request("POST", "/predict", load("label_studio_drawn", IMAGE=address))
    assert status == 422 and len(answer["error"]) < 400
    assert "root:" not in answer["error"] and "\n" not in answer["error"]


def test_a_redirect_leads_to_no_other_host(serve: Any, studio: Any, load: Any, content: bytes) -> None:
    with studio({"/x.png": content}) as other, studio({}) as source:
        with serve("--for", "label-studio", "--teacher", "ellipse") as server:
            server.request("POST", "/setup", load("label_studio_setup", STUDIO=source.address))
            source.redirects |= {"/a": f"{other.address}/x.png", "/b": "file:///etc/passwd", "/c": "/c"}
            status, answer = server.request("POST", "/predict", load("label_studio_drawn", IMAGE="/a"))
            place = other.address.removeprefix("http://")
            what = f"{place} is not a host that images may come from; allow it with `hosts`."
            assert (status, answer) == (422, {"error": what})
            for address in ("/b", "/c"):
                assert server.request("POST", "/predict", load("label_studio_drawn", IMAGE=address))[0] == 422
        assert other.seen == [] and len(source.seen) == 1 + 1 + 4


def test_an_open_server_does_not_believe_an_address(
    serve: Any, studio: Any, load: Any, content: bytes
) -> None:
    flags = ("--for", "label-studio", "--teacher", "ellipse", "--host", "0.0.0.0")
    with studio({"/x.png": content}) as source:
        request = load("label_studio_drawn", IMAGE=f"{source.address}/x.png")
        setup = load("label_studio_setup", STUDIO=source.address)
        with serve(*flags) as server:
            assert server.request("POST", "/setup", setup)[0] == 200
            assert server.request("POST", "/predict", request)[0] == 422 and source.seen == []
        assert "warning: --host 0.0.0.0 is open to other machines" in server.err
        with serve(*flags, "--token", "secret") as server:
            assert server.request("POST", "/setup", setup, BASIC)[0] == 200
            assert server.request("POST", "/predict", request, BASIC)[0] == 200
        assert "open to other machines" not in server.err


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"tasks": 5}, "tasks: "),
        ({"tasks": [{"id": 1}]}, "tasks.0.data: "),
        ({"tasks": [{"id": 1, "data": []}]}, "tasks.0.data: "),
        ({"tasks": [{"id": 1, "data": {}}]}, "task 1 has no image in the field 'photo' of its data."),
        ({"label_config": None}, "label_config: "),
        ({"label_config": "<View"}, "`label_config` is not a labeling configuration"),
        ({"label_config": "<View/>"}, "the project has no BrushLabels"),
        ({"label_config": '<!DOCTYPE x [<!ENTITY a "b">]><View>&a;</View>'}, "`label_config` is not"),
        ({"params": 5}, "params: "),
        ({"params": {"context": {"result": 5}}}, "params.context.result: "),
        (
            {"params": {"context": {"result": [rectangle(BOX, "bird")]}}},
            "the BrushLabels 'mask' of the project have",
        ),
        (
            {"params": {"context": {"result": [rectangle(BOX, x="left")]}}},
            "rectangle 'a' has no box in percent",
        ),
        (
            {"params": {"context": {"result": [rectangle(BOX, x=None)]}}},
            "rectangle 'a' has no box in percent",
        ),
        (
            {"params": {"context": {"result": [{**rectangle(BOX), "image_rotation": 90}]}}},
            "the image is shown rotated",
        ),
    ],
)
def test_malformed_requests_are_answered_in_a_sentence(
    server: Server, load: Any, data_uri: str, change: dict[str, Any], what: str
) -> None:
    status, answer = server.request("POST", "/predict", load("label_studio_drawn", IMAGE=data_uri) | change)
    assert status == 422 and answer["error"].startswith(what), answer


def test_what_is_not_a_request_is_refused(server: Server, load: Any, data_uri: str) -> None:
    request = load("label_studio_drawn", IMAGE=data_uri)
    assert server.request("POST", "/predict", b"{")[0] == 422
    assert server.request("POST", "/predict", b"[" * 100_000)[0] == 400
    assert server.request("POST", "/predict", b"\xff\xfe")[0] == 422
    assert server.request("GET", "/predict")[0] == 405
    assert server.request("POST", "/train", request)[0] == 404
    assert server.request("GET", "/../../etc/passwd")[0] == 404
    huge = server.request("POST", "/predict", b"x", {"content-length": str(10**9)})
    assert huge == (413, {"error": "a request has at most 100,000,000 bytes"})
    for headers in ({"origin": "https://example.com"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}):
        status, answer = server.request("POST", "/predict", request, headers)
        assert status == 403 and "web pages" in answer["error"]
    setup = load("label_studio_setup", STUDIO="file:///etc")
    status, answer = server.request("POST", "/setup", setup)
    assert status == 422 and answer["error"].startswith("`hostname` is file:///etc")
    assert server.request("POST", "/predict", request)[0] == 200


# --- The command


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        (
            [],
            "boxel: give either a model to serve, or with --for the annotation tool: label-studio or cvat.\n",
        ),
        (["--for", "labelme"], "boxel: --for is labelme; give "),
        (["--for", "cvat", "--token", "x", "--host", "no.such.host.invalid"], "boxel: no.such.host.invalid:"),
        (
            ["--for", "label-studio", "--from", "ftp://x"],
            "boxel: --from is ftp://x (not an http address); give hosts",
        ),
        (
            ["--for", "label-studio", "--port", "70000"],
            "boxel: port 70000 cannot be used (ports end at 65535)",
        ),
    ],
)
def test_wrong_flags_are_explained(capsys: pytest.CaptureFixture[str], flags: list[str], what: str) -> None:
    assert main(["serve", *flags, "--teacher", "ellipse"]) == 2
    assert capsys.readouterr().err.startswith(what)


def test_ctrl_c_ends_the_command(serve: Any) -> None:
    with serve("--for", "label-studio", "--teacher", "ellipse") as server:
        pass
    assert server.code == 0 and server.err == ""


def test_another_port_than_the_known_one_is_announced(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        default = taken.getsockname()[1]
        with listen_announced(None, "127.0.0.1", default) as other:
            assert other.getsockname()[1] != default
    assert caplog.messages == [f"port {default} is in use; a free one is taken"]
