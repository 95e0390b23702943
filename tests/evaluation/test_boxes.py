"""Masks of given boxes against the true masks of the same instances."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch

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

# figures -------------------------------------------------------------------------------------------------------------


def test_the_figures_by_hand():
    """Class 7 has one instance, class 3 has four: the mean over classes is not that over instances."""
    figures = mask_iou_metrics([0.9, 0.5, 0.6, 0.8, 0.2], [7, 3, 3, 3, 3])
    assert figures == pytest.approx(
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


def test_no_instances_no_figures():
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


def test_each_mask_is_measured_against_its_own(truth, rectangle):
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
        }
    )
    assert measure_masks(truth, truth)["mask_iou"] == 1


def test_what_has_no_mask_counts_as_nothing(truth, rectangle):
    """An instance without a mask, and one that is not there at all."""
    made = with_masks(truth, _0=rectangle(60, 80, 0, 0, 20, 20))
    assert measure_masks(truth, made)["mask_iou"] == pytest.approx(1 / 3)
    fewer = made.select_instances([4, 0])
    ious, ours, theirs = instance_ious(truth, fewer)
    assert (ious.tolist(), ours.tolist(), theirs.tolist()) == ([1, 0, 0], [1, -1, -1], [0, 1, 3])
    assert measure_masks(truth, fewer)["instances"] == 3


def test_instances_are_told_by_image_and_id_in_any_order(truth):
    turned = truth.select_images([1, 0]).select_instances([4, 1, 0, 3, 2])
    ious, ours, _ = instance_ious(truth, turned)
    assert ious.tolist() == [1, 1, 1]
    assert [turned.ids[i] for i in ours] == [0, 1, 3]
    elsewhere = replace(truth, image_ids=["a", "c"])
    assert instance_ious(truth, elsewhere)[0].tolist() == [1, 1, 0]


def test_two_sets_of_nothing_in_common(truth):
    with pytest.raises(BoxelError, match=r"other\.json: none of its annotation ids is in .*true"):
        measure_masks(replace(truth, file="true.json"), replace(truth, ids=list("vwxyz"), file="other.json"))


def test_small_boxes_are_left_out_by_their_shorter_side(truth):
    assert MIN_SIDE == 16
    sides = {0: 20, 1: 30, 3: 20}
    for least, kept in [(0, [0, 1, 3]), (20, [0, 1, 3]), (20.5, [1]), (31, [])]:
        assert (
            instance_ious(truth, truth, least)[2].tolist() == kept == [i for i in sides if sides[i] >= least]
        )
    assert measure_masks(truth, truth, 31) == {"instances": 0}


def test_a_mask_of_another_size_counts_as_an_iou_of_0(truth, rectangle, caplog):
    made = replace(
        with_masks(truth, _0=rectangle(30, 40, 0, 0, 20, 20), _1=rectangle(60, 80, 30, 10, 70, 40)),
        heights=truth.heights // 2,
        widths=truth.widths // 2,
    )
    assert instance_ious(truth, made)[0].tolist() == [0, 1, 0]
    assert "annotation 0 " in caplog.text and "It counts as an IoU of 0" in caplog.text


# one image at a time -------------------------------------------------------------------------------------------------


def masks_of(*boxes):
    masks = torch.zeros(len(boxes), 30, 40, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[y0:y1, x0:x1] = True
    return masks


def test_masks_of_an_image_by_hand():
    made = masks_of((0, 0, 10, 10), (10, 10, 30, 20), (0, 0, 0, 0))
    target = {
        "boxes": torch.tensor([[0.0, 0, 10, 20], [10, 10, 30, 20], [5, 5, 15, 15]]),
        "masks": masks_of((0, 0, 10, 20), (10, 10, 20, 20), (5, 5, 15, 15)).byte(),
        "has_mask": torch.tensor([True, False, True]),
    }
    ious, agreement = compare_masks(target, made)
    assert ious.dtype == torch.float64
    assert ious.tolist() == pytest.approx([0.5, float("nan"), 0.0], nan_ok=True)
    assert agreement.tolist() == pytest.approx([0.5, 1.0, 0.0])


def test_without_true_masks_boxes_alone_agree():
    made = masks_of((0, 0, 10, 10))
    ious, agreement = compare_masks({"boxes": torch.tensor([[0.0, 0, 10, 10]])}, made)
    assert ious.isnan().all() and agreement.tolist() == [1]
    ious, agreement = compare_masks({"boxes": torch.zeros(0, 4)}, made[:0])
    assert ious.shape == agreement.shape == (0,)


def test_two_empty_masks_are_no_number_too_many():
    target = {
        "boxes": torch.tensor([[0.0, 0, 9, 9]]),
        "masks": masks_of((0, 0, 0, 0)).byte(),
        "has_mask": torch.tensor([True]),
    }
    assert compare_masks(target, masks_of((0, 0, 0, 0)))[0].tolist() == [0]


def test_figures_of_several_images():
    nan = float("nan")
    parts = [([0.8, nan], [1.0, 0.5], [1, 1]), ([], [], []), ([0.4, 0.6], [0.9, 0.6], [1, 2])]
    figures = summarize_validation(parts)
    assert figures == pytest.approx(
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
