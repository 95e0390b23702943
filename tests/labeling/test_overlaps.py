"""Overlaps and box agreement on drawn cases."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boxel.labeling.overlaps import PlacedMask, box_agreement, resolve_by_confidence, resolve_by_size
from boxel.masks.boxes import Region, pixel_region


def piece(box, *rows, at=None):
    """A mask drawn in text, # for the object, in the region that starts at the box's corner."""
    mask = np.array([[sign == "#" for sign in row] for row in rows])
    left, top = at or (int(box[0]), int(box[1]))
    region = Region(left, top, left + mask.shape[1], top + mask.shape[0])
    return PlacedMask(np.array(box, dtype=np.float64), region, mask)


def drawn(mask):
    return ["".join("#" if pixel else "." for pixel in row) for row in mask]


def test_each_pixel_belongs_to_the_smallest_object():
    sofa = piece((0, 0, 6, 4), "######", "######", "######", "######")
    person = piece((2, 0, 5, 3), "###", ".##", ".#.")
    dog = piece((4, 1, 6, 3), "##", "##")
    left = [drawn(mask) for mask in resolve_by_size([sofa, person, dog], 6, 8)]
    assert left == [["##...#", "###...", "###...", "######"], ["###", ".#.", ".#."], ["##", "##"]]


def test_the_size_is_that_of_the_box_not_of_the_mask():
    thin = piece((0, 0, 4, 4), "#...", "####", "....", "....")
    full = piece((0, 0, 3, 3), "###", "###", "###")
    left = resolve_by_size([thin, full], 4, 4)
    assert drawn(left[0]) == ["....", "...#", "....", "...."] and left[1].all()


def test_the_later_of_two_boxes_of_equal_area_lies_on_top():
    left = resolve_by_size([piece((0, 0, 2, 1), "##"), piece((1, 0, 3, 1), "##")], 1, 3)
    assert [drawn(mask) for mask in left] == [["#."], ["##"]]


def test_masks_without_overlaps_do_not_change():
    apart = [piece((0, 0, 2, 2), "#.", "##"), piece((3, 3, 4, 4), "#")]
    assert [drawn(mask) for mask in resolve_by_size(apart, 5, 5)] == [["#.", "##"], ["#"]]
    assert resolve_by_size([], 5, 5) == []


def test_a_pixel_leaves_the_larger_object_if_the_smaller_is_as_confident():
    sofa, dog = piece((0, 0, 4, 2), "####", "####"), piece((2, 0, 4, 2), "##", "##")
    of_sofa = np.array([[0.9, 0.9, 0.9, 0.7], [0.9, 0.9, 0.8, 0.6]])
    of_dog = np.array([[0.7, 0.8], [0.8, 0.9]])
    for pieces, grids in [([sofa, dog], [of_sofa, of_dog]), ([dog, sofa], [of_dog, of_sofa])]:
        left = dict(
            zip(map(id, pieces), resolve_by_confidence(pieces, from_grids(pieces, grids)), strict=True)
        )
        assert drawn(left[id(sofa)]) == ["###.", "##.."]
        assert left[id(dog)].all()
    assert sofa.mask.all()


def from_grid(piece, grid):
    """The confidence of a piece, from a grid over its region."""
    left, top = piece.region[:2]
    return lambda part: grid[part.top - top : part.bottom - top, part.left - left : part.right - left]


def from_grids(pieces, grids):
    return [from_grid(piece, grid) for piece, grid in zip(pieces, grids, strict=True)]


def by_index(pieces):
    """Each object is more confident than those before it."""
    return from_grids(pieces, [np.full(piece.mask.shape, index) for index, piece in enumerate(pieces, 1)])


def test_only_pixels_of_both_masks_change():
    both = [piece((0, 0, 4, 2), "##.#", "####"), piece((2, 0, 4, 2), "##", "#.")]
    assert [drawn(mask) for mask in resolve_by_confidence(both, by_index(both))] == [
        ["##..", "##.#"],
        ["##", "#."],
    ]


def test_an_object_yields_to_all_smaller_and_more_confident_ones():
    room, sofa, dog = piece((0, 0, 6, 1), "######"), piece((1, 0, 5, 1), "####"), piece((3, 0, 5, 1), "##")
    confidence = [np.full((1, 6), 0.7), np.array([[0.6, 0.8, 0.8, 0.6]]), np.array([[0.9, 0.65]])]
    # The dog takes the fourth column from both, and the fifth from the sofa alone: the room is more confident of it.
    pieces = [room, sofa, dog]
    left = [drawn(mask) for mask in resolve_by_confidence(pieces, from_grids(pieces, confidence))]
    assert left == [["##..##"], ["##.."], ["##"]]


def test_boxes_of_equal_area_keep_their_pixels():
    both = [piece((0, 0, 2, 1), "##"), piece((1, 0, 3, 1), "##")]
    assert (
        all(mask.all() for mask in resolve_by_confidence(both, by_index(both)))
        and resolve_by_confidence([], []) == []
    )


BOXES = st.lists(st.tuples(*[st.floats(0, 18)] * 2, *[st.floats(1, 12)] * 2), max_size=8)


def random_pieces(rng, boxes):
    pieces = []
    for x, y, w, h in boxes:
        box = np.array([x, y, x + w, y + h])
        region = pixel_region(box, 20, 20)
        pieces.append(PlacedMask(box, region, rng.random(region.shape) < 0.6))
    return pieces


def on_image(piece, grid):
    whole = np.zeros((20, 20), dtype=grid.dtype)
    whole[piece.region.slices] = grid
    return whole


@given(BOXES, st.integers(0, 99))
def test_painting_by_confidence_compares_each_pair_of_masks(boxes, seed):
    rng = np.random.default_rng(seed)
    pieces = random_pieces(rng, boxes)
    grids = [rng.integers(1, 5, piece.mask.shape) / 4 for piece in pieces]
    left = resolve_by_confidence(pieces, from_grids(pieces, grids))
    areas = [(piece.box[2] - piece.box[0]) * (piece.box[3] - piece.box[1]) for piece in pieces]
    masks = [on_image(*pair) for pair in zip(pieces, (piece.mask for piece in pieces), strict=True)]
    confidence = [on_image(*pair) for pair in zip(pieces, grids, strict=True)]
    for large, expected in enumerate([mask.copy() for mask in masks]):
        for small in range(len(pieces)):
            if areas[small] < areas[large]:
                expected &= ~(masks[small] & (confidence[small] >= confidence[large]))
        np.testing.assert_array_equal(on_image(pieces[large], left[large]), expected)


@given(BOXES, st.integers(0, 99))
def test_resolving_by_size_partitions_the_covered_pixels(boxes, seed):
    pieces = random_pieces(np.random.default_rng(seed), boxes)
    left = resolve_by_size(pieces, 20, 20)
    before, after = np.zeros((20, 20), dtype=int), np.zeros((20, 20), dtype=int)
    for one, mask in zip(pieces, left, strict=True):
        part = np.s_[one.region.top : one.region.bottom, one.region.left : one.region.right]
        before[part] += one.mask
        after[part] += mask
        assert not (mask & ~one.mask).any()
    np.testing.assert_array_equal(after, before > 0)


def test_agreement_is_the_iou_of_tight_box_and_box():
    full = piece((1, 1, 5, 5), "####", "####", "####", "####")
    assert box_agreement(full) == 1
    # What is drawn spans 3 x 2 of the 4 x 4 pixels.
    assert box_agreement(piece((1, 1, 5, 5), "....", "#...", "..#.", "....")) == 6 / 16
    # In a region with a margin of a pixel it spans 5 x 4, of which 4 x 4 are in the box.
    wide = piece((1, 1, 5, 5), "......", "######", "....#.", "....#.", ".#..#.", "......", at=(0, 0))
    assert box_agreement(wide) == 16 / (24 + 16 - 16)
    assert box_agreement(piece((0.5, 0, 2.5, 2), "##", "##", at=(0, 0))) == pytest.approx(3 / 5)


def test_a_cross_agrees_perfectly():
    assert box_agreement(piece((0, 0, 3, 3), ".#.", "###", ".#.")) == 1


def test_the_agreement_of_an_empty_mask_is_zero():
    assert box_agreement(piece((0, 0, 2, 2), "..", "..")) == 0


def test_slack_compares_with_the_nearest_box():
    # The box is 10 x 4; the mask spans the columns 2 to 9 and all rows.
    loose = piece((0, 0, 10, 4), *["..#######."] * 4)
    assert box_agreement(loose) == 28 / 40
    assert box_agreement(loose, 0.1) == 28 / 32  # from 1 to 9
    assert box_agreement(loose, 0.2) == 1
    outside = piece((2, 1, 12, 5), *["#" * 12] * 6, at=(1, 0))
    assert box_agreement(outside, 0.25) == 1  # 2.5 columns and 1 row more on each side
    assert box_agreement(outside, 0.1) == pytest.approx(12 * 4.8 / (12 * 6))
