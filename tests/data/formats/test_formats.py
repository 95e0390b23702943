"""Recognizing formats, and what they share."""

import itertools
import json
import re
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import boxel.data
from boxel.data import Category, example_scenes, formats
from boxel.data.formats import read, recognize, write
from boxel.data.formats.builder import Builder
from boxel.data.formats.layout import file_stems
from boxel.data.images import read_image
from boxel.utils.errors import BoxelError


@pytest.mark.parametrize(
    "file, content, format",
    [
        ("a.json", '{"images": [], "annotations": []}', "coco"),
        ("a.json", '{"version": "5", "shapes": []}', "labelme"),
        ("data.yaml", "names: [a]", "yolo"),
        ("Annotations/a.xml", "<annotation/>", "voc"),
    ],
)
def test_files_are_recognized(tmp_path, file, content, format):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(content)
    assert recognize(tmp_path / file) == format
    if format != "coco":
        assert recognize(tmp_path) == format


@pytest.mark.parametrize(
    "content, format",
    [
        (
            {
                "images": [],
                "annotations": [],
                "categories": [{"id": 1, "name": "a", "supercategory": "shapes"}],
            },
            "coco",
        ),
        ({"info": {"shapes": ["imageData"]}, "images": []}, "coco"),
        ({"annotations": [], "images": [], "shapes": []}, "coco"),
        ({"imageData": "A" * 100_000, "shapes": []}, "labelme"),
        ({"flags": {"images": True}, "imagePath": '"images": [', "shapes": []}, "labelme"),
        ({"imageData": "shapes"}, "coco"),
    ],
)
def test_json_is_recognized_by_its_outermost_keys(tmp_path, content, format):
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert recognize(tmp_path / "a.json") == format


@pytest.mark.parametrize("text", ["", '{"shapes"', "[" * 100_000, '"shapes": 1'])
def test_truncated_json_is_recognized(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    assert recognize(tmp_path / "a.json") == "coco"
    (tmp_path / "a.json").write_text('{"version": "5", "shapes": [{"la')
    assert recognize(tmp_path / "a.json") == "labelme"


@pytest.mark.parametrize(
    "file", ["labels/train/a.txt", "data.yaml", "inst/a.mat", "VOC2012/Annotations/a.xml"]
)
def test_folders_are_recognized(tmp_path, file):
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text("")
    assert recognize(tmp_path) == {"i": "sbd", "V": "voc"}.get(file[0], "yolo")


def test_a_folder_may_hold_one_coco_file(tmp_path):
    (tmp_path / "boxes.json").write_text('{"images": [], "annotations": [], "categories": []}')
    assert recognize(tmp_path) == "coco" and len(read(tmp_path)) == 0
    (tmp_path / "more.json").write_text("{}")
    with pytest.raises(BoxelError, match="name one of its JSON files"):
        read(tmp_path)


def test_wrong_paths_and_formats_are_errors(tmp_path):
    with pytest.raises(BoxelError, match="no such file or folder"):
        read(tmp_path / "missing.json")
    with pytest.raises(BoxelError, match="no dataset of a known format"):
        read(tmp_path)
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "photos" / "a.jpg")
    for path in (tmp_path / "photos", tmp_path / "photos" / "a.jpg"):
        with pytest.raises(BoxelError, match=r"these are images, not a dataset; .* as `images`"):
            read(path)
    (tmp_path / "run").mkdir()
    for name in (
        "model.onnx",
        "run/model.safetensors",
        "run/config.yaml",
        "run/metrics.json",
        "run/run.json",
    ):
        (tmp_path / name).touch()
    for path in (tmp_path / "run", tmp_path / "model.onnx"):
        with pytest.raises(BoxelError, match="this is a model, not a dataset; `boxel predict` uses it"):
            read(path)
    with pytest.raises(BoxelError, match="Did you mean 'coco'"):
        read(tmp_path, format="cocoo")
    with pytest.raises(BoxelError, match="no such file or folder"):
        read("\0")
    with pytest.raises(BoxelError, match="name one of its JSON files"):
        read(tmp_path, format="coco")
    with pytest.raises(BoxelError, match="cannot be read"):
        read(tmp_path / "missing.json", format="coco")
    (tmp_path / "a.json").write_text('{"images": []}')
    data = read(tmp_path / "a.json")
    with pytest.raises(BoxelError, match="name the format to write with `format`"):
        write(data, tmp_path / "out")
    for format in ("voc", "yolo", "labelme", "sbd"):
        with pytest.raises(BoxelError, match="cannot be written"):
            write(data, tmp_path / "a.json", format)


@pytest.mark.parametrize("format", ["voc", "yolo", "labelme", "sbd"])
def test_a_dataset_is_not_written_into_another(tmp_path, format):
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 9, "height": 9}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 3, 3]}],
        "categories": [{"id": 1, "name": "c"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    Image.new("RGB", (9, 9)).save(tmp_path / "a.jpg")
    data = read(tmp_path / "a.json")
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.md").write_text("")  # a file without annotations is ignored
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SBD holds no boxes
        write(data, out, format)
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*")}
    with pytest.raises(
        BoxelError, match=r"out: there is a dataset in this format already; name a new folder"
    ):
        write(data, out, format)
    assert {file: file.stat().st_mtime_ns for file in out.rglob("*")} == before


@pytest.mark.parametrize("format", ["voc", "yolo", "labelme"])
def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch, format):
    content = {"images": [{"id": 1, "file_name": "a.jpg", "width": 9, "height": 9}]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    Image.new("RGB", (9, 9)).save(tmp_path / "a.jpg")
    data = read(tmp_path / "a.json")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("boxel.data.formats.layout.Export.write_ids", fail)
    with pytest.raises(BoxelError, match=r"cannot be written \(No space left on device\)"):
        write(data, tmp_path / "out", format)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.jpg", "a.json"]


def test_file_stems():
    paths = [
        "a/1.jpg",
        "b/1.jpg",
        "2.jpg",
        "../../etc/passwd",
        "/abs/3.png",
        "c\\4.jpg",
        "",
        "x/2.5.jpg",
        "..",
        "\0.jpg",
    ]
    assert file_stems(paths) == ["a_1", "b_1", "2", "passwd", "3", "4", "image", "2.5", "image_2", "_"]
    assert file_stems(["a/IMG.jpg", "b/img.jpg", "Big.png", "big.png"]) == ["a_IMG", "b_img", "Big", "big_2"]


@pytest.mark.slow
@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.lists(st.text(alphabet="ab1_./\\\0é", max_size=8), max_size=8))
def test_file_stems_are_safe(paths):
    stems = file_stems(paths)
    assert len(set(map(str.lower, stems))) == len(paths)
    for stem in stems:
        assert stem and "/" not in stem and "\\" not in stem and "\0" not in stem and stem not in (".", "..")


def test_writers_stay_in_their_folder(tmp_path):
    content = {
        "images": [
            {"id": 1, "file_name": "../../evil.jpg", "width": 9, "height": 9},
            {"id": 2, "file_name": "/x.jpg"},
        ],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 3, 3]}],
        "categories": [{"id": 1, "name": "../c"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    data = read(tmp_path / "a.json")
    for format in ("voc", "yolo", "labelme"):
        with pytest.warns(UserWarning, match="images are missing"):
            write(data, tmp_path / "deep/er" / format, format)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "deep"]
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["er"]


def test_images_only_are_linked(tmp_path):
    (tmp_path / "secret.txt").write_text("s")
    content = {"images": [{"id": 1, "file_name": "secret.txt", "width": 9, "height": 9}]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.warns(UserWarning, match="1 of 1 images are missing"):
        write(read(tmp_path / "a.json"), tmp_path / "out", "yolo")
    assert list((tmp_path / "out/images").iterdir()) == []


def test_public_names():
    assert boxel.data.read is read and boxel.data.write is write


def test_the_documentation_of_recognize_lists_every_format():
    listed = set(re.findall(r"``([a-z-]+)``", recognize.__doc__.split("Returns:")[1].split("Raises:")[0]))
    assert listed == formats._FORMATS.keys() - {"yolo-obb"}  # read as yolo


@pytest.mark.parametrize("name", ["out.json", "out.parquet"])
def test_names_that_lead_out_of_the_folder_are_kept_and_reported(tmp_path, name):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    root = tmp_path / "in" / "images"
    root.mkdir(parents=True)
    names = [
        "inside.png",
        "../beside.png",
        str(tmp_path / "away.png"),
        str(root / "absolute.png"),
        "a..b.png",
    ]
    for file in names:
        Image.new("RGB", (20, 20)).save(root / file)
    rows = [{"id": k, "file_name": n, "width": 20, "height": 20} for k, n in enumerate(names, start=1)]
    source = tmp_path / "in" / "boxes.json"
    source.write_text(json.dumps({"images": rows, "annotations": [], "categories": []}))
    with pytest.warns(boxel.data.ConversionWarning) as found:
        boxel.data.convert(source, tmp_path / name, images=root)
    (sentence,) = [str(warning.message) for warning in found]
    assert sentence == (
        f"2 of 5 files are named outside of {root}, e.g. {tmp_path / 'in/beside.png'}, where other machines do not "
        "find them; give a folder that holds them all as `images`."
    )
    again = read(tmp_path / name)
    assert again.paths == names and all(again.image_path(k).is_file() for k in range(5))


@pytest.mark.parametrize(
    "format", ["coco", "parquet", "cvat", "label-studio", "labelme", "voc", "yolo", "darknet"]
)
def test_a_folder_of_files_with_suffixes_in_capitals_is_read(tmp_path, format):
    data, folder = example_scenes(2), tmp_path / "set"
    single = {"coco": "a.json", "parquet": "a.parquet"}
    with warnings.catch_warnings(action="ignore"):
        write(data, folder / single.get(format, ""), format)
    expected = read(folder, data.root)
    for file in [file for file in folder.rglob("*.*") if file.is_file() and file.name != "boxel-ids.json"]:
        if file.name != "train.txt":  # it is named in Darknet's obj.data
            file.rename(file.with_suffix(file.suffix.upper()))
    found = read(folder, data.root)
    assert recognize(folder) == format and found.issues == []
    assert found.boxes.tolist() == expected.boxes.tolist() and found.categories == expected.categories
    assert len(found.labels) == len(data.labels)


@pytest.mark.parametrize(
    "format", ["yolo", "sbd", "voc", "labelme", "darknet", "salient", "fiftyone", "cvat"]
)
def test_unusual_names_of_images_keep_to_their_objects(tmp_path, format):
    names = ["classes.png", "2.png", "2.jpg.png", "UPPER.png", "upper.png", "c#1.png", "d%20e.png", "d e.png"]
    rows = Builder()
    for k, name in enumerate(names):
        file = tmp_path / "in" / name
        file.parent.mkdir(exist_ok=True)
        Image.new("RGB", (96, 64), (10 * k, 0, 0)).save(file)
        rows.add_image(k, name, 96, 64)
        ring = [8 * k, 8, 8 * k + 16, 8, 8 * k + 16, 24, 8 * k, 24]
        rows.add(k, k, 0, (8 * k, 8, 8 * k + 16, 24), json.dumps([ring]).encode())
    with warnings.catch_warnings(action="ignore"):
        write(rows.build(tmp_path / "in", [Category(1, "cat")], tmp_path), tmp_path / "out", format)
    (tmp_path / "out/boxel-ids.json").unlink(missing_ok=True)
    found = read(tmp_path / "out")
    colors = [read_image(found.image_path(image))[0, 0, 0] for image in found.image_index]
    assert found.issues == [] and sorted(colors) == list(range(0, 80, 10))
    assert found.boxes[:, 0] == pytest.approx(np.array(colors) * 0.8, abs=0.01)


def test_the_file_of_ids_alone_is_not_a_dataset(tmp_path):
    with warnings.catch_warnings(action="ignore"):
        write(example_scenes(1), tmp_path / "voc", "voc")
    shutil.rmtree(tmp_path / "voc/Annotations")
    shutil.rmtree(tmp_path / "voc/JPEGImages")
    for folder in (tmp_path / "voc").glob("Segmentation*"):
        shutil.rmtree(folder)
    with pytest.raises(BoxelError, match="no dataset of a known format"):
        recognize(tmp_path / "voc")


@pytest.mark.parametrize("name", ["a", "b.jpg_large", "c.pnm"])
def test_images_of_other_suffixes_are_put_beside_their_annotations(tmp_path, name):
    Image.new("RGB", (20, 10), (9, 8, 7)).save(tmp_path / name, "PPM")
    content = {"images": [{"id": 1, "file_name": name, "width": 20, "height": 10}], "annotations": []}
    (tmp_path / "a.json").write_text(json.dumps(content | {"categories": [{"id": 1, "name": "cat"}]}))
    with warnings.catch_warnings(action="error"):
        write(read(tmp_path / "a.json"), tmp_path / "out", "voc")
    data = read(tmp_path / "out")
    assert data.paths == [f"JPEGImages/{file_stems([name])[0]}.jpg"]
    assert read_image(data.image_path(0))[0, 0].tolist() == [9, 8, 7]


@pytest.mark.parametrize("format", ["yolo", "semantic", "salient", "voc", "labelme", "darknet"])
def test_hidden_folders_are_passed_over_and_linked_ones_are_searched(tmp_path, format):
    with warnings.catch_warnings(action="ignore"):
        write(example_scenes(2), tmp_path / "made", format)
    (tmp_path / "made/boxel-ids.json").unlink(missing_ok=True)
    expected, folder = read(tmp_path / "made"), tmp_path / "set"
    shutil.copytree(tmp_path / "made", folder)
    for own in [folder, *filter(Path.is_dir, folder.glob("*"))]:
        shutil.copytree(own, tmp_path / "copy", ignore=shutil.ignore_patterns(".*"))
        shutil.move(tmp_path / "copy", own / ".ipynb_checkpoints")
        (own / "round").symlink_to(tmp_path)  # ends where it began
    found = read(folder)
    assert len(found) == 2 and found.boxes.tolist() == expected.boxes.tolist() and found.issues == []


def test_folders_of_splits_may_be_links(tmp_path):
    data = replace(example_scenes(2), splits=["train", "val"])
    write(data, tmp_path / "made", "yolo")
    for half, split in itertools.product(("images", "labels"), ("train", "val")):
        (tmp_path / "set" / half).mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / half / split).symlink_to(tmp_path / "made" / half / split)
    shutil.copy(tmp_path / "made/data.yaml", tmp_path / "set")
    found = read(tmp_path / "set")
    assert found.splits == ["train", "val"] and len(found.labels) == len(data.labels)
    assert all(found.image_path(image).is_file() for image in range(2))
