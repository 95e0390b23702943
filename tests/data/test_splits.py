"""Making and selecting splits."""

import warnings
from dataclasses import replace

import pytest
from PIL import Image

from boxel.data import example_scenes, make_split, read, select_split, write
from boxel.utils.errors import BoxelError, UsageError


@pytest.fixture
def data():
    scenes = example_scenes(12)
    return replace(scenes, paths=[f"cam{k % 4}/day{k // 4}_{k}.png" for k in range(12)])


def val(data):
    return {path for path, split in zip(data.paths, data.splits, strict=True) if split == "val"}


def test_the_share_is_kept_and_the_choice_repeats(data):
    split = make_split(data, 0.25, seed=3)
    assert len(val(split)) == 3 and set(split.splits) == {"train", "val"}
    assert make_split(data, 0.25, seed=3).splits == split.splits
    assert val(make_split(data.select_images(range(11, -1, -1)), 0.25, seed=3)) == val(split)
    assert any(val(make_split(data, 0.25, seed=k)) != val(split) for k in range(5))
    assert data.splits == [None] * 12


@pytest.mark.parametrize(("pattern", "size"), [(r"day(\d)_", 4), (r"^day\d", 4), (r"^(cam\d)/", 3)])
def test_groups_stay_together(data, pattern, size):
    for seed in range(5):
        chosen = val(make_split(data, 0.3, seed, pattern))
        assert len(chosen) == size
        part = (
            (lambda path: path.split("/")[0]) if "cam" in pattern else (lambda path: path.split("/")[1][:4])
        )
        assert len({part(path) for path in chosen}) == 1


def test_both_splits_have_an_image(data):
    assert len(val(make_split(data, 0.001))) == 1 and len(val(make_split(data, 0.999))) == 11


def test_what_cannot_be_split_is_refused(data):
    with pytest.raises(UsageError, match="`val_share` is 1"):
        make_split(data, 1)
    with pytest.raises(BoxelError, match=r"has a split already \(val: 12\)"):
        make_split(replace(data, splits=["val"] * 12), 0.5)
    with pytest.raises(UsageError, match="not a regular expression"):
        make_split(data, 0.5, group_by="(")
    with pytest.raises(BoxelError, match=r"`group_by` 'x' matches nothing in cam0/day0_0.png"):
        make_split(data, 0.5, group_by="x")
    with pytest.raises(BoxelError, match="one group cannot be split"):
        make_split(data, 0.5, group_by="day")
    with pytest.raises(BoxelError, match="1 images cannot be split"):
        make_split(data.select_images([0]), 0.5)


def test_a_split_is_selected(data, caplog):
    split = make_split(data, 0.25)
    assert len(select_split(split, "val")) == 3 and len(select_split(data, "val")) == 12
    with pytest.raises(BoxelError, match="no image belongs to the split 'test'"):
        select_split(split, "test")
    lone = replace(data, splits=["val"] * 12)
    assert len(select_split(lone, "train")) == 12
    assert "all its images are of one split (val: 12); they are read as `train`" in caplog.text


@pytest.mark.parametrize(
    "format", ["coco", "cvat", "fiftyone", "label-studio", "parquet", "voc", "yolo", "labelme"]
)
def test_every_format_reads_the_names_that_other_programs_give_to_splits(tmp_path, format):
    names = ["Train", "training", "Validation", "valid", "TEST", "night"]
    few = example_scenes(6)
    data = replace(few, splits=names)
    if format == "parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / {"coco": "a.json", "parquet": "a.parquet"}.get(format, "folder")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write(data, path, format)
    again = read(path, images=few.root if format in ("coco", "parquet") else None)
    found = {
        name.split("/")[-1].split(".")[0]: split
        for name, split in zip(again.paths, again.splits, strict=True)
    }
    wanted = dict(zip((path.split("/")[-1].split(".")[0] for path in few.paths), names, strict=True))
    known = {"Train": "train", "training": "train", "Validation": "val", "valid": "val", "TEST": "test"}
    assert found == {stem: known.get(name, name) for stem, name in wanted.items()}


def test_a_yolo_folder_of_one_split_is_announced_if_another_is_asked_for(tmp_path, caplog):
    scenes, folder = example_scenes(3), tmp_path / "yolo"
    write(replace(scenes, splits=["train"] * len(scenes)), folder, "yolo")
    (folder / "data.yaml").unlink()
    assert len(read(folder, split="val")) == len(scenes)
    assert "all its images are of one split (train:" in caplog.text
    caplog.clear()
    assert len(read(folder, split="Training")) == len(scenes)
    assert not caplog.text


def test_a_file_of_one_split_is_announced_in_every_format_if_another_is_asked_for(tmp_path, caplog):
    few = replace(example_scenes(2), splits=["train"] * 2)
    for format in ("coco", "cvat", "darknet", "fiftyone", "label-studio", "labelme", "voc"):
        caplog.clear()
        path = tmp_path / ("a.json" if format == "coco" else format)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            write(few, path, format)
        assert len(read(path, images=few.root if format == "coco" else None, split="val")) == 2
        assert caplog.text.count("all its images are of one split (train: 2); they are read as `val`") == 1, (
            format
        )


def test_keys_and_lists_of_splits_may_be_called_as_other_programs_do(tmp_path):
    few = replace(example_scenes(3), splits=["train", "val", "val"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write(few, tmp_path / "yolo", "yolo")
        write(few, tmp_path / "voc", "voc")
    text = (tmp_path / "yolo/data.yaml").read_text()
    assert "\nval:" in text
    (tmp_path / "yolo/data.yaml").write_text(
        text.replace("\nval:", "\nValidation:").replace("\ntrain:", "\nTrain:")
    )
    for file in (tmp_path / "voc/ImageSets").rglob("val.txt"):
        file.rename(file.with_name("valid.txt"))
    for name in ("yolo", "voc"):
        (ids,) = (tmp_path / name).glob("boxel-ids.json")
        ids.unlink()
        assert sorted(read(tmp_path / name).splits) == ["train", "val", "val"]
        assert len(read(tmp_path / name, split="validation")) == 2


def test_folders_of_label_maps_may_be_called_as_other_programs_do(tmp_path):
    for name in ("Train", "valid"):
        for kind, mode in (("images", "RGB"), ("labels", "L")):
            (tmp_path / kind / name).mkdir(parents=True)
            Image.new(mode, (8, 8)).save(tmp_path / kind / name / f"{name}.png")
    (tmp_path / "classes.txt").write_text("background\n")
    assert sorted(read(tmp_path, class_list=tmp_path / "classes.txt").splits) == ["train", "val"]
    assert read(tmp_path, split="val").paths == ["images/valid/valid.png"]
