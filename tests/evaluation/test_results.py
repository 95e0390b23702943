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
    coco_ap,
    evaluate,
    evaluate_detections,
    fill_boxes,
    grabcut_boxes,
    mask_iou,
    match_results,
    read_results,
    to_annotations,
    to_results,
)
from boxel.evaluation.reading import clean_results, decode_results, is_results_file
from boxel.evaluation.results import fill_in_sizes
from boxel.masks.rle import decode, encode
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


ROW = {"category_id": 1, "score": 0.5, "bbox": [1, 2, 3, 4]}


def matched_ids(truth, *keys):
    """The image ids of results with these ids and file names, as far as they are of an image."""
    rows = [ROW | {"image_id": id} | ({"file_name": name} if name else {}) for id, name in keys]
    return [row["image_id"] for row in match_results(truth, rows)[1]]


@pytest.fixture
def four_images(make_truth):
    truth = make_truth([(9, 9)] * 4, [], image_ids=(30, 31, 1, 33))
    truth.paths[:] = ["val/a.jpg", "val/b.jpg", "0001.jpg", "twice/a.jpg"]
    return truth


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (("b", "b.jpg"), 31),
        ((1, "0001.jpg"), 1),
        ((30, "photos/b.jpg"), 31),  # the id is made from a name, the name is one
        ((30, r"C:\photos\B.JPG"), 31),
        ((9, "https://host/b.png"), 31),  # another suffix
        ((9, "/data/val/a.jpg"), 30),  # the longer path of two
        ((9, "twice/a.jpg"), 33),
        ((33, "a.jpg"), 33),  # the id decides between two
        ((31, None), 31),
        (("31", None), 31),
        (("b", None), 31),
        (("b.jpg", None), 31),
        (("val/a.jpg", None), 30),
        (("0001", None), 1),
        (("0031", None), 31),
        (("31.0", None), 31),
    ],
)
def test_images_are_found_by_name_and_then_by_id(four_images, key, expected):
    assert matched_ids(four_images, key) == [expected]


def test_dots_in_names_are_no_suffixes(make_truth):
    truth = make_truth([(9, 9)] * 3, [], image_ids=(5, 6, 7))
    truth.paths[:] = ["frame.001.jpg", "frame.jpg", "frame.002.png"]
    keys = [
        ("frame.001", None),
        ("frame", None),
        ("x", "frame.002.jpg"),
        ("frame.003", None),
        ("x", "frame.003"),
    ]
    assert matched_ids(truth, *keys) == [5, 6, 7]


def test_results_of_unknown_images_are_left_out_and_counted(four_images, caplog):
    assert matched_ids(four_images, ("b", "b.jpg"), (1, None), ("c", "c.jpg"), ("a", "a.jpg")) == [31, 1]
    assert (
        "2 of 4 results are of no image of the ground truth and are left out, the first: result 2"
        in caplog.text
    )
    assert "it lacks image c (c.jpg); its first image is 30 (val/a.jpg)" in caplog.text
    with pytest.raises(
        BoxelError, match="none of the 1 results is of an image of the ground truth: it lacks image 7"
    ):
        matched_ids(four_images, (7, None))


def test_an_id_whose_file_names_contradict_is_not_used(four_images, caplog):
    said = r"image 31 is x\.jpg in the results and val/b\.jpg in the ground truth; .*remove `file_name`"
    with pytest.raises(BoxelError, match=said):
        matched_ids(four_images, (31, "x.jpg"))
    assert matched_ids(four_images, (31, "x.jpg"), (1, "0001.jpg")) == [1]
    assert "1 of 2 results are of no image" in caplog.text and "image 31 is x.jpg" in caplog.text


def test_ids_of_other_files_are_reported_where_names_decide(four_images, caplog):
    caplog.set_level("INFO")
    assert matched_ids(four_images, (1, "b.jpg"), (30, "0001.jpg"), (33, "twice/a.jpg")) == [31, 1, 33]
    said = "the ids of 2 images are of other files in the ground truth, and file names decide; the first: 1, b.jpg and"
    assert said in caplog.text and "0001.jpg" in caplog.text


def test_ids_decide_if_the_annotations_name_no_files(four_images):
    four_images.paths[:] = [""] * 4
    assert matched_ids(four_images, (31, "x.jpg"), (30, None)) == [31, 30]


def test_numbers_of_files_are_image_ids_if_the_boxes_fit_them(make_truth, make_result, rectangle, caplog):
    """Readers number the images of formats without ids; other programs take the numbers in the file names."""
    masks = [rectangle(60, 80, 10 * k, 10 * k, 10 * k + 20, 10 * k + 20) for k in range(3)]
    truth = make_truth([(60, 80)] * 3, [{"image": k, "mask": mask} for k, mask in enumerate(masks)])
    truth.paths[:] = ["2.jpg", "3.jpg", "1.jpg"]  # ids 1, 2, 3
    by_id = [make_result(mask, 0.9, id) for mask, id in zip(masks, (1, 2, 3), strict=True)]
    by_file = [make_result(mask, 0.9, id) for mask, id in zip(masks, (2, 3, 1), strict=True)]
    for results in (by_id, by_file):
        assert coco_ap(*match_results(truth, results))["AP"] == 1
    assert caplog.text.count("image ids are taken for numbers of files") == 1


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"category_id": 7}, 7),
        ({"category_id": "7"}, 7),
        ({"category_id": 7.0}, 7),
        ({"category_id": "class 7"}, 7),
        ({"category_id": "Class 7"}, 7),
        ({"category_name": "class 7"}, 7),
        ({"category_id": 0, "category_name": "class 7"}, 7),  # as with images, names come first
    ],
)
def test_categories_are_found_by_name_and_then_by_id(make_truth, given, expected):
    truth = make_truth([(9, 9)], [], category_ids=(0, 7))
    row = {key: value for key, value in ROW.items() if key != "category_id"} | {"image_id": 1} | given
    config = EvaluateConfig()
    assert evaluate_detections(truth, [row], config)["results"] == 1
    read = match_results(truth, clean_results([row])[0])[1]
    assert [result["category_id"] for result in read] == [expected]


def test_results_of_unknown_categories_are_counted(make_truth, caplog):
    truth = make_truth([(9, 9)], [], category_ids=(0, 7))
    rows = [ROW | {"image_id": 1, "category_id": id} for id in (7, 8, "lamp")]
    assert len(match_results(truth, rows)[1]) == 3
    assert (
        "2 of 3 results are of categories that the ground truth lacks (8, lamp), and are left out"
        in caplog.text
    )
    named = ROW | {"image_id": 1, "category_id": 7, "category_name": "lamp"}
    with pytest.raises(
        BoxelError, match=r"they have lamp, not 0 \(class 0\), 7 \(class 7\); remove `category_name`"
    ):
        match_results(truth, [named])


def test_an_empty_list_evaluates_to_zero_with_a_warning(tmp_path, make_truth, rectangle, caplog):
    path = written(tmp_path, [])
    assert read_results(path) == []
    metrics = evaluate(path, make_truth([(20, 30)], [{"mask": rectangle(20, 30, 1, 1, 9, 9)}])).metrics
    assert metrics["results"] == 0 and metrics["box"]["AP"] == metrics["mask"]["AP"] == 0
    assert caplog.messages[0] == f"{path} has no detections, so every instance counts as missed."


GOOD = {"image_id": 1, "category_id": 1, "score": 0.5, "bbox": [0, 0, 1, 1]}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ({"annotations": []}, "this is a dataset and not a COCO results file"),
        ({"results": []}, "not a COCO results file .it is not a list."),
        ("[{", "not a COCO results file .it ends too early."),
        (json.dumps([GOOD])[:-9], "not a COCO results file .it ends too early."),
        ("", "not a COCO results file .it is empty."),
        ("[nonsense]", "not a COCO results file"),
        ("[" * 100_000, "not a COCO results file"),
        ('[{"image_id": 1, "category_id": 1, "score": NaN, "bbox": [0, 0, 1, 1]}]', r"none of the 1 results .* nan"),
        ([{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1]}], r"result 0 .image 1. has no score"),
        ([{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "iscrowd": 0}], "the annotations of a dataset"),
        ([{"image_id": 1, "label": 1, "box": [0, 0, 1, 1], "score": 1}], "has no category_id; write image_id"),
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
    with pytest.raises(BoxelError, match=r"absent\.json: cannot be read"):
        read_results(tmp_path / "absent.json")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image_id": None, "file_name": None}, "has no image_id"),
        ({"image_id": 1.5}, "(image 1.5) has the image_id 1.5"),
        ({"image_id": True}, "has the image_id True"),
        ({"category_id": None}, "has no category_id"),
        ({"category_id": [1]}, "has the category_id [1]"),
        ({"score": None}, "has no score"),
        ({"score": "high"}, "has 'high' as its score"),
        ({"score": float("nan")}, "has the score nan"),
        ({"score": float("inf")}, "has the score inf"),
        ({"bbox": [0, 0, -1, 2]}, "has the box [0, 0, -1, 2]"),
        ({"bbox": [0, 0, float("inf"), 2]}, "has the box"),
        ({"bbox": [0, 0, 2]}, "has the box [0, 0, 2]"),
        ({"bbox": [0, 0, 2, None]}, "has None as its bbox"),
        ({"bbox": 7}, "cannot be read"),
        ({"segmentation": {"size": [20, 30], "counts": "zz"}}, "has a mask that cannot be read"),
        (
            {"segmentation": encode(np.eye(30, 20))},
            "of [30, 20] (height, width) in an image of [20, 30]",
        ),
        (
            {"segmentation": encode(np.eye(10, 15))},
            "of [10, 15] (height, width) in an image of [20, 30]",
        ),
    ],
)
def test_an_unusable_result_costs_only_itself(
    tmp_path, make_truth, make_result, rectangle, caplog, change, said
):
    mask = rectangle(20, 30, 1, 1, 9, 9)
    truth = make_truth([(20, 30)], [{"mask": mask}])
    good = make_result(mask, 0.5)
    bad = {**good, "score": 0.9, **change}
    path = written(tmp_path, [good, bad, bad])
    metrics = evaluate(path, truth).metrics
    assert metrics == evaluate([good], truth).metrics == evaluate([good, bad, bad], truth).metrics
    assert f"{path}: 2 of 3 results cannot be used and are left out, the first: result 1" in caplog.text
    assert said in caplog.text
    with pytest.raises(BoxelError, match="none of the 1 results can be used"):
        evaluate([bad], truth)


def test_positions_are_those_in_the_file(make_truth, make_result, rectangle, caplog):
    mask, other = rectangle(20, 30, 1, 1, 9, 9), rectangle(30, 20, 1, 1, 9, 9)
    truth = make_truth([(20, 30)], [{"mask": mask}])
    good = make_result(mask, 0.5)
    evaluate([{**good, "score": None}, good, make_result(other, 0.5)], truth)
    assert "left out: result 0 (image 1) has no score" in caplog.text
    assert "left out: result 2 (image 1) has a mask of [30, 20]" in caplog.text


def test_results_without_a_mask_among_others_count_as_empty_masks(make_truth, make_result, rectangle, caplog):
    mask = rectangle(20, 30, 1, 1, 9, 9)
    truth = make_truth([(20, 30)] * 2, [{"mask": mask, "image": 0}, {"mask": mask, "image": 1}])
    found = [make_result(mask, 0.5, 1), {**make_result(mask, 0.9, 2), "segmentation": []}]
    metrics = evaluate(found, truth, boundary=False).metrics
    assert metrics["box"]["AP"] == 1 and metrics["mask"]["AR100"] == 0.5
    assert "1 of 2 results have no mask, unlike the others; they count as empty masks" in caplog.text
    boxes = [{**row, "segmentation": empty} for row, empty in zip(found, ([], None), strict=True)]
    assert "mask" not in evaluate(boxes, truth).metrics


def test_polygons_are_masks_too(make_truth, rectangle):
    truth = make_truth([(20, 30)], [{"mask": rectangle(20, 30, 2, 3, 10, 9)}])
    row = {"image_id": 1, "category_id": 1, "score": 0.5}
    nested, flat = ([2, 3, 10, 3, 10, 9, 2, 9],), [2, 3, 10, 3, 10, 9, 2, 9]
    for polygons in (list(nested), flat):
        metrics = evaluate([{**row, "segmentation": polygons}], truth).metrics
        assert metrics["box"]["AP"] == metrics["mask"]["AP"] == 1


def test_unknown_categories_are_an_error_only_if_all_are(make_truth, make_result, rectangle):
    mask = rectangle(20, 30, 1, 1, 9, 9)
    truth = make_truth([(20, 30)], [{"mask": mask}], category_ids=(0, 8))
    foreign, own = make_result(mask, 0.5, 1, 77), make_result(mask, 0.5, 1, 8)
    match_results(truth, [foreign, own])
    match_results(truth, [foreign], class_agnostic=True)
    assert match_results(truth, [])[1] == []
    with pytest.raises(
        BoxelError, match=r"has a category of the ground truth: they have 77, not 0 \(class 0\), 8"
    ):
        match_results(truth, [foreign])
    with pytest.raises(BoxelError, match="the boxes agree and the class ids are one too high; subtract 1"):
        match_results(truth, [make_result(mask, 0.5, 1, 1)])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_passed_over(tmp_path, encoding):
    path = tmp_path / "results.json"
    path.write_text(json.dumps([GOOD]), encoding=encoding)
    assert len(read_results(path)) == 1 and is_results_file(path)


def test_nan_in_a_file_costs_only_its_result(tmp_path, caplog):
    bad = {**GOOD, "score": float("nan")}
    assert len(read_results(written(tmp_path, [bad, GOOD, bad]))) == 1
    assert (
        "2 of 3 results cannot be used and are left out, the first: result 0 (image 1) has the score nan"
        in caplog.text
    )


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
    with pytest.raises(BoxelError, match="it lacks image 13; its first image is 12"):
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
    low = [{**result, "score": 0.01} for result in results]  # whose boxes are filled
    assert grabcut_boxes(unsized, low) == fill_boxes(truth, low)
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


def test_masks_of_two_sizes_in_one_image_are_left_out(polygons, make_result, rectangle, caplog):
    found = [make_result(rectangle(height, 80, 10, 10, 30, 30), 0.9, 1) for height in (60, 61)]
    assert match_results(polygons, found)[1] == found[:1]
    assert "result 1 (image 1) has a mask of [61, 80]" in caplog.text


def test_a_dataset_with_scores_holds_detections(random_set, caplog):
    truth, results = random_set(1)
    scored = to_annotations(results, truth)
    kept = [result["score"] for result in results]
    scored.extras[:] = [json.dumps({"score": score, "note": "x"}).encode() for score in kept]
    caplog.set_level("INFO")
    evaluation = evaluate(scored, truth, boundary=False)
    assert evaluation.kind == "results" and "evaluated as detections" in caplog.text
    assert evaluation.metrics == evaluate(results, truth, boundary=False).metrics
    scored.extras[3] = b'{"note": 1}'
    assert evaluate(scored, truth).kind == "dataset"


def test_a_code_with_the_letters_of_nan_is_read(tmp_path) -> None:
    code = {"size": [99, 99], "counts": "NaN"}  # runs of 30, 17 and more pixels
    row = {"image_id": 1, "category_id": 1, "score": 0.5, "bbox": [0, 0, 9, 9], "segmentation": code}
    path = tmp_path / "results.json"
    path.write_text(json.dumps([row, {**row, "score": float("nan")}]))
    assert decode_results(path.read_bytes(), path)[0] == row
    path.write_text(json.dumps([row]))
    assert decode_results(path.read_bytes(), path) == [row]
