"""Rotated boxes."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boxel.data.formats.rotated import CORNERS, enclose, find_rotated, rotate_box

SIDES = st.floats(1, 50)


@given(SIDES, SIDES, SIDES, SIDES, st.floats(0, 359), st.booleans())
def test_a_rotated_box_is_found_again_by_its_corners(x, y, width, height, degrees, is_reversed):
    box = [x, y, x + width, y + height]
    center = (x + width / 2, y + height / 2)
    corners = rotate_box(box, degrees, center)
    if is_reversed:
        corners = [corners[k] for k in (0, 3, 2, 1)]
    found = find_rotated({CORNERS: corners}, np.array(enclose(corners)))
    assert found is not None and found[0] == pytest.approx(center, abs=1e-4)
    again = rotate_box(
        [
            found[0][0] - found[1] / 2,
            found[0][1] - found[2] / 2,
            found[0][0] + found[1] / 2,
            found[0][1] + found[2] / 2,
        ],
        found[3],
        found[0],
    )
    for corner in corners:
        assert min(math.dist(corner, other) for other in again) < 1e-3


@pytest.mark.parametrize(
    "corners",
    [
        [[0, 0], [10, 0], [14, 8], [0, 8]],  # not a rectangle
        [[0, 0], [10, 0], [10, 8]],
        [[0, 0, 1], [10, 0, 1], [10, 8, 1], [0, 8, 1]],
        [["a", 0], [10, 0], [10, 8], [0, 8]],
        [[0, 0], [10, 0], [float("nan"), 8], [0, 8]],
        None,
    ],
)
def test_other_corners_are_not_a_rotated_box(corners):
    points = [[x, y] for x, y, *_ in corners or [[0, 0]] if isinstance(x, int)]
    assert find_rotated({CORNERS: corners}, np.array(enclose(points), dtype=float)) is None
