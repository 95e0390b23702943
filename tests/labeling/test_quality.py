"""Quality: cues by hand, and calibrations."""

from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from scipy.optimize import isotonic_regression

from boxel.evaluation.boxes import quality_metrics
from boxel.labeling import quality
from boxel.labeling.calibration import correct_calibration
from boxel.labeling.fusion import LabeledImage, Vote
from boxel.labeling.teachers.base import SoftMask
from boxel.masks.boxes import Region
from boxel.utils.errors import BoxelError

SURE = 10.0


def labeled(masks, logits=None, boxes=None, votes=1, image=None):
    """An image of 40 x 40 pixels whose boxes have the given masks, by votes with the given logits."""
    boxes = np.array(boxes if boxes is not None else [[10, 10, 30, 30]] * len(masks), dtype=np.float64)
    regions = [Region(*box.astype(int)) for box in boxes]
    soft = [
        SoftMask(np.where(mask, SURE, -SURE).astype(np.float32) if logits is None else logits, tuple(region))
        for mask, region in zip(masks, regions, strict=True)
    ]
    return LabeledImage(
        image=np.zeros((40, 40, 3), np.uint8) if image is None else image,
        boxes=boxes,
        regions=regions,
        votes=[Vote(f"t{k}", soft) for k in range(votes)],
        unmerged=list(masks),
        masks=list(masks),
        undecided=[None] * len(masks),
        agreement=np.ones(len(masks)),
        trusted=np.ones(len(masks), bool),
    )


def cue(name, found):
    return found[:, quality.CUES.index(name)]


FULL = np.ones((20, 20), bool)
HALF = FULL & (np.arange(20) < 10)


def test_cues_of_a_confident_mask():
    found = quality.compute_cues(labeled([HALF]))
    assert cue("expected_iou", found) == pytest.approx(1, abs=1e-3)
    assert cue("certainty", found) == pytest.approx(1, abs=1e-3)
    assert cue("inside", found) == pytest.approx(1, abs=1e-3)
    assert cue("fill", found) == pytest.approx(0.5)
    assert cue("size", found) == pytest.approx(np.log2(20))


def test_the_expected_iou_of_undecided_pixels():
    # All pixels at a probability of a half, half of them in the mask: 100 expected to overlap, of 200 + 100.
    found = quality.compute_cues(labeled([HALF], logits=np.zeros((20, 20), np.float32)))
    assert cue("expected_iou", found) == pytest.approx(100 / (200 + 100), abs=1e-6)
    assert cue("certainty", found) == pytest.approx(0)


def test_votes_iou_measures_the_agreement_of_votes():
    one, two = labeled([HALF]), labeled([HALF], votes=2)
    assert cue("votes_iou", quality.compute_cues(one)) == cue("votes_iou", quality.compute_cues(two)) == 1
    other = SoftMask(np.where(FULL, SURE, -SURE).astype(np.float32), (10, 10, 30, 30))
    two.votes[1] = Vote("other", [other])
    assert cue("votes_iou", quality.compute_cues(two)) == pytest.approx(0.5)


def test_contrast_compares_colors_across_the_outline():
    image = np.zeros((40, 40, 3), np.uint8)
    image[:, :20] = 255  # the mask's half is white: L is 100 within and 0 without
    assert cue("contrast", quality.compute_cues(labeled([HALF], image=image))) == pytest.approx(1, abs=1e-3)
    assert cue("contrast", quality.compute_cues(labeled([HALF]))) == 0


def test_an_object_that_goes_on_beyond_its_box():
    """Votes see an object in columns 7 to 29, three of which lie left of the box."""
    seen = np.broadcast_to((np.arange(7, 33) < 30) & (np.arange(7, 33)[:, None] // 10 % 3 != 0), (26, 26))
    image = labeled([FULL])
    image.votes[0] = Vote("wide", [SoftMask(np.where(seen, SURE, -SURE), (7, 7, 33, 33))])
    found = quality.compute_cues(image)
    assert cue("leakage", found) == pytest.approx(3 * 20 / 400, abs=1e-3)
    assert cue("uncut_agreement", found) == pytest.approx(400 / (23 * 20))
    kept = quality.compute_cues(labeled([FULL]))
    assert cue("uncut_agreement", kept) == pytest.approx(400 / 26**2)  # grids are constant beyond their ends
    nothing = quality.compute_cues(labeled([FULL], logits=np.full((20, 20), -SURE, np.float32)))
    assert cue("leakage", nothing) <= 2 and cue("uncut_agreement", nothing) == 0


def test_crowding_and_contested_pixels():
    boxes = [[0, 0, 20, 20], [0, 0, 10, 20]]
    first = np.ones((20, 20), bool)
    image = labeled([first, np.ones((20, 10), bool)], boxes=boxes)
    image.masks[0] = first & (np.arange(20) >= 10)
    found = quality.compute_cues(image)
    assert cue("crowding", found).tolist() == pytest.approx([0.5, 1.0])
    assert cue("contested", found).tolist() == pytest.approx([0.5, 0.0])


def test_a_box_without_a_mask_has_no_cues_and_no_quality():
    image = labeled([HALF, HALF])
    image.masks[1] = None
    found = quality.compute_cues(image)
    assert np.isfinite(found[0]).all() and np.isnan(found[1]).all()
    rng = np.random.default_rng(0)
    calibration = quality.fit_calibration(rng.normal(size=(50, len(quality.CUES))), rng.random(50))
    known, unknown = calibration.estimate(found)
    assert 0 <= known <= 1 and np.isnan(unknown)


def made_up(count, seed=0):
    """Cues of which the second predicts the IoU up to noise."""
    rng = np.random.default_rng(seed)
    found = rng.normal(size=(count, len(quality.CUES)))
    ious = (0.6 + 0.2 * np.tanh(found[:, 1]) + rng.normal(0, 0.05, count)).clip(0, 1)
    return found, ious


def test_a_calibration_generalizes_to_unseen_masks():
    calibration = quality.fit_calibration(*made_up(400))
    found, ious = made_up(400, seed=1)
    metrics = quality_metrics(ious, calibration.estimate(found))
    assert metrics["spearman"] > 0.85
    assert metrics["calibration_error"] < 0.03
    assert metrics["gain"] > 0.85


def test_uninformative_cues_give_the_mean():
    rng = np.random.default_rng(0)
    calibration = quality.fit_calibration(rng.normal(size=(300, len(quality.CUES))), rng.random(300))
    spread = calibration.estimate(rng.normal(size=(300, len(quality.CUES))))
    assert abs(spread.mean() - 0.5) < 0.06 and spread.std() < 0.12


def test_the_distance_of_cues_from_those_of_the_calibration():
    found, ious = made_up(400)
    found[:, 3] = 1  # does not vary, and counts nowhere
    calibration = quality.fit_calibration(found, ious)
    assert calibration.distance(found).mean() == pytest.approx(1, abs=0.03)
    far = found.copy()
    far[:, 3] = 7
    np.testing.assert_allclose(calibration.distance(far), calibration.distance(found))
    far[:, 0] += 5
    others = len(quality.CUES) - 1
    assert calibration.distance(far).mean() == pytest.approx(1 + 25 / others, rel=0.1)
    corrected = correct_calibration(calibration, calibration.estimate(found), ious)
    assert not corrected.distance(far).any()


def test_a_reference_rates_masks_by_its_own_probabilities():
    """Undecided everywhere: 100 pixels are expected to overlap, of 200 + 100, however confident the teacher was."""
    calls = []

    class Undecided:
        name, identity = "undecided", "v1"

        def __call__(self, image, boxes, labels):
            calls.append(len(labels))
            return [SoftMask(np.zeros((20, 20), np.float32), tuple(box)) for box in boxes]

    calibration = quality.trust_reference(Undecided())
    image = labeled([HALF, FULL])
    found = quality.compute_cues(image, calibration.reference)
    assert calibration.estimate(found) == pytest.approx([1 / 3, 1 / 2], abs=1e-6)
    np.testing.assert_array_equal(
        found,
        quality.compute_cues(
            replace(image, votes=[Vote("undecided", Undecided()(None, image.boxes, [0, 0]))])
        ),
    )
    assert calls == [2, 2]
    image.votes.append(Vote("undecided", image.votes[0].soft_masks))  # it is a teacher too: asked once
    quality.compute_cues(image, calibration.reference)
    assert calls == [2, 2]
    corrected = correct_calibration(calibration, calibration.estimate(found), np.array([0.5, 0.7]))
    assert corrected.is_fitted and corrected.reference is calibration.reference
    other = Undecided()
    other.identity = "v2"
    assert quality.trust_reference(other).identity != calibration.identity


def test_a_calibration_survives_its_file(tmp_path):
    calibration = quality.fit_calibration(*made_up(100))
    quality.save_calibration(calibration, tmp_path / "q.json")
    again = quality.load_calibration(tmp_path / "q.json")
    found = made_up(30, seed=2)[0]
    assert (
        np.array_equal(calibration.estimate(found), again.estimate(found))
        and calibration.identity == again.identity
    )
    assert calibration.identity != quality.fit_calibration(*made_up(100, seed=3)).identity


def test_a_calibration_that_is_not_numbers_is_refused(tmp_path):
    quality.save_calibration(quality.fit_calibration(*made_up(100)), tmp_path / "q.json")
    text = (tmp_path / "q.json").read_text()
    (tmp_path / "q.json").write_text(text.replace('"mean": [', '"mean": ["none", '))
    with pytest.raises(BoxelError, match=r"q\.json: not readable as a calibration"):
        quality.load_calibration(tmp_path / "q.json")


def test_a_model_folder_may_have_a_calibration_of_its_own(tmp_path):
    calibration = quality.fit_calibration(*made_up(100))
    assert quality.find_calibration(str(tmp_path)) is None
    quality.save_calibration(calibration, tmp_path / "quality.json")
    assert quality.find_calibration(str(tmp_path)).identity == calibration.identity
    assert quality.find_calibration("ellipse").identity != calibration.identity
    assert (
        quality.find_calibration("unknown") is None and quality.find_calibration("../quality/ellipse") is None
    )


def test_too_few_masks_are_refused():
    with pytest.raises(BoxelError, match="on 19 masks"):
        quality.fit_calibration(*made_up(19))
    quality.fit_calibration(*made_up(20))


def test_the_correction_grows_with_the_number_of_masks():
    calibration = quality.fit_calibration(*made_up(400))
    for count, least, most in ((20, 0.05, 0.16), (250, 0.15, 0.23)):
        found, ious = made_up(count, seed=4)
        lower = correct_calibration(calibration, calibration.estimate(found), ious - 0.2)
        shift = (calibration.estimate(found) - lower.estimate(found)).mean()
        assert least < shift < most
        assert (np.diff(lower.curve[1]) >= 0).all() and lower.identity != calibration.identity


def test_quality_metrics_by_hand():
    ious = np.arange(10) / 10
    perfect = quality_metrics(ious, ious)
    assert perfect == pytest.approx({"spearman": 1, "calibration_error": 0, "gain": 1})
    off = quality_metrics(ious, ious[::-1] + 0.0)
    # The best six by it are the worst six: mean 0.25 where all have 0.45 and the best 0.65.
    assert off["gain"] == pytest.approx((0.25 - 0.45) / (0.65 - 0.45))
    assert off["spearman"] == pytest.approx(-1)
    assert off["calibration_error"] == pytest.approx(np.abs(ious[::-1] - ious).mean())


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_isotonic_fit_equals_scipy(values):
    values = np.array(values)
    np.testing.assert_allclose(quality._fit_isotonic(values), isotonic_regression(values).x, atol=1e-12)
