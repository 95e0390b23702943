import numpy as np
import pytest

from boxel.segments.grabcut import grabcut


@pytest.fixture
def disc() -> tuple[np.ndarray, np.ndarray]:
    """A red disc on blue ground, both with a little noise, and where the disc is."""
    y, x = np.mgrid[:80, :100]
    truth = (x - 50) ** 2 + (y - 40) ** 2 < 20**2
    image = np.where(truth[..., None], (200, 40, 30), (30, 60, 190))
    image = image + np.random.default_rng(0).integers(-9, 10, image.shape)
    return image.astype(np.uint8), truth


def test_finds_an_object_unlike_its_ground_to_the_pixel(disc) -> None:
    image, truth = disc
    np.testing.assert_array_equal(grabcut(image, (28, 18, 73, 63)), truth)


def test_is_repeatable(disc) -> None:
    noise = np.random.default_rng(0).integers(0, 256, disc[0].shape, dtype=np.uint8)
    first = grabcut(noise, (20, 10, 80, 70))
    grabcut(disc[0], (28, 18, 73, 63))
    np.testing.assert_array_equal(grabcut(noise, (20, 10, 80, 70)), first)


def test_never_leaves_the_box_and_reads_it_at_pixel_centres(disc) -> None:
    mask = grabcut(disc[0], (40.6, 25.4, 60.4, 50.6))
    assert mask.any()
    assert not mask[:25].any() and not mask[51:].any()
    assert not mask[:, :41].any() and not mask[:, 60:].any()


@pytest.mark.parametrize(
    ("box", "pixels"),
    [
        ((0, 0, 100, 80), 8000),  # nothing outside
        ((-5, -5, 105, 90), 8000),
        ((50, 40, 54, 44), 16),  # too small for a mixture of five colours
        ((50, 40, 50.2, 40.2), 0),  # holds no pixel's centre
        ((120, 90, 150, 99), 0),  # beyond the image
    ],
)
def test_box_without_anything_to_tell_apart_is_filled(disc, box, pixels) -> None:
    assert grabcut(disc[0], box).sum() == pixels


def test_image_of_one_colour_gives_the_filled_box() -> None:
    mask = grabcut(np.full((40, 50, 3), 128, np.uint8), (10, 10, 30, 30))
    assert mask[10:30, 10:30].all() and mask.sum() == 400
