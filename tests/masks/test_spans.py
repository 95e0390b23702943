"""Boxes as rows and columns of a grid."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from boxel.masks.boxes import tight_boxes
from boxel.masks.spans import box_masks, box_spans, span_ends

GRID = {"height": 5, "width": 6, "stride": 4}  # cells centered at 2, 6, 10, 14, 18, 22


def spans(box: list[float]) -> tuple[list[int], list[int]]:
    rows, columns = box_spans(torch.tensor([box]), **GRID)
    return rows[0].nonzero().flatten().tolist(), columns[0].nonzero().flatten().tolist()


def test_a_cell_lies_in_a_box_if_its_center_does():
    assert spans([6.0, 2.1, 10.0, 14.1]) == ([1, 2, 3], [1])  # 6 is inside, 10 is the box's end


def test_a_box_between_centers_gets_the_cell_of_its_middle():
    assert spans([2.5, 7.0, 5.0, 9.5]) == ([2], [0])  # middle (3.75, 8.25)


def test_boxes_off_the_grid_get_the_nearest_cell():
    assert spans([-30.0, 90.0, -20.0, 95.0]) == ([4], [0])
    assert spans([100.0, -5.0, 300.0, -1.0]) == ([0], [5])


def test_a_box_with_its_corners_swapped_still_gets_a_cell():
    assert spans([16.0, 9.0, 12.0, 7.0]) == ([2], [3])


def test_stride_one_gives_the_pixels_of_a_box():
    rows, columns = box_spans(torch.tensor([[1.0, 0.0, 3.0, 2.0]]), 3, 4, 1)
    expected = torch.tensor([[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]], dtype=torch.bool)
    assert torch.equal(box_masks(rows, columns)[0], expected)


def test_spans_match_full_size_masks_sampled_at_the_centers():
    boxes = torch.tensor([[3.0, 5.5, 17.2, 18.9], [0.0, 0.0, 24.0, 20.0]])
    full = box_masks(*box_spans(boxes + 0.5, 20, 24, 1))  # pixel p is inside when x0 <= p < x1
    assert torch.equal(full[:, 2::4, 2::4], box_masks(*box_spans(boxes, **GRID)))


def test_no_boxes():
    rows, columns = box_spans(torch.zeros(0, 4), **GRID)
    assert rows.shape == (0, 5)
    assert columns.shape == (0, 6)
    assert box_masks(rows, columns).shape == (0, 5, 6)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-40, 60, width=32), min_size=4, max_size=4))
def test_every_box_has_a_run_of_rows_and_of_columns(box: list[float]):
    for indices in spans(box):
        assert indices == list(range(indices[0], indices[-1] + 1))


def test_span_ends():
    starts, ends = span_ends(torch.tensor([[0, 1, 1, 0], [1, 0, 0, 1], [0, 0, 0, 0]], dtype=torch.bool))
    assert starts.tolist() == [1, 0, 0]
    assert ends.tolist() == [3, 4, 0]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 4), st.integers(0, 5), st.integers(1, 5), st.integers(1, 6))
def test_the_tight_box_of_the_mask_of_a_box_is_the_box(y: int, x: int, height: int, width: int):
    box = torch.tensor([[x, y, min(x + width, 6), min(y + height, 5)]]).float()
    masks = box_masks(*box_spans(box, 5, 6, 1))
    assert tight_boxes(masks.numpy()).tolist() == box.tolist()
