"""Teachers of shapes, drawn out by hand."""

import numpy as np
import pytest

from boxel.labeling.teachers import baselines
from boxel.masks.boxes import Region

IMAGE = np.zeros((8, 10, 3), dtype=np.uint8)


def drawn(soft, region=None):
    """Rows of text: # for object, . for background, ? for no opinion."""
    logits = soft.resample(region or Region(0, 0, 10, 8))
    assert logits.dtype == np.float32
    assert set(np.unique(logits[~np.isnan(logits)])) <= {10.0, -10.0}
    signs = np.where(np.isnan(logits), "?", np.where(logits > 0, "#", "."))
    return ["".join(row) for row in signs]


def test_a_rectangle_holds_the_pixels_whose_center_is_in_the_box():
    assert drawn(baselines.rectangle(IMAGE, np.array([2.4, 1.6, 6.6, 4.4]))) == [
        "..........",
        "..........",
        "..#####...",
        "..#####...",
        *[".........."] * 4,
    ]


def test_a_shape_ends_at_the_border_of_the_box_and_image():
    assert drawn(baselines.rectangle(IMAGE, np.array([-5.0, -5, 2, 1])), Region(0, 0, 4, 3)) == [
        "##..",
        "....",
        "....",
    ]
    whole = baselines.rectangle(IMAGE, np.array([0.0, 0, 10, 8]))
    assert drawn(whole) == ["#" * 10] * 8


def test_an_ellipse_holds_the_pixels_whose_center_is_in_it():
    # Of a circle of radius 3 about (4, 4): distances of middles are sqrt(k + 1/2) and the like; (2.5, 1.5) is
    # 2.92 away and in it, (2.5, 2.5) is 3.54 away and not.
    assert drawn(baselines.ellipse(IMAGE, np.array([1.0, 1, 7, 7]))) == [
        "..........",
        "..####....",
        ".######...",
        ".######...",
        ".######...",
        ".######...",
        "..####....",
        "..........",
    ]


def test_an_ellipse_touches_a_box_that_reaches_past_the_image():
    """Half of it is outside: the image has the right half of the circle above."""
    assert drawn(baselines.ellipse(IMAGE, np.array([-3.0, 1, 3, 7])), Region(0, 0, 4, 8)) == [
        "....",
        "##..",
        "###.",
        "###.",
        "###.",
        "###.",
        "##..",
        "....",
    ]


def test_an_ellipse_of_many_pixels_fills_pi_quarters_of_its_box():
    soft = baselines.ellipse(np.zeros((300, 500, 3), np.uint8), np.array([20.0, 30, 460, 270]))
    assert (soft.logits > 0).sum() == pytest.approx(np.pi / 4 * 440 * 240, rel=1e-3)


@pytest.mark.parametrize("shape", [baselines.rectangle, baselines.ellipse, baselines.inner_box])
def test_a_box_between_pixel_centers_gives_one_pixel(shape):
    soft = shape(IMAGE, np.array([3.6, 2.6, 4.2, 3.2]))
    assert [row.count("#") for row in drawn(soft)] == [0, 0, 1, 0, 0, 0, 0, 0]


def test_the_inner_box_has_no_opinion_on_the_rest_of_the_box():
    # 0.447 of 9 x 7 is 4.02 x 3.13, about (4.5, 3.5): from 2.49 to 6.51 and from 1.93 to 5.07.
    assert drawn(baselines.inner_box(IMAGE, np.array([0.0, 0, 9, 7]))) == [
        "?????????.",
        "?????????.",
        "??#####??.",
        "??#####??.",
        "??#####??.",
        "?????????.",
        "?????????.",
        "..........",
    ]


def test_the_inner_box_is_a_fifth_of_the_box():
    soft = baselines.inner_box(np.zeros((300, 500, 3), np.uint8), np.array([20.0, 30, 460, 270]))
    assert (soft.logits == 10).sum() == pytest.approx(0.2 * 440 * 240, rel=0.02)
    assert np.isnan(soft.logits).sum() == 440 * 240 - (soft.logits == 10).sum()


def test_the_inner_box_is_that_of_the_visible_part():
    left = drawn(baselines.inner_box(IMAGE, np.array([-30.0, 0, 5, 7])))
    assert left == drawn(baselines.inner_box(IMAGE, np.array([0.0, 0, 5, 7])))
    assert left[3] == "?###?....."
