"""Crowds, cells and spans by hand; the cells where torchvision puts them."""

import pytest
import torch
from torch import Tensor
from torchvision.models.detection.roi_heads import project_masks_on_boxes

from boxel.masks.paste import paste_windows
from boxel.masks.rle import encode
from boxel.masks.spans import box_spans
from boxel.models.mask_rcnn.targets import GRID, grid_windows, in_crowd, spans_in


def boxes(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32)


def at(*ranges: tuple[int, int]) -> Tensor:
    """(N, GRID) bool, true from each start to before its end."""
    index = torch.arange(GRID)
    return torch.stack([(index >= start) & (index < end) for start, end in ranges])


@pytest.mark.parametrize(
    ("crowds", "inside"),
    [
        ([[5.0, 0, 20, 10]], False),  # half of it
        ([[4.9, 0, 20, 10]], True),
        ([[0.0, 0, 4, 10], [6, 0, 10, 10]], False),  # neither crowd alone
        ([[20.0, 0, 30, 10]], False),
        ([], False),
    ],
)
def test_in_crowd_is_more_than_half(crowds, inside):
    crowds = torch.tensor(crowds).reshape(-1, 4)
    assert in_crowd(boxes([0, 0, 10, 10]), crowds).tolist() == [inside]
    assert in_crowd(torch.zeros(0, 4), crowds).shape == (0,)


def test_cells_lie_where_torchvision_samples_masks():
    """A mask that says of each pixel where its middle is: x in the first, y in the second."""
    x, y = torch.arange(80) + 0.5, torch.arange(60) + 0.5
    masks = torch.stack([x.expand(60, 80), y[:, None].expand(60, 80)])
    rois = boxes([4, 6, 32, 48], [10.3, 5.5, 60.1, 40.2])
    windows = grid_windows(rois)
    middles = (torch.arange(GRID) + 0.5) / GRID
    for axis in (0, 1):
        sampled = project_masks_on_boxes(masks, rois, torch.full((2,), axis), GRID)
        start, end = windows[:, axis], windows[:, axis + 2]
        expected = start[:, None] + (end - start)[:, None] * middles
        along = sampled.mean(1) if axis == 0 else sampled.mean(2)
        torch.testing.assert_close(along, expected)


def test_a_mask_comes_back_from_its_cells():
    """Cut into a proposal's cells and pasted over its window, a mask is what it was, to the pixel."""
    mask = torch.zeros(1, 40, 50)
    mask[0, 10:25, 13:30] = 1
    rois = boxes([9, 7, 37, 35])
    cells = project_masks_on_boxes(mask, rois, torch.tensor([0]), GRID)
    (rle,) = paste_windows(cells - 0.5, rois, grid_windows(rois), (40, 50))
    assert rle == encode(mask[0].numpy())


def test_spans_by_hand():
    """Cells of 1 x 2 pixels: middles at 10.5, 11.5, ... across and at 21, 23, ... down."""
    window = boxes([10, 20, 38, 76])
    rows, columns = spans_in(window, boxes([12, 30, 20, 39]))
    assert torch.equal(columns, at((2, 10)))
    assert torch.equal(rows, at((5, 9)))  # 31 to 37; 39 is the end, and not in the box
    rows, columns = spans_in(window, boxes([0, 0, 99, 22]))  # reaches out on three sides
    assert columns.all() and torch.equal(rows, at((0, 1)))
    rows, columns = spans_in(window, boxes([12.6, 30, 12.9, 90]))  # no middle: the cell it lies in
    assert torch.equal(columns, at((2, 3))) and torch.equal(rows, at((5, 28)))


def test_spans_are_those_of_a_grid_over_the_image():
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(50, 2, 2, generator=generator) * 112
    drawn = torch.cat([corners.amin(1), corners.amax(1)], 1)
    windows = boxes([0, 0, 112, 112]).expand(50, 4)
    for ours, theirs in zip(spans_in(windows, drawn), box_spans(drawn, GRID, GRID, 4), strict=True):
        assert torch.equal(ours, theirs)
