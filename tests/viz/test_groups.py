"""Quality, and groups of boxes, against numbers worked by hand."""

from dataclasses import replace

import numpy as np
import pytest

from boxel.viz.report.groups import Group, group_by_category, group_by_size, group_by_source, known_quality

NAN = float("nan")


@pytest.fixture
def boxes(hand_made):
    return hand_made.select_instances(~hand_made.iscrowd)


def test_only_valid_quality_of_masks_is_known(boxes):
    odd = replace(boxes, quality=np.array([0.3, 1.5, np.inf, -0.1, 0.5, NAN], dtype=np.float32))
    np.testing.assert_array_equal(known_quality(odd), [0.3, NAN, NAN, NAN, NAN, NAN])


def test_quality_reaches_the_threshold_it_was_written_as(boxes):
    tenths = np.array([0.1, 0.3, 0.6, 0.9, 1, 0], dtype=np.float32)
    written = replace(boxes, quality=tenths, segmentations=np.full(6, b"[]", dtype=object))
    assert (known_quality(written) == [0.1, 0.3, 0.6, 0.9, 1, 0]).all()


def test_categories_come_worst_first(boxes):
    groups = group_by_category(boxes)
    assert groups == [
        Group("bird", 1, 0, 0, pytest.approx(NAN, nan_ok=True)),  # without any mask
        Group("cat", 3, 3, 1, pytest.approx(0.6)),
        Group("dog", 2, 1, 0, pytest.approx(0.75)),
    ]


def test_categories_without_quality_come_by_trust_and_after_those_with(make_set):
    box = (10, 10, 40, 40)
    data = make_set(
        [
            (0, 0, box, NAN, "a", True),
            (0, 1, box, NAN, "a", False),
            (0, 2, box, 0.9, "a", True),
            (0, 3, box, NAN, "a", True),
            (0, 3, box, NAN, "a", True),
        ],
        ("few", "dropped", "rated", "many", "unused"),
    )
    assert [group.name for group in group_by_category(data)] == ["rated", "dropped", "many", "few"]


def test_sizes_begin_at_cocos_areas(boxes):
    assert group_by_size(boxes) == [
        Group("small", 2, 1, 1, pytest.approx(0.3)),
        Group("medium", 2, 2, 0, pytest.approx(0.825)),
        Group("large", 2, 1, 0, pytest.approx(NAN, nan_ok=True)),
    ]


def test_an_invalid_box_is_small(boxes):
    turned = boxes.boxes.copy()
    turned[2] = [150, 150, 20, 20]
    assert [(group.name, group.boxes) for group in group_by_size(replace(boxes, boxes=turned))] == [
        ("small", 3),
        ("medium", 2),
        ("large", 1),
    ]


def test_sources_are_of_masks_and_the_busiest_comes_first(boxes):
    assert [(group.name, group.masks) for group in group_by_source(boxes)] == [
        ("cut", 2),
        ("no source given", 1),
        ("net", 1),
    ]


def test_an_empty_dataset_has_no_groups(boxes):
    empty = boxes.select_instances([])
    assert group_by_category(empty) == group_by_size(empty) == group_by_source(empty) == []
