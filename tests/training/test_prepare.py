"""Preparing the data of a run: masks, categories, repeats and the validation split."""

import dataclasses

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boxel.data import read, write
from boxel.data.annotations import Category
from boxel.data.joining import join
from boxel.training.prepare import (
    MAX_REPEATS,
    _drop_bad_masks,
    add_masks,
    align_categories,
    assign_to_train,
    count_repeats,
    divide,
    keep_masks_for,
    prepare_data,
    split,
)
from boxel.training.settings import resolve_run
from boxel.utils.errors import BoxelError


def test_masks_are_added_by_annotation_id_whatever_their_order(scenes):
    boxes = scenes.without_masks()
    some = scenes.select_instances(np.arange(len(scenes.ids))[::-2])
    some = dataclasses.replace(some, areas=np.arange(len(some.ids), dtype=float))
    together = add_masks(boxes, some)
    assert sorted(together.areas[together.has_mask]) == some.areas.tolist()
    assert together.has_mask.sum() == len(some.ids)
    for i in np.flatnonzero(together.has_mask):
        assert np.array_equal(together.mask(int(i)), scenes.mask(int(i)))
    assert not boxes.has_mask.any()


def test_training_uses_the_boxes_of_segmentations_that_are_no_masks(scenes, caplog):
    segmentations = scenes.segmentations.copy()
    x0, y0, x1, y1 = scenes.boxes[0].tolist()
    segmentations[0] = msgspec.json.encode([[x0, y0, x1, y0, x1, y1, x0, y1]])
    segmentations[1] = b"{"
    data = dataclasses.replace(scenes, segmentations=segmentations, source=np.full(len(scenes.ids), None))
    kept = _drop_bad_masks(data)
    assert kept.has_mask.tolist() == [False, False, *[True] * (len(scenes.ids) - 2)]
    assert np.array_equal(kept.boxes, scenes.boxes)
    (message,) = caplog.messages
    assert (
        "2 of " in message
        and "1 unreadable (annotation 2), 1 merely the filled box (annotation 1)" in message
    )


def test_untrusted_masks_are_replaced(scenes):
    doubtful = dataclasses.replace(scenes, trusted=np.zeros(len(scenes.ids), dtype=bool))
    assert not doubtful.has_mask.any()
    assert add_masks(doubtful, scenes).has_mask.all()


def test_own_masks_stay_if_the_other_file_has_none(scenes):
    mine = keep_masks_for(scenes, [scenes.categories[0].name])
    theirs = keep_masks_for(scenes, [scenes.categories[1].name])
    assert np.array_equal(add_masks(mine, theirs).has_mask, mine.has_mask | theirs.has_mask)


def test_repeats_reach_the_share_of_given_masks(scenes):
    """Of eight scenes the first has its masks, the second lacks one, and a teacher made those of the others."""
    first = scenes.image_index == 0
    source = np.where(scenes.image_index < 2, None, "boxcaseg")
    segmentations = scenes.segmentations.copy()
    segmentations[np.flatnonzero(scenes.image_index == 1)[0]] = None
    mixed = dataclasses.replace(scenes, source=source, segmentations=segmentations)
    # 7 of 14 are a half; 3 of 10 and 4 of 11 are nearest to 0.3 and 0.36.
    for share, often in ((0.5, 7), (0.3, 3), (0.36, 4), (0.01, 1), (0, 1)):
        assert count_repeats(mixed, share).tolist() == [often, *[1] * 7]
    assert count_repeats(mixed, 0.98).max() == MAX_REPEATS
    assert (count_repeats(scenes, 0.5) == 1).all() and (count_repeats(scenes.without_masks(), 0.5) == 1).all()
    boxed = dataclasses.replace(scenes.without_masks(), label_maps=["map.png", *[None] * 7])
    assert count_repeats(boxed, 0.5).tolist() == [7, *[1] * 7]
    # Images without guessed masks are not among the many, and crowds do not count.
    empty = scenes.select_instances(first)
    assert (count_repeats(empty, 0.5) == 1).all()
    crowd = dataclasses.replace(mixed, iscrowd=np.arange(len(mixed.ids)) == 0)
    assert count_repeats(dataclasses.replace(crowd, trusted=~crowd.iscrowd), 0.5).tolist() == [7, *[1] * 7]
    # Masks added from a file are given, not guessed.
    guessed = dataclasses.replace(scenes, source=np.full(len(scenes.ids), "boxcaseg", dtype=object))
    together = add_masks(guessed, scenes.select_instances(first))
    assert count_repeats(together, 0.5).tolist() == [7, *[1] * 7]


def test_masks_of_another_dataset_are_refused(scenes):
    stranger = dataclasses.replace(scenes, ids=[10_000 + i for i in scenes.ids])
    with pytest.raises(BoxelError, match="check `masks`"):
        add_masks(scenes, stranger)


def test_masks_are_kept_for_some_categories(scenes):
    kept = keep_masks_for(scenes, ["star", "ring"])
    names = np.array([scenes.categories[label].name for label in scenes.labels])
    assert np.array_equal(kept.has_mask, np.isin(names, ["star", "ring"]))
    mapped = dataclasses.replace(scenes, label_maps=["map.png"] * len(scenes))
    none = keep_masks_for(mapped, [])
    assert not none.has_mask.any() and not any(none.label_maps)
    with pytest.raises(BoxelError, match=r"'stars'.*Did you mean 'star'"):
        keep_masks_for(scenes, ["stars"])


def test_categories_are_aligned_by_name(scenes):
    # The same names with other ids and in another order; one is missing and one is new.
    names = [category.name for category in scenes.categories]
    wanted = [Category(70 + k, name) for k, name in enumerate([*reversed(names[1:]), "kite"])]
    found = align_categories(scenes, wanted)
    before = [names[label] for label in scenes.labels if names[label] != names[0]]
    assert [found.categories[label].name for label in found.labels] == before
    assert found.categories == tuple(wanted)
    with pytest.raises(BoxelError, match="none of its categories"):
        align_categories(scenes, [Category(1, "kite")])


@given(share=st.floats(0.001, 0.999), seed=st.integers(0, 99))
def test_a_split_partitions_the_images(scenes, share, seed):
    training, validation = split(scenes, share, seed)
    assert sorted(training.image_ids + validation.image_ids) == sorted(scenes.image_ids)
    assert sorted(training.ids + validation.ids) == sorted(scenes.ids)
    assert len(training) and len(validation)
    assert abs(len(validation) - share * 8) <= 1
    assert split(scenes, share, seed)[1].image_ids == validation.image_ids


def test_the_seed_decides_the_split_and_a_share_of_zero_splits_nothing(scenes):
    assert len({tuple(split(scenes, 0.25, seed)[1].image_ids) for seed in range(20)}) > 5
    assert split(scenes, 0, 0)[1] is None
    assert split(scenes.select_images([0]), 0.5, 0)[1] is None


def prepare(data, val=None, masks=None, method="boxinst"):
    run = resolve_run(method, None, None, None, {"data": {"val_share": 0.25}})
    return prepare_data(run, data, None, val, None, masks)


def with_splits(data, *splits):
    return dataclasses.replace(data, splits=list(splits))


@pytest.fixture
def four(scenes):
    """Four images with their splits."""
    data = scenes.select_images(np.arange(len(scenes)) < 4)
    assert len(data) == 4
    return with_splits(data, "train", "val", "train", "test")


@pytest.mark.parametrize("kind", ["memory", "coco", "yolo", "data.yaml"])
def test_the_own_split_of_a_dataset_is_trained_and_validated_on(four, tmp_path, kind, caplog):
    caplog.set_level("INFO")
    data = four
    if kind == "coco":
        data = tmp_path / "boxes.json"
        write(four, data)
    elif kind != "memory":
        write(four, tmp_path / "yolo", format="yolo")
        data = tmp_path / "yolo" / ("data.yaml" if kind == "data.yaml" else "")
    prepared = prepare(data) if kind != "coco" else prepare(read(data, images=four.root))
    stems = [[path.split("/")[-1] for path in one.paths] for one in (prepared.training, prepared.validation)]
    names = [path.split("/")[-1] for path in four.paths]
    assert sorted(stems[0]) == sorted([names[0], names[2]])
    assert stems[1] == [names[1]]
    assert "train is trained on, and val validates" in caplog.text


def test_images_of_no_split_are_trained_on_only_if_there_is_no_train(four):
    assert divide(assign_to_train(with_splits(four, "train", None, "val", "test")))[0].paths == four.paths[:1]
    training, held_out = divide(assign_to_train(with_splits(four, None, None, "val", "test")))
    assert training.paths == four.paths[:2] and held_out.paths == four.paths[2:3]
    assert divide(assign_to_train(with_splits(four, *[None] * 4)))[1] is None
    with pytest.raises(BoxelError, match=r"no image belongs to the split 'train' \(test: 2, val: 2\)"):
        assign_to_train(with_splits(four, "test", "test", "val", "val"))


def test_a_dataset_of_one_other_split_is_trained_on_with_a_warning(four, caplog):
    training, held_out = divide(assign_to_train(with_splits(four, *["test"] * 4)))
    assert len(training) == 4 and held_out is None
    assert "all its images are of one split (test: 4); they are read as `train`" in caplog.text


def test_a_dataset_without_splits_is_trained_on_beside_one_that_has_some(four):
    plain = with_splits(four.select_images([True, False, False, False]), None)
    training, held_out = divide(join([assign_to_train(four), assign_to_train(plain)]))
    assert len(training) == 3 and len(held_out) == 1


def test_given_validation_data_replaces_the_own_split(four, caplog):
    others = with_splits(four.select_images([False, False, False, True]), None)
    prepared = prepare(four, val=others)
    assert len(prepared.training) == 2 and prepared.validation.paths == four.paths[3:]
    assert "are trained on too" not in caplog.text


def test_images_that_are_trained_and_validated_on_are_announced(four, caplog):
    prepare(with_splits(four, *[None] * 4), val=with_splits(four, *[None] * 4))
    assert "4 of its 4 images are trained on too" in caplog.text


def test_a_set_aside_share_serves_a_dataset_with_train_alone(four):
    prepared = prepare(with_splits(four, *["train"] * 4))
    assert (len(prepared.training), len(prepared.validation)) == (3, 1)
