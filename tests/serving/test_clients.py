"""The tools' own packages read the answers; without them, these tests are skipped."""

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from boxel import BoxSegmenter

BOX = [12.8, 19.2, 76.8, 76.8]  # of the requests


def test_label_studios_package_reads_the_regions(
    serve: Any, load: Any, data_uri: str, segmenter: BoxSegmenter, pixels: NDArray[np.uint8]
) -> None:
    brush = pytest.importorskip("label_studio_sdk.converter.brush")
    interface = pytest.importorskip("label_studio_sdk.label_interface").LabelInterface
    with serve("--for", "label-studio") as server:
        for tag in ("BrushLabels", "PolygonLabels"):
            request = load("label_studio_drawn", IMAGE=data_uri, BrushLabels=tag)
            (prediction,) = server.request("POST", "/predict", request)[1]["results"]
            assert (
                interface(request["label_config"]).validate_prediction(prediction, return_errors=True) == []
            )
            if tag == "BrushLabels":
                code = prediction["result"][0]["value"]["rle"]
                alpha = np.reshape(brush.decode_rle(code), (96, 128, 4))[:, :, 3]
                assert np.array_equal(alpha > 0, segmenter(pixels, [BOX]).masks[0])


def test_cvats_package_reads_the_shapes(
    serve: Any, load: Any, photos: Path, content: bytes, segmenter: BoxSegmenter, pixels: NDArray[np.uint8]
) -> None:
    masks = pytest.importorskip("cvat_sdk.masks")
    call = load("cvat_call", IMAGE=base64.b64encode(content).decode())
    with serve("--for", "cvat") as server:
        headers = {"user-agent": "CVAT/2.80.0 python-requests/2.34.2"}
        (shape,) = server.request("POST", "/", call, headers)[1]["shapes"]
    expected = segmenter(pixels, [BOX]).masks[0]
    ys, xs = np.nonzero(expected)
    box = [int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1]
    assert shape["points"] == masks.encode_mask(expected, box)
