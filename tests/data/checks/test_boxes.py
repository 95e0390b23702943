import numpy as np
import pytest

from boxel.data.checks import check, repair

NAN, INF = float("nan"), float("inf")
SQUARE = [[20, 20, 38, 20, 40, 22, 40, 40, 20, 40]]  # less a corner, so that it is not a box


def test_a_dataset_of_boxes_only_has_no_issues(make) -> None:
    data = make([(0, 0, 100, 80), (10.5, 10, 12.5, 12)])
    assert check(data) == []
    copy, _ = repair(data)
    np.testing.assert_array_equal(copy.boxes, data.boxes)
    assert copy.ids == [11, 12]


@pytest.mark.parametrize(
    "kind, box, values, repaired, how",
    [
        ("box-nan", (10, NAN, 50, 40), {"box": [10, "nan", 50, 40]}, None, "left out"),
        ("box-nan", (10, 10, INF, -INF), {"box": [10, 10, "inf", "-inf"]}, None, "left out"),
        ("box-inverted", (50, 10, 10, 40), {"box": [50, 10, 10, 40]}, (10, 10, 50, 40), "swapped back"),
        ("box-inverted", (50, 40, 10, 10), {"box": [50, 40, 10, 10]}, (10, 10, 50, 40), "swapped back"),
        (
            "box-outside",
            (-5, 10, 50, 95),
            {"box": [-5, 10, 50, 95], "width": 100, "height": 80},
            (0, 10, 50, 80),
            "clipped to the image",
        ),
        (
            "box-outside",
            (99, 10, 150, 40),
            {"box": [99, 10, 150, 40], "width": 100, "height": 80},
            None,
            "left out, too little of it is inside",
        ),
        (
            "box-empty",
            (10, 10, 10, 40),
            {"box": [10, 10, 10, 40], "width": 0, "height": 30},
            None,
            "left out",
        ),
        (
            "box-tiny",
            (10, 10, 50, 11.5),
            {"box": [10, 10, 50, 11.5], "width": 40, "height": 1.5},
            None,
            "left out",
        ),
    ],
)
def test_each_kind_of_issue_is_found_and_repaired(make, kind, box, values, repaired, how) -> None:
    data = make([(60, 60, 70, 70), box])
    (issue,) = check(data)
    assert (issue.kind, issue.image_id, issue.annotation_id) == (kind, 1, 12)
    assert issue.values == values
    assert issue.repair == how
    assert issue.message.startswith("set.json: annotation 12 (image 1) has a box ")
    copy, _ = repair(data)
    assert copy.ids == ([11] if repaired is None else [11, 12])
    if repaired is not None:
        np.testing.assert_array_equal(copy.boxes[1], repaired)
    assert check(copy) == []


def test_rounding_errors_at_the_edge_are_clipped_silently(make) -> None:
    data = make([(-0.4, 10, 100.3, 80.5)])
    copy, issues = repair(data)
    assert issues == []
    np.testing.assert_array_equal(copy.boxes, [[0, 10, 100, 80]])


@pytest.mark.parametrize(
    "box", [(NAN, NAN, NAN, NAN), (30, 30, 30, 30), (120, 90, 150, 100), (30, 30, 31, 31)]
)
def test_an_unusable_box_is_taken_from_its_mask(make, box) -> None:
    copy, issues = repair(make([box], [SQUARE]))
    assert [issue.repair for issue in issues] == ["box taken from its mask"]
    np.testing.assert_array_equal(copy.boxes, [[20, 20, 40, 40]])
    assert check(copy) == []


def test_one_box_may_have_several_issues(make) -> None:
    data = make([(150, 10, 50, 40)])
    assert [issue.kind for issue in check(data)] == ["box-inverted", "box-outside"]
    np.testing.assert_array_equal(repair(data)[0].boxes, [[50, 10, 100, 40]])


def test_exact_duplicates_are_left_out(make) -> None:
    box, other = (10, 10, 50, 40), (10, 10, 50, 41)
    inside = [[10, 10, 45, 10, 50, 20, 50, 40, 10, 40]]
    # 11 and 12 are copies, of which 12 has the mask; 13 is a dog, 14 in another image, 15 a crowd, 16 larger
    data = make(
        [box, box, box, box, box, other],
        [None, inside, None, None, None, None],
        labels=[0, 0, 1, 0, 0, 0],
        image_index=[0, 0, 0, 1, 0, 0],
        iscrowd=[0, 0, 0, 0, 1, 0],
    )
    (issue,) = check(data)
    assert (issue.kind, issue.annotation_id) == ("duplicate-box", 11)
    assert issue.values == {"box": [10, 10, 50, 40], "same_as": 12}
    copy, _ = repair(data)
    assert copy.ids == [12, 13, 14, 15, 16]


def test_duplicates_with_different_masks_are_kept(make) -> None:
    one, two = [[10, 10, 45, 10, 50, 20, 50, 40, 10, 40]], [[10, 10, 45, 10, 50, 25, 50, 40, 10, 40]]
    data = make([(10, 10, 50, 40)] * 3, [one, two, one])
    issues = check(data)
    assert [(f.kind, f.annotation_id, f.repair) for f in issues] == [
        ("duplicate-box", 12, ""),
        ("duplicate-box", 13, "left out"),
    ]
    copy, _ = repair(data)
    assert copy.ids == [11, 12]
    assert [(f.kind, f.repair) for f in check(copy)] == [("duplicate-box", "")]


def test_a_dataset_of_crowds_only_is_reported(make) -> None:
    boxes = [(10, 10, 50, 40), (20, 20, 60, 60)]
    (issue,) = check(make(boxes, iscrowd=[True, True]))
    assert (issue.kind, issue.values, issue.repair) == ("all-crowd", {"annotations": 2}, "")
    assert check(make(boxes, iscrowd=[True, False])) == []


def test_an_empty_dataset_is_reported(make) -> None:
    (issue,) = check(make([]))
    assert (issue.kind, issue.repair) == ("dataset-empty", "")
    assert "it has no annotation" in issue.message
    assert check(make([], label_maps=["a.png", None])) != [issue]
    (issue,) = check(make([], image_ids=[], paths=[], widths=[], heights=[]))
    assert "it has no image" in issue.message
