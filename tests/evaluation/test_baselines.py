import copy
import logging

import cv2
import numpy as np
import pytest

from boxel.evaluation import fill_boxes, grabcut_boxes, mask_iou
from boxel.masks.rle import decode


def test_boxes_are_filled_inside_the_image(make_truth, make_result, rectangle):
    truth = make_truth([(40, 60), (30, 20)], [])
    mask = np.eye(40, 60, dtype=bool)
    results = [
        {**make_result(mask, 0.9, 1), "bbox": [3.0, 4.0, 10.0, 20.0]},
        {"image_id": 2, "category_id": 1, "score": 0.5, "bbox": [15.0, -5.0, 10.0, 10.0]},  # out of the image
    ]
    before = copy.deepcopy(results)
    first, second = fill_boxes(truth, results)
    assert results == before
    np.testing.assert_array_equal(decode(first["segmentation"]), rectangle(40, 60, 3, 4, 13, 24))
    np.testing.assert_array_equal(decode(second["segmentation"]), rectangle(30, 20, 15, 0, 20, 5))
    assert isinstance(first["segmentation"]["counts"], str)
    assert {k: v for k, v in first.items() if k != "segmentation"} == {
        k: v for k, v in before[0].items() if k != "segmentation"
    }
    assert fill_boxes(truth, []) == []


@pytest.fixture
def discs(tmp_path, make_truth):
    """Two images of a red disc on green; the file of a third is not an image."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:90, :120]
    disc = (x - 60) ** 2 + (y - 45) ** 2 < 25**2
    for name in ("0.png", "1.png"):
        image = np.where(disc[..., None], (200, 40, 40), (40, 160, 60)) + random.integers(
            -15, 16, (90, 120, 3)
        )
        cv2.imwrite(str(tmp_path / name), image[..., ::-1].astype(np.uint8))
    (tmp_path / "2.png").write_text("not an image")
    instances = [{"image": image, "mask": disc} for image in range(3)]
    return make_truth([(90, 120)] * 3, instances, root=tmp_path)


def boxed(image_id, score):
    return {"image_id": image_id, "category_id": 1, "score": score, "bbox": [33.0, 18.0, 54.0, 54.0]}


def test_grabcut_finds_the_disc(discs, caplog):
    results = [boxed(1, 0.9), boxed(2, 0.8), boxed(3, 0.7)]
    with caplog.at_level(logging.WARNING):
        cut = grabcut_boxes(discs, results)
    assert mask_iou(discs, cut[:2])["mask_iou"] > 0.95
    assert cut[2] == fill_boxes(discs, results)[2]  # costs only itself, and is errors
    assert "2.png" in caplog.text
    assert [{k: v for k, v in r.items() if k != "segmentation"} for r in cut] == results


def test_all_detections_are_cut_but_those_of_low_scores(discs):
    """More than 20 of an image too."""
    scores = [0.9, 0.04, *np.linspace(0.05, 0.8, 22)]
    results = [*(boxed(1, float(score)) for score in scores), boxed(2, 0.04)]
    filled = fill_boxes(discs, results)
    cut = [a != b for a, b in zip(grabcut_boxes(discs, results), filled, strict=True)]
    assert cut == [True, False, *[True] * 22, False]


def test_threads_give_the_same_masks(discs):
    both = grabcut_boxes(discs, [boxed(1, 0.9), boxed(2, 0.8)])
    assert both == [grabcut_boxes(discs, [alone])[0] for alone in (boxed(1, 0.9), boxed(2, 0.8))]


def test_a_box_far_larger_than_the_image_fills_it_at_once(make_truth):
    """And one that is not finite fills nothing."""
    truth = make_truth([(40, 60)], [])
    boxes = [[-1e8, 10, 2e8, 1e8], [float("nan"), 0, 5, 5]]
    results = [{"image_id": 1, "category_id": 1, "score": 0.9, "bbox": box} for box in boxes]
    assert [decode(result["segmentation"]).sum() for result in fill_boxes(truth, results)] == [30 * 60, 0]


def test_an_image_of_another_size_is_logged(discs, caplog):
    discs.heights[0] = 91
    with caplog.at_level(logging.WARNING):
        cut = grabcut_boxes(discs, [boxed(1, 0.9)])
    assert cut[0]["segmentation"]["size"] == [91, 120]
    assert "the image has 120 x 90 pixels, but its annotations state 120 x 91" in caplog.text
