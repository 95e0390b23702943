"""Splits of YOLO datasets, names from other machines, untrusted masks, and what a data.yaml states."""

import json
import logging
import warnings
from dataclasses import replace

import numpy as np
import pytest
import yaml
from PIL import Image

import boxel.data
from boxel.cli import main
from boxel.data import Annotations, Category, ConversionWarning
from boxel.data.formats import write_as_given
from boxel.masks.rle import encode
from boxel.utils.errors import BoxelError, UsageError


def image(path, size=(100, 50)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)


def label(path, text="0 0.5 0.5 0.2 0.4\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def config(folder):
    return yaml.safe_load((folder / "data.yaml").read_text())


@pytest.fixture
def masked(tmp_path):
    """Three images: a with a trusted and an untrusted mask, b with a box and a mask, c with a mask."""
    for name in "abc":
        image(tmp_path / f"in/{name}.png")
    masks = []
    for x in (5, 40, 5, 5):
        mask = np.zeros((50, 100), dtype=np.uint8)
        mask[5:25, x : x + 20] = 1
        mask[5:9, x : x + 4] = 0
        masks.append(json.dumps(encode(mask)).encode())
    segmentations = np.array([masks[0], masks[1], None, masks[2], masks[3]], dtype=object)
    return Annotations(
        root=tmp_path / "in",
        image_ids=[1, 2, 3],
        paths=["a.png", "b.png", "c.png"],
        widths=[100] * 3,
        heights=[50] * 3,
        categories=(Category(1, "cat"),),
        ids=[1, 2, 3, 4, 5],
        image_index=[0, 0, 1, 1, 2],
        labels=[0] * 5,
        boxes=[[5, 5, 25, 25], [40, 5, 60, 25], [60, 5, 80, 25], [5, 5, 25, 25], [5, 5, 25, 25]],
        iscrowd=[False] * 5,
        segmentations=segmentations,
        trusted=[True, False, True, True, True],
    )


def written(data, folder, **options):
    """The rows of each label file, and what was said."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        write_as_given(data, folder, "yolo", **options)
    rows = {file.stem: file.read_text().splitlines() for file in sorted((folder / "labels").rglob("*.txt"))}
    assert all(len(row.split()) > 5 for lines in rows.values() for row in lines)  # no box among masks
    return {stem: len(lines) for stem, lines in rows.items()}, " ".join(str(w.message) for w in caught)


def test_an_object_without_a_mask_is_left_out_and_an_untrusted_mask_written(masked, tmp_path):
    rows, said = written(masked, tmp_path / "out")
    assert rows == {"a": 2, "b": 1, "c": 1}
    assert "1 of 5 objects are left out (1 without a mask)" in said and "their 1 image" in said
    assert "1 masks that are not trusted are written like the others" in said
    assert boxel.data.read(tmp_path / "out").trusted.tolist() == [True, False, True, True]


def test_objects_with_untrusted_masks_are_left_out(masked, tmp_path):
    rows, said = written(masked, tmp_path / "out", untrusted="object")
    assert rows == {"a": 1, "b": 1, "c": 1}
    assert "2 of 5 objects are left out (1 without a mask, 1 with a mask that is not trusted)" in said


def test_images_with_untrusted_masks_are_left_out(masked, tmp_path):
    rows, said = written(masked, tmp_path / "out", untrusted="image")
    assert rows == {"c": 1} and [p.name for p in (tmp_path / "out/images").iterdir()] == ["c.png"]
    assert "2 images left out, with 4 of 5 objects" in said


def test_crowds_are_left_out_with_what_is_not_trusted(masked, tmp_path):
    crowded = replace(masked, iscrowd=np.array([False] * 4 + [True]), trusted=np.ones(5, bool))
    rows, said = written(crowded, tmp_path / "objects", untrusted="object")
    assert rows == {"a": 2, "b": 1, "c": 0}
    assert "2 of 5 objects are left out (1 without a mask, 1 of a crowd)" in said
    rows, said = written(crowded, tmp_path / "images", untrusted="image")
    assert rows == {"a": 2}
    assert "2 images left out, with 3 of 5 objects (1 without a mask, 1 of a crowd)" in said


def test_other_words_are_refused(masked, tmp_path):
    with pytest.raises(
        UsageError, match=r"`untrusted` is 'objects'; it can be write, object, image\. Did you mean"
    ):
        boxel.data.write(masked, tmp_path / "out", "yolo", untrusted="objects")
    with pytest.raises(UsageError, match="`untrusted` has no effect on this format"):
        boxel.data.write(masked, tmp_path / "out", "voc", untrusted="object")
    with pytest.raises(UsageError, match="`simplify` is -1"):
        boxel.data.write(masked, tmp_path / "out", "yolo", simplify=-1)
    with pytest.raises(UsageError, match="`simplify` has no effect on this format without `polygons`"):
        boxel.data.write(masked, tmp_path / "out.json", simplify=1)
    assert not (tmp_path / "out").exists()


def test_a_dataset_without_masks_is_one_of_boxes(masked, tmp_path):
    boxel.data.write(masked.without_masks(), tmp_path / "out", "yolo")
    assert (tmp_path / "out/labels/b.txt").read_text() == "0 0.7 0.3 0.2 0.4\n0 0.15 0.3 0.2 0.4\n"
    assert config(tmp_path / "out")["task"] == "detect"


def test_splits_are_written_as_folders(masked, tmp_path):
    data = replace(masked, splits=["train", "val", "minival"], paths=["a.png", "b.png", "c.png"])
    written(data, tmp_path / "out")
    found = sorted(str(file.relative_to(tmp_path / "out")) for file in (tmp_path / "out").rglob("*.*"))
    assert found == [
        "boxel-ids.json",
        "data.yaml",
        *("images/minival/c.png", "images/train/a.png", "images/val/b.png"),
        *("labels/minival/c.txt", "labels/train/a.txt", "labels/val/b.txt"),
    ]
    assert list(config(tmp_path / "out").items())[:3] == [
        ("train", "images/train"),
        ("val", "images/val"),
        ("minival", "images/minival"),
    ]
    (tmp_path / "out/boxel-ids.json").unlink()
    for path in (tmp_path / "out", tmp_path / "out/data.yaml"):
        again = boxel.data.read(path)
        assert dict(zip([p[-5] for p in again.paths], again.splits, strict=True)) == {
            "a": "train",
            "b": "val",
            "c": "minival",
        }
    assert [p[-5] for p in boxel.data.read(tmp_path / "out", split="val").paths] == ["b"]


def test_images_of_no_split_are_not_trained_on(masked, tmp_path):
    _, said = written(replace(masked, splits=["train", "val", None]), tmp_path / "out")
    assert (
        "1 images belong to no split and lie in" in said and str(tmp_path / "out/images/unassigned") in said
    )
    assert config(tmp_path / "out").keys() == {"train", "val", "task", "names"}
    again = boxel.data.read(tmp_path / "out")
    assert again.splits == ["train", "val", None] or sorted(map(str, again.splits)) == [
        "None",
        "train",
        "val",
    ]


def test_without_a_split_there_is_no_val(masked, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        written(masked, tmp_path / "out")
    assert config(tmp_path / "out") == {"train": "images", "task": "segment", "names": {0: "cat"}}
    assert (
        "data.yaml has no `val`" in caplog.text and "`boxel convert --val-share 0.2` makes one" in caplog.text
    )
    assert boxel.data.read(tmp_path / "out").splits == [None] * 3


def test_nested_folders_keep_their_structure(tmp_path):
    for name in ("train/x/1", "train/y/1", "val/1", "val/2"):
        image(tmp_path / f"in/images/{name}.png")
        label(tmp_path / f"in/labels/{name}.txt")
    (tmp_path / "in/data.yaml").write_text("train: images/train\nval: images/val\nnames: [cat]\n")
    data = boxel.data.read(tmp_path / "in")
    assert data.splits == ["train", "train", "val", "val"]
    boxel.data.write(data, tmp_path / "out", "yolo")
    files = sorted(str(p.relative_to(tmp_path / "out/images")) for p in (tmp_path / "out").rglob("*.png"))
    assert files == ["train/x/1.png", "train/y/1.png", "val/1.png", "val/2.png"]
    again = boxel.data.read(tmp_path / "out")
    assert (again.image_ids, again.ids, again.splits) == (data.image_ids, data.ids, data.splits)


@pytest.mark.parametrize(
    "yaml_text",
    [
        "train: ../train/images\nval: ../valid/images\n",
        "train: ..\\train\\images\nval: ..\\valid\\images\n",
        "path: C:\\data\\mine\ntrain: C:\\data\\mine\\train\\images\nval: C:\\data\\mine\\valid\\images\n",
        "path: /home/me/mine\ntrain: train/images\nval: valid/images\n",
        "",
        "train: train.txt\nvalid: [val.txt]\n",
    ],
)
def test_folders_and_lists_of_other_machines(tmp_path, yaml_text):
    for split, name in (("train", "a"), ("valid", "b")):
        image(tmp_path / f"{split}/images/{name}.png")
        label(tmp_path / f"{split}/labels/{name}.txt")
    (tmp_path / "train.txt").write_text("C:\\data\\mine\\train\\images\\a.png\r\n")
    (tmp_path / "val.txt").write_text("/home/me/mine/valid/images/b.png\n")
    (tmp_path / "data.yaml").write_text(f"{yaml_text}names: [cat]\n")
    for path in (tmp_path, tmp_path / "data.yaml"):
        data = boxel.data.read(path)
        assert data.splits == ["train", "val"] and len(data.labels) == 2 and data.issues == []
        assert all(data.image_path(i).is_file() for i in range(2))
    if yaml_text:
        assert len(boxel.data.read(tmp_path / "data.yaml", split="val")) == 1


@pytest.mark.parametrize("folder", ["validation", "val2017", "Val"])
def test_folders_are_splits_by_name(tmp_path, folder):
    for split, name in (("train", "a"), (folder, "b")):
        image(tmp_path / f"images/{split}/{name}.png")
        label(tmp_path / f"labels/{split}/{name}.txt")
    assert sorted(boxel.data.read(tmp_path).splits) == ["train", "val"]
    assert boxel.data.read(tmp_path / "images" / folder).splits == ["val"]
    assert [p[-5] for p in boxel.data.read(tmp_path, split="val").paths] == ["b"]
    assert (
        len(boxel.data.read(tmp_path / "images" / folder, split="train")) == 1
    )  # a folder is a choice already


def test_one_folder_for_train_and_val_is_no_split(tmp_path):
    image(tmp_path / "images/a.png")
    label(tmp_path / "labels/a.txt")
    (tmp_path / "data.yaml").write_text("train: images\nval: images\nnames: [cat]\n")
    for path in (tmp_path, tmp_path / "data.yaml"):
        assert boxel.data.read(path).splits == [None]


def test_a_split_of_any_dataset_is_read(masked, tmp_path):
    boxel.data.write(replace(masked, splits=["train", "val", "val"]), tmp_path / "in/all.json")
    assert boxel.data.read(tmp_path / "in/all.json", split="val").image_ids == [2, 3]
    with pytest.raises(BoxelError, match=r"no image belongs to the split 'test' \(train: 1, val: 2\)"):
        boxel.data.read(tmp_path / "in/all.json", split="test")


def test_convert_makes_a_split_and_keeps_it(masked, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    boxel.data.write(masked, tmp_path / "in/all.json")
    line = "convert in/all.json out --to yolo --val-share 0.34 --seed 1 --simplify 0 --untrusted object"
    assert main(line.split()) == 0
    splits = boxel.data.read(tmp_path / "out").splits
    assert sorted(splits) == ["train", "train", "val"]
    assert main(["convert", "out", "back.json"]) == 0
    assert (
        sorted(row["split"] for row in json.loads((tmp_path / "back.json").read_text())["images"]) == splits
    )
    assert (
        main(["convert", "back.json", "again", "--to", "yolo", "--images", "out", "--val-share", "0.2"]) == 1
    )
    error = capsys.readouterr().err
    assert "back.json: the dataset has a split already (train: 2, val: 1); leave out --val-share" in error
    assert main(["convert", "in/all.json", "again", "--to", "yolo", "--seed", "2"]) == 2
    assert main(["convert", "in/all.json", "again", "--to", "yolo", "--val-share", "2"]) == 2


def test_polygons_in_coco(masked, tmp_path):
    mask = np.zeros((50, 100), dtype=np.uint8)
    mask[10:40, 10:40] = 1
    mask[20:30, 20:30] = 0
    masked.segmentations[0] = json.dumps(encode(mask)).encode()
    with pytest.warns(
        ConversionWarning, match="COCO: 1 masks are marked by `trusted` false, which other tools ignore"
    ):
        boxel.data.write(masked, tmp_path / "in/out.json", polygons=True)
    again = boxel.data.read(tmp_path / "in/out.json")
    assert all(isinstance(again.segmentation(i), list) for i in (0, 1, 3, 4))
    assert (again.mask(0) == mask).all() and again.has_segmentation.tolist() == [
        True,
        True,
        False,
        True,
        True,
    ]


@pytest.mark.parametrize("split", ["../../evil", "/evil", "a\\b", "names", "path", ".."])
@pytest.mark.parametrize("format", ["yolo", "darknet"])
def test_no_split_leads_out_of_the_folder(masked, tmp_path, split, format):
    data = replace(masked.without_masks(), splits=["train", split, split])
    boxel.data.write(data, tmp_path / "out", format)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out"]
    again = boxel.data.read(tmp_path / "out")
    assert len(again) == 3 and [category.name for category in again.categories] == ["cat"]
    if format == "yolo":
        assert sorted(again.splits) == sorted(data.splits)


def test_names_that_are_no_text_are_refused_and_leave_nothing(masked, tmp_path):
    data = replace(masked, categories=(Category(1, "ca\ud800t"),))
    for name, format in (("out", "darknet"), ("out", "labelme"), ("out.json", "coco")):
        with pytest.raises(BoxelError, match=r"out.*(not valid text|surrogate|UTF-8)"):
            boxel.data.write(data, tmp_path / name, format)
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_what_yolo_has_no_place_for_is_counted(masked, tmp_path):
    masked.extras[:2] = b'{"track_id":3,"attributes":{}}'
    data = replace(masked, image_extras=[b'{"coco_url":"x"}', None, None], dataset_extras=b'{"licenses":[]}')
    _, said = written(data, tmp_path / "out")
    assert (
        "YOLO has no place for track_id (2 objects), attributes (2 objects), coco_url (1 image), licenses: "
        in said
    )
    again = boxel.data.read(tmp_path / "out")
    assert again.extras[0] == masked.extras[0] and again.dataset_extras == data.dataset_extras


def test_names_that_differ_in_case_alone_do_not_replace_each_other(tmp_path):
    data = boxel.data.example_scenes(2)
    boxel.data.write(replace(data, paths=["A.png", "a.png"]), tmp_path / "out", "yolo")
    assert sorted(file.name for file in (tmp_path / "out/labels").iterdir()) == ["A.txt", "a_2.txt"]
