"""The guarantee on masks: bounds by hand, how often the promise holds, and what becomes of the other masks."""

import json
from dataclasses import replace
from math import comb, perm

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boxel.data import write
from boxel.labeling import LabelConfig, find_threshold, guarantee, label, make_teacher
from boxel.labeling.api import label_data
from boxel.labeling.calibration import check_masks, estimate_left_out, fit_or_correct
from boxel.labeling.guarantee import CheckedMasks, bound_failures, guarantee_masks
from boxel.labeling.quality import CUES, fit_calibration
from boxel.utils.errors import BoxelError, UsageError


def checked(failures, count, iou=0.8):
    """True masks of falling quality, the last of which fail."""
    ious = np.where(np.arange(count) < count - failures, 0.9, 0.3)
    return CheckedMasks(np.linspace(0.99, 0.51, count), ious, iou)


@pytest.mark.parametrize(("count", "rest", "bound"), [(30, 500, 48), (29, 100_000, 9815), (35, 60, 6)])
def test_without_a_failure_the_bound_is_that_of_drawing_others_alone(count, rest, bound):
    assert bound_failures(count, rest).tolist() == [bound]
    # If one more failed, they would all be among the others with a probability of at most 0.05.
    alone = [comb(rest, failures) / comb(count + rest, failures) for failures in (bound + 1, bound)]
    assert alone[0] <= 0.05 < alone[1]


def test_with_a_failure_the_bound_is_that_of_two_ways_to_break_it():
    assert bound_failures(60, 100).tolist() == [6, 10]
    none = comb(100, 7) / comb(160, 7)  # the first seven that fail are others
    # One of the first seven is a checked one, and of the first twelve it is the only one.
    one = 7 * 60 * perm(100, 11) / perm(160, 12)
    assert none + one == pytest.approx(0.0472, abs=1e-4)


def break_probability(bounds, count, rest):
    """The probability that a random order of checked and other masks breaks a bound, step by step."""
    within, broken = {(0, 0): 1.0}, 0.0
    while within:
        after = {}
        for (k, u), probability in within.items():
            left = count + rest - k - u
            if k + 1 < len(bounds):
                after[k + 1, u] = after.get((k + 1, u), 0) + probability * (count - k) / left
            other = probability * (rest - u) / left
            if u + 1 > bounds[k]:
                broken += other
            else:
                after[k, u + 1] = after.get((k, u + 1), 0) + other
        within = after
    return broken


@given(st.integers(1, 150), st.integers(1, 400))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_the_bounds_are_broken_with_a_probability_of_at_most_a_twentieth(count, rest):
    bounds = bound_failures(count, rest)
    assert (np.diff(bounds) >= 0).all() and (bounds <= rest // 10).all()
    if len(bounds):
        assert break_probability(bounds, count, rest) <= 0.05 + 1e-9


@pytest.mark.parametrize("count", [0, 10, 28, 30])
def test_few_checked_masks_or_few_others_have_no_bound(count):
    assert len(bound_failures(count, 20)) == 0
    assert bound_failures(count, 0).tolist() == [0] * count  # nothing can fail


def test_a_threshold_may_follow_one_that_fails():
    quality = np.repeat([0.9, 0.7, 0.5], [40, 10, 500])
    ious = np.repeat([0.9, 0.3, 0.9], [40, 10, 500])
    # From 0.7 up 10 of 50 fail; from 0.5 up 10 of 550 do.
    assert find_threshold(quality, ious, 0.8, np.repeat([0.9, 0.7, 0.5], [400, 100, 5000])) == 0.5
    above = quality >= 0.7
    assert find_threshold(quality[above], ious[above], 0.8, np.repeat([0.9, 0.7], [450, 50])) == 0.9
    assert np.isnan(find_threshold(quality[above], ious[above], 0.8, np.full(100, 0.7)))
    assert np.isnan(find_threshold(quality, ious, 0.8, np.full(100, np.nan)))


POPULATIONS = {  # which of 400 masks, by falling quality, fail
    "a tenth": lambda rng: np.arange(400) % 10 == 9,
    "a little more than a tenth": lambda rng: np.arange(400) % 9 == 8,
    "those of low quality": lambda rng: rng.random(400) < np.linspace(0, 0.3, 400),
    "many below a threshold": lambda rng: np.arange(400) >= 350,
    "those of the highest quality": lambda rng: np.arange(400) < 45,
    "in steps": lambda rng: np.arange(400) % 50 >= 45,
}


@pytest.mark.parametrize("count", [40, 100, 250])
@pytest.mark.parametrize("population", POPULATIONS)
def test_the_promise_to_those_that_nobody_checked_is_broken_in_at_most_one_of_twenty_draws(count, population):
    rng = np.random.default_rng(count)
    failed, quality = POPULATIONS[population](rng), np.linspace(1, 0, 400)
    broken, draws = 0, 200
    for _ in range(draws):
        order = rng.permutation(400)
        true, rest = order[:count], order[count:]
        threshold = find_threshold(quality[true], np.where(failed[true], 0.5, 0.9), 0.8, quality[rest])
        covered = rest[quality[rest] >= threshold]
        broken += failed[covered].sum() > 0.1 * len(covered) + 1e-9
    assert broken / draws <= 0.05 + 2.5 * np.sqrt(0.05 * 0.95 / draws)


def test_the_promise_holds_if_the_quality_is_calibrated_on_the_same_masks():
    """Cues of which none predicts the IoU: what a fit on the same masks finds is noise, and must not count."""
    rng = np.random.default_rng(0)
    broken = []
    for _ in range(20):
        cues, ious = rng.normal(size=(1000, len(CUES))), np.where(rng.random(1000) < 0.88, 0.9, 0.4)
        true = np.arange(60)
        quality = fit_or_correct(cues[true], ious[true], None).estimate(cues)
        left_out = estimate_left_out(cues[true], ious[true], None)
        threshold = find_threshold(left_out, ious[true], 0.8, quality[60:])
        covered = quality[60:] >= threshold
        broken.append(covered.any() and (ious[60:][covered] >= 0.8).mean() < 0.9)
    assert np.mean(broken) <= 0.15


@pytest.fixture
def labeled(make_set):
    """A dataset with masks by a teacher, of quality 0.5 to 1, and (N,) which they are."""
    masks = label(make_set(100), teacher="ellipse")
    quality = np.linspace(1, 0.5, len(masks.ids))
    return replace(masks, quality=quality), masks.has_mask


def test_what_is_guaranteed_stays_trusted(labeled):
    data, made = labeled
    known = np.arange(len(made)) == 0
    made = made & ~known  # the first is the user's own
    found, result = guarantee_masks(data, made, known, checked(0, 60))
    assert found.trusted.all() and (result.masks, result.remaining) == (199, 0)
    # A third of the true masks, those of the lowest quality, fail.
    found, result = guarantee_masks(data, made, known, checked(20, 60))
    assert (
        found.trusted[0]
        and result.masks == found.trusted[1:].sum() == (data.quality[1:] >= result.threshold).sum()
    )
    # Above a threshold of 0.67 there is none of them, and bound_failures(60, 199)[0] is a tenth of 110 masks and more.
    assert result.remaining == 199 - result.masks and 0.62 < result.threshold < 0.7
    assert (
        f"{result.masks} masks that nobody checked are guaranteed: with 95% confidence" in result.describe()
    )
    assert "drawn at random" in result.describe()


def test_masks_of_small_boxes_are_not_guaranteed(labeled):
    data, made = labeled
    boxes = data.boxes.copy()
    boxes[:, 2] = boxes[:, 0] + np.where(np.arange(len(boxes)) < 10, 15.9, 16)
    known = np.zeros(len(made), dtype=bool)
    found, result = guarantee_masks(replace(data, boxes=boxes), made, known, checked(0, 60))
    assert found.trusted.tolist() == [False] * 10 + [True] * 190 and result.masks == 190


def test_masks_that_replace_checked_ones_are_not_guaranteed(labeled):
    data, made = labeled
    known = np.arange(len(made)) < 60
    found, result = guarantee_masks(data, made, known, checked(0, 60))
    assert found.trusted.tolist() == [False] * 60 + [True] * 140
    assert (result.masks, result.remaining) == (140, 60)
    result = guarantee_masks(data, made & known, known, checked(0, 60))[1]
    assert (
        result.masks == 0 and "there is none that nobody checked" in replace(result, remaining=0).describe()
    )


def test_without_a_guarantee_no_mask_is_trusted_and_the_missing_masks_are_counted(labeled):
    data, made = labeled
    known = np.zeros(len(made), dtype=bool)
    quality, ious, iou = checked(1, 40)
    # The best one fails.
    found, result = guarantee_masks(data, made, known, CheckedMasks(quality, ious[::-1], iou))
    assert not found.trusted.any() and result.remaining == 200 and np.isnan(result.threshold)
    assert f"correct about {result.missing} more, drawn at random" in result.describe()
    # That many would have two failures, and the rest would be guaranteed.
    more = result.missing
    assert bound_failures(40 + more, 200 - more)[2] <= (200 - more) // 10
    assert len(bound_failures(40 + more - 10, 200 - more + 10)) <= 2
    found, result = guarantee_masks(data, made, known, CheckedMasks(np.full(40, 0.9), np.full(40, 0.3), 0.8))
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
    true = label(make_set(80), teacher="ellipse")
    own = np.random.default_rng(0).random(160) < 0.4
    segmentations = np.where(own, true.segmentations, None)
    data = replace(true, segmentations=segmentations, source=np.full(160, None), quality=np.full(160, np.nan))
    result = label_data(data, teacher="ellipse", guarantee=0.8)
    assert result.guarantee.checked == own.sum() and result.guarantee.failures == 0
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


@pytest.fixture
def sampled(make_set):
    """A dataset of 120 boxes, and true masks of a random half of them."""
    data = make_set(60)
    true = label(data, teacher="ellipse")
    drawn = np.random.default_rng(0).permutation(120) < 60
    segmentations = np.where(drawn, true.segmentations, None)
    return data, replace(true, segmentations=segmentations, source=np.full(120, None))


def test_true_masks_of_boxes_of_the_dataset_are_kept_and_the_others_guaranteed(sampled, tmp_path):
    data, true = sampled
    write(true, tmp_path / "set" / "true.json")
    result = label_data(data, teacher="ellipse", guarantee=0.8, calibrate_on=tmp_path / "set" / "true.json")
    assert (result.guarantee.checked, result.guarantee.masks, result.guarantee.remaining) == (60, 60, 0)
    kept = true.has_mask
    assert (result.made == ~kept).all() and result.data.trusted.all()
    assert [source is None for source in result.data.source] == kept.tolist()


def test_true_masks_under_the_same_ids_of_other_boxes_guarantee_all_masks(sampled):
    data, true = sampled
    moved = replace(data, boxes=data.boxes.copy())
    moved.boxes[0::2] = (30, 20, 60, 40)  # of the disc; the corner keeps its box
    result = label_data(moved, teacher="ellipse", guarantee=0.3, calibrate_on=true)
    assert result.guarantee.checked == 60
    assert (result.made == ((true.labels == 0) | ~true.has_mask)).all()
    assert result.guarantee.masks + result.guarantee.remaining == result.made.sum()


def test_a_mask_that_the_user_edited_later_stays(sampled, tmp_path):
    data, true = sampled
    out, options = tmp_path / "m.json", {"teacher": "ellipse", "guarantee": 0.8, "calibrate_on": true}
    label_data(data, out=out, **options)
    row = int(true.has_mask.argmax())
    rows = json.loads(out.read_text())
    rows["annotations"][row]["segmentation"] = [[20.0, 10.0, 40.0, 10.0, 40.0, 30.0]]
    out.write_text(json.dumps(rows))
    again = label_data(data, out=out, **options)
    assert again.data.mask(row).sum() == pytest.approx(200, abs=25) and not again.made[row]


def test_the_calibration_is_the_same_with_a_guarantee(sampled):
    _, true = sampled
    config, teacher = LabelConfig(guarantee=0.8), make_teacher("ellipse")
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


def test_a_guarantee_can_change_without_labeling_again(sampled, tmp_path):
    data, true = sampled
    out, options = tmp_path / "m.json", {"teacher": "ellipse", "calibrate_on": true}
    labeled = label_data(data, out=out, guarantee=0.8, **options).labeled
    again = label_data(data, out=out, guarantee=0.5, **options)
    assert (again.labeled, again.reused) == (0, labeled) and again.guarantee.iou == 0.5


def test_the_minimum_number_of_true_masks_is_the_smallest_that_can_pass():
    share, minimum = guarantee.MIN_SHARE, guarantee.MIN_TRUE_MASKS
    assert share**minimum <= 1 - guarantee.CONFIDENCE < share ** (minimum - 1)
