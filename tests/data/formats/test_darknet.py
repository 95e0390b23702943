"""Darknet's YOLO."""

from dataclasses import replace

import pytest
from PIL import Image

import boxel.data
from boxel.data import example_scenes
from boxel.utils.errors import BoxelError


def make(
    folder, lists, names="cat\ndog\n", config="classes = 2\ntrain = data/train.txt\nnames = data/obj.names\n"
):
    for name in ("a", "b"):
        file = folder / f"obj_train_data/{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (100, 50)).save(file)
        file.with_suffix(".txt").write_text("1 0.5 0.5 0.2 0.4\n")
    (folder / "obj.names").write_text(names)
    for name, text in lists.items():
        (folder / f"{name}.txt").write_text(text)
    if config:
        (folder / "obj.data").write_text(config)
    return folder


@pytest.mark.parametrize(
    ("lists", "config", "splits"),
    [
        ({"train": "data/obj_train_data/a.png\ndata/obj_train_data/b.png\n"}, "", ["train", "train"]),
        (
            {"train": "C:\\darknet\\data\\obj_train_data\\a.png\r\n", "valid": "b.png\n"},
            "valid = valid.txt\n",
            ["train", "val"],
        ),
        ({}, None, [None, None]),
        ({"images": "obj_train_data/a.png\nobj_train_data/b.png"}, None, [None, None]),
    ],
)
def test_lists_and_names_are_read(tmp_path, lists, config, splits):
    start = "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\n"
    make(tmp_path, lists, config=None if config is None else start + config)
    for path in [tmp_path] + [tmp_path / "obj.data"] * (config is not None):
        assert boxel.data.recognize(path) == "darknet"
        data = boxel.data.read(path)
        assert data.splits == splits and data.issues == []
        assert [category.name for category in data.categories] == ["cat", "dog"]
        assert data.boxes.tolist() == [[40, 15, 60, 35]] * 2 and data.labels.tolist() == [1, 1]


def test_missing_files_are_named(tmp_path):
    make(tmp_path, {}, config="train = lost.txt\nnames = obj.names\n")
    (issue,) = boxel.data.read(tmp_path).issues
    assert "its list `train`, lost.txt, does not exist" in issue.message
    (tmp_path / "obj.names").unlink()
    with pytest.raises(BoxelError, match=r"obj.data: its `names`, obj.names, does not exist"):
        boxel.data.read(tmp_path / "obj.data")


def test_round_trip(tmp_path):
    scenes = replace(example_scenes(3).without_masks(), splits=["train", "val", "train"])
    boxel.data.write(scenes, tmp_path / "out", "darknet")
    config = (tmp_path / "out/obj.data").read_text()
    assert config.startswith(f"classes = {len(scenes.categories)}\ntrain = train.txt\nvalid = valid.txt\n")
    assert (tmp_path / "out/valid.txt").read_text() == "obj_val_data/000001.png\n"
    again = boxel.data.read(tmp_path / "out")
    assert dict(zip(again.image_ids, again.splits, strict=True)) == dict(
        zip(scenes.image_ids, scenes.splits, strict=True)
    )
    assert sorted(again.ids) == sorted(scenes.ids) and again.categories == scenes.categories


def test_masks_are_lost_with_a_word(tmp_path):
    scenes = example_scenes(2)
    with pytest.warns(
        boxel.data.ConversionWarning, match=r"Darknet holds boxes only: \d+ masks are left out"
    ):
        boxel.data.write(scenes, tmp_path / "out", "darknet")


def test_images_of_no_split_are_not_trained_on_if_others_have_one(tmp_path):
    scenes = replace(example_scenes(3).without_masks(), splits=["train", None, "val"])
    with pytest.warns(UserWarning, match="Darknet: 1 images belong to no split"):
        boxel.data.write(scenes, tmp_path / "out", "darknet")
    assert len((tmp_path / "out/train.txt").read_text().splitlines()) == 1
    assert sorted(map(str, boxel.data.read(tmp_path / "out").splits)) == ["None", "train", "val"]


@pytest.mark.parametrize("lists", [{}, {"train": "obj_train_data/a.PNG\robj_train_data/b.PNG\r"}])
def test_suffixes_may_be_in_capitals(tmp_path, lists):
    folder = make(tmp_path, lists, config=None)
    for file in list((folder / "obj_train_data").iterdir()):
        file.rename(file.with_suffix(file.suffix.upper()))
    data = boxel.data.read(folder)
    assert data.paths == ["obj_train_data/a.PNG", "obj_train_data/b.PNG"] and data.issues == []
    assert data.boxes.tolist() == [[40, 15, 60, 35]] * 2
