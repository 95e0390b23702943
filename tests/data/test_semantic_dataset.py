"""Images with the class of each pixel, and random crops of them."""

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image

from boxel.data.annotations import Annotations, Category
from boxel.data.config import ScaleCropConfig
from boxel.data.dataset import SemanticDataset
from boxel.data.formats.builder import Builder
from boxel.data.label_maps import IGNORE_INDEX
from boxel.data.transforms import RandomScaleCrop
from boxel.masks.rle import encode
from boxel.utils.errors import BoxelError

FILL = torch.tensor([0.5, 0.25, 0.125]).view(3, 1, 1)


@pytest.fixture
def one_square(tmp_path) -> Annotations:
    """A red square (10, 20, 30, 44) on black, 60 x 50 pixels."""
    mask = np.zeros((50, 60), dtype=np.uint8)
    mask[20:44, 10:30] = 1
    Image.fromarray(mask[..., None] * np.array([255, 0, 0], dtype=np.uint8)).save(tmp_path / "a.png")
    rows = Builder()
    rows.add_image("a", "a.png", 60, 50)
    rows.add(1, 0, 0, (10, 20, 30, 44), msgspec.json.encode(encode(mask)))
    return rows.build(tmp_path, [Category(5, "square")], tmp_path)


def test_a_sample_has_its_image_and_target(one_square) -> None:
    image, target = SemanticDataset(one_square, instances=True)[0]
    inside = image[0] == 255
    assert torch.equal(target["labels"] == 1, inside) and torch.equal(target["labels"] == 0, ~inside)
    assert torch.equal(target["instances"] == 0, inside) and torch.equal(target["instances"] == -1, ~inside)
    assert target["boxes"].tolist() == [[10, 20, 30, 44]] and target["instance_labels"].tolist() == [1]
    assert (target["image_id"], target["orig_size"]) == ("a", (50, 60))


@pytest.mark.parametrize("seed", range(12))
def test_pixels_classes_instances_and_boxes_stay_aligned(one_square, seed) -> None:
    """Whatever is drawn: red is the square, its box is around it, and pixels outside the image are void."""
    torch.manual_seed(seed)
    view = RandomScaleCrop(ScaleCropConfig(crop=48, scale=(0.5, 2.0)), FILL)
    image, target = view(SemanticDataset(one_square, instances=True)[0])
    assert image.shape == (3, 48, 48) and image.dtype == torch.float32
    red = (image[0] > 0.75) & (image[1] < 0.2)
    outside = (image == FILL).all(0)
    labels = target["labels"]
    assert torch.equal(labels == IGNORE_INDEX, outside) and torch.equal(target["instances"] == 0, labels == 1)
    # Bilinear and nearest sampling differ by a pixel at the rim.
    assert (red & (labels != 1)).sum() <= 2 * 48 and (red | (labels != 1)).sum() >= 48 * 48 - 4 * 48
    if (labels == 1).any():
        y, x = (labels == 1).nonzero().T
        x0, y0, x1, y1 = target["boxes"][0].tolist()
        assert x0 - 1 <= x.min() and x.max() + 1 <= x1 + 1 and y0 - 1 <= y.min() and y.max() + 1 <= y1 + 1
        if x.min() > 0 and x.max() < 47:
            assert abs(x0 - float(x.min())) <= 1 and abs(x1 - float(x.max()) - 1) <= 1


def test_a_box_is_moved_and_not_clipped(one_square) -> None:
    torch.manual_seed(0)
    view = RandomScaleCrop(ScaleCropConfig(crop=16, scale=(1, 1), flip=1.0), FILL)
    _, target = view(SemanticDataset(one_square, instances=True)[0])
    x0, y0, x1, y1 = target["boxes"][0].tolist()
    assert (x1 - x0, y1 - y0) == (20, 24)


def test_a_flip_matches_hand_worked_values(one_square) -> None:
    view = RandomScaleCrop(ScaleCropConfig(crop=64, scale=(1, 1), flip=1.0), FILL)
    image, target = view(SemanticDataset(one_square, instances=True)[0])
    assert target["boxes"].tolist() == [[34, 20, 54, 44]]  # 64 - 30 and 64 - 10
    assert (target["labels"][20:44, 34:54] == 1).all() and (target["labels"] == 1).sum() == 20 * 24
    assert (image[:, :, :4] == FILL).all() and (target["labels"][:, :4] == IGNORE_INDEX).all()


def test_the_longer_side_is_resized(one_square) -> None:
    view = RandomScaleCrop(ScaleCropConfig(crop=32, scale=(1, 1), flip=0, long_side=30), FILL)
    _, target = view(SemanticDataset(one_square)[0])
    assert (target["labels"] != IGNORE_INDEX).nonzero().max(0).values.tolist() == [24, 29]


@pytest.mark.parametrize(
    "wrong", [{"crop": 40}, {"scale": (0, 1)}, {"scale": (2, 1)}, {"flip": 2}, {"long_side": 0}]
)
def test_invalid_settings_are_refused(wrong) -> None:
    with pytest.raises(BoxelError, match=f"{next(iter(wrong))} is"):
        ScaleCropConfig(**wrong)
