"""The CRF as a teacher, and on masks of others."""

import cv2
import numpy as np
import pytest
import torch
from scipy.special import expit

from boxel.crf import mean_field
from boxel.evaluation.semantic import boundary_distance
from boxel.labeling.teachers import make_teacher
from boxel.labeling.teachers.baselines import inner_box
from boxel.labeling.teachers.crf import BOX_CRF, MASK_CRF, SIDE, refine, segment
from boxel.masks.boxes import Region

WHOLE = Region(0, 0, 120, 100)


def painted(truth: np.ndarray) -> np.ndarray:
    """A noisy image of a red object on blue."""
    noise = np.random.default_rng(0).integers(-9, 10, (*truth.shape, 3))
    return (np.where(truth[..., None], (200, 60, 50), (40, 70, 190)) + noise).astype(np.uint8)


@pytest.fixture
def cross():
    """A cross that leaves the corners of its box of 88 x 88 pixels free, the box, and the image."""
    truth = np.zeros((100, 120), dtype=bool)
    truth[28:72, 20:108] = truth[6:94, 42:86] = True
    return truth, np.array([20.0, 6, 108, 94]), painted(truth)


def test_the_object_of_a_box_is_found_exactly(cross) -> None:
    truth, box, photo = cross
    (soft,) = make_teacher("crf", [])(photo, box[None], np.zeros(1, np.int32))
    np.testing.assert_array_equal(soft.resample(WHOLE) > 0, truth)


@pytest.mark.parametrize("scale", [0.5, 3])
def test_at_other_sizes_errors_stay_at_the_boundary(cross, scale) -> None:
    truth, box, _ = cross
    truth = cv2.resize(truth.astype(np.uint8), None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST) > 0
    height, width = truth.shape
    found = segment(painted(truth), scale * box).resample(Region(0, 0, width, height)) > 0
    assert boundary_distance(truth.astype(np.uint8))[found ^ truth].max() < scale + 1


def test_the_core_is_object_and_the_outside_background() -> None:
    """On any image; this one is noise."""
    photo = np.random.default_rng(0).integers(0, 256, (100, 120, 3), dtype=np.uint8)
    for box in ([20.0, 12, 92, 72], [41.3, 30.2, 60.9, 47.7], [-30.0, 40, 50, 200], [0.0, 0, 120, 100]):
        found = segment(photo, np.array(box)).resample(WHOLE)
        inner = inner_box(photo, np.array(box)).resample(WHOLE)
        assert (found[inner > 0] > 0).all() and (inner > 0).any()
        assert (found[inner < 0] < 0).all() and (np.abs(found) <= 10).all()


@pytest.mark.parametrize("box", [[3.6, 2.6, 4.2, 3.2], [118.2, 98.1, 140.0, 109.0], [0.0, 30, 0.6, 60]])
def test_tiny_boxes_get_a_mask_within_the_image(cross, box) -> None:
    found = segment(cross[2], np.array(box)).resample(WHOLE)
    inner = inner_box(cross[2], np.array(box)).resample(WHOLE)
    assert (found[inner > 0] > 0).all() and (found[inner < 0] < 0).all()


@pytest.mark.slow
def test_it_is_the_mean_field_of_the_window() -> None:
    """The window has the size of the copy, so that nothing is resampled."""
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    images = torch.from_numpy(photo).permute(2, 0, 1)[None] / 255

    def field(chances, config):
        both = np.stack([1 - chances, chances]).astype(np.float32)
        found = mean_field(images, torch.from_numpy(both)[None], config)[0, 1].numpy()
        return found.clip(expit(-10), expit(10))

    box = np.zeros((SIDE, SIDE))
    box[4:92, 4:92] = 0.5
    box[28:68, 28:68] = 1  # sqrt(0.2) of 88 pixels about the middle: from 28.3 to 67.7
    found = segment(photo, np.array([4.0, 4, 92, 92]))
    assert found.window == (3, 3, 93, 93)
    np.testing.assert_allclose(expit(found.logits[1:-1, 1:-1]), field(box, BOX_CRF)[4:92, 4:92], atol=1e-4)

    chances = rng.random((68, 68)).astype(np.float32)
    chances[:9] = np.nan
    mask = np.zeros((SIDE, SIDE))
    mask[14:82, 14:82] = np.nan_to_num(chances, nan=0.5)
    found = refine(photo, Region(14, 14, 82, 82), chances)
    assert found.window == (14, 14, 82, 82)
    np.testing.assert_allclose(expit(found.logits), field(mask, MASK_CRF)[14:82, 14:82], atol=1e-4)


def test_a_mask_follows_the_colors() -> None:
    """The mask is two pixels off and not confident."""
    y, x = np.mgrid[:SIDE, :SIDE]
    truth, region = np.hypot(x - 48, y - 48) < 28, Region(14, 14, 82, 82)
    own, off = (mask[14:82, 14:82] for mask in (truth, np.roll(truth, 2, axis=1)))
    found = refine(painted(truth), region, np.where(off, np.float32(0.6), np.float32(0.4))).logits > 0
    assert (off ^ own).sum() > 200 and (found ^ own).sum() < 0.2 * (off ^ own).sum()


def test_unknown_probabilities_give_no_mask(cross) -> None:
    soft = refine(cross[2], Region(20, 6, 108, 94), np.full((88, 88), np.nan, dtype=np.float32))
    assert (soft.logits < 0).all()
