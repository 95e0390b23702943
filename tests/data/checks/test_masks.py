import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from boxel.data.checks import check, repair
from boxel.data.checks.mask_issues import check_shapes
from boxel.data.checks.repair_state import RepairState
from boxel.masks.rle import encode

BOX = (20, 20, 40, 40)
SQUARE = [20, 20, 38, 20, 40, 22, 40, 40, 20, 40]  # less a corner, so that it is not a box
POINT = [30, 30, 30, 30, 30, 30]


def code(x0: int, y0: int, x1: int, y1: int, size: tuple[int, int] = (80, 100)) -> dict:
    """The code of a rectangle less its upper right pixel."""
    mask = np.zeros(size)
    mask[y0:y1, x0:x1] = 1
    mask[y0, x1 - 1] = 0
    return encode(mask)


# 20 columns of 80 and 20 pixels are background; then 19 runs of 20 pixels and one of 19 with 60 between; then the rest
IN_NUMBERS = {"size": [80, 100], "counts": [1620, *[20, 60] * 18, 20, 61, 19, 8000 - 1620 - 80 * 19 - 20]}


@pytest.mark.parametrize("mask", [[SQUARE], code(*BOX), IN_NUMBERS])
def test_valid_masks_have_no_issues(make, mask) -> None:
    assert check(make([BOX], [mask])) == []


@pytest.mark.parametrize(
    "mask, reason",
    [
        (b"{", "truncated"),
        (b'"text"', "str"),
        (b"[[1, 2, null, 4, 5, 6]]", "null"),
        (b"[[1, 2, 1e999, 4, 5, 6]]", "range"),
        ([[20, 20, 40, 20, 40, 40, 20]], "odd number"),
        ([[20, 20, 40, 20, 40, 4e9]], "4e+09 pixels away"),
        ({"size": [80, 100], "counts": "~"}, "not numbers"),
        ({"size": [80, 100], "counts": "P"}, "not numbers"),  # its only number does not end
        ({"size": [80, 100], "counts": ""}, "not numbers"),
        ({"size": [80, 100], "counts": "é"}, "ascii"),
        ({"size": [80, 100], "counts": [100, -100, 8000]}, "a run of -100 pixels"),
        ({"size": [80, 100], "counts": [100, 100]}, "runs of 200 pixels"),
        ({"size": [80, 0], "counts": "00"}, "its size is [80, 0]"),
        ({"size": [80, 100]}, "counts"),
    ],
)
def test_an_invalid_mask_is_dropped_and_its_box_kept(make, mask, reason) -> None:
    data = make([BOX, (*BOX[:2], 60, 60)], [mask, None])
    (issue,) = check(data)
    assert (issue.kind, issue.image_id, issue.annotation_id) == ("mask-invalid", 1, 11)
    assert reason in issue.message
    repaired, _ = repair(data)
    assert repaired.segmentations.tolist() == [None, None]
    assert repaired.ids == [11, 12]
    assert check(repaired) == []


@pytest.mark.parametrize(
    "mask, values",
    [
        ([], {"polygons": 0, "empty": 1}),
        ([[]], {"polygons": 1, "empty": 1}),
        ([[1, 2, 3, 4], POINT], {"polygons": 2, "empty": 2}),
    ],
)
def test_a_mask_of_empty_polygons_is_dropped(make, mask, values) -> None:
    data = make([BOX], [mask])
    (issue,) = check(data)
    assert (issue.kind, issue.annotation_id, issue.values) == ("polygon-empty", 11, values)
    repaired, _ = repair(data)
    assert repaired.segmentations.tolist() == [None]
    assert repaired.boxes.tolist() == [list(BOX)]


def test_an_empty_polygon_among_others_is_dropped(make) -> None:
    data = make([BOX], [[POINT, SQUARE, []]])
    (issue,) = check(data)
    assert (issue.kind, issue.repair, issue.values) == (
        "polygon-empty",
        "empty polygons left out",
        {"polygons": 3, "empty": 2},
    )
    repaired, _ = repair(data)
    assert msgspec.json.decode(repaired.segmentations[0]) == [SQUARE]
    assert check(repaired) == []


@pytest.mark.parametrize(
    "mask, kind, values",
    [
        (encode(np.zeros((80, 100))), "mask-empty", {}),
        ([[200, 20, 240, 20, 240, 40]], "mask-outside", {"mask_box": [200, 20, 240, 40]}),
        (code(20, 20, 40, 40, (100, 80)), "mask-size", {"size": [100, 80]}),
        ([[20, 20, 40, 20, 40, 40, 20, 40]], "mask-filled-box", {"box": [20, 20, 40, 40]}),
    ],
)
def test_what_is_no_mask_is_dropped(make, mask, kind, values) -> None:
    data = make([BOX], [mask])
    (issue,) = check(data)
    assert (issue.kind, issue.annotation_id, issue.values) == (kind, 11, values)
    assert repair(data)[0].segmentations.tolist() == [None]


def test_a_drawn_mask_overrules_its_box(make) -> None:
    data = make([(20, 20, 40, 30), (60, 10, 90, 40)], [[SQUARE], code(50, 30, 75, 70)])
    # the first: half of the mask's box is outside the box, IoU 0.5, which still agrees
    (issue,) = check(data)
    assert (issue.kind, issue.annotation_id) == ("mask-box", 12)
    assert issue.values == {"box": [60, 10, 90, 40], "mask_box": [50, 30, 75, 70], "iou": 0.0857}
    repaired, _ = repair(data)
    assert repaired.boxes.tolist() == [[20, 20, 40, 30], [50, 30, 75, 70]]
    assert check(repaired) == []


@pytest.mark.parametrize("mask", [[[12, 62, 38, 62, 38, 88]], code(10, 50, 40, 75)])
def test_a_mask_that_misses_its_box_is_left_out(make, mask) -> None:
    data = make([(60, 10, 90, 40)], [mask])
    repaired, (issue,) = repair(data)
    assert (issue.kind, issue.repair) == ("mask-box", "mask left out, box kept")
    assert (repaired.boxes.tolist(), repaired.segmentations.tolist()) == ([[60, 10, 90, 40]], [None])


def test_a_mask_with_x_and_y_swapped_is_left_out(make) -> None:
    data = make([(10, 20, 30, 70)], [[[20, 10, 70, 10, 70, 30, 45, 28, 20, 30]]])
    repaired, (issue,) = repair(data)
    assert "(IoU 0.05); x and y of the mask seem to be swapped" in issue.message
    assert (repaired.boxes.tolist(), repaired.segmentations.tolist()) == ([[10, 20, 30, 70]], [None])


def test_a_generated_mask_or_a_speck_is_overruled_by_its_box(make) -> None:
    data = make(
        [(60, 10, 90, 40), (61, 10, 90, 40)],
        [[SQUARE], code(20, 50, 21, 70)],
        source=np.array(["a model", None], dtype=object),
    )
    repaired, issues = repair(data)
    assert [(f.kind, f.repair) for f in issues] == [("mask-box", "mask left out, box kept")] * 2
    assert repaired.segmentations.tolist() == [None, None]
    assert repaired.boxes.tolist() == [[60, 10, 90, 40], [61, 10, 90, 40]]


def test_a_rectangle_that_disagrees_with_its_box_is_left_out(make) -> None:
    whole = {"size": [80, 100], "counts": [0, 8000]}
    data = make([BOX, BOX], [whole, [SQUARE]])
    (issue,) = [issue for issue in check(data) if issue.kind != "duplicate-box"]
    assert (issue.kind, issue.annotation_id, issue.repair) == ("mask-box", 11, "mask left out, box kept")
    repaired, _ = repair(make([BOX, (*BOX[:2], 39, 40)], [whole, [SQUARE]]))
    assert repaired.boxes.tolist() == [list(BOX), [20, 20, 39, 40]]
    assert repaired.segmentations[0] is None and repaired.segmentations[1] is not None


def test_untrusted_masks_may_disagree(make) -> None:
    data = make([(60, 10, 90, 40)], [[SQUARE]], trusted=np.array([False]))
    assert check(data) == []


def test_small_objects_with_an_unlabeled_rim_agree(make) -> None:
    small = code(25, 25, 33, 40)  # IoU 0.25 with a box 5 or 6 pixels larger on each side
    assert check(make([(20, 20, 39, 46)], [small])) == []
    assert [issue.kind for issue in check(make([(20, 20, 39, 46.5)], [small]))] == ["mask-box"]


@pytest.mark.slow
@given(arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 1)))
def test_boxes_of_codes_are_tight(make, mask) -> None:
    state = RepairState(make([BOX], [encode(mask)], widths=[0, 0], heights=[0, 0]))
    check_shapes(state)
    if not mask.any():
        assert np.isnan(state.mask_boxes).all()
        return
    rows, columns = np.nonzero(mask)
    expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_array_equal(state.mask_boxes, [expected])
    x, y, w, h = coco_mask.toBbox(encode(mask))
    assert expected == [x, y, x + w, y + h]


def test_runs_of_no_pixel_do_not_widen_the_box(make) -> None:
    counts = [1620, 20, 6200, 0, 160]
    state = RepairState(make([BOX], [{"size": [80, 100], "counts": counts}]))
    check_shapes(state)
    np.testing.assert_array_equal(state.mask_boxes, [[20, 20, 21, 40]])
