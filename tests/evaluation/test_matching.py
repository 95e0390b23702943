import numpy as np
import pytest

from boxel.evaluation import mask_iou, match_boxes


@pytest.fixture
def two_squares(make_truth, rectangle):
    """Two 20 x 20 instances in the first of two images, one of another class in the second, and a crowd."""
    return make_truth(
        [(100, 100), (100, 100)],
        [
            {"image": 0, "label": 0, "mask": rectangle(100, 100, 10, 10, 30, 30)},
            {"image": 1, "label": 1, "mask": rectangle(100, 100, 0, 0, 20, 20)},
            {"image": 0, "label": 0, "mask": rectangle(100, 100, 60, 60, 80, 80)},
            {"image": 0, "label": 0, "mask": rectangle(100, 100, 0, 80, 20, 100), "crowd": True},
        ],
        category_ids=(3, 0),
        image_ids=["a", "b"],
    )


def test_matches_are_one_to_one_best_score_first(two_squares, make_result, rectangle):
    results = [
        make_result(rectangle(100, 100, 10, 10, 30, 30), 0.5, "a", 3),  # exact, but comes too late
        make_result(rectangle(100, 100, 10, 15, 30, 30), 0.9, "a", 3),  # IoU 0.75, best score
        make_result(rectangle(100, 100, 60, 60, 80, 69), 0.8, "a", 3),  # IoU 0.45: too little
        make_result(rectangle(100, 100, 0, 80, 20, 100), 0.7, "a", 3),  # the crowd
        make_result(rectangle(100, 100, 0, 0, 20, 10), 0.7, "b", 3),  # IoU 0.5, of the wrong class
        make_result(rectangle(100, 100, 0, 0, 20, 11), 0.6, "b", 0),  # IoU 0.55
    ]
    matches = match_boxes(two_squares, results)
    assert list(zip(matches.results, matches.instances, strict=True)) == [(1, 0), (5, 1)]
    np.testing.assert_allclose(matches.iou, [0.75, 0.55])
    blind = match_boxes(two_squares, results, class_agnostic=True)
    assert list(zip(blind.results, blind.instances, strict=True)) == [(1, 0), (4, 1)]
    lower = match_boxes(two_squares, results, min_iou=0.4)
    assert (2, 2) in list(zip(lower.results, lower.instances, strict=True))


def test_mask_iou_by_hand(two_squares, make_result, rectangle):
    half = make_result(rectangle(100, 100, 10, 10, 30, 20), 0.9, "a", 3)  # half of the mask
    half["bbox"] = [10.0, 10.0, 20.0, 20.0]  # in the right box
    exact = make_result(rectangle(100, 100, 60, 60, 80, 80), 0.2, "a", 3)
    assert mask_iou(two_squares, [half, exact]) == {"mask_iou": 0.75, "matched": 2, "instances": 3}
    # An instance that has no mask takes part in the matching, not in the mean.
    two_squares.segmentations[2] = None
    assert mask_iou(two_squares, [half, exact]) == {"mask_iou": 0.5, "matched": 1, "instances": 2}


def test_without_a_match(two_squares, make_truth):
    assert match_boxes(two_squares, []).results.shape == (0,)
    scores = mask_iou(two_squares, [])
    assert np.isnan(scores["mask_iou"]) and scores["matched"] == 0
    assert mask_iou(make_truth([], []), [])["instances"] == 0
