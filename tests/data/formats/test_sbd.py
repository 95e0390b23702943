"""Reading and writing SBD, and the lists made from it."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import loadmat, savemat

import boxel.data
from boxel.data.formats import sbd
from boxel.data.formats.voc import read_image_set


def save(folder, stem, segmentation, categories):
    (folder / "inst").mkdir(parents=True, exist_ok=True)
    struct = {"Segmentation": segmentation, "Categories": np.array(categories, dtype=float).reshape(-1, 1)}
    savemat(folder / f"inst/{stem}.mat", {"GTinst": struct})


@pytest.fixture
def folder(tmp_path):
    segmentation = np.zeros((10, 20), dtype=np.uint8)
    segmentation[1:4, 2:7] = 1
    segmentation[5:9, 10:20] = 2
    save(tmp_path / "dataset", "2008_000002", segmentation, [20, 12])
    save(tmp_path / "dataset", "2008_000003", np.zeros((10, 20), dtype=np.uint8), [])
    (tmp_path / "dataset/val.txt").write_text("2008_000003\n")
    return tmp_path


def test_a_dataset_is_read(folder):
    data = boxel.data.read(folder)
    assert data.image_ids == ["2008_000002", "2008_000003"] and data.issues == []
    assert data.image_path(0) == folder / "dataset/img/2008_000002.jpg"
    assert data.widths.tolist() == [20, 20] and data.heights.tolist() == [10, 10]
    assert data.boxes.tolist() == [[2, 1, 7, 4], [10, 5, 20, 9]] and data.has_mask.all()
    assert [data.categories[label].name for label in data.labels] == ["tvmonitor", "dog"]
    assert data.mask(0).sum() == 15 and data.mask(1)[5:9, 10:20].all()
    assert boxel.data.read(folder / "dataset/val.txt").image_ids == ["2008_000003"]
    assert boxel.data.read(folder, images=folder / "x").image_path(0) == folder / "x/2008_000002.jpg"


def test_lists_are_splits_which_survive(folder, tmp_path):
    (folder / "dataset/train.txt").write_text("\ufeff2008_000002\n")
    (folder / "dataset/inst/._2008_000002.mat").write_bytes(b"\0\5\x16\7")
    (folder / "dataset/inst/2008_000003.mat").rename(folder / "dataset/inst/2008_000003.MAT")
    data = boxel.data.read(folder)
    assert data.splits == ["train", "val"] and data.issues == []
    sbd.write(data, tmp_path / "out")
    (tmp_path / "out/boxel-ids.json").unlink()
    assert boxel.data.read(tmp_path / "out").splits == ["train", "val"]


def test_round_trip(folder, tmp_path):
    data = boxel.data.read(folder)
    losses = sbd.write(data, tmp_path / "out")
    assert len(losses) == 1 and losses[0].startswith("2 of 2 images are missing")
    again = boxel.data.read(tmp_path / "out")
    assert again.ids == data.ids and again.image_ids == data.image_ids and again.categories == data.categories
    assert again.boxes.tolist() == data.boxes.tolist()
    assert again.segmentations.tolist() == data.segmentations.tolist()
    classes = loadmat(tmp_path / "out/cls/2008_000002.mat")["GTcls"][0, 0]
    assert sorted(np.unique(classes["Segmentation"]).tolist()) == [0, 12, 20]
    assert classes["Categories"].ravel().tolist() == [12, 20] and classes["Boundaries"].shape == (20, 1)
    boundary = loadmat(tmp_path / "out/inst/2008_000002.mat")["GTinst"][0, 0]["Boundaries"][0, 0].toarray()
    assert boundary.sum() == 12  # the rim of 3 x 5 pixels
    assert read_image_set(tmp_path / "out/all.txt") == data.image_ids


def test_an_image_of_impossible_size_is_left_out(folder, tmp_path):
    data = boxel.data.read(folder)
    data.widths[0] = data.heights[0] = 2_000_000_000
    assert "SBD holds masks only: 2 of 2 instances are left out." in sbd.write(data, tmp_path / "out")
    assert boxel.data.read(tmp_path / "out").image_ids == ["2008_000003"]


@pytest.mark.parametrize(
    "segmentation, categories",
    [
        (np.full((2, 2), 3), [1]),
        (np.zeros((2, 2, 2)), [1]),
        (np.zeros((2, 2)), [0]),
        (np.zeros((2, 2)), [1e300]),
        (np.array([["a"]]), [1]),
        (np.zeros((0, 0)), []),
    ],
)
def test_an_invalid_file_costs_only_itself(folder, segmentation, categories):
    save(folder / "dataset", "bad", segmentation, categories)
    data = boxel.data.read(folder)
    assert len(data) == 2 and [issue.kind for issue in data.issues] == ["bad-file"]


@settings(derandomize=True, max_examples=80, deadline=None)
@given(st.integers(0, 600), st.binary(max_size=6))
def test_fuzzed_files_cost_only_themselves(fuzzed, at, junk):
    segmentation = np.zeros((4, 4), dtype=np.uint8)
    segmentation[1:3, 1:3] = 1
    save(fuzzed, "one", segmentation, [3])
    whole = (fuzzed / "inst/one.mat").read_bytes()
    for content in (whole[:at], whole[:at] + junk + whole[at + len(junk) :]):
        (fuzzed / "inst/one.mat").write_bytes(content)
        data = sbd.read(fuzzed)
        assert len(data) + len(data.issues) == 1
        assert "\n" not in "".join(issue.message for issue in data.issues)


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def test_the_documented_lists_of_voc_and_sbd(tmp_path, monkeypatch):
    text = (Path(__file__).parents[3] / "docs/how-to/convert.md").read_text(encoding="utf-8")
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "trainaug" in block]
    lists = {
        "VOC2012/ImageSets/Segmentation/train": "a b",
        "VOC2012/ImageSets/Segmentation/val": "v w",
        "VOC2012/ImageSets/Main/train": "a b x",
        "VOC2012/ImageSets/Main/val": "v w y d",
        "benchmark_RELEASE/dataset/train": "b x v",
        "benchmark_RELEASE/dataset/val": "d w",
    }
    for name, stems in lists.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{name}.txt").write_text("".join(f"{stem}\n" for stem in stems.split()))
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert read_image_set(tmp_path / "VOC2012/ImageSets/Segmentation/trainaug.txt") == ["a", "b", "d", "x"]
    assert read_image_set(tmp_path / "benchmark_RELEASE/dataset/instances_train.txt") == ["b", "x"]
    assert read_image_set(tmp_path / "benchmark_RELEASE/dataset/instances_val.txt") == ["d", "v", "w"]
