"""GrabCut as a teacher: what it cuts, where it lies, and the same from every thread."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from boxel.labeling.teachers import make_teacher
from boxel.masks.boxes import Region
from boxel.masks.grabcut import grabcut_from_box

LABELS = np.zeros(1, dtype=np.int32)


@pytest.fixture
def disc():
    """An image of a red disc on blue, and the mask of the disc."""
    y, x = np.mgrid[:80, :100]
    truth = (x - 50) ** 2 + (y - 40) ** 2 < 20**2
    image = np.where(truth[..., None], (200, 40, 30), (30, 60, 190))
    image = image + np.random.default_rng(0).integers(-9, 10, image.shape)
    return image.astype(np.uint8), truth


@pytest.mark.parametrize("name", ["grabcut", "grabcut-ellipse"])
def test_the_object_is_found_and_surrounded_by_background(disc, name):
    image, truth = disc
    (soft,) = make_teacher(name, [])(image, np.array([[30.0, 20, 71, 61]]), LABELS)
    logits = soft.resample(Region(0, 0, 100, 80))
    assert set(np.unique(logits)) == {-10.0, 10.0}
    assert ((logits > 0) & truth).sum() > 0.95 * ((logits > 0) | truth).sum()


def test_grabcut_uses_the_whole_image(disc):
    noise = np.random.default_rng(0).integers(0, 256, disc[0].shape, dtype=np.uint8)
    box = np.array([20.0, 10, 80, 70])
    (soft,) = make_teacher("grabcut", [])(noise, box[None], LABELS)
    np.testing.assert_array_equal(soft.resample(Region(0, 0, 100, 80)) > 0, grabcut_from_box(noise, box))


@pytest.mark.parametrize("name", ["grabcut", "grabcut-ellipse"])
def test_threads_make_no_difference(disc, name):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (40, 50, 3), dtype=np.uint8) for _ in range(8)]
    teacher = make_teacher(name, [])

    def cut(image):
        return teacher(image, np.array([[10.0, 8, 40, 33]]), LABELS)[0].logits

    with ThreadPoolExecutor(4) as pool:
        for alone, together in zip(map(cut, images), pool.map(cut, images), strict=True):
            np.testing.assert_array_equal(alone, together)
