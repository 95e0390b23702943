"""The minimum score of each class by the best F1, with values worked out by hand."""

import numpy as np
import pytest

from boxel.evaluation import choose_thresholds

SIZE = 20
OBJECT, ELSEWHERE = (0, 0, 10, 10), (10, 10, 20, 20)


@pytest.fixture
def case(make_truth, make_result, rectangle):
    """A function of the instances of each class and of detections (class, score, right): truth and results.

    Each image has one instance, and each right detection is of the next image of its class.
    """

    def case(counts, detections, masks=True):
        labels = np.repeat(np.arange(len(counts)), counts).tolist()
        mask = rectangle(SIZE, SIZE, *OBJECT)
        instances = [
            {"image": image, "label": label, "mask": mask} | ({} if masks else {"mask": None, "box": OBJECT})
            for image, label in enumerate(labels)
        ]
        truth = make_truth([(SIZE, SIZE)] * len(labels), instances, range(1, len(counts) + 1))
        free = [iter(np.flatnonzero(np.array(labels) == label) + 1) for label in range(len(counts))]
        results = [
            make_result(
                rectangle(SIZE, SIZE, *(OBJECT if right else ELSEWHERE)),
                score,
                int(next(free[label])) if right else 1,
                label + 1,
            )
            for label, score, right in detections
        ]
        return truth, results

    return case


# F1 of the first 1, 2, ... detections of four instances: 2/5, 2/6, 4/7, 6/8, 6/9.
FIVE = [(0, 0.9, True), (0, 0.8, False), (0, 0.7, True), (0, 0.6, True), (0, 0.4, False)]


@pytest.mark.parametrize("masks", [True, False])
def test_the_threshold_lies_below_the_last_detection_with_the_best_f1(case, masks) -> None:
    assert choose_thresholds(*case([4], FIVE, masks)) == {"all": 0.5, "by_class": {}}


def test_below_the_last_detection_the_next_score_is_zero(case) -> None:
    assert choose_thresholds(*case([4], FIVE[:4]))["all"] == 0.3


def test_detections_of_one_score_are_kept_or_dropped_together(case) -> None:
    """Right ones come first: of two instances, 2/3 after the first, 4/4 in between, 4/5 after the tie."""
    detections = [(0, 0.9, True), (0, 0.5, True), (0, 0.5, False), (0, 0.1, False)]
    assert choose_thresholds(*case([2], detections))["all"] == 0.3  # 2/3 < 4/5 > 4/6
    worse = [(0, 0.9, True), *[(0, 0.5, right) for right in (True, False, False, False)], (0, 0.1, False)]
    assert choose_thresholds(*case([2], worse))["all"] == 0.7  # 2/3 > 4/7


def test_the_highest_of_equal_f1_is_chosen(case) -> None:
    """Of two instances 2/3 after one detection; the second is wrong twice before the other right one: 4/6."""
    detections = [(0, 0.9, True), (0, 0.7, False), (0, 0.6, False), (0, 0.5, True)]
    assert choose_thresholds(*case([2], detections))["all"] == 0.8


def test_masks_decide_if_there_are_true_masks(case, make_result, rectangle) -> None:
    """The box is right, and the mask of its left third is not."""
    truth, results = case([2], [(0, 0.9, True), (0, 0.5, True)])
    thin = make_result(rectangle(SIZE, SIZE, 0, 0, 3, 10), 0.5, 2) | {"bbox": [0, 0, 10, 10]}
    assert choose_thresholds(truth, [results[0], thin])["all"] == 0.7
    assert choose_thresholds(truth.without_masks(), [results[0], thin])["all"] == 0.25


def test_only_classes_with_ten_instances_have_a_threshold_of_their_own(case) -> None:
    """Ten right detections of the first class from 0.5 to 0.9 and a wrong one of 0.2; nine of the second at 0.9."""
    first = [(0, score, True) for score in np.linspace(0.9, 0.5, 10)] + [(0, 0.2, False)]
    second = [(1, 0.9, True)] * 9 + [(1, 0.4, False)] * 30
    found = choose_thresholds(*case([10, 9], first + second))
    assert found == {"all": 0.45, "by_class": {"class 1": 0.35}}  # of all 19, the next score is 0.4
    found = choose_thresholds(*case([10, 10], first + second))
    assert found["by_class"] == {"class 1": 0.35, "class 2": 0.65}


def test_a_class_of_which_nothing_is_found_has_no_threshold_of_its_own(case) -> None:
    found = choose_thresholds(*case([10, 10], [(0, 0.8, True)] * 10 + [(1, 0.9, False)]))
    assert found == {"all": 0.4, "by_class": {"class 1": 0.4}}


@pytest.mark.parametrize("detections", [[], [(0, 0.9, False)]])
def test_no_thresholds_if_nothing_is_found(case, detections) -> None:
    assert choose_thresholds(*case([3], detections)) is None


def test_no_thresholds_without_instances(make_truth) -> None:
    assert choose_thresholds(make_truth([(SIZE, SIZE)], []), []) is None
