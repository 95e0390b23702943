"""What lies behind AP: thresholds, confusions, kinds of errors, calibration and worst images, worked by hand."""

import numpy as np
import pytest

from boxel.evaluation import (
    analyze_detections,
    best_threshold,
    calibrate_scores,
    coco_ap,
    error_types,
    precision_recall,
)
from boxel.evaluation.analysis import find_matches

CAT, DOG = 1, 2


def detect(box, score, category=CAT, image=1):
    x0, y0, x1, y1 = box
    return {"image_id": image, "category_id": category, "score": score, "bbox": [x0, y0, x1 - x0, y1 - y0]}


@pytest.fixture
def scene(make_truth):
    """One image with an error of each kind, and two images without any."""
    cats = [(0, (0, 0, 20, 20)), (0, (40, 0, 60, 20)), (1, (0, 0, 20, 20)), (2, (0, 0, 20, 20))]
    dogs = [(0, (0, 40, 20, 60)), (0, (40, 40, 60, 60))]
    instances = [{"image": i, "label": k, "box": b} for k, own in enumerate((cats, dogs)) for i, b in own]
    truth = make_truth([(100, 100)] * 3, instances, (CAT, DOG))
    results = [
        detect((0, 0, 20, 20), 0.9),
        detect((0, 0, 20, 20), 0.8),  # again
        detect((40, 0, 60, 20), 0.7, DOG),  # a cat
        detect((10, 40, 30, 60), 0.6, DOG),  # overlaps the dog by 1/3
        detect((80, 80, 95, 95), 0.5),  # nothing
        detect((50, 40, 70, 60), 0.4),  # overlaps the other dog by 1/3
        detect((0, 0, 20, 20), 0.3, image=2),
        detect((0, 0, 20, 20), 0.2, image=3),
    ]
    return truth, results


def test_threshold_with_the_best_f1_by_hand():
    # F1 is 2/4, 2/5, 4/6, 4/7 of the first 1, 2, 3, 4 detections.
    point = best_threshold([0.4, 0.9, 0.6, 0.8], [False, True, True, False], 3)
    assert point == pytest.approx((0.5, 2 / 3, 2 / 3, 2 / 3))
    assert best_threshold([0.8, 0.6], [True, False], 1)[:2] == pytest.approx((0.7, 1))
    assert best_threshold([0.8], [True], 1)[:2] == pytest.approx((0.4, 1))  # halfway to 0
    # A tie: 2/4 after the first and 4/8 after the last; the higher threshold is taken.
    tie = best_threshold([0.9, 0.8, 0.7, 0.6, 0.5], [True, False, False, False, True], 3)
    assert tie == pytest.approx((0.85, 0.5, 1, 1 / 3))


def test_equal_scores_are_kept_together():
    point = best_threshold([0.5, 0.5, 0.5], [True, False, False], 1)
    assert point == pytest.approx((0.25, 0.5, 1 / 3, 1))


def test_thresholds_of_nothing():
    assert np.isnan(best_threshold([], [], 3)).all()
    assert np.isnan(best_threshold([0.5], [False], 0)).all()
    assert best_threshold([0.8, 0.4], [False, False], 2) == (0.2, 0, 0, 0)  # what is wrong shows


@pytest.mark.parametrize("seed", range(5))
def test_no_other_threshold_has_a_better_f1(seed):
    random = np.random.default_rng(seed)
    scores, correct = random.random(60).round(1), random.random(60) < 0.4
    instances = int(correct.sum()) + 7

    def f1(threshold):
        return 2 * correct[scores >= threshold].sum() / ((scores >= threshold).sum() + instances)

    point = best_threshold(scores, correct, instances)
    assert point.f1 == pytest.approx(max(map(f1, np.linspace(0, 1, 101))))
    assert point.f1 == pytest.approx(f1(point.threshold))


def test_precision_recall_by_hand():
    curve = precision_recall([0.9, 0.8, 0.7], [True, False, True], 4)
    # Recall 1/4 at precision 1, recall 2/4 at precision 2/3.
    assert curve == pytest.approx([1] * 26 + [2 / 3] * 25 + [0] * 50)
    assert np.isnan(precision_recall([0.9], [False], 0)).all()


def test_calibration_by_hand():
    error, bins = calibrate_scores([0.9, 0.92, 0.98, 1.0, 0.3, 0.25], [True, True, True, False, True, False])
    # Tenths: 4 of mean score 0.95 and precision 0.75; 0.3 of precision 1; 0.25 of precision 0.
    assert error == pytest.approx((4 * 0.2 + 0.7 + 0.25) / 6)
    assert [row["count"] for row in bins] == [0, 0, 1, 1, 0, 0, 0, 0, 0, 4]
    assert (bins[9]["score"], bins[9]["precision"]) == pytest.approx((0.95, 0.75))
    assert bins[3]["low"] == 0.3 and bins[3]["precision"] == 1 and np.isnan(bins[0]["precision"])
    assert np.isnan(calibrate_scores([], [])[0])


def test_one_error_of_each_kind(scene):
    analysis = analyze_detections(*scene)
    assert analysis["compared"] == "box"
    # 3 of 8 detections are correct, and find 3 of 6 instances.
    assert [analysis[k] for k in ("threshold", "f1", "precision", "recall")] == pytest.approx(
        [0.1, 3 / 7, 3 / 8, 1 / 2]
    )
    kinds = ("classification", "localization", "both", "duplicate", "background", "missed")
    expected = {kind: {"count": 1, "share": pytest.approx(1 / 6)} for kind in kinds}
    assert analysis["errors"] == expected | {"mask": {"count": 0, "share": 0}}
    cat, dog = analysis["per_class"].values()
    assert {k for k, n in cat["errors"].items() if n} == {"duplicate", "background", "both"}
    assert {k for k, n in dog["errors"].items() if n} == {"classification", "localization", "missed"}
    assert (cat["instances"], cat["f1"], cat["precision"], cat["recall"]) == (4, 0.6, 0.5, 0.75)


def test_confusion_matrix_by_hand(scene):
    confusion = analyze_detections(*scene)["confusion"]
    assert confusion["classes"] == ["class 1", "class 2"]
    # The second detection of a cat, that of nothing and that beside a dog are on background, as is the loose dog.
    assert confusion["counts"] == [[3, 1, 0], [0, 0, 2], [3, 1, 0]]


def test_worst_images_by_f1_then_by_missed_instances(scene, make_truth):
    assert analyze_detections(*scene)["worst_images"] == [
        {
            "image_id": 1,
            "file_name": "0.png",
            "f1": pytest.approx(0.2),
            "found": 1,
            "missed": {"class 2": 2, "class 1": 1},
            "false": {"class 1": 3, "class 2": 2},
        }
    ]
    box = (0, 0, 20, 20)
    images = [0, 1, 1, 2]
    truth = make_truth(
        [(50, 50)] * 4, [{"image": i, "box": (0, 20 * k, 20, 20 * k + 20)} for k, i in enumerate(images)]
    )
    results = [detect((0, 60, 20, 80), 0.9, image=3), detect(box, 0.9, image=4)]
    worst = analyze_detections(truth, results)["worst_images"]
    assert [(row["image_id"], row["missed"], row["false"]) for row in worst] == [
        (2, {"class 1": 2}, {}),
        (1, {"class 1": 1}, {}),
        (4, {}, {"class 1": 1}),
    ]


def test_images_are_named_right_if_their_ids_are_not_sorted(make_truth):
    truth = make_truth([(50, 50)] * 2, [{"image": 0, "box": (0, 0, 20, 20)}], image_ids=[9, 4])
    worst = analyze_detections(
        truth, [detect((0, 0, 20, 20), 0.9, image=9), detect((5, 5, 9, 9), 0.95, image=4)]
    )
    assert [(row["image_id"], row["false"]) for row in worst["worst_images"]] == [(4, {"class 1": 1})]


def test_a_mask_that_does_not_fit_in_a_box_that_does(make_truth, make_result, rectangle):
    def quarters(x):
        return rectangle(40, 40, x, 0, x + 10, 10) | rectangle(40, 40, 30 - x, 10, 40 - x, 20)

    truth = make_truth([(40, 40)], [{"mask": quarters(20)}, {"mask": rectangle(40, 40, 0, 20, 10, 30)}])
    wrong, right = make_result(quarters(10), 0.9), make_result(rectangle(40, 40, 0, 20, 10, 30), 0.8)
    wrong_again = make_result(quarters(10), 0.85)
    analysis = analyze_detections(truth, [wrong, right])
    assert analysis["compared"] == "mask"
    # The boxes overlap by 1 (20 x 20 pixels each, at 10), the masks not at all, and the object counts as nearly found.
    assert {k: v["count"] for k, v in analysis["errors"].items() if v["count"]} == {"mask": 1}
    by_box = [{k: v for k, v in r.items() if k != "segmentation"} for r in (wrong, right, wrong_again)]
    assert analyze_detections(truth, by_box)["errors"]["duplicate"]["count"] == 1


def test_kinds_of_errors_in_order():
    same = np.array([[True, True, False]])

    def kind(*iou, found=(False, False, False), boxes=None):
        kinds, missed = error_types(
            np.array([iou]), same, np.array(found), None if boxes is None else np.array([boxes])
        )
        return kinds[0], missed.tolist()

    assert kind(0.1, 0, 0) == ("localization", [False, True, True])
    assert kind(0.4, 0, 0.9) == ("localization", [False, True, True])  # before the other class
    assert kind(0.05, 0, 0.5) == ("classification", [True, True, False])
    assert kind(0.6, 0, 0, found=(True, False, False)) == ("duplicate", [False, True, True])
    assert kind(0.1, 0, 0, boxes=(0.2, 0.5, 1)) == ("mask", [True, False, True])
    assert kind(0.1, 0, 0, boxes=(0.2, 0.5, 1), found=(False, True, False))[0] == "localization"
    assert kind(0.05, 0, 0.1) == ("background", [True, True, True])
    assert kind(0.05, 0, 0.4) == ("both", [True, True, True])
    assert error_types(np.zeros((2, 0)), np.zeros((2, 0), bool), np.zeros(0, bool))[0] == ["background"] * 2


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("masked", [True, False])
def test_numbers_of_random_datasets_agree_with_each_other_and_with_coco(random_set, seed, masked):
    truth, results = random_set(seed)
    if not masked:
        truth = truth.without_masks()
    analysis = analyze_detections(truth, results)
    ap = coco_ap(truth, results, "segm" if masked else "bbox")
    assert np.mean(analysis["curve"]) == pytest.approx(ap["AP50"], abs=1e-9)
    counts = np.array(analysis["confusion"]["counts"])
    matches = find_matches(truth, results)
    kept = matches.select(matches.scores >= analysis["threshold"])
    assert counts[:-1].sum(axis=1).tolist() == [row["instances"] for row in analysis["per_class"].values()]
    assert counts[:, :-1].sum(axis=0).tolist() == np.bincount(kept.labels, minlength=3).tolist()
    assert counts.trace() == kept.correct.sum() == kept.found.sum()
    wrong = sum(e["count"] for kind, e in analysis["errors"].items() if kind != "missed")
    assert wrong == (~kept.correct).sum()
    assert sum(e["share"] for e in analysis["errors"].values()) == pytest.approx(1)


def test_crowds_and_classes_without_instances(make_truth):
    truth = make_truth(
        [(100, 100)], [{"box": (0, 0, 20, 20)}, {"box": (50, 50, 99, 99), "crowd": True}], (CAT, DOG)
    )
    results = [detect((0, 0, 20, 20), 0.9), detect((50, 50, 70, 70), 0.9), detect((30, 0, 40, 9), 0.95, DOG)]
    analysis = analyze_detections(truth, results)
    # The one in the crowd is neither right nor wrong; the dog is wrong, though no dog could be found.
    assert analysis["confusion"]["counts"] == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]
    assert np.isnan(analysis["per_class"]["class 2"]["f1"])
    assert [(row["missed"], row["false"]) for row in analysis["worst_images"]] == [({}, {"class 2": 1})]
    assert np.mean(analysis["curve"]) == 1


def test_without_detections_all_is_missed(scene):
    analysis = analyze_detections(scene[0], [])
    assert np.isnan(analysis["f1"]) and np.isnan(analysis["calibration_error"])
    assert analysis["errors"]["missed"] == {"count": 6, "share": 1}
    assert np.mean(analysis["curve"]) == 0


def test_scores_that_are_not_probabilities_have_no_calibration(scene):
    truth, results = scene
    analysis = analyze_detections(truth, [{**r, "score": 10 * r["score"]} for r in results])
    assert np.isnan(analysis["calibration_error"]) and analysis["calibration"] == []
    assert analysis["threshold"] == pytest.approx(1)
