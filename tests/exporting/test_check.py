"""What counts as agreement."""

from dataclasses import replace

import numpy as np
import pytest

from boxel.data.annotations import Category
from boxel.exporting.check import InstanceCheck, LogitCheck, compare
from boxel.masks.rle import encode
from boxel.models.instances import Instances


def rectangle(x0, y0, x1, y1):
    mask = np.zeros((50, 60), dtype=np.uint8)
    mask[y0:y1, x0:x1] = 1
    return encode(mask)


@pytest.fixture
def two():
    """Two instances of 20 x 20 and 2 x 2 pixels."""
    return Instances(
        boxes=np.array([[10, 10, 30, 30], [40, 40, 42, 42]], dtype=np.float32),
        scores=np.array([0.9, 0.5], dtype=np.float32),
        labels=np.array([0, 1]),
        rles=[rectangle(10, 10, 30, 30), rectangle(40, 40, 42, 42)],
        categories=(Category(1, "a"), Category(2, "b")),
        image_size=(50, 60),
    )


def test_equal_instances_agree(two):
    check = compare(two, two)
    assert check == InstanceCheck(instances=2, unmatched=0, box=0.0, score=0.0, mask_iou=1.0) and check.agrees


def test_boxes_agree_to_a_tenth_of_a_pixel(two):
    check = compare(two, replace(two, boxes=two.boxes + np.float32([[0, 0, 0.25, 0], [0, 0, 0, 0]])))
    assert check.box == pytest.approx(0.25) and check.unmatched == 0 and not check.agrees
    assert compare(two, replace(two, boxes=two.boxes + np.float32(0.05))).agrees


def test_scores_agree_to_a_thousandth(two):
    check = compare(two, replace(two, scores=two.scores - np.float32([0, 0.125])))
    assert check.score == 0.125 and not check.agrees
    assert compare(two, replace(two, scores=two.scores + np.float32(5e-4))).agrees


def test_masks_agree_to_a_hundredth(two):
    check = compare(two, replace(two, rles=[rectangle(10, 10, 30, 29), two.rles[1]]))
    assert check.mask_iou == pytest.approx(380 / 400) and not check.agrees


def test_one_pixel_of_a_small_mask_is_forgiven(two):
    one = np.zeros((50, 60), dtype=np.uint8)
    one[40:42, 40:42] = [[1, 1], [1, 0]]
    assert compare(two, replace(two, rles=[two.rles[0], encode(one)])).mask_iou == 1
    one[41, 40] = 0
    assert compare(two, replace(two, rles=[two.rles[0], encode(one)])).mask_iou == 0.5


def test_instances_of_another_label_are_unmatched(two):
    check = compare(two, replace(two, labels=np.array([0, 0])))
    assert check.unmatched == 2 and check.mask_iou == 1 and not check.agrees


def test_no_instances_agree_with_no_instances(two):
    nothing = two[:0]
    assert compare(nothing, nothing) == InstanceCheck(0, 0, 0.0, 0.0, 1.0)
    assert "no instances in the images" in str(compare(nothing, nothing))
    assert compare(nothing, two).unmatched == 2 and not compare(nothing, two).agrees


def test_one_instance_in_a_hundred_may_be_unmatched():
    assert InstanceCheck(100, 1, 0.0, 0.0, 1.0).agrees and not InstanceCheck(100, 2, 0.0, 0.0, 1.0).agrees


def test_logits_agree_to_a_thousandth():
    assert (
        LogitCheck(8, 0.001).agrees
        and not LogitCheck(8, float("nan")).agrees
        and not LogitCheck(8, 0.0011).agrees
    )
    assert str(LogitCheck(8, 0.00012)) == "8 crops, logits within 0.00012"


def test_boxes_that_share_a_place_are_compared_with_their_own(two):
    """Boxes of one label that are fitted to masks after NMS may be alike."""
    masks = [rectangle(10, 10, 30, 30), rectangle(10, 10, 30, 15)]
    alike = replace(two, boxes=two.boxes[[0, 0]], labels=np.array([0, 0]), rles=masks)
    assert compare(alike, alike) == InstanceCheck(2, 0, 0.0, 0.0, 1.0)
    assert not compare(alike, replace(alike, rles=masks[::-1])).agrees
    assert compare(alike, alike[:1]).unmatched == 1
