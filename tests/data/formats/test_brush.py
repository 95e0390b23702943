"""The code of Label Studio's brush masks."""

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boxel.data.formats.brush import decode_brush, encode_brush, encode_brush_in_box


@st.composite
def masks(draw):
    height, width = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    scale = draw(st.sampled_from([1, 7, 90]))
    values = draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
    return np.kron(np.reshape(values, (height, width)), np.ones((scale, scale), dtype=bool))


@settings(max_examples=60, deadline=None)
@given(masks())
def test_masks_round_trip(mask):
    code = encode_brush(mask)
    assert all(0 <= byte <= 255 for byte in code)
    np.testing.assert_array_equal(decode_brush(code, *mask.shape), mask)


@settings(max_examples=60, deadline=None)
@given(masks(), st.integers(0, 3), st.integers(0, 3), st.integers(0, 3), st.integers(0, 3))
def test_a_mask_in_its_box_is_the_mask_in_the_image(mask, left, top, right, bottom):
    whole = np.pad(mask, ((top, bottom), (left, right)))
    assert encode_brush_in_box(mask, left, top, *whole.shape) == encode_brush(whole)
    np.testing.assert_array_equal(decode_brush(encode_brush(whole), *whole.shape), whole)


def pack(parts, total, value_bits=8):
    """The bytes of a code: a header, then (is_run, choice of 3, 4, 8 or 16 bits, length, values)."""
    text = f"{total:032b}{value_bits - 1:05b}" + "".join(f"{bits - 1:04b}" for bits in (3, 4, 8, 16))
    for is_run, choice, length, values in parts:
        text += f"{is_run}{choice:02b}{length - 1:0{(3, 4, 8, 16)[choice]}b}"
        text += "".join(f"{value:0{value_bits}b}" for value in values)
    text += "0" * (-len(text) % 8)
    return [int(text[i : i + 8], 2) for i in range(0, len(text), 8)]


def test_alpha_decides_and_values_may_be_listed():
    # Red with an alpha of 0, then of 9 and of 1, and a run of zeros: the tool itself writes colors.
    listed = [255, 0, 0, 0, 255, 0, 0, 9, 255]
    parts = [(0, 1, 9, listed), (0, 0, 3, [0, 0, 1]), (1, 2, 12, [0])]
    assert decode_brush(pack(parts, 24), 2, 3).tolist() == [[False, True, True], [False, False, False]]
    runs = [(1, 0, 3, [1]), (1, 0, 2, [0]), (1, 0, 7, [1])]  # values 0-2, 3-4 and 5-11 of three pixels
    assert decode_brush(pack(runs, 12), 1, 3).tolist() == [[False, True, True]]
    assert decode_brush(pack([(1, 3, 8, [1])], 8, value_bits=1), 1, 2).all()


@pytest.mark.parametrize(
    "code, reason",
    [
        ([], "ends too early"),
        (pack([(1, 0, 4, [1])], 8), "ends too early"),
        (pack([(1, 3, 65536, [1])], 8), "longer than its image"),
        (pack([(1, 0, 4, [1])], 4), "not the 2 x 1 pixels"),
        (pack([(1, 0, 4, [1])], 2**32 - 1), "not the 2 x 1 pixels"),
        ([0, 0, 0, 256], "bytes must be in range"),
    ],
)
def test_damaged_codes_are_refused(code, reason):
    with pytest.raises(ValueError, match=reason):
        decode_brush(code, 1, 2)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=40))
def test_any_bytes_decode_or_are_refused(content):
    header = pack([], 4 * 9)[:6]
    with contextlib.suppress(ValueError):
        assert decode_brush([*header, *content], 3, 3).shape == (3, 3)


@settings(max_examples=20, deadline=None)
@given(masks())
def test_codes_are_those_of_label_studios_converter(mask):
    converter = pytest.importorskip("label_studio_sdk.converter.brush")
    code, theirs = encode_brush(mask), converter.mask2rle(mask.astype(np.uint8) * 255)
    assert theirs[: len(code)] == code and not any(theirs[len(code) :])  # it may add a byte of zeros
    alpha = converter.decode_rle(code).reshape(*mask.shape, 4)[..., 3]
    np.testing.assert_array_equal(alpha > 0, mask)
