"""Connected components, and the removal of small ones."""

import cv2
import numpy as np
import pytest
from scipy import ndimage

from boxel.masks.components import find_components, remove_small_components


def text(mask):
    return ["".join("#" if pixel else "." for pixel in row) for row in mask]


def parse_mask(*rows):
    return np.array([[sign == "#" for sign in row] for row in rows])


def test_small_components_are_removed_and_holes_kept():
    mask = parse_mask(
        "#####..#",
        "#...#...",
        "#.#.#...",
        "#...#..#",
        "#####.##",
    )
    # Of 21 pixels the ring has 16, the corner 3, the dot in the hole and the dot at the top 1 each.
    assert text(remove_small_components(mask, 0)) == text(mask)
    assert text(remove_small_components(mask, 0.05)) == [
        "#####...",
        "#...#...",
        "#...#...",
        "#...#..#",
        "#####.##",
    ]
    ring = text(remove_small_components(mask, 0.2))
    assert ring == ["#####...", "#...#...", "#...#...", "#...#...", "#####..."]


def test_components_are_8_connected():
    assert remove_small_components(parse_mask("##..", "##..", "..#."), 0.5)[2, 2]


def test_the_largest_component_is_never_removed():
    assert text(remove_small_components(parse_mask("#.#.##"), 1)) == ["....##"]


@pytest.mark.parametrize("density", [0.02, 0.3, 0.5, 0.7, 0.98])
@pytest.mark.parametrize("shape", [(1, 50), (50, 1), (60, 80)])
def test_components_match_scipy(density, shape):
    """Nested, touching at corners, one pixel thin, at the border."""
    mask = np.random.default_rng(0).random(shape) < density
    for drawn in (mask, cv2.dilate(mask.astype(np.uint8), np.ones((3, 3))) > 0, ~mask):
        parts, count = ndimage.label(drawn, np.ones((3, 3)))
        areas = ndimage.sum_labels(drawn, parts, np.arange(1, count + 1))
        assert sorted(find_components(drawn).areas) == sorted(areas)
        expected = np.isin(parts, 1 + np.flatnonzero(areas >= min(0.01 * drawn.sum(), areas.max(initial=0))))
        np.testing.assert_array_equal(remove_small_components(drawn, 0.01), expected)


def test_an_empty_mask_has_no_components():
    assert len(find_components(np.zeros((3, 4), bool)).areas) == 0
    assert not remove_small_components(np.zeros((3, 4), bool), 0.5).any()
