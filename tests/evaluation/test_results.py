"""Results files, and ground truth without image sizes."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boxel.data.synthetic import write_scenes
from boxel.evaluation import (
    EvaluateConfig,
    check_results,
    coco_ap,
    evaluate_detections,
    fill_boxes,
    grabcut_boxes,
    mask_iou,
    read_results,
    to_annotations,
    to_results,
)
from boxel.evaluation.results import fill_in_sizes, match_image_ids
from boxel.masks.rle import decode
from boxel.utils.errors import BoxelError


def written(tmp_path, rows):
    path = tmp_path / "results.json"
    path.write_text(rows if isinstance(rows, str) else json.dumps(rows))
    return path


def test_reads_boxes_and_masks_and_leaves_other_fields(tmp_path):
    rows = [
        {"image_id": 3, "category_id": 0, "score": 1, "bbox": [1, 2, 3.5, 4], "extra": {"a": 1}},
        {
            "image_id": "a",
            "category_id": 9,
            "score": 0.5,
            "bbox": None,
            "segmentation": {"size": [2, 3], "counts": [1, 3, 2]},
        },
    ]
    box, mask = read_results(written(tmp_path, rows))
    assert box == {"image_id": 3, "category_id": 0, "score": 1.0, "bbox": [1.0, 2.0, 3.5, 4.0]}
    assert mask["image_id"] == "a" and "bbox" not in mask
    assert isinstance(mask["segmentation"]["counts"], str)
    np.testing.assert_array_equal(decode(mask["segmentation"]), [[0, 1, 0], [1, 1, 0]])  # down the columns


def test_reads_file_names(tmp_path):
    row = {"image_id": "a", "category_id": 0, "score": 1, "bbox": [1, 2, 3, 4], "file_name": "a.jpg"}
    assert read_results(written(tmp_path, [row])) == [row]


def test_file_names_identify_images(make_truth):
    truth = make_truth([(9, 9)] * 4, [], image_ids=(30, 31, 1, 33))
    truth.paths[:] = ["val/a.jpg", "val/b.jpg", "0001.jpg", "twice/a.jpg"]

    def ids(*results):
        rows = [{"image_id": id, "file_name": name} if name else {"image_id": id} for id, name in results]
        return [row["image_id"] for row in match_image_ids(truth, rows)]

    assert ids(("b", "b.jpg"), (1, "0001.jpg")) == [31, 1]
    assert ids((30, "photos/b.jpg")) == [31]  # the id is made from a name, the name is one
    assert ids(("b", "b.jpg"), (1, None)) == ["b", 1]  # not all have one
    assert ids(("b", "b.jpg"), ("c", "c.jpg")) == ["b", "c"]  # one is of no image
    assert ids(("b", "b.jpg"), ("a", "a.jpg")) == ["b", "a"]  # one is of two
    truth.paths[:] = ["", "b.jpg", "c.jpg", "d.jpg"]
    assert ids((77, None)) == [77]


def test_reads_an_empty_list(tmp_path):
    assert read_results(written(tmp_path, [])) == []


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ({"annotations": []}, "not a COCO results file"),
        ("[{", "not a COCO results file"),
        ('[{"image_id": 1, "category_id": 1, "score": NaN, "bbox": [0, 0, 1, 1]}]', "finite score"),
        ([{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1]}], r"`score` - at `\$\[0\]`"),
        ([{"image_id": 1, "category_id": 1, "score": 0.1}], r"result 0 \(image 1\) has neither bbox nor"),
        (
            [{"image_id": 7, "category_id": 1, "score": 1, "segmentation": {"size": [2] * 3, "counts": "1"}}],
            r"result 0 \(image 7\) has a mask that cannot be read",
        ),
    ],
)  # fmt: skip
def test_a_bad_file_is_named_in_one_sentence(tmp_path, rows, said):
    path = written(tmp_path, rows)
    with pytest.raises(BoxelError, match=said) as error:
        read_results(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BoxelError, match=r"absent\.json: the results cannot be read"):
        read_results(tmp_path / "absent.json")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image_id": 5}, r"result 1 \(image 5\) belongs to an image that"),
        ({"score": float("nan")}, "has the score nan"),
        ({"bbox": [0, 0, -1, 2]}, r"has the box \[0, 0, -1, 2\]"),
        ({"bbox": [0, 0, float("inf"), 2]}, "has the box"),
        ({"bbox": [0, 0, 2]}, "has the box"),
        ({"segmentation": None}, "has no segmentation, unlike the first"),
        (
            {"segmentation": {"size": [30, 20], "counts": "PT2"}},
            r"a mask of \[30, 20\] .* image of \[20, 30\]",
        ),
    ],
)
def test_results_that_cannot_be_compared_are_named(make_truth, make_result, rectangle, change, said):
    mask = rectangle(20, 30, 1, 1, 9, 9)
    truth = make_truth([(20, 30)], [{"mask": mask}])
    good = make_result(mask, 0.5)
    check_results(truth, [good, good])
    with pytest.raises(BoxelError, match=said):
        check_results(truth, [good, {**good, **change}])


def test_unknown_categories_are_an_error_only_if_all_are(make_truth, make_result, rectangle):
    mask = rectangle(20, 30, 1, 1, 9, 9)
    truth = make_truth([(20, 30)], [{"mask": mask}], category_ids=(0, 8))
    foreign, own = make_result(mask, 0.5, 1, 77), make_result(mask, 0.5, 1, 8)
    check_results(truth, [foreign, own])
    check_results(truth, [foreign], class_agnostic=True)
    check_results(truth, [])
    with pytest.raises(BoxelError, match=r"none of the results has a category of the ground truth \(0, 8\)"):
        check_results(truth, [foreign])


# detections and datasets ---------------------------------------------------------------------------------------------


def test_results_become_a_dataset_and_results_again(tmp_path):
    data = write_scenes(tmp_path, 2, height=64, width=96)
    results = to_results(data)
    again = to_annotations(results, data)
    assert again.image_ids == data.image_ids and set(again.categories) <= set(data.categories)
    assert again.image_path(1) == data.image_path(1)
    np.testing.assert_array_equal(again.boxes, data.boxes)
    assert to_results(again) == results and (again.quality == 1).all()


def test_images_of_results_are_found_by_name_or_id(tmp_path):
    for name in ("000012.png", "cat.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    row = {"category_id": 3, "score": 0.5, "bbox": [1, 1, 4, 4]}
    results = [{**row, "image_id": 12}, {**row, "image_id": "x", "file_name": "a/cat.png"}]
    data = to_annotations(results, tmp_path)
    assert [Path(path).name for path in data.paths] == ["000012.png", "cat.png"]
    assert [category.name for category in data.categories] == ["category 3"]
    with pytest.raises(BoxelError, match="has no image 13"):
        to_annotations([{**row, "image_id": 13}], tmp_path)


# sizes that the annotation file omits ---------------------------------------------------------------------------------


def without_sizes(truth):
    return replace(truth, widths=np.zeros_like(truth.widths), heights=np.zeros_like(truth.heights))


def with_files(truth, folder):
    for path, width, height in zip(truth.paths, truth.widths, truth.heights, strict=True):
        Image.new("L", (int(width), int(height))).save(folder / path)
    return replace(truth, root=folder)


@pytest.mark.parametrize("iou_type", ["bbox", "segm", "boundary"])
def test_ap_reads_missing_sizes_from_image_files(random_set, tmp_path, iou_type):
    truth, results = random_set(0)
    unsized = without_sizes(with_files(truth, tmp_path))
    scores = coco_ap(unsized, results, iou_type)
    assert json.dumps(scores) == json.dumps(coco_ap(truth, results, iou_type))
    assert scores["AP"] > 0


def test_other_metrics_read_missing_sizes_from_image_files(random_set, tmp_path):
    truth, results = random_set(0)
    unsized = without_sizes(with_files(truth, tmp_path))
    assert mask_iou(unsized, results) == mask_iou(truth, results)
    assert fill_boxes(unsized, results) == fill_boxes(truth, results)
    assert grabcut_boxes(unsized, results, max_per_image=0) == fill_boxes(truth, results)
    config = EvaluateConfig(baselines=["box"])
    assert evaluate_detections(unsized, results, config) == evaluate_detections(truth, results, config)


@pytest.fixture
def polygons(make_truth, rectangle):
    """Three images of unknown sizes and without files, a 20 x 20 square each."""
    square = rectangle(60, 80, 10, 10, 30, 30)
    truth = make_truth([(0, 0)] * 3, [{"image": image, "mask": square} for image in range(3)])
    outline = json.dumps([[10, 10, 30, 10, 30, 30, 10, 30]]).encode()
    truth.segmentations[1:] = [outline, outline]
    return truth


def test_missing_sizes_come_from_codes_if_there_is_no_image_file(polygons, make_result, rectangle):
    found = [make_result(rectangle(50, 70, 10, 10, 30, 30), 0.9, 2)]
    sized = fill_in_sizes(polygons, found, required=False)
    assert sized.heights.tolist() == [60, 50, 0]  # a true mask's code, a result's, nothing
    assert sized.widths.tolist() == [80, 70, 0]
    assert polygons.heights.tolist() == [0, 0, 0]


def test_an_unknown_size_is_an_error_that_names_the_image(polygons, make_result, rectangle):
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


def test_sizes_in_the_file_are_kept(random_set):
    truth, results = random_set(0)
    assert fill_in_sizes(truth, results) is truth


def test_masks_of_two_sizes_in_one_image_are_refused(polygons, make_result, rectangle):
    found = [make_result(rectangle(height, 80, 10, 10, 30, 30), 0.9, 1) for height in (60, 61)]
    with pytest.raises(BoxelError, match=r"result 1 \(image 1\) has a mask of \[61, 80\]"):
        evaluate_detections(polygons, found)
