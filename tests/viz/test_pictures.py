"""Pictures of masks: which part of the image they show, what is painted, what a bad one costs."""

from base64 import b64decode
from dataclasses import replace
from io import BytesIO

import msgspec
import numpy as np
import pytest
from PIL import Image

from boxel.masks.rle import encode
from boxel.viz.report import pictures
from boxel.viz.report.pictures import SIDE, draw_masks

BOX = (80, 60, 120, 100)  # with its margin 56 x 56 pixels: (72, 52) to (128, 108)


def opened(picture):
    assert isinstance(picture, dict), picture
    head, _, data = picture["mask"].partition(",")
    assert head == "data:image/webp;base64"
    with Image.open(BytesIO(b64decode(data))) as image:
        assert image.format == "WEBP"
        return np.asarray(image.convert("RGB")).astype(int)


def paint_gradient(data):
    """Replace the first image by one whose red is a pixel's column and whose green is its row."""
    x, y = np.meshgrid(np.arange(data.widths[0]), np.arange(data.heights[0]))
    Image.fromarray(np.stack([x, y, 0 * x], 2).astype(np.uint8)).save(data.image_path(0))


def ends(shown):
    """Columns and rows of the photo at a picture's corners, off the box's lines."""
    return shown[2, 2, :2].tolist() + shown[-3, -3, :2].tolist()


def test_a_picture_shows_the_box_and_its_margin(make_set):
    data = make_set([(0, 0, BOX, 0.5, "a", True)])
    paint_gradient(data)
    shown = opened(draw_masks(data, [0])[0])
    assert shown.shape == (SIDE, SIDE, 3)
    np.testing.assert_allclose(ends(shown), [72, 52, 128, 108], atol=4)


@pytest.mark.parametrize(
    ("box", "corners", "shape"),
    [
        ((4, 4, 24, 24), [0, 0, 48, 48], (SIDE, SIDE)),  # moved into the image, and not closer than 48 pixels
        ((176, 136, 196, 156), [152, 112, 200, 160], (SIDE, SIDE)),
        ((20, 70, 180, 90), [0, 0, 200, 160], (343, 429)),  # 224 pixels, of which the image has 160 and 200
    ],
)
def test_pictures_at_the_border_stay_in_the_image(make_set, box, corners, shape):
    data = make_set([(0, 0, box, 0.5, "a", True)])
    paint_gradient(data)
    shown = opened(draw_masks(data, [0])[0])
    np.testing.assert_allclose(shown.shape[:2], shape, atol=1)
    np.testing.assert_allclose(ends(shown), corners, atol=5)


def test_only_the_mask_is_tinted(make_set):
    data = make_set([(0, 0, BOX, 0.5, "a", True)])
    half = data.mask(0).copy()
    half[:, 100:] = 0
    left = replace(data, segmentations=np.array([msgspec.json.encode(encode(half))], dtype=object))
    shown = opened(draw_masks(left, [0])[0])
    middle = SIDE // 2
    away = np.abs(shown - 128).max(axis=2)
    assert away[middle, middle - 60] > 20  # in the mask
    assert away[middle, middle + 60] < 6  # in the box, beside the mask
    assert away[10, 10] < 6
    across = np.flatnonzero(away[middle, middle + 60 :] > 20) + middle + 60
    np.testing.assert_allclose(across.mean(), (120 - 72) / 56 * SIDE, atol=3)  # the box's right side


def test_each_image_is_read_once_and_no_other(make_set, monkeypatch):
    rows = [(k % 3, 0, BOX, 0.5, "a", True) for k in range(9)]
    data = make_set(rows, images=4)
    read = []
    plain = pictures.read_image
    monkeypatch.setattr(pictures, "read_image", lambda path: read.append(path.name) or plain(path))
    drawn = draw_masks(data, [8, 0, 3, 2, 6])
    assert set(drawn) == {0, 2, 3, 6, 8}
    assert read == ["0.png", "2.png"]


def test_a_bad_image_or_mask_costs_its_own_picture(make_set):
    rows = [(k, 0, BOX, 0.5, "a", True) for k in range(4)]
    data = make_set(rows, images=4)
    data.image_path(0).unlink()
    data.image_path(1).write_bytes(b"no image")
    Image.new("RGB", (50, 50)).save(data.image_path(2))
    drawn = draw_masks(data, range(4))
    assert "0.png: the image is missing" in drawn[0]
    assert "1.png: the image cannot be decoded" in drawn[1]
    assert "the segmentation of annotation 102 (image 3) cannot be read" in drawn[2]
    assert opened(drawn[3]).shape == (SIDE, SIDE, 3)


@pytest.mark.parametrize(
    ("box", "shape"),
    [
        ((-1e9, -1e9, 1e9, 1e9), (274, 343)),  # the whole image and its margin, 280 pixels
        ((500, 500, 600, 600), (SIDE, SIDE)),
        ((30.2, 30.1, 30.3, 30.2), (SIDE, SIDE)),
    ],
)
def test_boxes_of_any_numbers(make_set, box, shape):
    data = make_set([(0, 0, BOX, 0.5, "a", True)])
    shown = opened(draw_masks(replace(data, boxes=np.array([box], dtype=float)), [0])[0])
    np.testing.assert_allclose(shown.shape[:2], shape, atol=1)
