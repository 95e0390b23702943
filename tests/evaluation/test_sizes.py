"""A truth whose file gives no sizes: they come from the image files, from true masks' codes, from results."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from boxel.evaluation import coco_ap, evaluate_detections, fill_boxes, grabcut_boxes, mask_iou
from boxel.evaluation.results import fill_in_sizes
from boxel.utils.errors import BoxelError


def without_sizes(truth):
    return replace(truth, widths=np.zeros_like(truth.widths), heights=np.zeros_like(truth.heights))


def with_files(truth, folder):
    for path, width, height in zip(truth.paths, truth.widths, truth.heights, strict=True):
        Image.new("L", (int(width), int(height))).save(folder / path)
    return replace(truth, root=folder)


@pytest.mark.parametrize("iou_type", ["bbox", "segm", "boundary"])
def test_image_files_tell_sizes_to_ap(random_set, tmp_path, iou_type):
    truth, results = random_set(0)
    unsized = without_sizes(with_files(truth, tmp_path))
    scores = coco_ap(unsized, results, iou_type)
    assert json.dumps(scores) == json.dumps(coco_ap(truth, results, iou_type))
    assert scores["AP"] > 0


def test_image_files_tell_sizes_to_the_other_measures(random_set, tmp_path):
    truth, results = random_set(0)
    unsized = without_sizes(with_files(truth, tmp_path))
    assert mask_iou(unsized, results) == mask_iou(truth, results)
    assert fill_boxes(unsized, results) == fill_boxes(truth, results)
    assert grabcut_boxes(unsized, results, min_score=2) == fill_boxes(truth, results)
    assert evaluate_detections(unsized, results, baselines=["box"]) == evaluate_detections(
        truth, results, baselines=["box"]
    )


@pytest.fixture
def polygons(make_truth, rectangle):
    """Three images of unknown sizes and without files, a 20 x 20 square each."""
    square = rectangle(60, 80, 10, 10, 30, 30)
    truth = make_truth([(0, 0)] * 3, [{"image": image, "mask": square} for image in range(3)])
    outline = json.dumps([[10, 10, 30, 10, 30, 30, 10, 30]]).encode()
    truth.segmentations[1:] = [outline, outline]
    return truth


def test_codes_tell_sizes_where_there_is_no_file(polygons, make_result, rectangle):
    found = [make_result(rectangle(50, 70, 10, 10, 30, 30), 0.9, 2)]
    sized = fill_in_sizes(polygons, found, required=False)
    assert sized.heights.tolist() == [60, 50, 0]  # a true mask's code, a result's, nothing
    assert sized.widths.tolist() == [80, 70, 0]
    assert polygons.heights.tolist() == [0, 0, 0]


def test_a_size_that_nothing_tells_is_named(polygons, make_result, rectangle):
    found = [make_result(rectangle(60, 80, 10, 10, 30, 30), 0.9, image) for image in (1, 2)]
    truth = replace(polygons, file="truth.json")
    for measure in (coco_ap, mask_iou, fill_boxes, evaluate_detections):
        with pytest.raises(
            BoxelError,
            match=r"truth\.json: the size of image 3, which masks need, is unknown; set `images`.*2\.png",
        ):
            measure(truth, found)
    assert coco_ap(truth, found, "bbox")["AP"] == pytest.approx(2 / 3, abs=0.01)  # boxes need none
    # Nor does an image that nothing is in.
    alone = replace(truth.select_instances([0, 1]), file="truth.json")
    assert coco_ap(alone, found)["AP"] == 1


def test_what_the_file_says_stays(random_set):
    truth, results = random_set(0)
    assert fill_in_sizes(truth, results) is truth


def test_masks_of_two_sizes_in_one_image_are_refused(polygons, make_result, rectangle):
    found = [make_result(rectangle(height, 80, 10, 10, 30, 30), 0.9, 1) for height in (60, 61)]
    with pytest.raises(BoxelError, match=r"result 1 \(image 1\) has a mask of \[61, 80\]"):
        evaluate_detections(polygons, found)
