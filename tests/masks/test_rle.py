"""Run-length codes against pycocotools and against small masks worked by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco_mask

from boxel.masks.rle import decode, decode_in_box, encode, encode_in_box, parse_runs, to_rle

masks = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=7), elements=st.integers(0, 1))
margins = st.tuples(*[st.integers(0, 3)] * 4)


@given(masks)
def test_decode_undoes_encode(mask):
    rle = encode(mask)
    assert rle["size"] == list(mask.shape)
    assert isinstance(rle["counts"], str)
    np.testing.assert_array_equal(decode(rle), mask)


@given(masks)
def test_decode_in_box_is_the_mask_in_its_tight_box(mask):
    inside, x, y = decode_in_box(encode(mask))
    rows, columns = np.nonzero(mask)
    if len(rows):
        assert (x, y) == (columns.min(), rows.min())
        np.testing.assert_array_equal(inside, mask[y : rows.max() + 1, x : columns.max() + 1])
    else:
        assert inside.size == 0


def test_encode_takes_any_dtype_as_non_zero():
    for mask in (
        np.array([[0, 7], [-1, 0]]),
        np.array([[0, 0.5], [2.0, 0]]),
        np.array([[False, True], [True, False]]),
    ):
        np.testing.assert_array_equal(decode(encode(mask)), [[0, 1], [1, 0]])


@given(masks, margins)
def test_encode_in_box_equals_encode_of_the_whole_image(mask, margin):
    left, top, right, bottom = margin
    image = np.pad(mask, ((top, bottom), (left, right)))
    assert encode_in_box(mask, left, top, *image.shape) == encode(image)


@given(
    arrays(np.uint8, st.tuples(st.just(3), st.integers(1, 7)), elements=st.integers(0, 1)), st.integers(0, 2)
)
def test_encode_in_box_as_tall_as_the_image_joins_columns(mask, left):
    image = np.pad(mask, ((0, 0), (left, 1)))
    assert encode_in_box(mask, left, 0, *image.shape) == encode(image)


def test_encode_in_box_to_the_last_pixel():
    assert encode_in_box(np.ones((2, 3)), 0, 0, 2, 3) == encode(np.ones((2, 3)))
    assert encode_in_box(np.ones((1, 1)), 2, 1, 2, 3) == encode(np.array([[0, 0, 0], [0, 0, 1]]))


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0), (2, 2)])
def test_encode_in_box_of_nothing_is_an_empty_mask(shape):
    assert encode_in_box(np.zeros(shape), 1, 1, 4, 5) == encode(np.zeros((4, 5)))


def test_encode_in_box_in_a_huge_image():
    rle = encode_in_box(np.ones((2, 1)), 60_000, 50_000, 60_000, 65_000)
    counts = [60_000 * 60_000 + 50_000, 2]
    # 3.6e9 pixels precede the mask, which is more than 31 bits.
    assert rle == to_rle(
        {"size": [60_000, 65_000], "counts": [*counts, 60_000 * 65_000 - sum(counts)]}, 60_000, 65_000
    )


def test_polygon_square():
    mask = decode(to_rle([[1, 2, 4, 2, 4, 5, 1, 5]], 6, 7))
    expected = np.zeros((6, 7))
    expected[2:5, 1:4] = 1
    np.testing.assert_array_equal(mask, expected)


def test_polygons_are_merged():
    mask = decode(to_rle([[0, 0, 2, 0, 2, 2, 0, 2], [1, 1, 3, 1, 3, 3, 1, 3]], 4, 4))
    np.testing.assert_array_equal(mask, [[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]])


def test_points_and_lines_beside_a_polygon_are_ignored():
    square = [0, 0, 2, 0, 2, 2, 0, 2]
    assert to_rle([[3, 3], [0, 0, 3, 3], square], 4, 4) == to_rle([square], 4, 4)


def test_uncompressed_code_runs_down_the_columns():
    # 2 rows, 3 columns: one pixel off, three on, two off, column by column.
    rle = to_rle({"size": [2, 3], "counts": [1, 3, 2]}, 2, 3)
    np.testing.assert_array_equal(decode(rle), [[0, 1, 0], [1, 1, 0]])


def test_compressed_code_is_returned_unchanged():
    rle = encode(np.eye(3))
    assert to_rle(rle, 3, 3) == rle
    assert to_rle({**rle, "counts": rle["counts"].encode()}, 3, 3) == rle


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([], "no polygon of three or more vertices"),
        ([[0, 0, 1, 1]], "no polygon of three or more vertices"),
        ({"size": [3, 2], "counts": [6]}, "of size"),
        ({"size": [3, 2], "counts": "6"}, "of size"),
        ({"size": [2, 3], "counts": [1, 3]}, "6"),
        ({"size": [2, 3], "counts": [1, 3, 9]}, "6"),
        ({"size": [2, 3], "counts": [-1, 4, 3]}, "a run of -1 pixels"),
        ({"size": [2, 3], "counts": [1.5, 2, 2.5]}, r"a run of 1\.5 pixels"),
        ({"size": [2, 3], "counts": [1.0, 5]}, r"a run of 1\.0 pixels"),
        ({"size": [2, 3], "counts": [True, 5]}, "a run of True pixels"),
        ({"size": [2, 3], "counts": [float("nan"), 6]}, "a run of nan pixels"),
        ({"size": [2, 3], "counts": ["6"]}, "a run of '6' pixels"),
        ({"size": [2, 3], "counts": []}, "runs of 0 pixels"),
        ([[0, 0, 2, 0, 2, 2, 1]], "an odd number of coordinates"),
        ([[0, 0, 2, 0, 2, 2], [1]], "an odd number of coordinates"),
    ],
)
def test_malformed_segmentations(segmentation, message):
    with pytest.raises(ValueError, match=message):
        to_rle(segmentation, 2, 3)


def test_a_negative_size_is_refused():
    with pytest.raises(ValueError, match="-2 x -3"):
        to_rle({"size": [-2, -3], "counts": [6]}, -2, -3)


runs = st.integers(-1, 7) | st.floats(width=16) | st.booleans() | st.none() | st.just(2**70)


@pytest.mark.slow
@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.lists(runs, max_size=5) | st.text(alphabet="0123PQWo~ \0é", max_size=6))
def test_a_code_is_refused_or_fills_its_image(counts):
    try:
        rle = to_rle({"size": [2, 3], "counts": counts}, 2, 3)
    except ValueError:
        return
    mask = decode(rle)
    assert mask.shape == (2, 3)
    if isinstance(counts, list):
        assert mask.T.ravel().tolist() == np.repeat(np.arange(len(counts)) % 2, counts).tolist()


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=8))
def test_runs_survive_encoding_by_pycocotools(runs):
    pixels = sum(runs)
    code = coco_mask.frPyObjects({"size": [1, pixels], "counts": runs}, 1, pixels)
    assert parse_runs(code["counts"], pixels).tolist() == runs


@given(st.text(st.characters(min_codepoint=32, max_codepoint=300)), st.integers(0, 99))
def test_any_text_is_parsed_or_refused(text, pixels):
    try:
        runs = parse_runs(text, pixels)
    except ValueError:
        return
    assert runs.min() >= 0 and runs.sum() == pixels


def test_a_polygon_that_is_too_long_to_fill_is_refused() -> None:
    zigzag = [coordinate for k in range(100) for coordinate in (float(k), 900_000.0 * (k % 2))]
    with pytest.raises(ValueError, match=r"a polygon whose edges have 9e\+07 pixels"):
        to_rle([zigzag], 10, 10)
    to_rle([zigzag[:20]], 10, 10)  # a shorter one is not
