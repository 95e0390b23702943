"""Square crops of windows, the boxes in them, and the way back to the pixels of the image."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import roi_align

from boxel.masks.crops import (
    CHUNK,
    MIN_WINDOW_SIDE,
    crop,
    crop_spans,
    crop_window,
    predict_soft_masks,
    resample,
)
from boxel.masks.spans import box_spans

HEIGHT, WIDTH = 60, 80


def ramp() -> np.ndarray:
    """(60, 80, 3) float32: x and y of the center of each pixel, and 50."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    return np.stack([x, y, np.full_like(x, 50)], axis=-1).astype(np.float32)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)


# windows -------------------------------------------------------------------------------------------------------------


def test_a_window_is_the_box_and_its_margins():
    assert crop_window([10, 20, 30, 30]).tolist() == [10, 20, 30, 30]
    assert crop_window([10, 20, 30, 30], 0.25).tolist() == [5, 17.5, 35, 32.5]
    assert crop_window([0, 0, 8, 8], 0.5).tolist() == [-4, -4, 12, 12]  # beyond the image


def test_the_window_of_a_tiny_box_has_a_minimum_side():
    assert MIN_WINDOW_SIDE == 4
    assert crop_window([10, 20, 11, 40]).tolist() == [8.5, 20, 12.5, 40]
    assert crop_window([10, 20, 11, 21], 0.5).tolist() == [8.5, 18.5, 12.5, 22.5]


# crop ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [32, 63, 128])
@pytest.mark.parametrize(
    "window",
    [
        (10, 20, 30, 35),
        (10.3, 20.7, 30.1, 35.9),
        (5.2, 6.1, 75.3, 55.7),
        (33.3, 40.2, 34.9, 57.7),  # a sliver, whose aspect is not kept
    ],
)
def test_crop_pixels_show_the_centers_of_their_cells(window, side):
    """The values of a ramp are coordinates."""
    shown = crop(ramp(), window, side)
    x0, y0, x1, y1 = window
    cells = (np.arange(side) + 0.5) / side
    # OpenCV 4 looks up places to 1/32 of a pixel.
    np.testing.assert_allclose(shown[..., 0], np.tile(x0 + cells * (x1 - x0), (side, 1)), atol=0.08)
    np.testing.assert_allclose(shown[..., 1].T, np.tile(y0 + cells * (y1 - y0), (side, 1)), atol=0.08)
    np.testing.assert_allclose(shown[..., 2], 50, atol=1e-3)


@pytest.mark.parametrize(
    "window", [(10, 20, 30, 35), (10.3, 20.7, 30.1, 35.9), (0, 0, 12, 9), (70.5, 51.2, 80, 60)]
)
def test_enlarging_matches_roi_align(window):
    image = noise(HEIGHT, WIDTH, 3)
    expected = roi_align(
        torch.from_numpy(image).permute(2, 0, 1)[None],
        [torch.tensor([window], dtype=torch.float32)],
        output_size=64,
        sampling_ratio=1,
        aligned=True,
    )[0].permute(1, 2, 0)
    # 1/32 of a pixel, twice, of neighbors that differ by up to 255
    np.testing.assert_allclose(crop(image, window, 64), expected, atol=255 / 16)
    assert np.abs(crop(image, window, 64) - expected.numpy()).mean() < 2


def test_the_border_of_the_image_does_not_fade():
    """The outer half of the outermost pixels, which has no neighbor, keeps their color at any scale."""
    white = np.full((HEIGHT, WIDTH, 3), 255, dtype=np.uint8)
    for window in ((0, 0, 10, 10), (70, 50, 80, 60), (0, 0, 80, 60)):
        assert crop(white, window, 128).min() == 255


def test_pixels_outside_the_image_are_padded():
    white = np.full((HEIGHT, WIDTH, 3), 255, dtype=np.uint8)
    shown = crop(white, (-10, -30, 30, 10), 40, (1, 2, 3))
    assert shown.dtype == np.uint8
    assert (shown[30:, 10:] == 255).all()
    assert (shown[:30] == (1, 2, 3)).all() and (shown[:, :10] == (1, 2, 3)).all()
    right = crop(white, (70, 50, 90, 70), 40, (1, 2, 3))
    assert (right[:20, :20] == 255).all()
    assert (right[20:] == (1, 2, 3)).all() and (right[:, 20:] == (1, 2, 3)).all()


@pytest.mark.parametrize(
    "window", [(100, 20, 120, 30), (-20, -20, -5, -5), (0, 61, 9, 70), (500, 500, 900, 900)]
)
def test_a_window_outside_the_image_is_all_padding(window):
    image = noise(HEIGHT, WIDTH, 3).astype(np.uint8)
    assert (crop(image, window, 32, (9, 8, 7)) == (9, 8, 7)).all()


def test_a_mask_is_cropped_like_its_image():
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.float32)
    mask[20:40, 10:30] = 1
    shown = crop(mask, (-10, 0, 70, 60), 40)  # 2 x 1.5 pixels per cell; the first five columns are outside
    assert shown.shape == (40, 40) and shown.dtype == np.float32
    rows, columns = crop_spans((10, 20, 30, 40), (-10, 0, 70, 60), 40)
    np.testing.assert_array_equal(shown > 0.5, np.outer(rows, columns))


def test_shrinking_averages():
    fine = np.indices((240, 240)).sum(axis=0) % 2 * 200
    board = np.repeat(fine[..., None], 3, axis=-1).astype(np.uint8)
    # Of 5 x 5 pixels 12 or 13 are lit.
    assert set(np.unique(crop(board, (0, 0, 240, 240), 48))) == {96, 104}
    assert np.abs(crop(board, (13.4, 7.7, 213.4, 220.7), 40).astype(int) - 100).max() <= 15
    image = noise(120, 120, 3)
    blocks = image.reshape(30, 4, 30, 4, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(crop(image, (0, 0, 120, 120), 30), blocks, atol=0.01)


def test_one_axis_may_shrink_while_the_other_grows():
    image = np.zeros((8, 400, 3), dtype=np.uint8)
    image[:, ::2] = 200
    shown = crop(image, (0, 0, 400, 8), 64)
    assert np.abs(shown.astype(int) - 100).max() <= 20


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    st.tuples(st.floats(-50, 100), st.floats(-50, 80), st.floats(0.5, 300), st.floats(0.5, 300)),
    st.sampled_from([32, 64]),
)
def test_any_window_shows_image_and_padding_only(place, side):
    x, y, width, height = place
    image = np.full((HEIGHT, WIDTH, 3), 200, dtype=np.uint8)
    window = (x, y, x + width, y + height)
    shown = crop(image, window, side, (0, 0, 0))
    rows, columns = crop_spans((0, 0, WIDTH, HEIGHT), window, side)
    np.testing.assert_array_equal(shown, np.outer(rows, columns)[..., None] * np.array([200] * 3))


# crop_spans ----------------------------------------------------------------------------------------------------------


def test_spans_by_hand():
    """Centers of cells are at 10.5, 11.5, ... and at 0.5, 1.5, ..."""
    rows, columns = crop_spans((12.5, 5, 16.5, 7.6), (10, 0, 20, 10), 10)
    assert np.flatnonzero(rows).tolist() == [5, 6, 7]  # 7.5 is in
    assert np.flatnonzero(columns).tolist() == [2, 3, 4, 5]  # 12.5 is in, 16.5 is not
    rows, columns = crop_spans((12, 5, 16, 8), (10, 0, 20, 20), 5)  # cells of 2 x 4 pixels
    assert np.flatnonzero(rows).tolist() == [1] and np.flatnonzero(columns).tolist() == [1, 2]


def test_a_box_between_two_centers_gets_the_nearest_cell():
    rows, columns = crop_spans((12.6, 5.1, 12.9, 5.4), (10, 0, 20, 10), 10)
    assert np.flatnonzero(rows).tolist() == [5] and np.flatnonzero(columns).tolist() == [2]


def test_a_box_outside_the_window_gets_no_cell():
    rows, columns = crop_spans((30, 2, 40, 4), (10, 0, 20, 10), 10)
    assert not columns.any() and rows.any()
    rows, columns = crop_spans((12, 10, 14, 11), (10, 0, 20, 10), 10)  # they touch
    assert not rows.any() and columns.any()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(-40, 120), min_size=4, max_size=4))
def test_spans_match_those_of_a_strided_grid(corners):
    """For boxes that reach into the image."""
    x0, y0, x1, y1 = corners
    box = [min(x0, x1), min(y0, y1), max(x0, x1) + 4, max(y0, y1) + 4]
    if box[0] >= 64 or box[1] >= 64 or box[2] <= 0 or box[3] <= 0:
        return
    theirs = box_spans(torch.tensor([box]).float(), 16, 16, 4)
    for ours, expected in zip(crop_spans(box, (0, 0, 64, 64), 16), theirs, strict=True):
        np.testing.assert_array_equal(ours, expected[0])


# resample ------------------------------------------------------------------------------------------------------------


def test_resampling_is_bilinear_interpolation():
    grid = noise(10, 12)
    expected = F.interpolate(torch.from_numpy(grid)[None, None], size=(70, 120), mode="bilinear")[
        0, 0
    ].numpy()
    found = resample(grid, (0, 0, 120, 70), (0, 0, 120, 70))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-3)
    # A part is a part; and where the window lies does not matter.
    for window, area in [((0, 0, 120, 70), (30, 11, 90, 65)), ((-7, 5, 113, 75), (23, 16, 83, 70))]:
        np.testing.assert_allclose(resample(grid, window, area), found[11:65, 30:90], atol=1e-3)


def test_values_are_constant_beyond_the_outer_centers():
    grid = np.array([[1.0, 2.0], [3.0, 4.0]], dtype=np.float32)
    found = resample(grid, (10, 10, 30, 30), (0, 0, 40, 40))  # centers at 15 and 25
    assert (found[:15, :15] == 1).all() and (found[:15, 25:] == 2).all() and (found[25:, 25:] == 4).all()
    assert found[20, :15].tolist() == pytest.approx([2.1] * 15)


def test_cells_that_coincide_with_pixels_are_copied():
    grid = noise(5, 8)
    found = resample(grid, (20, 10, 28, 15), (18, 9, 30, 17))
    np.testing.assert_array_equal(found[1:6, 2:10], grid)
    np.testing.assert_array_equal(found[0, 2:10], grid[0])
    np.testing.assert_array_equal(found[1:6, 11], grid[:, -1])


@pytest.mark.parametrize("window", [(10, 20, 30, 35), (10.3, 20.7, 31.1, 35.9), (4, 6, 76, 54)])
def test_resampling_undoes_a_crop(window):
    image = ramp()
    shown = crop(image, window, 48)
    left, top = np.ceil(np.array(window[:2]) + 1).astype(int)
    right, bottom = np.floor(np.array(window[2:]) - 1).astype(int)
    for channel in range(2):
        back = resample(np.ascontiguousarray(shown[..., channel]), window, (left, top, right, bottom))
        np.testing.assert_allclose(back, image[top:bottom, left:right, channel], atol=0.1)


def test_soft_masks_are_predicted_in_parts_and_scored_by_their_certainty() -> None:
    logits = np.log(np.array([[0.9, 0.1], [0.5, 0.7]]) / np.array([[0.1, 0.9], [0.5, 0.3]]))
    boxes, sizes = np.zeros((CHUNK + 1, 4)), []

    def predict(some):
        sizes.append(len(some))
        return np.stack([logits] * len(some)).astype(np.float32), some

    found, windows, scores = predict_soft_masks(predict, boxes)
    assert sizes == [CHUNK, 1] and len(found) == len(windows) == CHUNK + 1
    assert scores == pytest.approx((0.8 + 0.8 + 0 + 0.4) / 4, abs=1e-6)
    assert [len(part) for part in predict_soft_masks(predict, boxes[:0])] == [0, 0, 0]
