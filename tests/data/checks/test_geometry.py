"""Boxes in another layout than their format has, rotated boxes, and tracks."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boxel.data.checks import check, repair
from boxel.data.checks.geometry import describe_geometry, detect_layout, reread

# xyxy, in images of 100 x 80 pixels
TRUE = [(60, 50, 90, 70), (10, 10, 40, 30), (55, 20, 95, 60), (30, 45, 50, 75), (70, 5, 99, 35)]


def read_as_xywh(written: np.ndarray) -> np.ndarray:
    return np.concatenate([written[:, :2], written[:, :2] + written[:, 2:]], axis=1)


def written(layout: str) -> np.ndarray:
    boxes = np.array(TRUE, dtype=float)
    sides = boxes[:, 2:] - boxes[:, :2]
    corner = {"xyxy": boxes[:, :2], "xywh": boxes[:, :2], "center": boxes[:, :2] + sides / 2}[layout]
    return np.concatenate([corner, boxes[:, 2:] if layout == "xyxy" else sides], axis=1)


@pytest.mark.parametrize("layout", ["xyxy", "xywh", "center"])
@pytest.mark.parametrize("normalized", [False, True])
def test_another_layout_is_found_and_repaired(make, layout, normalized) -> None:
    boxes = read_as_xywh(written(layout) / ([100, 80, 100, 80] if normalized else 1))
    data = make(boxes)
    if layout == "xywh" and not normalized:
        assert check(data) == [] and describe_geometry(data) == []
        return
    (issue,) = check(data)
    assert (issue.kind, issue.values) == ("boxes-layout", {"layout": layout, "normalized": normalized})
    assert "its 5 boxes are written as " in issue.message
    (sentence,) = describe_geometry(data)
    assert issue.message.rstrip(".") in sentence
    repaired, _ = repair(data)
    np.testing.assert_allclose(repaired.boxes, TRUE)
    assert check(repaired) == []


def test_masks_decide_where_no_box_extends_past_its_image(make) -> None:
    true = np.array([(10, 10, 40, 30), (20, 5, 45, 35)], dtype=float)
    masks = [[[x0, y0, x1, y0, x0, y1]] for x0, y0, x1, y1 in true.tolist()]
    data = make(read_as_xywh(true), masks)
    assert [issue.kind for issue in check(make(read_as_xywh(true)))] == []
    assert [issue.kind for issue in check(data)] == ["boxes-layout"]
    np.testing.assert_array_equal(repair(data)[0].boxes, true)


@pytest.mark.parametrize(
    "boxes",
    [
        [(60, 50, 150, 120)],  # one is not enough
        [(60, 50, 150, 120), (90, 5, 99, 9)],  # the second has no sides as x0, y0, x1, y1
        [(10, 10, 40, 30)] * 9 + [(60, 50, 150, 120)],  # nine of ten fit as they are
    ],
)
def test_boxes_that_are_merely_outside_keep_their_layout(make, boxes) -> None:
    assert "boxes-layout" not in {issue.kind for issue in check(make(boxes))}


sides = st.tuples(st.floats(0, 90), st.floats(0, 70), st.floats(2, 60), st.floats(2, 60))


@pytest.mark.slow
@given(st.lists(sides, min_size=2, max_size=12), st.sampled_from(["xyxy", "center"]))
def test_boxes_inside_their_images_are_never_read_in_another_way(rows, layout) -> None:
    boxes = np.array([(x, y, min(x + w, 100), min(y + h, 80)) for x, y, w, h in rows])
    assert detect_layout(boxes, np.full((len(boxes), 2), (100.0, 80.0))) == ("xywh", False)
    unknown = np.full((len(boxes), 2), np.inf)
    assert detect_layout(reread(boxes, layout), unknown) == ("xywh", False)  # there is nothing to tell by


def extras(*rows: object) -> np.ndarray:
    column = np.full(len(rows), None, dtype=object)
    for i, row in enumerate(rows):
        column[i] = None if row is None else msgspec.json.encode(row)
    return column


def test_a_rotated_box_is_enclosed(make) -> None:
    rotated, plain = {"occluded": False, "rotation": 30.0}, {"rotation": 0.0}
    data = make([(20, 20, 60, 40)] * 2, extras=extras({"attributes": rotated}, {"attributes": plain}))
    issue = check(data)[0]
    assert (issue.kind, issue.annotation_id) == ("box-rotated", 11)
    assert issue.values == {"box": [20, 20, 60, 40], "rotation": 30}
    assert "1 boxes have a rotation" in describe_geometry(data)[0]
    repaired, _ = repair(data)
    # Half of 40 cos 30 + 20 sin 30 and of 40 sin 30 + 20 cos 30 on each side of (40, 30).
    np.testing.assert_allclose(
        repaired.boxes[0], [40 - 22.3205, 30 - 18.6603, 40 + 22.3205, 30 + 18.6603], atol=1e-4
    )
    assert msgspec.json.decode(repaired.extras[0]) == {
        "attributes": {"occluded": False, "original_rotation": 30.0}
    }
    assert check(repaired) == []


def test_a_track_may_be_in_many_images_but_once_in_each(make) -> None:
    boxes = [(10, 10, 40, 30), (11, 10, 41, 30), (60, 50, 90, 70)]
    data = make(
        boxes, image_index=[0, 1, 0], extras=extras({"track_id": 3}, {"track_id": 3}, {"track_id": 4})
    )
    assert check(data) == []
    data = make(boxes, extras=extras({"track_id": 3}, {"track_id": 4}, {"attributes": {"track_id": 3}}))
    (issue,) = check(data)
    assert (issue.kind, issue.annotation_id, issue.repair) == ("duplicate-track", 13, "")
    assert issue.values == {"track_id": 3, "same_as": 11}
