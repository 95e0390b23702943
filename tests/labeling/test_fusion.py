"""One image: votes, their fusion, masks, and overlaps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import logit

from boxel.labeling.config import LabelConfig
from boxel.labeling.fusion import (
    FusedBox,
    Vote,
    collect_votes,
    flip_boxes,
    flip_soft_mask,
    label_image,
    vote_logits,
)
from boxel.labeling.overlaps import PlacedMask
from boxel.labeling.probabilities import best_threshold, mean_probability
from boxel.labeling.teachers import make_teacher
from boxel.labeling.teachers.base import SoftMask, from_binary_mask
from boxel.labeling.teachers.baselines import rectangle
from boxel.masks.boxes import Region, pixel_region

NAN = np.nan
PLAIN = LabelConfig(min_component=0)


def text(mask):
    return ["".join("#" if pixel else "." for pixel in row) for row in mask]


def parse_mask(*rows):
    return np.array([[sign == "#" for sign in row] for row in rows])


class Constant:
    """A teacher that predicts a fixed probability, or a grid of them, over each box."""

    def __init__(self, name, probability, score=1.0):
        self.name, self.grid, self.score = name, np.atleast_2d(np.array(probability, float)), score

    def __call__(self, image, boxes, labels):
        logits = logit(self.grid).astype(np.float32)
        return [SoftMask(logits, tuple(box), self.score) for box in boxes]


def label_one(teachers, box, config=PLAIN):
    return label_boxes(teachers, [box], config, image=(6, 8))


# ---------------------------------------------------------------- fusion


def test_probabilities_are_averaged():
    logits = logit(np.array([[[0.9, 0.2]], [[0.5, 0.6]]])).astype(np.float32)
    np.testing.assert_allclose(mean_probability(logits), [[0.7, 0.4]], rtol=1e-6)


def test_nan_votes_are_ignored_in_fusion():
    logits = np.array([[[NAN, NAN, 2.0]], [[NAN, 1.0, -2.0]]], dtype=np.float32)
    found = mean_probability(logits)
    sigmoid = 1 / (1 + np.exp(-np.array([1.0, 2.0, -2.0])))
    np.testing.assert_allclose(
        found, [[NAN, sigmoid[0], (sigmoid[1] + sigmoid[2]) / 2]], rtol=1e-6, equal_nan=True
    )
    assert found.dtype == np.float32


def test_the_mean_of_two_teachers_decides():
    yes = Constant("yes", 0.8)
    assert label_one([yes, Constant("no", 0.3)], (1, 1, 5, 4)).masks[0].all()
    assert label_one([yes, Constant("no", 0.1)], (1, 1, 5, 4)).masks[0] is None


def test_a_calibrated_teacher_without_others_in_a_box_gets_the_best_threshold():
    vague, box = Constant("vague", [[0.95, 0.9, 0.45, 0.43, 0.1, 0.05]]), (1, 1, 7, 2)
    vague.calibrated = True
    assert text(label_one([vague, Constant("silent", NAN)], box).masks[0]) == ["####.."]  # above 0.42
    assert text(label_one([vague, Constant("half", 0.5)], box).masks[0]) == ["##...."]  # above 0.5


def test_teachers_fill_the_gaps_of_others():
    """The core of the inner box is certain, the rest of the box is the ellipse's."""
    box = (1, 1, 7, 5)
    alone = label_one([make_teacher("inner-box", [])], box)
    both = label_one([make_teacher("inner-box", []), make_teacher("ellipse", [])], box)
    ellipse = label_one([make_teacher("ellipse", [])], box)
    assert text(alone.masks[0]) == ["......", "..##..", "..##..", "......"]  # 2.7 x 1.8 pixels about (4, 3)
    np.testing.assert_array_equal(both.masks[0], ellipse.masks[0])


# ---------------------------------------------------------------- flipped


def test_flipping_twice_is_the_identity():
    boxes = np.array([[1.0, 2, 4.5, 5]])
    assert flip_boxes(boxes, 10).tolist() == [[5.5, 2, 9, 5]]
    np.testing.assert_array_equal(flip_boxes(flip_boxes(boxes, 10), 10), boxes)
    soft = SoftMask(np.array([[1, 2, 3]], dtype=np.float32), (0.5, 0, 3.5, 1), 0.7)
    back = flip_soft_mask(soft, 10)
    assert back.logits.tolist() == [[3, 2, 1]] and back.window == (6.5, 0, 9.5, 1) and back.score == 0.7
    drawn = from_binary_mask(parse_mask("#..", "##."), 1, 2)
    there = drawn.resample(Region(0, 0, 8, 6))
    np.testing.assert_array_equal(flip_soft_mask(drawn, 8).resample(Region(0, 0, 8, 6)), there[:, ::-1])


def test_the_flipped_image_gives_a_second_vote():
    """A teacher takes the left half of every box; on the flipped image that is the right half."""
    left = Constant("left", [[0.9, 0.1]])
    plain = label_one([left], (2, 1, 6, 4))
    assert text(plain.masks[0]) == ["##..", "##..", "##.."] and len(plain.votes) == 1
    flipped = label_one([left], (2, 1, 6, 4), LabelConfig(min_component=0, flip=True))
    assert len(flipped.votes) == 2
    np.testing.assert_allclose(fused(flipped), 0.5, atol=1e-6)
    plain, flipped_back = everywhere(flipped)
    np.testing.assert_allclose(plain, flipped_back[:, ::-1], atol=1e-5)


def fused(found):
    """Probability of the first box in all of its region."""
    return FusedBox(found.votes, 0, found.regions[0]).probability(found.regions[0])


def everywhere(found):
    """Logits of the first box in all of its region."""
    left, top, right, bottom = found.regions[0]
    return vote_logits(found.votes, 0, np.arange(top, bottom), np.arange(left, right))


def test_the_teacher_sees_the_flipped_image_and_boxes():
    seen = []

    class Looks(Constant):
        def __call__(self, image, boxes, labels):
            seen.append((image[0, :, 0].tolist(), boxes.tolist(), image.flags["C_CONTIGUOUS"]))
            return super().__call__(image, boxes, labels)

    image = np.zeros((1, 4, 3), np.uint8)
    image[0, :, 0] = [1, 2, 3, 4]
    collect_votes([Looks("x", 0.9)], image, np.array([[0.0, 0, 1, 1]]), np.zeros(1, np.int32), flip=True)
    assert seen == [([1, 2, 3, 4], [[0, 0, 1, 1]], True), ([4, 3, 2, 1], [[3, 0, 4, 1]], True)]


# ---------------------------------------------------------------- masks


@given(arrays(np.int64, (5, 6), elements=st.integers(0, 199)))
def test_a_chosen_threshold_maximizes_the_expected_iou(numbers):
    probability = ((numbers + 0.5) / 200).astype(np.float32)

    def expected(threshold):
        mask = probability > threshold
        return probability[mask].sum() / max(mask.sum() + probability[~mask].sum(), 1e-6)

    chosen = best_threshold(probability)
    assert 0.2 <= chosen <= 0.74
    assert expected(chosen) >= max(expected(k / 50) for k in range(10, 38)) - 1e-5


def predict_mask(probability):
    vote = Vote("x", [SoftMask(logit(np.array(probability)), (0, 0, len(probability[0]), 1))])
    return FusedBox([vote], 0, Region(0, 0, len(probability[0]), 1)).predict_mask()[0].tolist()


def test_the_threshold_is_one_half():
    assert predict_mask([[0.5, 0.51, NAN]]) == [False, True, False]
    assert predict_mask([[0.5, NAN]]) == predict_mask([[NAN, NAN]]) == [False, False]


def random_vote(rng, shape, window, unknown=0.0):
    logits = rng.normal(size=shape, scale=4).astype(np.float32)
    logits[rng.random(shape) < unknown] = NAN
    return Vote("random", [SoftMask(logits, window)])


@pytest.mark.parametrize("unknown", [0, 0.1])
def test_a_mask_of_a_large_region_is_that_of_its_pixels(unknown):
    """Two networks on grids of different size and place, and one without an opinion."""
    rng, region = np.random.default_rng(0), Region(30, 10, 1013, 797)
    votes = [
        random_vote(rng, (9, 14), (12.5, -20, 1100, 860), unknown),
        random_vote(rng, (11, 7), (100, 30, 900, 700), unknown),
        random_vote(rng, (1, 1), (0, 0, 1, 1), 1),
    ]
    box = FusedBox(votes, 0, region)
    probability = box.probability(region)
    np.testing.assert_array_equal(box.predict_mask(), probability > 0.5)
    part = Region(500, 400, 520, 411)
    np.testing.assert_array_equal(box.confidence(part), probability[390:401, 470:490].astype(np.float16))
    small = FusedBox(votes, 0, Region(30, 10, 230, 110))
    np.testing.assert_array_equal(small.predict_mask(), probability[:100, :200] > 0.5)
    corner = Region(180, 60, 200, 71)
    np.testing.assert_array_equal(small.confidence(corner), small.probability(corner).astype(np.float16))


def test_a_large_region_without_an_opinion_has_no_mask():
    silent = random_vote(np.random.default_rng(0), (2, 2), (0, 0, 1000, 1000), 1)
    assert not FusedBox([silent], 0, Region(0, 0, 1000, 1000)).predict_mask().any()


# ---------------------------------------------------------------- an image


def test_a_mask_is_clipped_to_its_box_and_slack():
    class Everywhere(Constant):
        def __call__(self, image, boxes, labels):
            return [SoftMask(np.full((1, 1), 5.0, np.float32), (0, 0, 8, 6)) for _ in boxes]

    box = (2, 1, 6, 3)
    found = label_one([Everywhere("all", 1)], box)
    assert found.regions == [Region(2, 1, 6, 3)] and found.masks[0].all() and found.agreement[0] == 1
    slack = label_one([Everywhere("all", 1)], box, LabelConfig(box_slack=0.25))
    assert slack.regions == [Region(1, 0, 7, 3)] and slack.masks[0].all()  # rows from 0.5 to 3.5
    assert slack.agreement[0] == pytest.approx(2.5 / 3)  # the nearest box has rows from 0.5 to 3


def test_without_an_opinion_there_is_no_mask():
    silent = label_one([Constant("silent", NAN)], (1, 1, 5, 4))
    assert silent.masks == silent.unmerged == [None]
    assert np.isnan(silent.agreement[0]) and not silent.trusted[0]
    assert not silent.votes[0].has_opinion(0)


def label_boxes(teachers, boxes, config=PLAIN, existing=(), image=(8, 10)):
    return label_image(
        np.zeros((*image, 3), np.uint8),
        np.array(boxes, dtype=np.float64),
        np.zeros(len(boxes), np.int32),
        teachers,
        config,
        existing,
    )


def test_overlaps_are_resolved_and_poor_masks_dropped():
    """A sofa whose lower half a dog covers: its mask spans half its box."""
    boxes = [(0, 0, 6, 4), (0, 2, 6, 4)]
    teachers = [make_teacher("rectangle", [])]
    found = label_boxes(teachers, boxes)
    assert text(found.masks[0]) == ["######", "######", "......", "......"] and found.masks[1].all()
    assert found.unmerged[0].all()
    assert found.agreement.tolist() == [0.5, 1] and found.trusted.all()
    dropped = label_boxes(teachers, boxes, LabelConfig(drop=0.6))
    assert dropped.trusted.tolist() == [False, True]
    np.testing.assert_array_equal(dropped.masks[0], found.masks[0])
    apart = label_boxes(teachers, boxes, LabelConfig(merge="none", drop=0.6))
    assert apart.trusted.all() and apart.masks[0].all()


def test_a_larger_object_yields_to_a_more_confident_one_only():
    """A teacher is less, then more confident of the small box than of the large one."""
    boxes = [(0, 0, 6, 4), (0, 2, 6, 4)]

    class BySize:
        name = "by size"

        def __init__(self, large, small):
            self.chances = large, small

        def __call__(self, image, boxes, labels):
            logits = [np.full((1, 1), np.log(p / (1 - p)), np.float32) for p in self.chances]
            return [SoftMask(grid, tuple(box)) for grid, box in zip(logits, boxes, strict=True)]

    hesitant = label_boxes([BySize(0.9, 0.6)], boxes)
    assert hesitant.masks[0].all() and hesitant.masks[1].all()
    confident = label_boxes([BySize(0.7, 0.8)], boxes)
    assert text(confident.masks[0]) == ["######", "######", "......", "......"] and confident.masks[1].all()
    # An existing mask is certain, and takes its pixels from a larger one.
    existing = PlacedMask(np.array([0.0, 3, 6, 4]), Region(0, 3, 6, 4), np.ones((1, 6), bool))
    beside = label_boxes([BySize(0.9, 0.6)], boxes, existing=[existing])
    assert text(beside.masks[0]) == ["######", "######", "######", "......"]
    assert text(beside.masks[1]) == ["######", "......"]


def test_a_fully_covered_mask_stays_but_is_not_trusted():
    twice, smaller = [(1, 1, 4, 4), (1, 1, 4, 4)], LabelConfig(merge="smaller")
    found = label_boxes([make_teacher("rectangle", [])], twice, smaller)
    assert found.masks[0].all() and found.masks[1].all()
    assert found.agreement.tolist() == [0, 1] and found.trusted.tolist() == [False, True]


def test_existing_masks_take_part_and_do_not_change():
    """An existing mask in a small box takes its pixels from a larger object; one in a large box loses none."""
    small = PlacedMask(np.array([2.0, 0, 4, 2]), Region(2, 0, 4, 2), parse_mask("##", "#."))
    large = PlacedMask(np.array([0.0, 0, 9, 8]), Region(0, 0, 3, 2), parse_mask("###", "###"))
    found = label_boxes([make_teacher("rectangle", [])], [(0, 0, 5, 2)], existing=[small, large])
    assert text(found.masks[0]) == ["##..#", "##.##"]
    assert large.mask.all()


def test_agreement_counts_the_part_of_a_box_in_the_image():
    found = label_boxes([make_teacher("rectangle", [])], [(-10, -10, 3, 2)])
    assert found.regions == [Region(0, 0, 3, 2)] and found.agreement[0] == 1


def test_logits_at_any_pixels():
    found = label_boxes([make_teacher("rectangle", []), Constant("half", 0.5)], [(0, 0, 6, 4)])
    logits = everywhere(found)
    assert logits.shape == (2, 4, 6)
    some = vote_logits(found.votes, 0, np.array([3, 1]), np.array([5]))
    np.testing.assert_array_equal(some, logits[:, [3, 1], 5:])
    np.testing.assert_array_equal(
        logits[0],
        rectangle(found.image, found.boxes[0]).resample(pixel_region(found.boxes[0], 8, 10)),
    )
    np.testing.assert_allclose(fused(found), (1 / (1 + np.exp(-10)) + 0.5) / 2, rtol=1e-5)


def test_no_boxes():
    found = label_boxes([make_teacher("ellipse", [])], np.zeros((0, 4)))
    assert found.masks == [] and found.agreement.shape == (0,)
    assert isinstance(found.votes[0], Vote)
