"""Boxes fitted to masks: by hand, and against the tight boxes of masks that are pasted."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from boxel.masks.paste import paste_windows
from boxel.models.boxinst.boxes import fit_boxes

SIZE = (30, 38)  # of the image; 8 x 10 cells reach past it


def make_logits(rows, columns, inside=1.0, outside=-1.0):
    """Logits (1, 8, 10) of a rectangle of cells."""
    logits = torch.full((1, 8, 10), outside)
    logits[:, rows[0] : rows[1], columns[0] : columns[1]] = inside
    return logits


def test_the_mask_counts_by_the_size_of_the_object():
    """A box of 16 x 4 cells is as large as a square of 8 cells, so 8 cells give both the same weight."""
    boxes = torch.tensor([[-20.0, 4, 44, 20]])
    logits = make_logits((2, 6), (1, 5))  # (4, 8) to (20, 24)
    assert fit_boxes(boxes, logits, SIZE, cells=8).tolist() == [[-8, 6, 32, 22]]
    assert fit_boxes(boxes, logits, SIZE, cells=24).tolist() == [[-14, 5, 38, 21]]
    assert fit_boxes(boxes, logits, SIZE, cells=0).tolist() == [[4, 8, 20, 24]]


def test_outlines_lie_between_the_centers_of_cells():
    """Logits of 3 inside and -1 outside are 0 at a quarter of the way from outside to inside: 1 of 4 pixels."""
    logits = make_logits((2, 6), (1, 5), inside=3.0)
    box = torch.tensor([[0.0, 0, 8, 8]])
    assert fit_boxes(box, logits, SIZE, cells=0).tolist() == [[3, 7, 21, 25]]


def test_masks_end_at_the_image():
    boxes = torch.tensor([[0.0, 0, 8, 8]])
    assert fit_boxes(boxes, make_logits((0, 8), (0, 10)), SIZE, 0).tolist() == [[0, 0, 38, 30]]


def test_without_a_mask_the_box_stays():
    boxes = torch.tensor([[1.0, 2, 9, 12], [1, 2, 9, 12]])
    beyond = make_logits((7, 8), (0, 10))  # from row 28 on, of an image of 24
    empty = make_logits((0, 0), (0, 0))
    assert fit_boxes(boxes, torch.cat([beyond, empty]), (24, 38), 0).tolist() == boxes.tolist()
    assert fit_boxes(boxes[:0], empty[:0], SIZE, 8).shape == (0, 4)


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.9))
def test_the_box_around_a_mask_is_that_of_the_pasted_mask(seed, density):
    """It has all pixels of the mask whose centers are seen, and is larger by no more than the tip of a cell."""
    random = np.random.default_rng(seed)
    cells = random.random((8, 10)) < density
    logits = torch.from_numpy(np.where(cells, 1.0, -1.0) * random.uniform(0.5, 2, (8, 10))).float()[None]
    window = torch.tensor([[0.0, 0, 40, 32]])
    [rle] = paste_windows(logits, window, window, SIZE)
    pasted = coco_mask.toBbox(rle)
    pasted[2:] += pasted[:2]
    box = fit_boxes(torch.tensor([[0.0, 0, 38, 30]]), logits, SIZE, cells=0)[0].numpy()
    if pasted[2] > 0:
        assert (box[:2] <= pasted[:2] + 0.5).all() and (box[2:] >= pasted[2:] - 0.5).all()
        assert box == pytest.approx(pasted, abs=2)
