"""Strokes, polygons and predicted masks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.draw import polygon2mask

from boxel.data import Annotations
from boxel.data.images import read_image
from boxel.labeling import BoxSegmenter
from boxel.masks.clicks import correct_by_click
from boxel.masks.rle import Rle, decode, encode
from boxel.review.editing import brush, correct, few_vertices, move_outline, predict_in_box
from boxel.utils.errors import BoxelError

SIZE = (30, 40)


def dense(rle: Rle) -> np.ndarray:
    return decode(rle).astype(bool)


def test_a_dot_is_the_pixels_whose_centers_are_near() -> None:
    y, x = np.mgrid[:30, :40] + 0.5
    drawn = dense(brush(None, SIZE, [(12.0, 9.0)], 3.5, add=True))
    np.testing.assert_array_equal(drawn, np.hypot(x - 12, y - 9) <= 3.5)


def test_a_stroke_has_no_gap_between_its_points() -> None:
    drawn = dense(brush(None, SIZE, [(2.5, 4.5), (30.5, 4.5)], 1.0, add=True))
    assert drawn[4, 2:31].all() and drawn[[3, 5], 10].all() and not drawn[[2, 6]].any()


@given(
    points=st.lists(st.tuples(st.floats(-20, 60), st.floats(-20, 60)), min_size=1, max_size=5),
    radius=st.floats(0.3, 20),
    seed=st.integers(0, 99),
)
def test_removing_a_stroke_leaves_the_rest(
    points: list[tuple[float, float]], radius: float, seed: int
) -> None:
    before = np.random.default_rng(seed).random(SIZE) < 0.5
    stroke = dense(brush(None, SIZE, points, radius, add=True))
    np.testing.assert_array_equal(
        dense(brush(encode(before), SIZE, points, radius, add=False)), before & ~stroke
    )
    np.testing.assert_array_equal(
        dense(brush(encode(before), SIZE, points, radius, add=True)), before | stroke
    )


def test_a_stroke_that_would_take_minutes_is_refused() -> None:
    points = [(float(i), float(i)) for i in range(4000)]
    with pytest.raises(BoxelError, match="this stroke is too long for so wide a brush"):
        brush(None, (4000, 4000), points, 2000.0, add=True)
    assert dense(brush(None, (4000, 4000), points[::200], 8.0, add=True)).any()


def test_moving_a_vertex_changes_only_what_the_polygon_gains_and_loses() -> None:
    detail = np.random.default_rng(0).random(SIZE) < 0.5
    before = [(5.0, 5.0), (20.0, 5.0), (20.0, 20.0), (5.0, 20.0)]
    after = [(5.0, 5.0), (30.0, 5.0), (20.0, 20.0), (5.0, 20.0)]
    found = dense(move_outline(encode(detail), SIZE, before, after))
    both = [polygon2mask(SIZE, np.array(ring)[:, ::-1] - 0.5) for ring in (before, after)]
    unchanged = both[0] == both[1]
    border = np.abs(found[unchanged].astype(int) - detail[unchanged]).sum()
    assert border <= 15  # pixels that the two ways to fill a polygon give to one or the other side
    assert found[8:18, 8:18].tolist() == detail[8:18, 8:18].tolist()
    assert found[6, 21:27].all()


def test_a_new_polygon_and_a_removed_one() -> None:
    ring = [(4.0, 3.0), (10.0, 3.0), (10.0, 8.0), (4.0, 8.0)]
    drawn = move_outline(None, SIZE, [], ring)
    expected = np.zeros(SIZE, dtype=bool)
    expected[3:8, 4:10] = True
    np.testing.assert_array_equal(dense(drawn), expected)
    assert not dense(move_outline(drawn, SIZE, ring, [])).any()


def test_vertices_are_few_and_near_the_mask() -> None:
    y, x = np.mgrid[:200, :300]
    mask = np.hypot((x - 150) / 100, (y - 100) / 60) <= 1
    (ring,) = few_vertices(encode(mask))
    filled = dense(move_outline(None, mask.shape, [], ring))
    assert len(ring) <= 20
    assert (filled & mask).sum() / (filled | mask).sum() > 0.95


def test_vertices_that_are_not_moved_change_nothing() -> None:
    mask = np.random.default_rng(1).random(SIZE) < 0.6
    for ring in few_vertices(encode(mask)):
        np.testing.assert_array_equal(dense(move_outline(encode(mask), SIZE, ring, ring)), mask)


def test_a_box_gets_the_mask_of_the_teacher(scenes: Annotations) -> None:
    image, boxes = read_image(scenes.image_path(0)), scenes.boxes[scenes.instances_in(0)]
    segmenter = BoxSegmenter("boxcaseg")
    found = predict_in_box(segmenter, image, tuple(boxes[0].tolist()), boxes[1:], 0)
    assert found is not None and found.quality is not None
    everything = segmenter(image, boxes)
    together, alone = dense(everything.rles[0]), dense(found.rle)
    assert (together & alone).sum() / (together | alone).sum() > 0.9


def test_a_teacher_that_sees_nothing_gives_no_mask(scenes: Annotations) -> None:
    flat = np.full((40, 60, 3), 128, np.uint8)
    found = predict_in_box(BoxSegmenter("ellipse"), flat, (10.2, 10.2, 10.3, 10.3), np.zeros((0, 4)), 0)
    assert found is None or dense(found.rle).sum() <= 1


@pytest.mark.parametrize("points", [[(500.0, 500.0)], [(-50.0, 3.0), (-40.0, 3.0)]])
def test_strokes_outside_the_image_change_nothing(points: list[tuple[float, float]]) -> None:
    mask = np.eye(30, 40)
    np.testing.assert_array_equal(dense(brush(encode(mask), SIZE, points, 5, add=True)), mask > 0)


@pytest.mark.parametrize("add", [True, False])
def test_a_click_in_a_window_gives_what_it_gives_in_the_image(scenes: Annotations, add: bool) -> None:
    image, box = read_image(scenes.image_path(0)), tuple(scenes.boxes[0].tolist())
    mask = decode(scenes.rle(0)).astype(bool)
    region = (~mask if add else mask)[int(box[1]) : int(box[3]), int(box[0]) : int(box[2])]
    y, x = (int(values[len(values) // 3]) for values in np.nonzero(region))
    click = (x + int(box[0]), y + int(box[1]))
    earlier = [(int(box[0]) + 2, int(box[1]) + 2, not add)]
    expected = correct_by_click(image, mask, box, click, add, earlier)
    found = dense(correct(encode(mask), image, box, [*earlier, (*click, add)]))
    np.testing.assert_array_equal(found, expected)
    assert (found != mask).any()


def test_a_click_on_an_object_without_a_mask_starts_one(scenes: Annotations) -> None:
    image, box = read_image(scenes.image_path(0)), tuple(scenes.boxes[0].tolist())
    x, y = int((box[0] + box[2]) / 2), int((box[1] + box[3]) / 2)
    assert dense(correct(None, image, box, [(x, y, True)]))[y, x]
