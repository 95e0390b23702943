"""GrabCut on drawn images."""

import numpy as np
import pytest

from boxel.masks.grabcut import grabcut_from_box, grabcut_from_ellipse


@pytest.fixture
def disc() -> tuple[np.ndarray, np.ndarray]:
    """A noisy image of a red disc on blue, and the mask of the disc."""
    y, x = np.mgrid[:80, :100]
    truth = (x - 50) ** 2 + (y - 40) ** 2 < 20**2
    image = np.where(truth[..., None], (200, 40, 30), (30, 60, 190))
    image = image + np.random.default_rng(0).integers(-9, 10, image.shape)
    return image.astype(np.uint8), truth


def test_an_object_unlike_its_background_is_found_exactly(disc) -> None:
    image, truth = disc
    np.testing.assert_array_equal(grabcut_from_box(image, (28, 18, 73, 63)), truth)


def test_the_result_is_deterministic(disc) -> None:
    noise = np.random.default_rng(0).integers(0, 256, disc[0].shape, dtype=np.uint8)
    first = grabcut_from_box(noise, (20, 10, 80, 70))
    grabcut_from_box(disc[0], (28, 18, 73, 63))
    np.testing.assert_array_equal(grabcut_from_box(noise, (20, 10, 80, 70)), first)


def test_the_mask_stays_within_the_pixel_centers_of_the_box(disc) -> None:
    mask = grabcut_from_box(disc[0], (40.6, 25.4, 60.4, 50.6))
    assert mask.any()
    assert not mask[:25].any() and not mask[51:].any()
    assert not mask[:, :41].any() and not mask[:, 60:].any()


@pytest.mark.parametrize(
    ("box", "pixels"),
    [
        ((0, 0, 100, 80), 8000),  # nothing outside
        ((-5, -5, 105, 90), 8000),
        ((50, 40, 54, 44), 16),  # too small for a mixture of five colors
        ((50, 40, 50.2, 40.2), 0),  # holds no center of a pixel
        ((120, 90, 150, 99), 0),  # beyond the image
    ],
)
def test_a_box_that_cannot_be_segmented_is_filled(disc, box, pixels) -> None:
    assert grabcut_from_box(disc[0], box).sum() == pixels


def test_an_image_of_one_color_gives_the_filled_box() -> None:
    mask = grabcut_from_box(np.full((40, 50, 3), 128, np.uint8), (10, 10, 30, 30))
    assert mask[10:30, 10:30].all() and mask.sum() == 400


def whole(image: np.ndarray, box: tuple[float, ...]) -> np.ndarray:
    """The (H, W) mask of the image from the window that `grabcut_from_ellipse` returns."""
    mask, left, top = grabcut_from_ellipse(image, box)
    found = np.zeros(image.shape[:2], dtype=bool)
    found[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    assert found.sum() == mask.sum()  # the window lies in the image
    return found


def test_from_ellipse_colors_decide_outside_the_core(disc) -> None:
    """In the same box a square is found with its corners, a disc without them."""
    image, truth = disc
    box = (30, 20, 71, 61)
    square = image.copy()
    square[20:61, 30:71] = (200, 40, 30)
    found = whole(square, box)
    assert found[22:59, 32:69].all() and found.sum() <= 41 * 41
    found = whole(image, box)
    assert (found & truth).sum() > 0.95 * (found | truth).sum()


def test_from_ellipse_without_colors_returns_the_core() -> None:
    y, x = np.mgrid[:40, :50] + 0.5
    found = whole(np.full((40, 50, 3), 128, np.uint8), (10, 10, 40, 30))
    radius = np.hypot((x - 25) / 15, (y - 20) / 10)
    assert found[radius < 0.65].all() and not found[radius > 1.05].any()


def test_from_ellipse_a_box_without_a_pixel_is_empty(disc) -> None:
    assert not whole(disc[0], (10.6, 10, 11.4, 70)).any()


@pytest.mark.parametrize("box", [(-20, -10, 30, 30), (80, 60, 200, 90), (0, 0, 100, 80)])
def test_from_ellipse_handles_boxes_past_the_border(disc, box) -> None:
    first = whole(disc[0], box)
    assert first.any()
    grabcut_from_box(disc[0], (28, 18, 73, 63))
    np.testing.assert_array_equal(whole(disc[0], box), first)
