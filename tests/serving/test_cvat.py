"""CVAT as the client: what its server reads of a function, and how it calls one."""

import base64
import json
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray

from boxel import BoxSegmenter
from boxel.data.formats.row_runs import decode_rows

Server: TypeAlias = Any  # of conftest.py

BOX = [12.8, 19.2, 76.8, 76.8]  # of the request
OTHER = [40.0, 10.0, 100.0, 60.0]
OLD, NEW = ({"user-agent": f"CVAT/{version} python-requests/2.34.2"} for version in ("2.58.0", "2.80.0"))
THROUGH_DASHBOARD = {"x-nuclio-function-name": "boxel", "x-nuclio-path": "/"}


@pytest.fixture(scope="module")
def server(serve: Any) -> Iterator[Server]:
    """A server for all tests of this file."""
    with serve("--for", "cvat") as running:
        yield running


@pytest.fixture()
def call(load: Any, content: bytes) -> dict[str, Any]:
    """The recorded call."""
    return load("cvat_call", IMAGE=base64.b64encode(content).decode())


def to_mask(points: list[int]) -> NDArray[np.bool_]:
    """A mask of CVAT in an image of 128 x 96 pixels: runs along the rows of its box, and the box, ends included."""
    *runs, left, top, right, bottom = points
    mask = np.zeros((96, 128), dtype=bool)
    height, width = bottom - top + 1, right - left + 1
    mask[top : bottom + 1, left : right + 1] = decode_rows(",".join(map(str, runs)), height, width)
    return mask


def test_cvat_finds_an_interactor_that_starts_with_a_box(server: Server) -> None:
    status, functions = server.request("GET", "/api/functions")
    assert status == 200 and list(functions) == ["boxel"]
    assert server.request("GET", "/api/functions/boxel") == (200, functions["boxel"])
    function = functions["boxel"]
    # As LambdaFunction of CVAT's server reads it.
    annotations = function["metadata"]["annotations"]
    assert function["metadata"]["name"] == "boxel" and all(isinstance(v, str) for v in annotations.values())
    assert annotations["type"] == "interactor" and json.loads(annotations["spec"] or "[]") == []
    assert int(annotations["min_pos_points"]) == 0 and int(annotations["min_neg_points"]) == -1
    assert bool(annotations["startswith_box"]) and "startswith_box_optional" not in annotations
    assert int(annotations["version"]) == 2 and annotations["name"] == "boxel (boxcaseg)"
    assert function["spec"]["description"] and function["status"] == {
        "state": "ready",
        "httpPort": server.port,
    }
    status, answer = server.request("GET", "/api/functions/sam")
    assert status == 404 and answer["error"] == "there is no function 'sam', only 'boxel'"


@pytest.mark.parametrize("headers", [{}, OLD], ids=["unknown", "old"])
def test_older_versions_get_a_mask_of_the_whole_image(
    server: Server,
    call: dict[str, Any],
    segmenter: BoxSegmenter,
    pixels: NDArray[np.uint8],
    headers: dict[str, str],
) -> None:
    expected = segmenter(pixels, [BOX])
    status, answer = server.request("POST", "/api/function_invocations", call, THROUGH_DASHBOARD | headers)
    assert status == 200 and set(answer) == {"mask", "confidence"}
    mask = np.array(answer["mask"])
    assert mask.sum() > 500 and np.array_equal(mask, expected.masks[0].astype(int))
    assert answer["confidence"] == round(float(expected.quality[0]), 6)
    assert server.request("POST", "/", call, headers) == (200, answer)  # CVAT_NUCLIO_INVOKE_METHOD=direct
    call["obj_bbox"] = [[76.8, 19.2], [12.8, 76.8]]  # other corners of the same box
    assert server.request("POST", "/", call, headers) == (200, answer)


def test_newer_versions_get_a_shape_of_each_box(
    server: Server, call: dict[str, Any], segmenter: BoxSegmenter, pixels: NDArray[np.uint8]
) -> None:
    call["obj_bbox"] += [OTHER[:2], OTHER[2:], [-9, -9], [-1, -1]]
    expected = segmenter(pixels, [BOX, OTHER])
    status, answer = server.request("POST", "/api/function_invocations", call, THROUGH_DASHBOARD | NEW)
    shapes = answer.pop("shapes")
    assert status == 200 and answer == {} and [shape["type"] for shape in shapes] == ["mask"] * 2
    assert np.array_equal([to_mask(shape["points"]) for shape in shapes], expected.masks)
    for shape, quality in zip(shapes, expected.quality, strict=True):
        assert shape["attributes"] == [{"spec_id": 0, "value": f"{quality:.3f}"}]
    status, answer = server.request("POST", "/", call, OLD)
    assert np.array_equal(answer["mask"], expected.masks.any(axis=0).astype(int))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"obj_bbox": None}, "the call has no box; draw one around the object."),
        ({"obj_bbox": []}, "the call has no box"),
        ({"obj_bbox": [[1, 2]]}, "the call has no box"),
        ({"obj_bbox": [[1, 2, 3, 4]]}, "obj_bbox.0: "),
        ({"obj_bbox": "1,2"}, "obj_bbox: "),
        ({"obj_bbox": [[1, 2]] * 202}, "obj_bbox: "),
        ({"image": None}, "image: "),
        ({"image": "????"}, "the image of the call is not base64"),
        ({"image": "AAAA"}, "the image of the call: the image cannot be decoded"),
        ({"image": ""}, "the image of the call: the file has zero bytes"),
    ],
)
def test_malformed_calls_are_answered_in_a_sentence(
    server: Server, call: dict[str, Any], change: dict[str, Any], what: str
) -> None:
    status, answer = server.request("POST", "/api/function_invocations", call | change, THROUGH_DASHBOARD)
    assert status == 422 and answer["error"].startswith(what), answer


def test_only_this_function_can_be_called(server: Server, call: dict[str, Any]) -> None:
    headers = {"x-nuclio-function-name": "sam"}
    status, answer = server.request("POST", "/api/function_invocations", call, headers)
    assert status == 404 and answer["error"] == "there is no function 'sam', only 'boxel'"


def test_a_token_fits_into_the_host_that_cvat_is_given(serve: Any, call: dict[str, Any]) -> None:
    requests = pytest.importorskip("requests")
    with serve("--for", "cvat", "--token", "secret", "--teacher", "ellipse") as server:
        # CVAT puts its address together like this, of CVAT_NUCLIO_SCHEME, CVAT_NUCLIO_HOST and CVAT_NUCLIO_PORT.
        for host, status in (("boxel:secret@127.0.0.1", 200), ("127.0.0.1", 401)):
            address = "{}://{}:{}".format("http", host, server.port)
            assert requests.get(f"{address}/api/functions", timeout=9).status_code == status
            assert (
                requests.post(f"{address}/api/function_invocations", json=call, timeout=9).status_code
                == status
            )
