"""Crops of instances, and the batches that mix them (BoxCaseg, sections 3.2.2 and 4.2.3)."""

import re
from collections import Counter
from dataclasses import replace
from itertools import chain

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image

from boxel.data.annotations import Annotations, Category
from boxel.data.config import CropConfig
from boxel.data.crops import SALIENT_SHARE, CropDataset
from boxel.data.samplers import MixedBatchSampler, find_crowded
from boxel.masks.rle import encode
from boxel.utils.errors import BoxelError

HEIGHT, WIDTH, SIDE = 150, 200, 32
FILL = (1, 2, 3)
STILL = CropConfig(side=SIDE, shift=0, scale=(1, 1), flip=0)
"""No random augmentation."""


def annotations(boxes, masks=None, images=None, root="", **columns):
    """Images of 200 x 150, by default with one instance each."""
    images = list(range(len(boxes))) if images is None else images
    count = max(images, default=-1) + 1
    codes = np.full(len(boxes), None, dtype=object)
    for i, mask in enumerate(masks or []):
        codes[i] = None if mask is None else msgspec.json.encode(encode(mask))
    return Annotations(
        root=root,
        image_ids=[f"image {i}" for i in range(count)],
        paths=[f"{i}.png" for i in range(count)],
        widths=np.full(count, WIDTH, np.int32),
        heights=np.full(count, HEIGHT, np.int32),
        categories=(Category(1, "thing"),),
        ids=list(range(len(boxes))),
        image_index=np.array(images, np.int32),
        labels=np.zeros(len(boxes), np.int32),
        boxes=np.array(boxes, dtype=np.float64).reshape(-1, 4),
        iscrowd=np.zeros(len(boxes), bool),
        segmentations=codes,
        file="set.json",
        **columns,
    )


def filled(box):
    x0, y0, x1, y1 = box
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    mask[y0:y1, x0:x1] = 1
    return mask


BOX = (70, 55, 130, 95)
"""60 x 40 pixels in the middle."""
L_SHAPE = filled(BOX) - filled((100, 55, 130, 75))


@pytest.fixture
def ramps(tmp_path):
    """Three images whose red encodes x and whose green encodes y: a mask, an untrusted mask and a box only."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    photo = np.stack([x, y, np.full_like(x, 200)], axis=-1).astype(np.uint8)
    for i in range(3):
        Image.fromarray(photo).save(tmp_path / f"{i}.png", compress_level=1)
    trusted = np.array([True, False, True])
    return annotations([BOX] * 3, [L_SHAPE, L_SHAPE, None], root=tmp_path, trusted=trusted)


def find_window(shown):
    """The part of a ramp that a crop shows: x0, y0, x1, y1."""
    across, down = shown[0].mean(0) * 255, shown[1].mean(1) * 255
    ends = []
    for values in (across, down):
        cell = (values[-1] - values[0]) / (SIDE - 1)
        ends.append((values[0] + 0.5 - cell / 2, values[-1] + 0.5 + cell / 2))
    (x0, x1), (y0, y1) = ends
    return np.array([x0, y0, x1, y1])


# samples -------------------------------------------------------------------------------------------------------------


def test_a_sample_has_its_image_and_target(ramps):
    dataset = CropDataset(ramps, None, replace(STILL, scale=(2, 2)), fill=FILL)
    assert len(dataset) == 3 and dataset.data is ramps
    shown, target = dataset[0, 7]
    assert shown.shape == (3, SIDE, SIDE) and shown.dtype == torch.float32
    assert find_window(shown) == pytest.approx([40, 35, 160, 115], abs=1)  # twice the box, about its middle
    assert target.keys() == {"rows", "columns", "neighbors", "mask", "has_mask", "image_id"}
    assert target["image_id"] == "image 0" and target["has_mask"] is True
    for name in ("rows", "columns"):
        assert target[name].dtype == torch.bool
        assert np.flatnonzero(target[name]).tolist() == list(range(8, 24))  # the box is the middle half
    mask = target["mask"]
    assert mask.shape == (SIDE, SIDE) and mask.dtype == torch.float32
    assert mask.min() >= 0 and mask.max() <= 1 + 1e-6
    expected = torch.zeros(SIDE, SIDE)
    expected[8:24, 8:24] = 1
    expected[8:16, 16:24] = 0
    torch.testing.assert_close((mask > 0.5).float(), expected)


def test_only_a_trusted_mask_counts_as_a_mask(ramps):
    dataset = CropDataset(ramps, None, STILL)
    masks = [dataset[i, 0][1] for i in range(3)]
    assert [target["has_mask"] for target in masks] == [True, False, False]
    assert torch.equal(masks[1]["mask"], masks[0]["mask"])  # a hint is shown all the same
    assert masks[1]["mask"].sum() > 0 and masks[2]["mask"].sum() == 0


def test_a_flip_mirrors_pixels_mask_and_columns(ramps):
    as_it_is, flipped = (
        CropDataset(ramps, None, CropConfig(side=SIDE, clip=False, flip=flip)) for flip in (0, 1)
    )
    for seed in range(5):
        (one, before), (other, after) = as_it_is[0, seed], flipped[0, seed]
        assert torch.equal(other, one.flip(-1))
        assert torch.equal(after["mask"], before["mask"].flip(-1))
        assert torch.equal(after["columns"], before["columns"].flip(-1))
        assert torch.equal(after["rows"], before["rows"])
    half = CropDataset(ramps, None, replace(STILL, flip=0.5))
    rising = [bool(half[0, seed][0][0, 0, 0] < half[0, seed][0][0, 0, -1]) for seed in range(30)]
    assert 5 < sum(rising) < 25


def test_mask_and_spans_lie_where_the_pixels_are(ramps):
    """For any window, the red and green of a pixel encode whether it is in the box."""
    dataset = CropDataset(ramps, None, CropConfig(side=64, clip=False))
    for seed in range(12):
        shown, target = dataset[0, seed]
        x, y = shown[0].mean(0) * 255 + 0.5, shown[1].mean(1) * 255 + 0.5
        sure_x = ((x - 70).abs() > 1.5) & ((x - 130).abs() > 1.5)
        sure_y = ((y - 55).abs() > 1.5) & ((y - 95).abs() > 1.5)
        assert torch.equal(target["columns"][sure_x], ((x > 70) & (x < 130))[sure_x])
        assert torch.equal(target["rows"][sure_y], ((y > 55) & (y < 95))[sure_y])
        inside = target["rows"][:, None] & target["columns"]
        held = target["mask"] > 0.5
        corner = (x > 101.5)[None] & (y < 73.5)[:, None]
        assert not (held & corner).any()
        rest = ((x < 98.5)[None] | (y > 76.5)[:, None]) & sure_x[None] & sure_y[:, None]
        assert torch.equal(held[rest], inside[rest])


def test_windows_shift_and_scale_as_in_the_paper(ramps):
    """The center shifts by up to a quarter of the box; width and height are scaled independently by 0.5 to 1.5."""
    dataset = CropDataset(ramps, None, CropConfig(side=SIDE, clip=False))
    windows = np.array([find_window(np.sort(dataset[2, seed][0].numpy(), axis=-1)) for seed in range(80)])
    extent, box = windows[:, 2:] - windows[:, :2], np.array([60, 40])
    shift = ((windows[:, :2] + windows[:, 2:]) / 2 - [100, 75]) / box
    assert np.abs(shift).max() <= 0.25 + 0.02
    assert shift.min(axis=0).max() < -0.2 and shift.max(axis=0).min() > 0.2
    scale = extent / box
    assert scale.min() >= 0.5 - 0.03 and scale.max() <= 1.5 + 0.03
    assert scale.min(axis=0).max() < 0.6 and scale.max(axis=0).min() > 1.4
    assert abs(np.corrcoef(scale.T)[0, 1]) < 0.4


def test_the_window_includes_the_margin(ramps):
    shown, _ = CropDataset(ramps, None, STILL, margin=0.25)[2, 0]
    assert find_window(shown) == pytest.approx([55, 45, 145, 105], abs=1)


def test_windows_past_the_image_are_clipped_or_padded(ramps):
    at_the_border = replace(ramps, boxes=np.tile([[0.0, 0, 60, 40]], (3, 1)))
    config = replace(STILL, scale=(1.5, 1.5))
    filled_up, target = CropDataset(at_the_border, None, replace(config, clip=False), fill=FILL)[2, 0]
    color = torch.tensor(FILL)[:, None, None] / 255
    assert torch.equal(filled_up[:, :5], color.expand(3, 5, SIDE))  # a sixth of 32 rows
    assert torch.equal(filled_up[:, :, :5], color.expand(3, SIDE, 5))
    assert np.flatnonzero(target["rows"])[0] == 5
    cut, target = CropDataset(at_the_border, None, config, fill=FILL)[2, 0]
    assert find_window(cut) == pytest.approx([0, 0, 75, 50], abs=1)
    assert np.flatnonzero(target["rows"]).tolist() == list(range(26))  # 40 of 50 pixels
    assert (cut[2] * 255 == 200).all()


def test_a_salient_crop_shows_nine_tenths_of_each_side(ramps):
    """288 of 320 pixels, anywhere, for any aspect."""
    dataset = CropDataset(ramps.select_images([2]), ramps.select_images([0]), STILL)
    windows = np.array([find_window(dataset[1, seed][0]) for seed in range(20)])
    assert windows[:, 2:] - windows[:, :2] == pytest.approx(np.tile([180, 135], (20, 1)), abs=2)
    assert windows.min() >= -1 and windows[:, 2].max() <= 201 and windows[:, 3].max() <= 151
    assert np.ptp(windows[:, 0]) > 10 and np.ptp(windows[:, 1]) > 7
    shown, target = dataset[1, 0]
    assert target["has_mask"] and target["image_id"] == "image 0"
    expected = np.floor(
        (np.array(BOX) - np.tile(find_window(shown)[:2], 2)) / np.tile([180, 135], 2) * SIDE + 0.5
    )
    found = np.array([np.flatnonzero(target[name])[[0, -1]] for name in ("columns", "rows")])
    np.testing.assert_allclose(found[:, 0], expected[:2], atol=1)
    np.testing.assert_allclose(found[:, 1] + 1, expected[2:], atol=1)
    assert find_window(dataset[0, 0][0]) == pytest.approx(BOX, abs=1)  # the boxed set's are about their boxes


def test_salient_images_may_be_cropped_around_their_box(ramps):
    dataset = CropDataset(ramps.select_images([2]), ramps.select_images([0]), replace(STILL, salient="box"))
    assert find_window(dataset[1, 0][0]) == pytest.approx(BOX, abs=1)


def test_box_noise_affects_only_instances_with_a_mask(ramps):
    """Without a mask there is only the box to train on."""
    wide = replace(STILL, scale=(2, 2))
    plain, noisy = (CropDataset(ramps, None, replace(wide, box_noise=noise)) for noise in (0, 0.2))
    for index in (1, 2):
        for name in ("rows", "columns"):
            assert torch.equal(noisy[index, 3][1][name], plain[index, 3][1][name])
    (shown, target), (before, usual) = noisy[0, 3], plain[0, 3]
    assert torch.equal(shown, before) and torch.equal(target["mask"], usual["mask"])
    edges = [np.flatnonzero(noisy[0, seed][1]["rows"])[0] - 8 for seed in range(30)]
    assert 1.5 < np.std(edges) < 6  # .2 of a box of 16 rows is 3.2
    assert abs(np.mean(edges)) < 2


def test_color_jitter_changes_only_pixels(ramps):
    plain, colorful = (CropDataset(ramps, None, replace(STILL, color=color)) for color in (0, 0.5))
    (before, usual), (shown, target) = plain[0, 5], colorful[0, 5]
    assert not torch.equal(shown, before) and shown.min() >= 0 and shown.max() <= 1
    assert all(torch.equal(target[name], usual[name]) for name in ("rows", "columns", "mask"))


def test_the_seed_fixes_a_sample(ramps):
    dataset = CropDataset(ramps, None, CropConfig(side=SIDE, color=0.4, box_noise=0.1))
    torch.manual_seed(1)
    np.random.seed(1)
    first, target = dataset[0, 11]
    torch.manual_seed(2)
    np.random.seed(2)
    before = torch.random.get_rng_state()
    again, repeated = dataset[0, 11]
    assert torch.equal(first, again)
    assert all(torch.equal(target[name], repeated[name]) for name in ("rows", "columns", "mask"))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not torch.equal(dataset[0, 12][0], first)


def test_the_next_instance_replaces_an_unreadable_one(ramps, caplog):
    (ramps.root / "1.png").write_bytes(b"no image")
    dataset = CropDataset(ramps, ramps.select_images([1]), STILL)
    assert dataset[1, 0][1]["image_id"] == "image 2"
    assert dataset[3, 0][1]["image_id"] == "image 0"  # after the last comes the first
    (message,) = caplog.messages
    assert "1.png" in message and message.endswith("It is skipped.")
    for i in range(3):
        (ramps.root / f"{i}.png").unlink(missing_ok=True)
    with pytest.raises(BoxelError, match=r"set\.json: none of its images can be read; check `images`"):
        dataset[0, 0]
    assert "missing" in caplog.text


def test_empty_and_outside_boxes_give_a_crop(ramps):
    odd = replace(
        ramps, boxes=np.array([[190.0, 140, 190.3, 140.3], [300, 300, 340, 320], [-20, 10, -10, 20]])
    )
    for config in (CropConfig(side=SIDE), CropConfig(side=SIDE, clip=False)):
        dataset = CropDataset(odd, None, config, fill=FILL)
        for index in range(3):
            shown, target = dataset[index, 4]
            assert shown.isfinite().all() and target["mask"].shape == (SIDE, SIDE)
        assert dataset[0, 4][1]["rows"].any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"side": 100}, "side is 100; give a multiple of 32."),
        ({"side": 0}, "side is 0"),
        ({"scale": (1.5, 0.5)}, "scale is (1.5, 0.5); give a minimum and a maximum factor"),
        ({"scale": (0, 1)}, "scale is 0; give a number above 0."),
        ({"shift": -0.1}, "shift is -0.1"),
        ({"flip": 2}, "flip is 2; give a number from 0 to 1."),
        ({"overlap_drop": 1.5}, "overlap_drop is 1.5"),
        ({"box_noise": float("nan")}, "box_noise is nan"),
        ({"salient_ratio": (0, 0)}, "salient_ratio is (0, 0); give two numbers, e.g. 9 and 7."),
        ({"salient_ratio": (-9, 7)}, "salient_ratio is (-9, 7)"),
    ],
)
def test_invalid_settings_are_refused(settings, message):
    with pytest.raises(BoxelError, match=re.escape(message)):
        CropConfig(**settings)


def test_the_defaults_are_those_of_the_paper():
    config = CropConfig()
    assert (config.side, config.shift, config.scale, SALIENT_SHARE) == (288, 0.25, (0.5, 1.5), 288 / 320)
    assert (config.salient_ratio, config.random, config.flip) == ((9, 7), False, 0.5)


# batches -------------------------------------------------------------------------------------------------------------


def apart(count):
    """A dataset of `count` boxed instances, one per image."""
    return annotations([(10, 10, 50, 50)] * count)


def batches(boxed, salient, batch_size=16, epoch=0, skip=0, seed=0, rank=0, processes=1, **settings):
    """The instances in the batches of an epoch."""
    data = apart(boxed) if isinstance(boxed, int) else boxed
    sampler = MixedBatchSampler(data, salient, CropConfig(**settings), batch_size, seed, rank, processes)
    sampler.epoch, sampler.skip = epoch, skip
    found = [[index for index, _ in batch] for batch in sampler]
    assert len(sampler) == len(found) + skip
    assert all(len(batch) == batch_size for batch in found)
    return found


@pytest.mark.parametrize(
    ("ratio", "batch_size", "salient"),
    [
        # Table 5, at the paper's batch of 16
        ((8, 8), 16, 8),
        ((9, 7), 16, 7),
        ((10, 6), 16, 6),
        ((13, 3), 16, 3),
        ((14, 2), 16, 2),
        # as nearly as a batch can, with at least one of each
        ((9, 7), 8, 4),
        ((9, 7), 32, 14),
        ((14, 2), 4, 1),
        ((1, 15), 4, 3),
    ],
)
def test_every_batch_keeps_the_ratio(ratio, batch_size, salient):
    found = batches(100, 40, batch_size, salient_ratio=ratio)
    assert {sum(index >= 100 for index in batch) for batch in found} == {salient}
    assert len(found) == -(-40 // salient)


def test_an_epoch_is_all_salient_images_once():
    found = list(chain.from_iterable(batches(100, 42)))
    assert sorted(index for index in found if index >= 100) == list(range(100, 142))
    # If they do not divide evenly, the last batch starts again.
    counts = Counter(index for index in chain.from_iterable(batches(100, 40)) if index >= 100)
    assert len(counts) == 40 and sorted(counts.values())[-3:] == [1, 2, 2]


def test_boxed_instances_are_used_up_before_any_repeats():
    found = [index for batch in batches(100, 70) for index in batch if index < 100]
    assert len(found) == 90 and len(set(found)) == 90
    found = [index for batch in batches(20, 70) for index in batch if index < 20]
    for turn in range(4):
        assert sorted(found[20 * turn : 20 * turn + 20]) == list(range(20))


def test_epochs_differ():
    first, second = batches(1000, 70), batches(1000, 70, epoch=1)
    assert first != second
    boxed = [{index for batch in epoch for index in batch if index < 1000} for epoch in (first, second)]
    assert len(boxed[0] & boxed[1]) < 45  # some 8 of 90 by chance
    seeds = [seed for batch in MixedBatchSampler(apart(100), 70, CropConfig(), 16) for _, seed in batch]
    assert len(set(seeds)) == len(seeds)


def test_random_sampling_draws_from_both_datasets_together():
    """Table 5's "RS": each instance and each image occurs once per epoch, in any mix."""
    found = batches(150, 42, random=True)
    assert len(found) == 12
    assert sorted(chain.from_iterable(found)) == list(range(192))
    assert len({sum(index >= 150 for index in batch) for batch in found}) > 1


def test_without_salient_images_an_epoch_is_all_boxed_instances():
    for settings in ({}, {"random": True}):
        assert sorted(chain.from_iterable(batches(48, 0, **settings))) == list(range(48))


def test_a_ratio_of_zero_leaves_a_dataset_out():
    assert sorted(chain.from_iterable(batches(48, 40, salient_ratio=(9, 0)))) == list(range(48))
    assert sorted(chain.from_iterable(batches(48, 32, salient_ratio=(0, 7)))) == list(range(48, 80))


def test_without_boxed_instances_batches_are_salient():
    assert sorted(chain.from_iterable(batches(0, 32))) == list(range(32))


def test_a_batch_of_one_draws_from_both_datasets():
    assert sorted(chain.from_iterable(batches(5, 4, batch_size=1))) == list(range(9))


def test_processes_share_an_epoch():
    whole = batches(500, 84)
    parts = [batches(500, 84, rank=rank, processes=3) for rank in range(3)]
    assert [len(part) for part in parts] == [4, 4, 4]
    assert sorted(map(tuple, chain.from_iterable(parts))) == sorted(map(tuple, whole))
    assert batches(500, 84, rank=1, processes=3, skip=3) == parts[1][3:]
    uneven = [batches(500, 84, rank=rank, processes=5) for rank in range(5)]
    assert {len(part) for part in uneven} == {3}
    boxed = [{index for batch in part for index in batch if index < 500} for part in uneven]
    assert sum(map(len, boxed)) == len(set.union(*boxed)) == 3 * 5 * 9


def test_batches_depend_on_seed_and_position_alone():
    def sampler(seed=4, skip=0):
        made = MixedBatchSampler(pairs(30, 40), 40, CropConfig(overlap_drop=0.5), 16, seed)
        made.epoch, made.skip = 2, skip
        return made

    whole = list(sampler())
    assert len(whole) == 6 and list(sampler()) == whole
    later = sampler(skip=4)
    assert list(later) == whole[4:]
    assert list(later) == whole  # left out once
    assert list(sampler(seed=5)) != whole


def pairs(count, others):
    """Some images with two boxes of an IoU of 0.6, and others with one box."""
    boxes = [(0, 0, 100, 80), (0, 20, 100, 100)] * count + [(0, 0, 9, 9)] * others
    images = [i for i in range(count) for _ in range(2)] + list(range(count, count + others))
    return annotations(boxes, images=images)


def test_crowded_instances_match_hand_worked_values():
    data = annotations(
        [
            (0, 0, 30, 10), (10, 0, 40, 10),  # 20 of 40: no more than a half
            (0, 50, 30, 60), (9, 50, 39, 60),  # 21 of 39
            (0, 50, 30, 60),  # alone in the next image
            (5, 5, 9, 9), (5, 5, 9, 9),  # twins
        ],
        images=[0, 0, 0, 0, 1, 3, 3],
    )  # fmt: skip
    assert find_crowded(data).tolist() == [False, False, True, True, False, True, True]
    assert find_crowded(annotations([])).tolist() == []


def test_crowded_instances_are_dropped_at_random():
    data = pairs(200, 100)
    found = [set(chain.from_iterable(batches(data, 0, epoch=epoch, overlap_drop=0.75))) for epoch in range(2)]
    for kept in found:
        assert kept >= set(range(400, 500))
        assert 0.18 < len(kept - set(range(400, 500))) / 400 < 0.32
    assert found[0] != found[1]
    assert len(set(chain.from_iterable(batches(data, 0)))) == 500


def test_all_are_kept_if_all_would_be_dropped():
    assert sorted(chain.from_iterable(batches(pairs(8, 0), 0, overlap_drop=1.0))) == list(range(16))
