"""Boxes and pixels, worked out by hand and against torchvision."""

import numpy as np
import pytest
import torch
import torchvision.ops
from hypothesis import given
from hypothesis import strategies as st

from boxel.masks.boxes import (
    Region,
    box_iou,
    box_to_pixels,
    normalized_box_coords,
    paired_box_iou,
    pixel_region,
    tight_boxes,
)


def test_iou_by_hand():
    boxes = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [10, 0, 20, 10], [2, 2, 4, 4]])
    assert box_iou(boxes, np.array([[0.0, 0, 10, 10]]))[:, 0] == pytest.approx([1, 50 / 150, 0, 4 / 100])
    assert paired_box_iou(boxes, boxes[::-1]) == pytest.approx([0.04, 50 / 150, 50 / 150, 0.04])


@given(st.lists(st.tuples(*[st.integers(0, 50)] * 2, *[st.integers(1, 50)] * 2), min_size=2, max_size=9))
def test_iou_matches_torchvision(drawn):
    boxes = np.array([(x, y, x + w, y + h) for x, y, w, h in drawn])
    peer = torchvision.ops.box_iou(torch.from_numpy(boxes).double(), torch.from_numpy(boxes[:2]).double())
    assert box_iou(boxes, boxes[:2].astype(float)) == pytest.approx(peer.numpy())


@pytest.mark.parametrize("box", [(5, 5, 5, 9), (9, 9, 5, 5), (9, 0, 5, 5), (np.nan, 0, 5, 5)])
def test_iou_of_a_box_without_an_area_is_zero(box):
    boxes = np.array([box, (0, 0, 10, 10)], dtype=float)
    assert box_iou(boxes, boxes)[0].tolist() == [0, 0]


def test_no_boxes():
    none = np.zeros((0, 4))
    assert box_iou(none, np.zeros((3, 4))).shape == (0, 3)
    assert box_to_pixels(none, 5, 5).shape == tight_boxes([]).shape == (0, 4)


def test_normalized_coords_are_one_at_the_sides():
    u, v = normalized_box_coords(np.array([10.0, 20, 30, 24]), np.array([10.0, 20, 25]), np.array([24.0, 21]))
    assert u.tolist() == [1, 0, 0.5] and v.tolist() == [[1], [0.5]]


def test_normalized_coords_are_huge_beside_a_box_without_a_width():
    u, _ = normalized_box_coords(np.array([10.0, 0, 10, 5]), np.array([10.0, 10.5]), np.array([1.0]))
    assert u[0] == 0 and u[1] > 1e5


@pytest.mark.parametrize(
    ("box", "margin", "region"),
    [
        ((2, 1, 5, 4), 0, (2, 1, 5, 4)),
        ((2.4, 1.5, 4.6, 3.5), 0, (2, 1, 5, 3)),  # the centers of columns 2 to 4, and of rows 1 and 2
        ((2.6, 1.6, 4.4, 3.4), 0, (3, 2, 4, 3)),
        ((-3, -2, 20, 30), 0, (0, 0, 10, 8)),
        ((2, 2, 6, 4), 0.25, (1, 1, 7, 4)),  # rows from 1.5 to 4.5: the center of row 1 is in, of row 4 not
        ((2, 2, 6, 6), -0.25, (3, 3, 5, 5)),
        ((3.6, 2.6, 4.2, 3.2), 0, (3, 2, 4, 3)),  # holds no center: the pixel of its middle
        ((-5, 20, -1, 30), 0, (0, 7, 1, 8)),  # outside: the nearest pixel
    ],
)
def test_a_region_is_the_pixels_whose_center_is_in_the_box(box, margin, region):
    assert pixel_region(box, 8, 10, margin) == Region(*region)


@given(
    st.tuples(*[st.floats(-20, 60)] * 2), st.tuples(*[st.floats(0.01, 50)] * 2), st.floats(0, 0.5), st.data()
)
def test_every_region_has_a_pixel_of_the_image(corner, extent, margin, data):
    height, width = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    box = np.array([*corner, corner[0] + extent[0], corner[1] + extent[1]])
    left, top, right, bottom = region = pixel_region(box, height, width, margin)
    assert 0 <= left < right <= width and 0 <= top < bottom <= height
    pixels = box_to_pixels(box, height, width)
    if margin == 0 and (pixels[2:] > pixels[:2]).all():
        assert tuple(pixels) == region


def test_the_shape_of_a_region_is_rows_and_columns():
    assert Region(2, 5, 10, 6).shape == (1, 8)
    assert np.zeros((9, 12))[Region(2, 5, 10, 6).slices].shape == (1, 8)


def test_tight_boxes_match_torchvision():
    masks = np.random.default_rng(0).random((8, 9, 7)) > 0.9
    masks[:, 4, 3] = True
    expected = torchvision.ops.masks_to_boxes(torch.from_numpy(masks)) + torch.tensor([0, 0, 1, 1])
    np.testing.assert_array_equal(tight_boxes(masks), expected)
    np.testing.assert_array_equal(tight_boxes(masks.astype(np.uint8)), expected)
    assert tight_boxes(np.zeros((1, 4, 4), bool)).tolist() == [[0, 0, 0, 0]]
