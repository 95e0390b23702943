"""The guarantee on masks: thresholds by hand, how often the promise holds, and what becomes of the other masks."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import beta

from boxel.data import write
from boxel.labeling import LabelConfig, find_threshold, guarantee, label, make_teacher
from boxel.labeling.api import label_data
from boxel.labeling.calibration import check_masks, estimate_left_out, fit_or_correct
from boxel.labeling.guarantee import CheckedMasks, guarantee_masks
from boxel.labeling.quality import CUES, fit_calibration
from boxel.utils.errors import BoxelError, UsageError

GRID = np.linspace(0, 1, 21)


def checked(failures, count, iou=0.8):
    """True masks of falling quality, the last of which fail."""
    ious = np.where(np.arange(count) < count - failures, 0.9, 0.3)
    return CheckedMasks(np.linspace(0.99, 0.51, count), ious, iou)


@pytest.mark.parametrize(
    ("failures", "count", "holds"),
    [(0, 28, False), (0, 29, True), (1, 45, False), (1, 46, True), (2, 61, True)],
)
def test_a_threshold_passes_if_the_bound_of_clopper_and_pearson_is_a_tenth(failures, count, holds):
    quality, ious, iou = checked(failures, count)
    assert np.isnan(find_threshold(quality, ious, iou, np.array([0.5]))) != holds
    assert (beta.ppf(0.95, failures + 1, count - failures) <= 0.1) == holds


def test_the_test_ends_at_the_first_threshold_that_fails():
    quality = np.repeat([0.9, 0.7, 0.5], [40, 10, 500])
    ious = np.repeat([0.9, 0.3, 0.9], [40, 10, 500])
    # From 0.5 up 10 of 550 fail, which would pass, but 10 of 50 from 0.7 up do not.
    assert find_threshold(quality, ious, 0.8, np.array([0.5, 0.7, 0.9])) == 0.9
    assert np.isnan(find_threshold(quality, ious, 0.8, np.array([0.5, 0.7])))
    assert find_threshold(quality, ious, 0.8, np.array([0.5])) == 0.5


@pytest.mark.parametrize("count", [40, 100, 300])
@pytest.mark.parametrize(
    "reliability",
    [
        lambda quality: np.full_like(quality, 0.89),  # as near to the promise as a broken one can be
        lambda quality: 0.97 - 0.3 * (quality < 0.7),
        lambda quality: quality**0.2,
        lambda quality: 0.8 + 0.15 * quality,
        lambda quality: 0.95 - 0.2 * (quality > 0.6),  # the ranking is upside down
    ],
)
def test_the_promise_is_broken_in_at_most_one_of_twenty_draws(count, reliability):
    rng = np.random.default_rng(count)
    broken = []
    everything = np.linspace(0, 1, 2001)
    for _ in range(400):
        quality = rng.random(count)
        ious = np.where(rng.random(count) < reliability(quality), 0.9, 0.5)
        threshold = find_threshold(quality, ious, 0.8, GRID)
        covered = everything[everything >= threshold]
        broken.append(len(covered) > 0 and reliability(covered).mean() < 0.9)
    assert np.mean(broken) <= 0.05 + 2.5 * np.sqrt(0.05 * 0.95 / 400)


def test_the_promise_holds_if_the_quality_is_calibrated_on_the_same_masks():
    """Cues of which none predicts the IoU: what a fit on the same masks finds is noise, and must not count."""
    rng = np.random.default_rng(0)
    broken = []
    for _ in range(20):
        cues, ious = rng.normal(size=(1000, len(CUES))), np.where(rng.random(1000) < 0.88, 0.9, 0.4)
        true = np.arange(60)
        quality = fit_or_correct(cues[true], ious[true], None).estimate(cues)
        left_out = estimate_left_out(cues[true], ious[true], None)
        threshold = find_threshold(left_out, ious[true], 0.8, np.quantile(quality, np.linspace(0, 0.95, 20)))
        covered = quality >= threshold
        broken.append(covered.any() and (ious[covered] >= 0.8).mean() < 0.9)
    assert np.mean(broken) <= 0.15


@pytest.fixture
def labeled(make_set):
    """A dataset with masks by a teacher, of quality 0.5 to 1, and (N,) which they are."""
    masks = label(make_set(20), teacher="ellipse")
    quality = np.linspace(1, 0.5, len(masks.ids))
    return replace(masks, quality=quality), masks.has_mask


def test_what_is_guaranteed_stays_trusted(labeled):
    data, made = labeled
    made = made & (np.arange(len(made)) != 0)  # the first is the user's own
    found, result = guarantee_masks(data, made, CheckedMasks(*checked(0, 60)[:2], iou=0.8))
    assert found.trusted.all() and (result.masks, result.remaining) == (39, 0)
    # A third of the true masks, those of the lowest quality, fail.
    found, result = guarantee_masks(data, made, checked(20, 60))
    assert (
        found.trusted[0]
        and result.masks == found.trusted[1:].sum() == (data.quality[1:] >= result.threshold).sum()
    )
    assert result.remaining == 39 - result.masks and 0.6 < result.threshold < 0.7
    assert (
        f"{result.masks} masks are guaranteed: with 95% confidence, at least 90% of them" in result.describe()
    )
    assert "drawn at random" in result.describe()


def test_masks_of_small_boxes_are_not_guaranteed(labeled):
    data, made = labeled
    boxes = data.boxes.copy()
    boxes[:, 2] = boxes[:, 0] + np.where(np.arange(len(boxes)) < 10, 15.9, 16)
    found, result = guarantee_masks(replace(data, boxes=boxes), made, checked(0, 60))
    assert found.trusted.tolist() == [False] * 10 + [True] * 30 and result.masks == 30


def test_without_a_guarantee_no_mask_is_trusted_and_the_missing_masks_are_counted(labeled):
    data, made = labeled
    quality, ious, iou = checked(1, 40)
    found, result = guarantee_masks(data, made, CheckedMasks(quality, ious[::-1], iou))  # the best one fails
    assert not found.trusted.any() and result.remaining == 40 and np.isnan(result.threshold)
    # 61 true masks may have 2 failures, 46 may have 1.
    assert (
        20 <= result.missing <= 22
        and f"correct about {result.missing} more, drawn at random" in result.describe()
    )
    found, result = guarantee_masks(data, made, CheckedMasks(np.full(40, 0.9), np.full(40, 0.3), 0.8))
    assert result.missing == 0 and "40 of 40 true masks have a lower one" in result.describe()


def test_too_few_true_masks_are_refused_with_the_number_that_is_missing(make_set, tmp_path):
    data = make_set(4)
    with pytest.raises(
        BoxelError, match=r"needs at least 29 true masks .* there are 0; correct at least 29 more"
    ):
        label(data, teacher="ellipse", guarantee=0.8)
    # Masks by a teacher are not true ones.
    made = label(make_set(20), teacher="ellipse")
    with pytest.raises(BoxelError, match="there are 0"):
        label_data(data, teacher="ellipse", guarantee=0.8, calibrate_on=made)
    with pytest.raises(UsageError, match="`drop` and `guarantee` both decide"):
        LabelConfig(drop=0.9, guarantee=0.8)
    with pytest.raises(BoxelError, match="guarantee is 1; give a number"):
        LabelConfig(guarantee=1)


def test_the_true_masks_of_the_dataset_itself_are_used(make_set):
    true = label(make_set(40), teacher="ellipse")
    own = (true.labels == 0) & (true.image_index < 35)
    segmentations = np.where(own, true.segmentations, None)
    data = replace(
        true, segmentations=segmentations, source=np.full(len(own), None), quality=np.full(len(own), np.nan)
    )
    result = label_data(data, teacher="ellipse", guarantee=0.8)
    assert result.guarantee.checked == 35 and result.guarantee.failures == 0
    assert result.guarantee.masks + result.guarantee.remaining == (~own).sum()
    assert result.data.trusted[own].all() and result.settings["guarantee"] == 0.8
    trusted = result.data.trusted[~own]
    assert (trusted == (result.data.quality[~own] >= result.guarantee.threshold)).all() and trusted.any()
    assert result.guarantee.describe() in result.summary()
    # The quality is that of the bundled calibration, and the next run without a guarantee trusts all masks.
    plain = label_data(data, teacher="ellipse")
    assert (
        np.array_equal(plain.data.quality, result.data.quality, equal_nan=True) and plain.data.trusted.all()
    )


def test_true_masks_in_a_file_calibrate_the_quality_and_are_left_out_of_their_own(make_set, tmp_path):
    data = make_set(30)
    teacher = make_teacher("ellipse")
    true = replace(label(data, teacher="ellipse"), source=np.full(len(data.ids), None))
    write(true, tmp_path / "set" / "true.json")
    result = label_data(data, teacher="ellipse", guarantee=0.8, calibrate_on=tmp_path / "set" / "true.json")
    assert result.guarantee.checked == 60 and result.guarantee.masks == 60
    config = LabelConfig(guarantee=0.8)
    again, found = check_masks(true, [teacher], config, None, recalibrate=True)
    assert found.iou == 0.8 and found.ious.min() > 0.99 and np.isfinite(found.quality).all()
    assert again.identity == check_masks(true, [teacher], config, None, recalibrate=False)[0].identity


def test_a_quality_that_is_left_out_does_not_depend_on_its_own_iou():
    rng = np.random.default_rng(1)
    cues, ious = rng.normal(size=(60, len(CUES))), rng.random(60)
    for prior in (None, fit_calibration(rng.normal(size=(90, len(CUES))), rng.random(90))):
        quality = estimate_left_out(cues, ious, prior)
        changed = ious.copy()
        changed[7] = 1 - changed[7]
        again = estimate_left_out(cues, changed, prior)
        assert again[7] == quality[7] and (again != quality).any()


def test_a_guarantee_can_change_without_labeling_again(make_set, tmp_path):
    data = make_set(30)
    true = replace(label(data, teacher="ellipse"), source=np.full(len(data.ids), None))
    out, options = tmp_path / "m.json", {"teacher": "ellipse", "calibrate_on": true}
    assert label_data(data, out=out, guarantee=0.8, **options).labeled == 30
    again = label_data(data, out=out, guarantee=0.5, **options)
    assert (again.labeled, again.reused) == (0, 30) and again.guarantee.iou == 0.5


def test_the_minimum_number_of_true_masks_is_the_smallest_that_can_pass():
    share, minimum = guarantee.MIN_SHARE, guarantee.MIN_TRUE_MASKS
    assert share**minimum <= 1 - guarantee.CONFIDENCE < share ** (minimum - 1)
