"""How boxes lie to one another and to pixels, worked by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import box_iou

from boxel.masks.boxes import box_overlap, from_middle


def test_overlap_by_hand():
    boxes = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [10, 0, 20, 10], [2, 2, 4, 4]])
    assert box_overlap(boxes, np.array([0.0, 0, 10, 10])) == pytest.approx([1, 50 / 150, 0, 4 / 100])


@given(st.lists(st.tuples(*[st.integers(0, 50)] * 2, *[st.integers(1, 50)] * 2), min_size=2, max_size=9))
def test_overlap_is_torchvision_s(drawn):
    boxes = np.array([(x, y, x + w, y + h) for x, y, w, h in drawn])
    peer = box_iou(torch.from_numpy(boxes).double(), torch.from_numpy(boxes[:1]).double())[:, 0]
    assert box_overlap(boxes, boxes[0].astype(float)) == pytest.approx(peer.numpy())


def test_from_the_middle():
    u, v = from_middle(np.array([10.0, 20, 30, 24]), np.array([10.0, 20, 25]), np.array([24.0, 21]))
    assert u.tolist() == [1, 0, 0.5] and v.tolist() == [[1], [0.5]]


def test_a_box_without_a_side_is_infinitely_far_off_beside_its_line():
    u, _ = from_middle(np.array([10.0, 0, 10, 5]), np.array([10.0, 10.5]), np.array([1.0]))
    assert u[0] == 0 and u[1] > 1e5
