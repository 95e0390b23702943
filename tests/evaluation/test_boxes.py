"""Box-to-mask metrics: masks against true masks, masks against boxes, and tensors in validation."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch

from boxel.data.synthetic import write_scenes
from boxel.evaluation import box_agreement, mean_fill
from boxel.evaluation.boxes import (
    MIN_SIDE,
    compare_masks,
    instance_ious,
    mask_iou_metrics,
    measure_masks,
    summarize_validation,
)
from boxel.masks.rle import encode
from boxel.utils.errors import BoxelError

# metrics -------------------------------------------------------------------------------------------------------------


def test_metrics_of_ious_by_hand():
    """Class 7 has one instance, class 3 has four: the mean over classes is not that over instances."""
    metrics = mask_iou_metrics([0.9, 0.5, 0.6, 0.8, 0.2], [7, 3, 3, 3, 3])
    assert metrics == pytest.approx(
        {
            "mask_iou": 3.0 / 5,
            "IoU@50": 3 / 5,  # larger than, so that .5 itself is not
            "IoU@75": 2 / 5,
            "mask_iou_by_class": (0.9 + 2.1 / 4) / 2,
        }
    )


def test_classes_without_instances_do_not_count():
    assert mask_iou_metrics([0.4, 0.8], [0, 90])["mask_iou_by_class"] == pytest.approx(0.6)
    assert mask_iou_metrics([0.4, 0.8], [5, 5])["mask_iou_by_class"] == pytest.approx(0.6)


def test_no_instances_give_no_metrics():
    assert mask_iou_metrics([], []) == {}


# two sets ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def truth(make_truth, rectangle):
    """Five instances of 60 x 80 in two images: a crowd is one, and one has a box only."""
    masks = [(0, 0, 20, 20), (30, 10, 70, 40), (0, 0, 80, 60), (10, 10, 30, 40)]
    instances = [
        {"image": 0, "label": 0, "mask": rectangle(60, 80, *masks[0])},
        {"image": 0, "label": 1, "mask": rectangle(60, 80, *masks[1])},
        {"image": 1, "label": 0, "mask": rectangle(60, 80, *masks[2]), "crowd": True},
        {"image": 1, "label": 1, "mask": rectangle(60, 80, *masks[3])},
        {"image": 1, "label": 1, "box": (0, 0, 40, 40)},
    ]
    return make_truth([(60, 80), (60, 80)], instances, (1, 2), ["a", "b"])


def with_masks(data, **masks):
    """The set with other masks, by their place: `_0=mask`."""
    codes = np.full(len(data.labels), None, dtype=object)
    for place, mask in masks.items():
        codes[int(place[1:])] = msgspec.json.encode(encode(mask))
    return replace(data, segmentations=codes)


def test_each_mask_is_compared_with_its_own_instance(truth, rectangle):
    made = with_masks(
        truth,
        _0=rectangle(60, 80, 0, 0, 20, 10),  # the upper half
        _1=rectangle(60, 80, 30, 10, 70, 40),
        _3=rectangle(60, 80, 20, 10, 40, 40),  # moved by half its width: 300 of 900 pixels
    )
    ious, ours, theirs = instance_ious(truth, made)
    assert ious.tolist() == pytest.approx([1 / 2, 1, 1 / 3])
    assert ours.tolist() == theirs.tolist() == [0, 1, 3]
    assert measure_masks(truth, made) == pytest.approx(
        {
            "mask_iou": (1 / 2 + 1 + 1 / 3) / 3,
            "IoU@50": 1 / 3,
            "IoU@75": 1 / 3,
            "mask_iou_by_class": (1 / 2 + 2 / 3) / 2,
            "instances": 3,
            "min_side": 16,
        }
    )
    assert measure_masks(truth, truth)["mask_iou"] == 1


def test_an_instance_without_a_mask_counts_as_an_iou_of_0(truth, rectangle):
    """An instance without a mask, and one that is not there at all."""
    made = with_masks(truth, _0=rectangle(60, 80, 0, 0, 20, 20))
    assert measure_masks(truth, made)["mask_iou"] == pytest.approx(1 / 3)
    fewer = made.select_instances([4, 0])
    ious, ours, theirs = instance_ious(truth, fewer)
    assert (ious.tolist(), ours.tolist(), theirs.tolist()) == ([1, 0, 0], [1, -1, -1], [0, 1, 3])
    assert measure_masks(truth, fewer)["instances"] == 3


def test_instances_are_matched_by_image_and_id_in_any_order(truth):
    turned = truth.select_images([1, 0]).select_instances([4, 1, 0, 3, 2])
    ious, ours, _ = instance_ious(truth, turned)
    assert ious.tolist() == [1, 1, 1]
    assert [turned.ids[i] for i in ours] == [0, 1, 3]
    elsewhere = replace(truth, image_ids=["a", "c"])
    assert instance_ious(truth, elsewhere)[0].tolist() == [1, 1, 0]


def test_other_ids_are_matched_by_image_name_class_and_box(truth, caplog):
    caplog.set_level("INFO")
    pred = replace(
        truth.select_images([1, 0]).select_instances([4, 1, 0, 3, 2]),
        paths=["JPEGImages/1.jpg", "JPEGImages/0.jpg"],
        ids=list("vwxyz"),
        file="other.json",
    )
    ious, ours, _ = instance_ious(replace(truth, file="true.json"), pred)
    assert ious.tolist() == [1, 1, 1] and [pred.ids[i] for i in ours] == ["x", "w", "y"]
    assert "other.json is compared with true.json by image name, class and box" in caplog.text
    assert "4 of 4 instances are matched" in caplog.text
    other_classes = replace(pred, categories=pred.categories[::-1])
    with pytest.raises(BoxelError, match="neither by its id nor by image name, class and box"):
        instance_ious(truth, other_classes)


def test_ids_that_contradict_image_names_or_boxes_are_not_used(truth, make_truth, rectangle):
    """Both datasets number their images and instances from the start, but in another order."""
    swapped = replace(truth.select_images([1, 0]), image_ids=truth.image_ids)
    assert instance_ious(truth, swapped)[1].tolist() == [0, 1, 3]
    row = make_truth([(20, 90)], [{"mask": rectangle(20, 90, x, 0, x + 20, 20)} for x in (0, 30, 60)])
    turned = replace(row.select_instances([2, 0, 1]), ids=row.ids)
    assert instance_ious(row, turned)[0].tolist() == [1, 1, 1]
    # An instance whose boxes do not overlap is a bad label, not a proof of other ids.
    moved = replace(row, boxes=row.boxes + np.array([[0], [0], [30]]))
    assert instance_ious(row, moved)[1].tolist() == [0, 1, 2]


def test_images_of_the_same_name_in_several_folders_are_told_apart_by_their_ids(truth):
    nested = replace(truth, paths=["a/1.png", "b/1.png"])
    assert instance_ious(nested, nested.select_images([1]))[1].tolist() == [-1, -1, 1]
    swapped = replace(nested.select_images([1, 0]), image_ids=nested.image_ids)
    assert instance_ious(nested, swapped)[1].tolist() == [0, 1, 3]


def test_datasets_without_a_common_instance_are_refused(truth):
    other = replace(truth, ids=list("vwxyz"), paths=["8.png", "9.png"], file="other.json")
    with pytest.raises(
        BoxelError, match=r"other\.json: no instance is also in true\.json, neither by its id"
    ):
        measure_masks(replace(truth, file="true.json"), other)


def test_boxes_with_a_short_side_are_left_out(truth):
    assert MIN_SIDE == 16
    sides = {0: 20, 1: 30, 3: 20}
    for least, kept in [(0, [0, 1, 3]), (20, [0, 1, 3]), (20.5, [1]), (31, [])]:
        assert instance_ious(truth, truth, least)[2].tolist() == kept
        assert kept == [i for i in sides if sides[i] >= least]
    assert measure_masks(truth, truth, min_side=31) == {"instances": 0, "min_side": 31}


def test_a_mask_of_another_size_counts_as_an_iou_of_0(truth, rectangle, caplog):
    made = replace(
        with_masks(truth, _0=rectangle(30, 40, 0, 0, 20, 20), _1=rectangle(60, 80, 30, 10, 70, 40)),
        heights=truth.heights // 2,
        widths=truth.widths // 2,
    )
    assert instance_ious(truth, made)[0].tolist() == [0, 1, 0]
    assert "annotation 0 " in caplog.text and "It counts as an IoU of 0" in caplog.text


# one image at a time -------------------------------------------------------------------------------------------------


def make_masks(*boxes):
    masks = torch.zeros(len(boxes), 30, 40, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[y0:y1, x0:x1] = True
    return masks


def test_masks_of_an_image_by_hand():
    made = make_masks((0, 0, 10, 10), (10, 10, 30, 20), (0, 0, 0, 0))
    target = {
        "boxes": torch.tensor([[0.0, 0, 10, 20], [10, 10, 30, 20], [5, 5, 15, 15]]),
        "masks": make_masks((0, 0, 10, 20), (10, 10, 20, 20), (5, 5, 15, 15)).byte(),
        "has_mask": torch.tensor([True, False, True]),
    }
    ious, agreement = compare_masks(target, made)
    assert ious.dtype == np.float64
    assert ious.tolist() == pytest.approx([0.5, float("nan"), 0.0], nan_ok=True)
    assert agreement.tolist() == pytest.approx([0.5, 1.0, 0.0])


def test_without_true_masks_boxes_alone_agree():
    made = make_masks((0, 0, 10, 10))
    ious, agreement = compare_masks({"boxes": torch.tensor([[0.0, 0, 10, 10]])}, made)
    assert np.isnan(ious).all() and agreement.tolist() == [1]
    ious, agreement = compare_masks({"boxes": torch.zeros(0, 4)}, made[:0])
    assert ious.shape == agreement.shape == (0,)


def test_two_empty_masks_have_an_iou_of_0():
    target = {
        "boxes": torch.tensor([[0.0, 0, 9, 9]]),
        "masks": make_masks((0, 0, 0, 0)).byte(),
        "has_mask": torch.tensor([True]),
    }
    assert compare_masks(target, make_masks((0, 0, 0, 0)))[0].tolist() == [0]


def test_validation_metrics_of_several_images():
    nan = float("nan")
    parts = [([0.8, nan], [1.0, 0.5], [1, 1]), ([], [], []), ([0.4, 0.6], [0.9, 0.6], [1, 2])]
    metrics = summarize_validation(parts)
    assert metrics == pytest.approx(
        {
            "mask_iou": 0.6,
            "IoU@50": 2 / 3,
            "IoU@75": 1 / 3,
            "mask_iou_by_class": 0.6,
            "box_agreement": 0.75,
        }
    )
    assert summarize_validation([([nan], [0.25], [0])]) == {"box_agreement": 0.25}
    assert summarize_validation([]) == {}


# masks against boxes --------------------------------------------------------------------------------------------------


def test_box_agreement_by_hand(make_truth, make_result, rectangle):
    truth = make_truth(
        [(100, 100)], [{"box": (10, 10, 30, 30)}, {"box": (50, 50, 70, 70)}, {"box": (80, 0, 90, 10)}]
    )
    fits = make_result(rectangle(100, 100, 10, 10, 30, 30), 0.9)
    narrow = make_result(rectangle(100, 100, 50, 50, 70, 62), 0.8)  # a tight box of 0.6 in the right box
    narrow["bbox"] = [50.0, 50.0, 20.0, 20.0]
    assert box_agreement(truth, [fits, narrow]) == {
        "mean": pytest.approx(0.8),
        "share50": 1.0,
        "share75": 0.5,
        "matched": 2,
        "instances": 3,
    }
    empty = make_result(np.zeros((100, 100), dtype=bool), 0.9)
    empty["bbox"] = [50.0, 50.0, 20.0, 20.0]
    assert box_agreement(truth, [fits, empty])["mean"] == pytest.approx(0.5)
    nothing = box_agreement(truth, [])
    assert np.isnan([nothing["mean"], nothing["share50"], nothing["share75"]]).all()
    assert nothing["matched"] == 0


def test_mean_fill_by_hand(make_result, rectangle):
    filled = make_result(rectangle(50, 50, 0, 0, 20, 20), 0.5)
    quarter = {**make_result(rectangle(50, 50, 0, 0, 10, 10), 0.5), "bbox": [0.0, 0.0, 20.0, 20.0]}
    no_area = {**filled, "bbox": [3.0, 3.0, 0.0, 5.0]}
    assert mean_fill([filled, quarter, no_area]) == pytest.approx(0.625)
    tight = {key: value for key, value in quarter.items() if key != "bbox"}
    assert mean_fill([tight]) == 1.0
    assert np.isnan(mean_fill([]))


def test_masks_of_a_dataset_without_image_sizes_are_read_at_the_size_of_the_files(tmp_path):
    data = write_scenes(tmp_path, 1, height=64, width=96)
    unsized = replace(data, widths=np.zeros_like(data.widths), heights=np.zeros_like(data.heights))
    assert measure_masks(unsized, unsized)["mask_iou"] == 1
    with pytest.raises(BoxelError, match="the size of its image is unknown"):
        replace(unsized, root=tmp_path / "nowhere").rle(0)
