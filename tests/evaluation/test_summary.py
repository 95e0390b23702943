import json
import math
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from boxel.evaluation import (
    EvaluateConfig,
    coco_ap,
    evaluate_detections,
    fill_boxes,
    mask_iou,
    region_ap,
)
from boxel.evaluation.summary import format_detections, without_nan
from boxel.masks.rle import encode
from boxel.utils.errors import BoxelError


def test_all_metrics_are_collected(random_set):
    truth, results = random_set(0)
    metrics = evaluate_detections(truth, results, EvaluateConfig(baselines=["box"]))
    json.dumps(metrics, allow_nan=False)
    assert metrics["images"] == 12
    assert metrics["instances"] == (~truth.iscrowd).sum()
    assert metrics["box"]["AP"] == coco_ap(truth, results, "bbox")["AP"]
    assert metrics["mask"]["AP50"] == coco_ap(truth, results, "segm")["AP50"]
    assert metrics["boundary"]["AP"] == coco_ap(truth, results, "boundary")["AP"]
    assert mask_iou(truth, results).items() <= metrics["mask_iou"].items()
    filled = fill_boxes(truth, results)
    assert metrics["baselines"]["box"]["mask"]["AP"] == coco_ap(truth, filled)["AP"]
    assert metrics["baselines"]["box"]["mask_iou"] == mask_iou(truth, filled)
    assert "box_agreement" not in metrics
    assert "boundary" not in evaluate_detections(truth, results, EvaluateConfig(boundary=False))


def test_regions_are_computed_on_request(random_set):
    truth, results = random_set(0)
    assert "regions" not in evaluate_detections(truth, results, EvaluateConfig(boundary=False))
    metrics = evaluate_detections(truth, results, EvaluateConfig(boundary=False, regions=True))
    expected = region_ap(truth, results)
    assert metrics["regions"]["mAPr50"] == expected["mAPr50"]
    names = ("mAPr25", "mAPr50", "mAPr70", "mAPr75", "mAPr_vol")
    line = "; ".join(f"{name} {expected[name]:.3f}" for name in names) + "."
    assert line in format_detections(metrics).splitlines()


def test_without_true_masks_boxes_are_compared(random_set, caplog):
    truth, results = random_set(0)
    metrics = evaluate_detections(truth.without_masks(), results, EvaluateConfig(baselines=["box"]))
    assert "no masks to compare baselines with; skipped: box filled" in caplog.text
    assert set(metrics) == {"images", "instances", "results", "box", "mean_fill", "box_agreement"}
    # The true boxes here are tight, so each found one agrees as well as it matches, which is by at least 0.5.
    assert metrics["box_agreement"]["share50"] == 1
    assert "No true masks" in format_detections(metrics)


def test_without_predicted_masks_boxes_are_evaluated(random_set):
    truth, results = random_set(0)
    boxes = [{k: v for k, v in result.items() if k != "segmentation"} for result in results]
    metrics = evaluate_detections(truth, boxes, EvaluateConfig(baselines=["box"]))
    assert set(metrics) == {"images", "instances", "results", "box", "baselines"}
    assert metrics["baselines"]["box"]["mask"]["AP"] == coco_ap(truth, fill_boxes(truth, results))["AP"]


def test_an_unreadable_true_mask_is_replaced_by_its_box(make_truth, make_result, rectangle, caplog):
    first, second = rectangle(100, 100, 5, 5, 45, 45), rectangle(100, 100, 50, 50, 95, 95)
    truth = make_truth([(100, 100)], [{"mask": first}, {"mask": second}])
    truth.segmentations[1] = b"[[1, 2, 3, 4, 5, 6, 7]]"
    results = [make_result(first, 0.9), make_result(second, 0.8)]
    metrics = evaluate_detections(truth, results)
    assert (
        "1 of 2 true masks are not used as masks, only their boxes: 1 unreadable (annotation 1)."
        in caplog.text
    )
    assert caplog.text.count("not used") == 1
    assert (metrics["mask"]["AP"], metrics["box"]["AP"], metrics["instances"]) == (1, 1, 2)
    assert metrics["mask_iou"]["instances"] == 1


def test_true_masks_that_are_none_are_counted_by_kind(make_truth, make_result, rectangle, caplog):
    """Only what is not a mask at all is left out; filled boxes count as pycocotools counts them."""
    shape = rectangle(100, 100, 5, 5, 45, 45)
    shape[5:20, 5:20] = False
    truth = make_truth([(100, 100)], [{"mask": shape}] * 7)
    truth.segmentations[1] = b"[]"
    truth.segmentations[2] = msgspec.json.encode(encode(np.zeros((100, 100))))
    truth.segmentations[3] = b"[[200, 200, 240, 200, 240, 240]]"
    truth.segmentations[4] = msgspec.json.encode(encode(np.ones((50, 50))))
    truth.segmentations[5] = b"[[5, 5, 45, 5, 45, 45, 5, 45]]"
    truth.boxes[:] = [[5, 5, 45, 45]]
    truth.trusted[6], truth.segmentations[6] = False, b"[]"  # not a mask to compare with in the first place
    metrics = evaluate_detections(replace(truth, file="t.json"), [make_result(shape, 0.9)], file="r.json")
    assert metrics["mask_iou"]["instances"] == 2
    said = "t.json: 4 of 6 true masks are not used as masks, only their boxes: "
    kinds = "2 empty (annotations 1, 2), 1 outside the image (annotation 3), 1 of another size than the image"
    assert said + kinds in caplog.text
    assert (
        "t.json: 1 of 6 true masks are merely the filled box (annotation 5); they are compared" in caplog.text
    )


def test_truth_of_rectangles_and_results_without_masks_are_reported(
    make_truth, make_result, rectangle, caplog
):
    mask = rectangle(100, 100, 5, 5, 45, 45)
    truth = make_truth([(100, 100)], [{"mask": mask}] * 3)
    evaluate_detections(truth, [make_result(mask, 0.9)])
    assert "true masks: all 3 masks are axis-parallel rectangles: these are boxes, not masks" in caplog.text
    assert "has no masks" not in caplog.text
    boxes = {key: value for key, value in make_result(mask, 0.9).items() if key != "segmentation"}
    assert "mask" not in evaluate_detections(truth, [boxes], file="r.json")
    assert "r.json has no masks, so only boxes are compared." in caplog.text


def test_selected_categories_are_evaluated(random_set):
    truth, results = random_set(0)
    metrics = evaluate_detections(truth, results, EvaluateConfig(categories=["class 0"], boundary=False))
    assert list(metrics["mask"]["per_class"]) == ["class 0"]
    assert metrics["mask"]["AP"] == coco_ap(truth, results)["per_class"]["class 0"]
    with pytest.raises(BoxelError, match=r"no category 'class 00'\. Did you mean 'class 0'"):
        evaluate_detections(truth, results, EvaluateConfig(categories=["class 00"]))


def test_other_categories_are_ignored_without_classes(make_truth, make_result, rectangle):
    """What lies on an object of another category is neither right nor wrong, whatever its own category."""
    dog, person = rectangle(100, 100, 5, 5, 45, 45), rectangle(100, 100, 50, 50, 95, 95)
    truth = make_truth([(100, 100)], [{"mask": dog, "label": 1}, {"mask": person}], category_ids=(1, 18))
    results = [make_result(dog, 0.9), make_result(person, 0.8)]
    for name in ("class 1", "class 18"):
        metrics = evaluate_detections(truth, results, EvaluateConfig(class_agnostic=True, categories=[name]))
        assert (metrics["mask"]["AP"], metrics["box"]["AP"], metrics["instances"]) == (1, 1, 1)
        assert list(metrics["mask"]["per_class"]) == ["object"]
    stray = make_result(rectangle(100, 100, 0, 60, 40, 100), 0.95)
    metrics = evaluate_detections(
        truth, [stray, *results], EvaluateConfig(class_agnostic=True, categories=["class 18"])
    )
    assert metrics["mask"]["AP"] == pytest.approx(0.5)


def test_results_of_a_single_category_are_logged(make_truth, make_result, rectangle, caplog):
    mask = rectangle(100, 100, 20, 20, 60, 60)
    mask[20:30, 20:30] = False
    truth = make_truth([(100, 100)] * 2, [{"mask": mask, "image": i, "label": i} for i in (0, 1)], (1, 18))
    person, dog = make_result(mask, 0.9, 1, 1), make_result(mask, 0.9, 2, 18)
    evaluate_detections(truth, [person, dog])
    evaluate_detections(truth, [person], EvaluateConfig(categories=["class 1"]))
    evaluate_detections(truth, [person], EvaluateConfig(class_agnostic=True))
    evaluate_detections(truth.select_instances([0]), [person])  # the other category has no instance
    assert not caplog.records
    evaluate_detections(truth, [person, {**dog, "category_id": 1}], file="mine.json")
    assert "mine.json: all results have category 'class 1', so 1 instances of other" in caplog.text


def test_unknown_baselines_are_refused():
    with pytest.raises(BoxelError, match=r"baselines is boxes; give box or grabcut\. Did you mean 'box'"):
        EvaluateConfig(baselines=["grabcut", "boxes"])


def test_results_are_matched_by_file_name(make_truth, make_result, rectangle):
    mask = rectangle(100, 100, 20, 20, 60, 60)
    truth = make_truth([(100, 100)] * 2, [{"mask": mask, "image": 1}], image_ids=(1, 40))
    found = {**make_result(mask, 0.9, "1"), "file_name": "1.png"}
    assert evaluate_detections(truth, [found])["mask"]["AP"] == 1


def test_refuses_results_of_other_images(random_set):
    truth, results = random_set(0)
    with pytest.raises(
        BoxelError,
        match=r"mine\.json: none of the 1 results .* it lacks image -1",
    ):
        evaluate_detections(truth, [{**results[0], "image_id": -1}], file="mine.json")


def test_the_table(make_truth, make_result, rectangle):
    mask = rectangle(100, 100, 20, 20, 60, 60)
    truth = make_truth([(100, 100)], [{"mask": mask}])
    lines = format_detections(
        evaluate_detections(truth, [make_result(rectangle(100, 100, 21, 20, 61, 60), 0.9)])
    ).splitlines()
    assert lines[0].split() == [
        "AP",
        "AP25",
        "AP50",
        "AP70",
        "AP75",
        "APs",
        "APm",
        "APl",
        "AR1",
        "AR10",
        "AR100",
        "ARs",
        "ARm",
        "ARl",
    ]
    assert lines[1].split()[:9] == ["box", *["1.000"] * 5, "-", "1.000", "-"]
    assert lines[3].split()[:6] == ["boundary", "0.500", "1.000", "1.000", "1.000", "0.000"]
    heads = "by size instances box AP mask AP boundary AP found mask_iou IoU@50 IoU@75"
    assert " ".join(lines[5].split()) == heads
    assert lines[6].split() == ["medium", "1", "1.000", "1.000", "0.500", "1.000", "0.951", "1.000", "1.000"]
    assert lines[8:10] == ["lowest mask IoU:", "  0.png, annotation 0 (class 1): 0.951"]
    assert lines[11:14] == [
        "1 images, 1 instances, 1 detections.",
        "Mask IoU: 0.951 over 1 of 1 instances found.",
        "The masks fill 1.000 of their boxes: they are boxes rather than masks.",
    ]
    assert len({len(line) for line in lines[:4]}) == 1


def test_the_table_by_class_lists_the_classes_that_occur(make_truth, make_result, rectangle):
    mask = rectangle(100, 100, 20, 20, 60, 60)
    instances = [{"mask": mask, "label": 0}, {"mask": mask, "label": 2}]
    truth = make_truth([(100, 100)], instances, category_ids=(1, 2, 3))
    found = [make_result(mask, 0.9, category_id=1), make_result(mask, 0.8, category_id=2)]
    lines = format_detections(evaluate_detections(truth, found)).splitlines()
    rows = [line.split()[:4] for line in lines if line.startswith("class ")]
    assert rows == [["class", "1", "1", "1.000"], ["class", "3", "1", "0.000"]]


def test_the_table_states_where_grabcut_runs(make_truth, make_result, rectangle):
    mask = rectangle(100, 100, 20, 20, 60, 60)
    truth = make_truth([(100, 100)], [{"mask": mask}])
    found = [make_result(mask, 0.9)]
    said = "GrabCut runs for detections with a score of at least 0.05; the boxes of"
    assert said in format_detections(
        evaluate_detections(truth, found, EvaluateConfig(baselines=["box", "grabcut"]))
    )
    assert "GrabCut" not in format_detections(
        evaluate_detections(truth, found, EvaluateConfig(baselines=["box"]))
    )


def test_an_empty_dataset_has_no_metrics(make_truth, caplog):
    metrics = evaluate_detections(make_truth([], []), [], EvaluateConfig(baselines=["box", "grabcut"]))
    assert "skipped: box filled, GrabCut" in caplog.text
    assert metrics["box"]["AP"] is None
    assert "0 images" in format_detections(metrics)


def test_nan_becomes_none():
    found = without_nan({"a": [0.5, math.nan], "b": {"c": math.nan}, "d": 1.0})
    assert found == {"a": [0.5, None], "b": {"c": None}, "d": 1.0}
