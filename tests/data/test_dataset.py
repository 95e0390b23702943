"""Samples, their order, and how invalid data is handled."""

import re
from dataclasses import replace
from itertools import chain

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2

from boxel.data.annotations import Annotations, Category
from boxel.data.config import AugmentConfig
from boxel.data.dataset import InstanceDataset, collate
from boxel.data.samplers import AspectBatchSampler
from boxel.data.transforms import train_transforms
from boxel.masks.rle import encode
from boxel.utils.errors import BoxelError


def raw(*segmentations):
    """Segmentations as `Annotations` stores them."""
    column = np.empty(len(segmentations), dtype=object)
    for i, segmentation in enumerate(segmentations):
        column[i] = None if segmentation is None else msgspec.json.encode(segmentation)
    return column


LEFT = np.zeros((60, 100), dtype=np.uint8)
LEFT[10:40, 5:25] = 1


@pytest.fixture
def data(tmp_path):
    """Three images: two instances (a code and a polygon), one without a mask, and none."""
    for i, value in enumerate((10, 20, 30)):
        Image.new("RGB", (100, 60), (value, 0, 200)).save(tmp_path / f"{i}.png")
    return Annotations(
        root=tmp_path,
        image_ids=["a", "b", "c"],
        paths=["0.png", "1.png", "2.png"],
        widths=np.array([100, 100, 100], np.int32),
        heights=np.array([60, 60, 60], np.int32),
        categories=(Category(3, "cat"), Category(5, "dog")),
        ids=[11, 12, 13],
        image_index=np.array([0, 1, 0], np.int32),
        labels=np.array([1, 0, 0], np.int32),
        boxes=np.array([[5.0, 10, 25, 40], [1, 2, 3, 4.5], [50, 20, 60, 30]]),
        iscrowd=np.array([False, False, True]),
        segmentations=raw(encode(LEFT), None, [[50, 20, 60, 20, 60, 30, 50, 30]]),
        file="set.json",
    )


def test_a_sample_has_its_image_and_target(data):
    image, target = InstanceDataset(data)[0]
    assert isinstance(image, tv_tensors.Image)
    assert image.dtype == torch.uint8
    assert image.shape == (3, 60, 100)
    assert image[:, 5, 5].tolist() == [10, 0, 200]
    assert target["boxes"].tolist() == [[5, 10, 25, 40], [50, 20, 60, 30]]
    assert target["boxes"].canvas_size == (60, 100)
    assert target["labels"].tolist() == [1, 0]
    assert target["labels"].dtype == torch.int64
    assert target["iscrowd"].tolist() == [False, True]
    assert target["has_mask"].tolist() == [True, True]
    assert target["image_id"] == "a"
    np.testing.assert_array_equal(target["masks"][0], LEFT)
    assert target["masks"][1].sum() == 100
    assert target["masks"][1, 20:30, 50:60].all()


def test_images_without_masks_or_instances_are_samples(data):
    dataset = InstanceDataset(data)
    assert len(dataset) == 3
    _, boxed = dataset[1]
    assert "masks" not in boxed
    assert boxed["has_mask"].tolist() == [False]
    _, empty = dataset[2]
    assert empty["boxes"].shape == (0, 4)
    assert empty["labels"].shape == empty["has_mask"].shape == (0,)


def test_instances_without_masks_get_zeros(data):
    """Rows of instances without a mask are empty; untrusted masks are ignored."""
    mixed = replace(data, segmentations=raw(None, None, [[50, 20, 60, 20, 60, 30, 50, 30]]))
    _, target = InstanceDataset(mixed)[0]
    assert target["has_mask"].tolist() == [False, True]
    assert target["masks"].flatten(1).sum(1).tolist() == [0, 100]
    _, target = InstanceDataset(replace(data, trusted=np.array([True, True, False])))[0]
    assert target["has_mask"].tolist() == [True, False]
    assert "masks" not in InstanceDataset(data.without_masks())[0][1]


def test_an_invalid_mask_costs_only_itself(data, caplog):
    wrong_size = replace(data, segmentations=raw(encode(LEFT[:30]), None, [[50, 20, 60, 20, 60, 30, 50, 30]]))
    _, target = InstanceDataset(wrong_size)[0]
    assert re.search(r"annotation 11 .*Its box is still used", caplog.text)
    assert target["has_mask"].tolist() == [False, True]
    assert len(target["boxes"]) == 2


def test_invalid_boxes_are_reported_and_left_out(data, caplog):
    broken = replace(data, boxes=np.array([[5.0, 10, 25, 40], [3, 2, 3, 4.5], [np.nan, 20, 60, 30]]))
    dataset = InstanceDataset(broken)
    assert re.search(r"set.json: 2 boxes .* annotation 12", caplog.text)
    assert dataset[0][1]["boxes"].tolist() == [[5, 10, 25, 40]]
    assert len(dataset[1][1]["boxes"]) == 0
    caplog.clear()
    InstanceDataset(data)
    assert not caplog.records


@pytest.mark.parametrize(("bad", "asked", "given"), [("1.png", 1, "c"), ("2.png", 2, "a")])
def test_the_next_image_replaces_an_unreadable_one(data, bad, asked, given, caplog):
    (data.root / bad).write_bytes(b"not an image")
    dataset = InstanceDataset(data)
    for _ in range(2):
        assert dataset[asked][1]["image_id"] == given
    (message,) = caplog.messages  # once, not in each epoch
    assert re.search(rf"{bad}.*It is skipped", message)


def test_no_readable_image_is_an_error(data, caplog):
    for path in data.paths:
        (data.root / path).unlink()
    with pytest.raises(BoxelError, match=r"set.json.*check `images`"):
        InstanceDataset(data)[0]
    assert "missing" in caplog.text


def test_an_image_of_another_size_is_reported_once(data, caplog):
    wrong = replace(data, widths=data.widths + 1)
    dataset = InstanceDataset(wrong)
    dataset[0]
    assert re.search(r"pixels, not .*`boxel check`", caplog.text)
    caplog.clear()
    dataset[0]
    InstanceDataset(data)[0]
    InstanceDataset(replace(data, widths=data.widths * 0))[0]
    assert not caplog.records


def test_a_seed_fixes_the_augmentation(data):
    config = AugmentConfig(short_sides=[30, 45, 60], color=0.5)
    dataset = InstanceDataset(data, train_transforms(config))
    torch.manual_seed(1)
    first, first_target = dataset[0, 17]
    torch.manual_seed(2)
    torch.rand(5)
    before = torch.random.get_rng_state()
    second, second_target = dataset[0, 17]
    assert torch.equal(torch.random.get_rng_state(), before)  # nor does it change what others draw
    assert torch.equal(first, second)
    assert torch.equal(first_target["boxes"], second_target["boxes"])
    others = [dataset[0, seed][0] for seed in range(4)]
    assert not any(torch.equal(first, other) for other in others)


def test_without_a_seed_the_augmentation_varies(data):
    dataset = InstanceDataset(data, v2.RandomResizedCrop((20, 20)))
    torch.manual_seed(0)
    boxes = [dataset[0][1]["boxes"] for _ in range(2)]
    assert not torch.equal(*boxes)


def test_collate_keeps_images_of_any_size(data):
    dataset = InstanceDataset(data)
    images, targets = collate([dataset[0], dataset[1]])
    assert [type(image) for image in images] == [torch.Tensor] * 2
    assert [target["image_id"] for target in targets] == ["a", "b"]


# ---------------------------------------------------------------------------------------------------------------------


def make_images(wide, tall, data):
    """The dataset with `wide` and `tall` images in random order."""
    n = wide + tall
    is_wide = np.random.default_rng(0).permutation(n) < wide
    return replace(
        data.select_instances(np.zeros(3, dtype=bool)),
        image_ids=list(range(n)),
        paths=["0.png"] * n,
        label_maps=[None] * n,
        widths=np.where(is_wide, 100, 60).astype(np.int32),
        heights=np.where(is_wide, 60, 100).astype(np.int32),
    )


@pytest.mark.parametrize(
    ("wide", "tall", "batch_size"), [(12, 8, 4), (13, 6, 4), (3, 2, 4), (7, 0, 2), (5, 5, 1)]
)
def test_each_image_occurs_once_per_epoch_and_aspects_are_separate(data, wide, tall, batch_size):
    many = make_images(wide, tall, data)
    sampler = AspectBatchSampler(many, batch_size)
    is_wide = many.widths > many.heights
    for epoch in range(3):
        sampler.epoch = epoch
        batches = [[index for index, _ in batch] for batch in sampler]
        assert sorted(chain(*batches)) == list(range(wide + tall))
        assert len(batches) == len(sampler) == -(-(wide + tall) // batch_size)
        assert [len(batch) for batch in batches].count(batch_size) >= len(batches) - 1
        mixed = sum(len(set(is_wide[batch])) > 1 for batch in batches)
        assert mixed <= (wide % batch_size > 0 and tall % batch_size > 0)


def test_square_and_unknown_images_count_as_wide(data):
    many = make_images(2, 2, data)
    square = replace(
        many, widths=np.array([50, 0, 60, 0], np.int32), heights=np.array([50, 0, 50, 0], np.int32)
    )
    assert AspectBatchSampler(square, 2).wide.all()


def test_order_depends_on_seed_and_epoch_alone(data):
    many = make_images(9, 9, data)

    def epoch(number, seed=0):
        sampler = AspectBatchSampler(many, 4, seed)
        sampler.epoch = number
        return list(sampler)

    np.random.seed(0)
    torch.manual_seed(0)
    first = epoch(1)
    np.random.seed(5)
    torch.manual_seed(5)
    assert epoch(1) == first
    assert epoch(2) != first
    assert epoch(1, seed=1) != first
    draws = list(chain(*first, *epoch(2)))
    assert len({seed for _, seed in draws}) == len(draws)  # an image is augmented differently in each epoch


def test_skip_applies_once(data):
    sampler = AspectBatchSampler(make_images(9, 9, data), 4)
    whole = list(sampler)
    sampler.skip = 2
    assert list(sampler) == whole[2:]
    assert list(sampler) == whole


def test_images_may_repeat_within_an_epoch(data):
    repeats = np.array([1, 3, 1, 1, 1, 2])
    sampler = AspectBatchSampler(make_images(4, 2, data), 2, repeats=repeats)
    draws = list(chain(*sampler))
    assert np.bincount([index for index, _ in draws]).tolist() == repeats.tolist()
    assert len({seed for _, seed in draws}) == len(draws)  # each time augmented in another way
    assert len(list(sampler)) == len(sampler) == 5


@pytest.mark.parametrize(("images", "processes"), [(24, 2), (24, 3), (22, 4), (5, 4)])
def test_processes_share_an_epoch(data, images, processes):
    """All have the same number of batches; a batch occurs twice only if they do not divide evenly."""
    many = make_images(images // 2, images - images // 2, data)
    samplers = [AspectBatchSampler(many, 2, 0, rank, processes) for rank in range(processes)]
    shares = [list(sampler) for sampler in samplers]
    assert {len(share) for share in shares} == {len(samplers[0])}
    alone = list(AspectBatchSampler(many, 2))
    together = [tuple(batch) for share in shares for batch in share]
    assert set(together) == {tuple(batch) for batch in alone}
    assert len(together) == -(-len(alone) // processes) * processes
    assert len(together) - len(set(together)) == len(together) - len(alone)
