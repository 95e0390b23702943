"""Copy-paste of objects between training images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision import tv_tensors
from torchvision.ops import masks_to_boxes

from boxel.data.config import AugmentConfig
from boxel.data.copy_paste import CopyPasteDataset, find_cuts, paste
from boxel.data.dataset import InstanceDataset
from boxel.data.synthetic import write_scenes
from boxel.data.transforms import train_transforms

NAN = float("nan")


def make_sample(color: float, size: tuple[int, int], *boxes: tuple[int, int, int, int], **columns):
    """An image of one color with filled boxes, and its target; `columns` replace some of it."""
    masks = torch.zeros(len(boxes), *size, dtype=torch.uint8)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[y0:y1, x0:x1] = 1
    count = len(boxes)
    target = {
        "boxes": tv_tensors.BoundingBoxes(
            torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), format="XYXY", canvas_size=size
        ),
        "labels": torch.arange(count),
        "iscrowd": torch.zeros(count, dtype=torch.bool),
        "has_mask": torch.ones(count, dtype=torch.bool),
        "quality": torch.full((count,), NAN),
        "masks": tv_tensors.Mask(masks),
        "image_id": color,
        "orig_size": size,
    }
    return tv_tensors.Image(torch.full((3, *size), color)), target | columns


def test_an_object_covers_what_is_below_it():
    """A 4 x 2 object covers the right half of the first of two objects, by hand."""
    below = make_sample(0.2, (6, 10), (0, 0, 8, 2), (0, 4, 2, 6))
    above = make_sample(0.9, (6, 10), (4, 0, 8, 2), labels=torch.tensor([7]))
    image, target = paste(below, above, torch.tensor([0]))
    assert target["boxes"].tolist() == [[0, 0, 4, 2], [0, 4, 2, 6], [4, 0, 8, 2]]
    assert target["labels"].tolist() == [0, 1, 7]
    assert target["masks"].flatten(1).sum(1).tolist() == [8, 4, 8]
    assert (image[:, :2, 4:8] == 0.9).all() and (image[:, :2, :4] == 0.2).all()
    assert (image[:, 2:] == 0.2).all()
    assert target["image_id"] == 0.2 and target["orig_size"] == (6, 10)
    assert isinstance(target["boxes"], tv_tensors.BoundingBoxes) and target["boxes"].canvas_size == (6, 10)
    assert below[1]["masks"].sum() == 20  # the sample itself stays as it was


def test_an_object_that_is_nearly_covered_is_no_target_any_more():
    """One of 10 columns stays of the first object, three of 10 of the second."""
    below = make_sample(0.2, (4, 20), (0, 0, 10, 2), (0, 2, 10, 4))
    above = make_sample(0.9, (4, 20), (1, 0, 10, 2), (3, 2, 10, 4))
    _, target = paste(below, above, torch.tensor([0, 1]))
    assert target["boxes"].tolist() == [[0, 2, 3, 4], [1, 0, 10, 2], [3, 2, 10, 4]]


def test_a_box_without_a_mask_counts_by_its_area():
    nothing = torch.tensor([False, False])
    below = make_sample(0.2, (4, 20), (0, 0, 10, 2), (0, 2, 10, 4), has_mask=nothing)
    del below[1]["masks"]
    above = make_sample(0.9, (4, 20), (1, 0, 10, 2), (3, 2, 10, 4))
    _, target = paste(below, above, torch.tensor([0, 1]))
    assert target["boxes"].tolist() == [[0, 2, 10, 4], [1, 0, 10, 2], [3, 2, 10, 4]]
    assert target["has_mask"].tolist() == [False, True, True]
    assert target["masks"].flatten(1).sum(1).tolist() == [0, 18, 14]


def test_a_crowd_stays_where_it_is():
    below = make_sample(0.2, (4, 4), (0, 0, 4, 4), iscrowd=torch.tensor([True]))
    _, target = paste(below, make_sample(0.9, (4, 4), (0, 0, 4, 4)), torch.tensor([0]))
    assert target["iscrowd"].tolist() == [True, False]
    assert target["boxes"].tolist() == [[0, 0, 4, 4]] * 2


def test_objects_beyond_a_smaller_image_are_left_out():
    """Of two objects in a larger image, one is cut to half, and one of nine parts is left of the other."""
    below = make_sample(0.2, (4, 6))
    above = make_sample(0.9, (8, 12), (4, 0, 8, 4), (5, 3, 8, 6))
    image, target = paste(below, above, torch.tensor([0, 1]))
    assert target["boxes"].tolist() == [[4, 0, 6, 4]]
    assert image.shape == (3, 4, 6) and (image[:, :, 4:] == 0.9).all() and (image[:, :, :4] == 0.2).all()


@pytest.mark.parametrize(
    ("quality", "has_mask", "iscrowd", "cut"),
    [
        (NAN, True, False, True),  # a true mask
        (NAN, False, False, False),  # a rough one of unknown quality
        (0.8, False, False, True),
        (0.8, True, False, True),
        (0.6, True, False, False),
        (NAN, True, True, False),
    ],
)
def test_objects_are_cut_out_by_good_masks(quality, has_mask, iscrowd, cut):
    columns = {"quality": [quality], "has_mask": [has_mask], "iscrowd": [iscrowd]}
    _, target = make_sample(0, (4, 4), (0, 0, 2, 2), **{k: torch.tensor(v) for k, v in columns.items()})
    assert find_cuts(target).tolist() == ([0] if cut else [])
    assert find_cuts({name: value for name, value in target.items() if name != "masks"}).tolist() == []


@st.composite
def samples(draw):
    size = draw(st.tuples(st.integers(4, 12), st.integers(4, 12)))
    boxes = []
    for _ in range(draw(st.integers(0, 4))):
        x0, y0 = draw(st.integers(0, size[1] - 2)), draw(st.integers(0, size[0] - 2))
        boxes.append((x0, y0, draw(st.integers(x0 + 1, size[1])), draw(st.integers(y0 + 1, size[0]))))
    return make_sample(draw(st.floats(0, 1)), size, *boxes)


@settings(deadline=None, max_examples=60)
@given(samples(), samples(), st.data())
def test_pasted_objects_keep_boxes_and_masks_together(below, above, data):
    above[1]["labels"] += 100
    chosen = [i for i in range(len(above[1]["boxes"])) if data.draw(st.booleans())]
    image, target = paste(below, above, torch.tensor(chosen, dtype=torch.long))
    assert image.shape == below[0].shape
    assert len({len(target[name]) for name in ("boxes", "labels", "has_mask", "quality", "masks")}) == 1
    if len(target["boxes"]):
        tight = masks_to_boxes(target["masks"]) + torch.tensor([0, 0, 1, 1])
        assert torch.equal(tight, target["boxes"].as_subclass(torch.Tensor))
        pasted = target["labels"] >= 100
        own, new = (target["masks"][rows].bool() for rows in (~pasted, pasted))
        assert not (own.any(0) & new.any(0)).any()


def test_the_seed_decides_what_is_pasted(tmp_path):
    data = write_scenes(tmp_path, 4, height=64, width=96)
    transforms = train_transforms(AugmentConfig(short_sides=[48, 64], crop=0.5))
    dataset = CopyPasteDataset(data, transforms, share=0.5)
    plain = InstanceDataset(data, transforms)
    changed = []
    for seed in range(20):
        (image, target), (again, _) = dataset[1, seed], dataset[1, seed]
        assert torch.equal(image, again)
        changed.append(not torch.equal(image, plain[1, seed][0]))
        assert torch.isfinite(target["boxes"]).all() and image.shape[1:] == target["masks"].shape[1:]
    assert 4 <= sum(changed) <= 14
    assert len(np.unique([dataset[1, seed][1]["image_id"] for seed in range(5)])) == 1


def test_the_numbers_of_the_transforms_do_not_decide_what_is_pasted(tmp_path):
    """The first one decides whether an image is cropped."""
    data = write_scenes(tmp_path, 2, height=64, width=96)
    dataset, plain = CopyPasteDataset(data, share=0.5), InstanceDataset(data)[0][0]
    cases = set()
    for seed in range(40):
        first = torch.rand((), generator=torch.Generator().manual_seed(seed)) < 0.5
        cases.add((bool(first), torch.equal(dataset[0, seed][0], plain)))
    assert len(cases) == 4
