"""The snippets of docs/how-to/deploy.md, which need no boxel, find what boxel finds."""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from boxel.exporting import export
from boxel.masks.rle import decode
from boxel.models.box_masks import box_masks

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "deploy.md"
pytestmark = [
    pytest.mark.usefixtures("onnx_installed"),
    pytest.mark.skipif(not PAGE.is_file(), reason="docs/ is not beside the tests"),
]


def snippet(name: str) -> str:
    """The code of a snippet."""
    (code,) = re.findall(rf"<!-- {name} -->\n```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return code


def run(name: str, code: str = "") -> dict:
    """Run a snippet, or a piece of code, in the working folder; what it has defined."""
    code = code or snippet(name)
    assert "boxel" not in code.replace('"boxcaseg.onnx"', "")
    Path("snippet.py").write_text(code)
    return runpy.run_path("snippet.py")


def overlap(mask, other) -> float:
    return (mask & other).sum() / max((mask | other).sum(), 1) if (mask | other).any() else 1.0


@pytest.mark.slow
@pytest.mark.parametrize("factor", [1, 1.25])
def test_boxinst(boxinst, pixels, tmp_path, monkeypatch, factor):
    monkeypatch.chdir(tmp_path)
    size = (round(128 * factor), round(96 * factor))
    Image.fromarray(pixels[100:196, 150:278]).resize(size).save("street.jpg")
    model = boxinst()
    export(model, "model.onnx", ["street.jpg"])
    found, expected = run("boxinst"), model.predict("street.jpg")
    if factor == 1:  # else Pillow and torch shrink it each in a way of its own
        assert len(expected) > 10 and sum(mask.any() for mask in found["masks"]) > 10
        np.testing.assert_array_equal(found["labels"], expected.labels)
        np.testing.assert_allclose(found["boxes"], expected.boxes, atol=0.1)
        overlaps = [overlap(mask, expected.masks[k]) for k, mask in enumerate(found["masks"])]
        assert min(overlaps) > 0.99
    else:
        assert found["masks"][0].shape == size[::-1] and found["boxes"].max() > max(size) / factor


@pytest.mark.slow
def test_openvino(boxinst, pixels, tmp_path, monkeypatch):
    pytest.importorskip("openvino", reason="openvino is not installed: pip install openvino")
    monkeypatch.chdir(tmp_path)
    Image.fromarray(pixels[100:196, 150:278]).save("street.jpg")
    model = boxinst()
    export(model, "model.onnx", ["street.jpg"])
    start, call, _ = snippet("boxinst").partition("boxes, scores, labels, mask_logits, image_index = session")
    assert call
    found, expected = run("", start + snippet("openvino")), model.predict("street.jpg")
    assert len(expected) > 10
    np.testing.assert_array_equal(found["labels"], expected.labels)
    np.testing.assert_allclose(found["boxes"], expected.boxes, atol=0.1)


@pytest.mark.slow
def test_mask_rcnn(mask_rcnn, pixels, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(pixels[100:196, 150:278]).save("street.jpg")
    model = mask_rcnn()
    export(model, "model.onnx", ["street.jpg"])
    start, call, _ = snippet("boxinst").partition('image_index = session.run(None, {"images": images})\n')
    assert call
    start = start.replace('"short_side", "max_size", "mask_stride"', '"short_side", "max_size"')
    start = start.replace("short_side, max_size, stride =", "short_side, max_size =")
    found, expected = run("", start + call + snippet("mask-rcnn")), model.predict("street.jpg")
    assert len(expected) > 10 and sum(mask.any() for mask in found["masks"]) > 10
    np.testing.assert_array_equal(found["labels"], expected.labels)
    np.testing.assert_allclose(found["boxes"], expected.boxes, atol=0.1)
    for mask, other in zip(found["masks"], expected.masks, strict=True):
        assert (mask != other).sum() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("margin", [0.0, 0.25])
def test_boxcaseg(boxcaseg, pixels, tmp_path, monkeypatch, margin):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(pixels[100:196, 150:278]).save("street.jpg")
    # The window is shown pixel by pixel: 64 of them, and half as many more with the margin.
    side = 64 if margin == 0 else 96
    model = boxcaseg(margin=margin, side=side)
    photo, box = np.asarray(Image.open("street.jpg")), np.array([[32.0, 16, 96, 80]])
    with torch.no_grad():  # half of the cells are the object's
        model.heads["shared"][3].bias -= float(np.median(model.soft_masks(photo, box)[0]))
    export(model, "boxcaseg.onnx", ["street.jpg"])
    found = run("boxcaseg")
    assert found["box"].tolist() == box[0].tolist()
    (code,), _ = box_masks(model, photo, box)
    expected = decode(code)[16:80, 32:96] > 0
    assert 0.05 < expected.mean() < 0.95
    assert overlap(found["mask"], expected) > 0.97


@pytest.mark.slow
def test_semantic(segmenter, pixels, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(pixels[100:190, 150:246]).save("street.jpg")
    model = segmenter("fcrn")
    export(model, "segmenter.onnx", ["street.jpg"])
    found, expected = run("semantic"), model.predict("street.jpg")
    assert len(np.unique(expected.labels)) > 1
    np.testing.assert_array_equal(found["labels"][0], expected.labels)
    assert (found["label_map"] == expected.labels).mean() > 0.99
