"""GrabCut as a teacher: what it cuts, where it lies, and the same from every thread."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from boxel.labeling.teachers import baselines, make_teacher
from boxel.masks.boxes import Region
from boxel.masks.grabcut import grabcut_agreement, grabcut_from_box

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


def test_pixels_that_fewer_than_seven_in_ten_cuts_agree_on_are_undecided(monkeypatch):
    share = np.array([[10, 7, 6, 4, 3, 0]], dtype=np.float32) / 10
    monkeypatch.setattr(baselines, "grabcut_agreement", lambda image, box: (share, Region(3, 2, 9, 3)))
    soft = baselines.grabcut_agree(np.zeros((9, 9, 3), np.uint8), np.array([3.0, 2, 9, 3]))
    assert soft.window == (3, 2, 9, 3)
    np.testing.assert_array_equal(soft.logits, [[10, 10, np.nan, np.nan, -10, -10]])


def test_disturbed_cuts_agree_on_a_clear_object_and_less_on_a_faint_one(disc):
    """The second object differs from its surroundings by less than their noise."""
    image, truth = disc
    faint = np.random.default_rng(0).integers(60, 180, (80, 100, 3))
    faint[truth] += 15
    inside = Region(30, 20, 71, 61)
    clear, vague = (
        make_teacher("grabcut-agree", [])(pixels.astype(np.uint8), np.array([inside], float), LABELS)[0]
        for pixels in (image, faint)
    )
    logits = clear.resample(Region(0, 0, 100, 80))
    known = ~np.isnan(logits)
    assert ((logits > 0) == truth)[known].mean() > 0.98
    assert np.isnan(clear.resample(inside)).mean() < 0.03 < 0.04 < np.isnan(vague.resample(inside)).mean()


@pytest.mark.slow
def test_the_share_of_cuts_is_placed_in_the_image(disc):
    """On a reduced copy too, of a box that reaches past the image."""
    image, _ = disc
    large = np.kron(image, np.ones((5, 5, 1), np.uint8))
    for factor, pixels in ((1, image), (5, large)):
        share, window = grabcut_agreement(pixels, np.array([29.0, 19, 71, 61]) * factor)
        assert max(share.shape) <= 240 and window.right <= pixels.shape[1]
        scale = share.shape[1] / (window.right - window.left)
        column = round((50 * factor - window.left) * scale)
        assert share[round((40 * factor - window.top) * scale), column] == 1
        assert share[round((17 * factor - window.top) * scale), column] == 0
    share, window = grabcut_agreement(image, [-10, -10, 20, 20])
    assert window.left == window.top == 0 and share.max() <= 1
    assert grabcut_agreement(image, [10.7, 10.7, 10.8, 10.8])[0].size == 1  # between pixel centers


@pytest.mark.parametrize("name", ["grabcut", "grabcut-ellipse", "grabcut-agree"])
def test_threads_make_no_difference(disc, name):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (40, 50, 3), dtype=np.uint8) for _ in range(8)]
    teacher = make_teacher(name, [])

    def cut(image):
        return teacher(image, np.array([[10.0, 8, 40, 33]]), LABELS)[0].logits

    with ThreadPoolExecutor(4) as pool:
        for alone, together in zip(map(cut, images), pool.map(cut, images), strict=True):
            np.testing.assert_array_equal(alone, together)
