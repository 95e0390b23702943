"""The filter for lines: what it finds, and where it decides beside a network."""

import cv2
import numpy as np
import pytest
from scipy.special import logit

from boxel.labeling import label_image
from boxel.labeling.config import LabelConfig
from boxel.labeling.teachers.base import SoftMask
from boxel.labeling.teachers.boxcaseg import BoxCasegTeacher
from boxel.labeling.teachers.lines import add_line, find_line
from boxel.masks.boxes import pixel_region, tight_boxes

BACKGROUND = 90, 110, 120


def draw_line(size=120, thickness=3, color=(20, 30, 40), grain=3):
    """An image of a bent line, and the mask of the line."""
    points = [(0.1, 0.2), (0.3, 0.6), (0.6, 0.5), (0.9, 0.85)]
    mask = np.zeros((size, size), np.uint8)
    cv2.polylines(mask, [(size * np.array(points)).astype(np.int32)], False, 1, thickness)
    return paint(mask, color, grain), mask > 0


def paint(mask, color, grain=3):
    image = np.where(mask[..., None] > 0, color, BACKGROUND).astype(np.float32)
    image = cv2.GaussianBlur(image, (0, 0), 0.6) + np.random.default_rng(0).normal(0, grain, image.shape)
    return image.clip(0, 255).astype(np.uint8)


def segment(image, box):
    """The mask in the box; None if no line is found there."""
    height, width = image.shape[:2]
    box = np.clip(np.array(box, dtype=np.float64), 0, [width, height] * 2)
    found = find_line(image, box)
    if found is None:
        return None
    mask, (x0, y0, x1, y1) = found
    logits = np.where(mask, np.float32(1), np.float32(-1))
    return SoftMask(logits, (x0, y0, x1, y1)).resample(pixel_region(box, height, width)) > 0


@pytest.mark.parametrize(
    "color", [(20, 30, 40), (220, 230, 240), (170, 70, 60)], ids=["dark", "bright", "red"]
)
@pytest.mark.parametrize("size, thickness", [(60, 2), (120, 3), (120, 7), (600, 14)])
def test_a_line_that_spans_its_box_is_found(color, size, thickness):
    image, truth = draw_line(size, thickness, color)
    box = tight_boxes([truth])[0]
    mask, truth = segment(image, box), truth[pixel_region(box, size, size).slices]
    assert (mask & truth).sum() > 0.8 * (mask | truth).sum()


def test_a_part_of_a_line_does_not_span_its_box():
    image, truth = draw_line()
    x0, y0, x1, y1 = tight_boxes([truth])[0]
    assert segment(image, (x0, y0, (x0 + x1) / 2, y1)) is None


def test_a_box_may_reach_past_the_image():
    image, truth = draw_line()
    x0, y0, x1, y1 = tight_boxes([truth])[0].astype(int)
    cut = image[:, x0:]
    mask = segment(cut, (0, y0, x1 - x0, y1))
    assert mask is not None
    np.testing.assert_array_equal(segment(cut, (-30, y0, x1 - x0, y1)), mask)


def ring(filled):
    return cv2.circle(np.zeros((120, 120), np.uint8), (60, 60), 40, 1, -1 if filled else 3)


@pytest.mark.parametrize("filled", [True, False], ids=["disc", "ring"])
def test_what_is_not_a_line_gets_no_opinion(filled):
    assert segment(paint(ring(filled), (20, 30, 40)), (20, 20, 101, 101)) is None


def test_lines_that_do_not_stand_out_get_no_opinion():
    _, truth = draw_line()
    box = tight_boxes([truth])[0]
    assert segment(paint(truth, (80, 100, 110), grain=12), box) is None
    assert segment(paint(np.zeros_like(truth), (0, 0, 0)), box) is None
    flat = np.full((40, 50, 3), 128, np.uint8)
    assert segment(flat, (5, 5, 45, 35)) is None and segment(flat, (5, 5, 6, 6)) is None


def label(image, boxes, probability):
    """Masks of a network that predicts one probability everywhere."""

    def predict(image, boxes):
        logits = np.full((len(boxes), 8, 8), logit(probability), np.float32)
        return logits, boxes + 4.0 * np.array([-1, -1, 1, 1]), np.ones(len(boxes), np.float32)

    teacher = BoxCasegTeacher(predict, threshold=None)
    return label_image(
        image, boxes, np.zeros(len(boxes), np.int32), [teacher], LabelConfig(min_component=0)
    ).masks


def test_a_line_decides_where_the_network_is_in_doubt_but_not_where_it_is_certain():
    image, truth = draw_line()
    both = np.concatenate([image, paint(ring(True), (200, 60, 50))], axis=1)  # a line, and what is not one
    boxes = np.stack([tight_boxes([truth])[0], [140, 20, 221, 101]])
    doubt, certain = label(both, boxes, 0.6), label(both, boxes, 0.8)
    np.testing.assert_array_equal(doubt[0], segment(both, boxes[0]))
    assert certain[0].all() and doubt[1].all() and certain[1].all()


def test_the_logits_of_a_line_are_added():
    image, truth = draw_line()
    (box,) = tight_boxes([truth])
    soft = SoftMask(np.full((8, 8), logit(0.3), np.float32), (-4, -4, 124, 124), 0.25)
    added = add_line(image, box, soft)
    assert added.score == 0.25
    np.testing.assert_allclose(np.unique(added.logits.round(4)), logit(0.3) + np.array([-2, 2]), atol=1e-3)
    assert (added.resample(pixel_region((0, 0, 120, 120), 120, 120)) > 0)[truth].mean() > 0.8


def test_a_network_with_a_threshold_of_its_own_is_left_alone():
    image, truth = draw_line()
    logits = np.zeros((1, 4, 4), np.float32)
    windows = tight_boxes([truth])
    teacher = BoxCasegTeacher(lambda image, boxes: (logits, windows, np.ones(1)), threshold=0.5)
    (soft,) = teacher(image, windows, np.zeros(1, np.int32))
    np.testing.assert_array_equal(soft.logits, logits[0])
