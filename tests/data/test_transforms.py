"""Augmentation: each option works as documented, and targets stay aligned with pixels."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import tv_tensors

from boxel.data.annotations import Annotations, Category
from boxel.data.config import AugmentConfig
from boxel.data.transforms import _RandomCrop, train_transforms
from boxel.masks.boxes import tight_boxes
from boxel.utils.errors import BoxelError

PLAIN = AugmentConfig(short_sides=[60], max_size=1000, flip=0.0)
BOXES = [[10, 5, 30, 25], [40, 20, 95, 58], [0, 0, 100, 60]]


def sample(boxes=BOXES, height=60, width=100, masks=True):
    """An image that is gray inside its boxes, brighter in each; every column identifies its instance."""
    boxes = torch.tensor(boxes).float().reshape(-1, 4)
    n = len(boxes)
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    drawn = torch.zeros(n, height, width, dtype=torch.uint8)
    for i, (x0, y0, x1, y1) in enumerate(boxes.int().tolist()):
        drawn[i, max(y0, 0) : y1, max(x0, 0) : x1] = 1
    for i in reversed(range(n)):
        image[:, drawn[i] > 0] = 60 * (i + 1)
    target = {
        "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(height, width)),
        "labels": torch.arange(n),
        "iscrowd": torch.arange(n) == 1,
        "has_mask": torch.arange(n) != 1,
        "image_id": 7,
    }
    if masks:
        target["masks"] = tv_tensors.Mask(drawn)
    return tv_tensors.Image(image), target


def transformed(config, seed=0, **options):
    torch.manual_seed(seed)
    return train_transforms(config)(sample(**options))


def test_image_becomes_float_in_0_to_1():
    image, target = transformed(PLAIN)
    assert image.dtype == torch.float32
    torch.testing.assert_close(image.unique(), torch.tensor([60, 120, 180]) / 255)
    assert target["masks"].dtype == torch.uint8
    assert target["boxes"].tolist() == BOXES
    assert target["labels"].tolist() == [0, 1, 2]
    assert target["image_id"] == 7


def test_short_sides_are_drawn_at_random():
    config = replace(PLAIN, short_sides=[30, 90])
    sizes = {tuple(transformed(config, seed)[0].shape[1:]) for seed in range(12)}
    assert sizes == {(30, 50), (90, 150)}


def test_max_size_takes_precedence():
    image, target = transformed(replace(PLAIN, short_sides=[120], max_size=150))
    assert image.shape[1:] == (90, 150)
    torch.testing.assert_close(target["boxes"].as_subclass(torch.Tensor), torch.tensor(BOXES) * 1.5)


def test_flip_mirrors_boxes_and_masks():
    flips = [transformed(replace(PLAIN, flip=0.5), seed)[1]["boxes"][0].tolist() for seed in range(20)]
    kept, flipped = [10, 5, 30, 25], [70, 5, 90, 25]
    assert sorted(set(map(tuple, flips))) == [tuple(kept), tuple(flipped)]
    assert all(
        transformed(replace(PLAIN, flip=1.0), seed)[1]["boxes"][0].tolist() == flipped for seed in range(5)
    )
    image, target = transformed(replace(PLAIN, flip=1.0))
    assert torch.equal(image, transformed(PLAIN)[0].flip(-1))
    assert torch.equal(target["masks"], transformed(PLAIN)[1]["masks"].flip(-1))


def test_color_changes_only_pixels():
    plain = transformed(PLAIN)[0]
    for seed in range(3):
        image, target = transformed(replace(PLAIN, color=0.5), seed)
        assert (image - plain).abs().max() > 0.01
        assert target["boxes"].tolist() == BOXES
    assert image.min() >= 0
    assert image.max() <= 1


@pytest.mark.parametrize(
    "setting",
    [{"flip": 1.5}, {"color": -1.0}, {"short_sides": []}, {"max_size": 0}],
)
def test_invalid_settings_are_refused(setting):
    with pytest.raises(BoxelError, match=next(iter(setting))):
        AugmentConfig(**setting)


@pytest.mark.parametrize(
    "config",
    [
        replace(PLAIN, short_sides=[37, 80, 111], flip=0.5),
        AugmentConfig(short_sides=[64], max_size=80, color=0.3),
    ],
    ids=["multi-scale", "limited"],
)
def test_masks_stay_in_their_boxes(config):
    """Masks that fill their boxes still do after any transform, to a pixel."""
    for seed in range(10):
        image, target = transformed(config, seed)
        assert target["boxes"].canvas_size == tuple(image.shape[1:])
        seen = target["masks"].flatten(1).bool().any(1)
        assert seen.any()
        off = (tight_boxes(target["masks"].numpy()) - target["boxes"].numpy())[seen]
        assert np.abs(off).max() <= 1


def test_boxes_that_shrink_to_nothing_are_dropped_in_every_column():
    boxes = [[10, 5, 15, 25], [40, 20, 95, 58], [0, 0, 100, 60]]
    _, target = transformed(replace(PLAIN, short_sides=[6]), boxes=boxes)
    assert target["labels"].tolist() == [1, 2]
    assert target["iscrowd"].tolist() == [True, False]
    assert target["has_mask"].tolist() == [False, True]
    assert len(target["boxes"]) == len(target["masks"]) == 2


def test_samples_without_masks_or_boxes_are_transformed():
    _, target = transformed(replace(PLAIN, flip=1.0), masks=False)
    assert "masks" not in target
    assert len(target["boxes"]) == 3
    image, target = transformed(replace(PLAIN, flip=1.0), boxes=[], masks=False)
    assert image.shape == (3, 60, 100)
    assert target["boxes"].shape == (0, 4)


def test_a_box_past_the_border_is_clipped_and_kept():
    _, target = transformed(PLAIN, boxes=[[-3, -2, 103, 62.5], [90, 40, 100.5, 60]])
    assert target["boxes"].tolist() == [[0, 0, 100, 60], [90, 40, 100, 60]]
    assert len(target["labels"]) == 2


def test_no_box_is_lost_to_rounding():
    """Boxes that end at the image border still do after resizing, despite rounding."""
    for side in (61, 77, 97, 113):
        config = replace(PLAIN, short_sides=[side])
        for width in range(60, 140, 3):
            _, target = transformed(config, boxes=[[5, 5, width, 50]], height=50, width=width, masks=False)
            assert len(target["boxes"]) == 1


# ---------------------------------------------------------------------------------------------------------------------


def annotations(boxes, widths=(100,), heights=(60,), image_index=None):
    boxes = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    n = len(boxes)
    return Annotations(
        root=Path(),
        image_ids=list(range(len(widths))),
        paths=["a.png"] * len(widths),
        widths=np.array(widths, dtype=np.int32),
        heights=np.array(heights, dtype=np.int32),
        categories=(Category(1, "thing"),),
        ids=list(range(n)),
        image_index=np.zeros(n, np.int32) if image_index is None else np.array(image_index, np.int32),
        labels=np.zeros(n, np.int32),
        boxes=boxes,
        iscrowd=np.zeros(n, bool),
        segmentations=np.full(n, None, dtype=object),
    )


def test_small_boxes_are_ignored_not_dropped():
    data = annotations([[0, 0, 8, 30], [0, 0, 8, 7.9], [0, 0, 30, 5], [0, 0, 30, 30]])
    data = replace(data, iscrowd=np.array([False, False, False, True]))
    assert data.ignore_small(8).iscrowd.tolist() == [False, True, True, True]
    assert data.ignore_small(0).iscrowd.tolist() == [False, False, False, True]
    assert len(annotations([]).ignore_small(8).iscrowd) == 0


def test_a_narrow_image_keeps_a_pixel_of_each_side():
    config = replace(PLAIN, max_size=96)
    image, target = transformed(config, boxes=[[0, 0, 400, 1]], height=1, width=400)
    assert image.shape == (3, 1, 96) and target["boxes"].tolist() == [[0, 0, 96, 1]]


def test_a_crop_states_its_size_and_the_rows_below_it():
    """The image has the number of each row as its value."""
    seen = set()
    for seed in range(20):
        image, target = sample()
        image[:] = torch.arange(60)[:, None]
        torch.manual_seed(seed)
        part, cut = _RandomCrop()((tv_tensors.Image(image), target | {"orig_size": (60, 100)}))
        assert cut["orig_size"] == tuple(part.shape[1:]) == cut["boxes"].canvas_size
        assert cut.get("rows_below", 0) == 59 - int(part[0, -1, 0])
        assert "rows" not in cut and cut["masks"].shape[1:] == part.shape[1:]
        seen.add(cut.get("rows_below", 0))
    assert len(seen) > 5 and 0 in seen
    _, target = transformed(replace(PLAIN, crop=1.0), seed=1)
    assert {"orig_size", "rows_below"} <= target.keys()
