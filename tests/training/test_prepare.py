"""Preparing the data of a run: masks, categories, repeats and the validation split."""

import dataclasses
import shutil

import msgspec
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from boxel.data import select_split, write
from boxel.data.annotations import Category
from boxel.training.boxsup import MAX_REPEATS, count_repeats
from boxel.training.prepare import (
    _drop_bad_masks,
    add_masks,
    align_categories,
    keep_masks_for,
    prepare_data,
    split,
)
from boxel.training.settings import resolve_run
from boxel.utils.errors import BoxelError, UsageError


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


def prepare(data, val=None, masks=None, method="boxinst", **settings):
    run = resolve_run(method, None, None, None, {"data": {"val_share": 0.25}} | settings)
    sources = data if isinstance(data, list) else [data]
    return prepare_data(run, sources, None, val, None, masks)


def with_splits(data, *splits):
    return dataclasses.replace(data, splits=list(splits))


def names(*datasets):
    return [sorted(path.split("/")[-1] for path in data.paths) for data in datasets]


@pytest.fixture
def four(scenes):
    """Four images with their splits."""
    return with_splits(scenes.select_images(range(4)), "train", "val", "train", "test")


def lay_out(data, folder, kind):
    """Write a dataset in one of several layouts with splits."""
    if kind == "memory":
        return data
    if kind == "coco":
        write(
            dataclasses.replace(data, paths=[str(data.image_path(i)) for i in range(len(data))]),
            folder / "a.json",
        )
        return folder / "a.json"
    if kind == "folders":  # images/train beside labels/train, and no data.yaml
        write(data, folder / "yolo", format="yolo")
        (folder / "yolo" / "data.yaml").rename(folder / "yolo" / "classes.old")
        return folder / "yolo"
    if kind == "roboflow":  # a folder per split
        for split in set(data.splits):
            own = with_splits(select_split(data, split), *[None] * data.splits.count(split))
            write(own, folder / "yolo" / {"val": "valid"}.get(split, split), format="yolo")
        listed = {"train": "../train/images", "val": "../valid/images", "test": "../test/images"}
        content = listed | {"names": [category.name for category in data.categories]}
        (folder / "yolo" / "data.yaml").write_text(yaml.safe_dump(content))
        return folder / "yolo" / "data.yaml"
    write(data, folder / kind, format="yolo" if kind == "data.yaml" else kind)
    return folder / kind / ("data.yaml" if kind == "data.yaml" else "")


KINDS = ["memory", "coco", "data.yaml", "yolo", "folders", "roboflow", "labelme", "voc", "cvat"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_dataset_is_trained_and_validated_on_by_its_own_splits(four, tmp_path, kind, caplog):
    caplog.set_level("INFO")
    prepared = prepare(lay_out(four, tmp_path, kind))
    assert names(prepared.training, prepared.validation) == names(
        four.select_images([0, 2]), four.select_images([1])
    )
    assert "validating on its own split val: 1 image" in caplog.text
    assert "images of other splits are not trained on (test: 1)" in caplog.text


@pytest.mark.parametrize("kind", ["memory", "data.yaml", "semantic"])
def test_label_maps_are_trained_and_validated_on_by_their_own_splits(four, tmp_path, kind):
    prepared = prepare(lay_out(four, tmp_path, kind), method="fcrn")
    assert names(prepared.training, prepared.validation) == names(
        four.select_images([0, 2]), four.select_images([1])
    )


def test_the_split_of_a_folder_is_read_if_the_images_of_all_are_named_alike(scenes, tmp_path):
    for part, image in (("train", 0), ("val", 1)):
        write(scenes.select_images([image]), tmp_path / part, format="semantic")
        for half in ("images", "labels"):
            (file,) = (tmp_path / part / half).iterdir()
            (tmp_path / half / part).mkdir(parents=True)
            file.rename(tmp_path / half / part / "0001.png")
    shutil.copy(tmp_path / "train" / "classes.txt", tmp_path / "labels" / "train")
    run = resolve_run("fcrn", None, None, None, {})
    prepared = prepare_data(run, [tmp_path / "labels" / "train"], tmp_path / "images", None, None, None)
    assert (prepared.training.paths, prepared.training.root) == (["train/0001.png"], tmp_path / "images")


def test_images_of_no_split_are_trained_on_only_if_there_is_no_train(four):
    assert prepare(with_splits(four, "train", None, "val", "test")).training.paths == four.paths[:1]
    prepared = prepare(with_splits(four, None, None, "val", "test"))
    assert (prepared.training.paths, prepared.validation.paths) == (four.paths[:2], four.paths[2:3])
    with pytest.raises(BoxelError, match=r"no image belongs to the split 'train' \(test: 2, val: 2\)"):
        prepare(with_splits(four, "test", "test", "val", "val"))


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("kind", ["memory", "coco"])
def test_a_dataset_of_one_other_split_is_trained_on_with_a_warning(four, tmp_path, split, kind, caplog):
    prepared = prepare(lay_out(with_splits(four, *[split] * 4), tmp_path, kind))
    assert (len(prepared.training), len(prepared.validation)) == (3, 1)
    assert f"all its images are of one split ({split}: 4); they are read as `train`" in caplog.text


@pytest.mark.parametrize("file", ["data.yaml", ""])
def test_a_split_train_that_is_missing_is_not_replaced_by_val(four, tmp_path, file):
    lay_out(four.select_images([0, 1]), tmp_path, "roboflow")
    shutil.rmtree(tmp_path / "yolo" / "train")
    with pytest.raises(BoxelError, match=r"its `train`, \.\./train/images, does not exist; correct it"):
        prepare(tmp_path / "yolo" / file)


def test_joined_datasets_are_split_as_each_of_them_is(four):
    plain = with_splits(four.select_images([0]), None)
    prepared = prepare([four, plain])
    assert (len(prepared.training), len(prepared.validation)) == (3, 1)
    one, other = (
        with_splits(four.select_images(rows), *[split] * 2)
        for rows, split in (([0, 2], "train"), ([1, 3], "val"))
    )
    prepared = prepare([one, other])
    assert (prepared.training.paths, prepared.validation.paths) == (one.paths, other.paths)


@pytest.mark.parametrize("kind", ["memory", "coco"])
def test_given_validation_data_replaces_the_own_split(four, tmp_path, kind, caplog):
    others = with_splits(four.select_images([3, 0]), "val", "train")
    prepared = prepare(lay_out(four, tmp_path, kind), val=others)
    assert names(prepared.training, prepared.validation) == names(
        four.select_images([0, 2]), four.select_images([3])
    )
    assert "images of other splits are not trained on (val: 1, test: 1)" in caplog.text
    assert "are trained on too" not in caplog.text


def test_validation_uses_the_boxes_of_segmentations_that_are_no_masks(four, caplog):
    val = with_splits(four, *[None] * 4)
    val.segmentations[0] = b"[]"
    found = prepare(four, val=val).validation
    assert found.has_mask.tolist() == [False, *[True] * (len(val.ids) - 1)]
    assert "1 empty (annotation " in caplog.text


def test_a_folder_of_images_to_validate_on_needs_their_annotations(four, tmp_path):
    run = resolve_run("boxinst", None, None, None, {})
    with pytest.raises(UsageError, match="`val_images` is the folder of the images of `val`; name"):
        prepare_data(run, [four], None, None, tmp_path, None)


def test_images_that_are_trained_and_validated_on_are_reported(four, tmp_path, caplog):
    prepare(with_splits(four, *[None] * 4), val=with_splits(four, *[None] * 4))
    assert (
        f"4 of the images to validate on are trained on too, by name or content, e.g. {four.image_path(0)};"
        in caplog.text
    )
    caplog.clear()
    copy = tmp_path / "copy.png"
    shutil.copy(four.image_path(2), copy)
    prepare(
        dataclasses.replace(four, paths=[four.paths[0], str(copy), *four.paths[2:]])
    )  # a copy in its own val
    assert (
        f"1 of the images to validate on are trained on too, by name or content, e.g. {four.image_path(2)} = {copy};"
        in caplog.text
    )


@pytest.mark.parametrize("kind", ["memory", "coco"])
def test_masks_are_added_to_all_splits(four, tmp_path, kind):
    prepared = prepare(four.without_masks(), masks=lay_out(four, tmp_path, kind))
    assert prepared.training.has_mask.all() and prepared.validation.has_mask.all()


def test_salient_images_of_other_splits_are_not_trained_on(scenes, four):
    prepared = prepare(scenes, method="boxcaseg", salient=four)
    assert prepared.salient.paths == [four.paths[0], four.paths[2]]


def test_masks_of_salient_images_are_judged(scenes, four, caplog):
    segmentations = four.segmentations.copy()
    segmentations[0] = b"[]"
    salient = dataclasses.replace(four, segmentations=segmentations)
    prepared = prepare(scenes, method="boxcaseg", salient=salient)
    assert prepared.salient.has_segmentation.tolist()[:2] == [False, True]
    assert "masks cannot be used, only their boxes are: 1 empty" in caplog.text


def test_a_segmenter_is_validated_on_a_share_if_its_own_split_has_only_boxes(four, caplog):
    bare = four.segmentations.copy()
    bare[four.image_index == 1] = None
    prepared = prepare(dataclasses.replace(four, segmentations=bare), method="fcrn")
    assert len(prepared.training) == len(prepared.validation) == 1
    assert "no image of its split val has a mask or a label map to validate on" in caplog.text


def test_a_share_is_held_out_of_a_dataset_with_train_alone(four, caplog):
    prepared = prepare(with_splits(four, *["train"] * 4))
    assert (len(prepared.training), len(prepared.validation)) == (3, 1)
    prepared = prepare(with_splits(four, "train", "train", "train", "test"))
    assert (len(prepared.training), len(prepared.validation)) == (2, 1)
    assert "images of other splits are not trained on (test: 1)" in caplog.text


@pytest.mark.parametrize("order", [1, -1])
def test_a_class_list_is_for_the_label_maps_among_several_datasets(four, tmp_path, order):
    write(four, tmp_path / "maps", format="semantic")
    (tmp_path / "maps/classes.txt").rename(tmp_path / "names.txt")
    write(four.without_masks(), tmp_path / "boxes.json")
    settings = {"data": {"class_list": str(tmp_path / "names.txt"), "val_share": 0}}
    run = resolve_run("boxsup", None, None, None, settings)
    sources = [tmp_path / "maps", tmp_path / "boxes.json"][::order]
    training = prepare_data(run, sources, None, None, None, None).training
    assert sum(path is not None for path in training.label_maps) == 2 and len(training) == 4
    with pytest.raises(BoxelError, match="which needs no class list"):
        prepare_data(run, [tmp_path / "boxes.json"], None, None, None, None)
