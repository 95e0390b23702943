"""Reading and writing YOLO."""

import shutil

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import boxel.data
from boxel.data.formats import yolo
from boxel.utils.errors import BoxelError


def make(folder, lines, names=("cat", "dog"), layout="images/{}.png labels/{}.txt", config=None):
    """A dataset of two images of 100 x 50, the second without objects."""
    image, label = layout.split()
    for stem, text in (("one", lines), ("two", None)):
        file = folder / image.format(stem)
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (100, 50)).save(file)
        if text is not None:
            file = folder / label.format(stem)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
    if names is not None:
        content = {
            "train": "images",
            "val": "images",
            "names": names if isinstance(names, dict) else list(names),
        }
        (folder / "data.yaml").write_text(yaml.safe_dump({**content, **(config or {})}, sort_keys=False))
    return folder


def test_boxes_and_polygons(tmp_path):
    make(tmp_path, "1 0.5 0.5 0.2 0.4\n0 0.1 0.2 0.3 0.2 0.3 0.8\n\n")
    for path in (tmp_path, tmp_path / "data.yaml", tmp_path / "images"):
        data = boxel.data.read(path)
        assert data.image_ids == ["one", "two"] and len(data.instances_in(1)) == 0
        assert data.widths.tolist() == [100, 100] and data.heights.tolist() == [50, 50]
        assert data.boxes.tolist() == [[40, 15, 60, 35], [10, 10, 30, 40]]
        assert data.has_mask.tolist() == [False, True] and data.labels.tolist() == [1, 0]
        assert data.segmentation(1) == [[10, 10, 30, 10, 30, 40]]
        assert [(c.id, c.name) for c in data.categories] == [(0, "cat"), (1, "dog")]
        assert data.ids == ["one:1", "one:2"] and data.issues == []
        assert data.image_path(0).is_file()


@pytest.mark.parametrize(
    "layout",
    ["Images/{}.png Labels/{}.txt", "images/{}.png LABELS/{}.txt", "a/Images/{}.png a/Labels/{}.txt"],
)
def test_folders_are_found_in_capitals(tmp_path, layout):
    folder = make(tmp_path / "images/set", "0 0.5 0.5 0.2 0.4\n", names=None, layout=layout)
    split = folder / layout.partition("/{}")[0]
    for path in (folder, split):
        data = boxel.data.read(path)
        assert data.image_ids == ["one", "two"] and data.boxes.tolist() == [[40, 15, 60, 35]]
        assert data.image_path(0).is_file()
        assert [issue.kind for issue in data.issues] == ["no-class-names"]
    boxel.data.write(data, tmp_path / "images/again", "yolo")
    assert boxel.data.read(tmp_path / "images/again").ids == data.ids


@pytest.mark.parametrize("layout", ["images/{}.png labels/{}.TXT", "{}.png {}.Txt"])
def test_label_files_may_have_a_suffix_in_capitals(tmp_path, layout):
    make(tmp_path, "0 0.5 0.5 0.2 0.4\n", names=None, layout=layout)
    assert boxel.data.read(tmp_path).boxes.tolist() == [[40, 15, 60, 35]]


def test_a_rectangular_polygon_is_a_box(tmp_path):
    make(tmp_path, "0 0.1 0.2 0.3 0.2 0.3 0.8 0.1 0.8\n0 0.3 0.2 0.3 0.8 0.1 0.8 0.1 0.2\n")
    data = boxel.data.read(tmp_path)
    assert data.boxes.tolist() == [[10, 10, 30, 40]] * 2 and data.has_mask.tolist() == [False, True]


def test_class_numbers_are_kept(tmp_path):
    make(tmp_path, "5 0.5 0.5 0.2 0.4\n1 0.5 0.5 0.2 0.4\n", names={2: "two", 5: "five"})
    data = boxel.data.read(tmp_path)
    assert [(c.id, c.name) for c in data.categories] == [
        (2, "two"),
        (5, "five"),
    ] and data.labels.tolist() == [1]
    assert [issue.kind for issue in data.issues] == ["unknown-category"]


def test_classes_without_names_are_numbered(tmp_path):
    make(tmp_path, "7 0.5 0.5 0.2 0.4\n3.0 0.5 0.5 0.2 0.4\n", names=None)
    assert [(c.id, c.name) for c in boxel.data.read(tmp_path).categories] == [(3, "3"), (7, "7")]
    (tmp_path / "labels/classes.txt").write_text("a\nb\nc\nd\ne\nf\ng\nh\n")
    data = boxel.data.read(tmp_path)
    assert [data.categories[label].name for label in data.labels] == ["h", "d"] and len(data) == 2


@pytest.mark.parametrize(
    "layout",
    [
        "images/train/{}.png labels/train/{}.txt",
        "train/images/{}.png train/labels/{}.txt",
        "{}.png {}.txt",
        "images/a/images/{}.png images/a/labels/{}.txt",
    ],
)
def test_all_layouts_are_read(tmp_path, layout):
    folder = layout.split()[0].rsplit("/", 1)[0]
    make(tmp_path, "1 0.5 0.5 0.2 0.4\n", layout=layout, config={"train": [folder], "val": None})
    data = boxel.data.read(tmp_path / "data.yaml" if layout[0] != "{" else tmp_path)
    assert data.image_ids == ["one", "two"] and data.boxes.tolist() == [[40, 15, 60, 35]]


def test_images_may_be_in_another_folder(tmp_path):
    make(tmp_path / "set", "1 0.5 0.5 0.2 0.4\n")
    (tmp_path / "set/images").rename(tmp_path / "photos")
    data = boxel.data.read(tmp_path / "set", images=tmp_path / "photos")
    assert data.boxes.tolist() == [[40, 15, 60, 35]] and data.image_path(0) == tmp_path / "photos/one.png"
    # Without the image the size of the box is unknown.
    data = boxel.data.read(tmp_path / "set")
    assert len(data.labels) == 0 and [issue.kind for issue in data.issues] == ["unknown-image"]


@pytest.mark.parametrize(
    "line",
    [
        "x 0.5 0.5 0.2 0.4",
        "0.5 0.5 0.5 0.2 0.4",
        "-1 0.5 0.5 0.2 0.4",
        "0 0.5",
        "0 a b c d",
        "nan 1 1 1 1",
        "1e300 1 1 1 1",
    ],
)
def test_an_invalid_line_costs_only_itself(tmp_path, line):
    make(tmp_path, f"{line}\n1 0.5 0.5 0.2 0.4\n")
    data = boxel.data.read(tmp_path)
    assert data.boxes.tolist() == [[40, 15, 60, 35]]
    assert [(issue.kind, issue.values) for issue in data.issues] == [("bad-annotation", {"line": 1})]


def splits(folder, config):
    """Three images: `a` and `b` to train on, `c` to validate on; each has a box of its own size."""
    for number, (split, stem) in enumerate((("train", "a"), ("train", "b"), ("val", "c")), start=1):
        (folder / f"images/{split}").mkdir(parents=True, exist_ok=True)
        (folder / f"labels/{split}").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (100, 50)).save(folder / f"images/{split}/{stem}.png")
        (folder / f"labels/{split}/{stem}.txt").write_text(f"0 0.5 0.5 0.{number} 0.4\n")
    (folder / "data.yaml").write_text(yaml.safe_dump({"names": ["cat"], **config}))
    return folder / "data.yaml"


@pytest.mark.parametrize(
    "config",
    [
        {"train": "images/train", "val": "images/val"},
        {"path": ".", "train": ["images/train"], "val": ["images/val"], "test": None},
        {"path": "elsewhere", "train": "../images/train", "val": "images/val/"},
        {"train": "train.txt", "val": ["val.txt"]},
    ],
)
def test_a_split_is_selected(tmp_path, config):
    file = splits(tmp_path, config)
    (tmp_path / "train.txt").write_text(f"./images/train/a.png\n\n{tmp_path / 'images/train/b.png'}\n")
    (tmp_path / "val.txt").write_text("images/val/c.png\r\n")
    for path in (file, tmp_path):
        for split, stems in {"train": ["a", "b"], "val": ["c"], None: ["a", "b", "c"]}.items():
            data = boxel.data.read(path, split=split)
            assert data.image_ids == stems and data.issues == [] and len(data.labels) == len(stems)
            assert all(data.image_path(i).is_file() for i in range(len(data)))
    assert boxel.data.read(file, split="val").boxes.tolist() == [[35, 15, 65, 35]]
    # A folder within the set is a choice already.
    assert boxel.data.read(tmp_path / "images/train", split="val").image_ids == ["a", "b"]


def test_a_list_selects_images(tmp_path):
    file = splits(tmp_path, {"train": "train.txt", "val": ["images/val", "images/val/../train"]})
    (tmp_path / "train.txt").write_text("images/train/b.png\nimages/train/absent.png\n")
    data = boxel.data.read(file, split="train")
    assert data.image_ids == ["b", "absent"] and len(data.labels) == 1
    # All splits: what two of them list is read once.
    assert sorted(boxel.data.read(file).image_ids) == ["a", "absent", "b", "c"]


def test_splits_of_images_in_another_folder(tmp_path):
    for config in (
        {"train": "images/train", "val": "images/val"},
        {"train": "train.txt", "val": "images/val"},
    ):
        file = splits(tmp_path / "set", config)
        (tmp_path / "set/train.txt").write_text("images/train/a.png\nimages/train/b.png\n")
        (tmp_path / "set/images").rename(tmp_path / "photos")
        for path in (file, tmp_path / "set"):
            data = boxel.data.read(path, images=tmp_path / "photos", split="train")
            assert data.image_ids == ["a", "b"] and len(data.labels) == 2 and data.root == tmp_path / "photos"
        shutil.rmtree(tmp_path / "photos")


def test_a_missing_split_is_an_error(tmp_path):
    file = splits(tmp_path, {"train": "images/train", "val": "images/absent"})
    with pytest.raises(BoxelError, match=r"data.yaml: it lists no `test`; [^\n]*\.$"):
        boxel.data.read(file, split="test")
    with pytest.raises(BoxelError, match=r"data.yaml: its `val`, images/absent, does not exist; [^\n]*\.$"):
        boxel.data.read(file, split="val")
    (issue,) = boxel.data.read(file).issues
    assert issue.kind == "bad-file" and "its `val`, images/absent, does not exist" in issue.message
    # Nothing is listed: the names of the folders tell.
    (tmp_path / "data.yaml").write_text("names: [cat]")
    assert len(boxel.data.read(file, split="train")) == 2


@pytest.mark.parametrize("entry", ["\0", "x" * 5000, 3, {"a": 1}, [[]], ["\0", None], ""])
def test_malicious_entries_cost_only_themselves(tmp_path, entry):
    file = splits(tmp_path, {"train": entry, "val": "list.txt", "path": "y" * 300})
    (tmp_path / "list.txt").write_bytes(b"\0\n" + b"x" * 5000 + b"\n/\n..\n\xff\n")
    data = boxel.data.read(file)
    assert len(data) == 5 and len(data.labels) == 0


def test_boxes_of_pose_labels_are_read(tmp_path):
    points = " ".join(["0.1 0.2 2"] * 3)
    make(
        tmp_path, f"1 0.5 0.5 0.2 0.4 {points}\n0 0.1 0.2 0.1 0.2\n0 0.5 0.5\n", config={"kpt_shape": [3, 3]}
    )
    data = boxel.data.read(tmp_path)
    np.testing.assert_allclose(data.boxes, [[40, 15, 60, 35], [5, 5, 15, 15]])
    assert not data.has_mask.any() and [issue.values for issue in data.issues] == [{"line": 3}]


def test_confidences_are_ignored(tmp_path):
    make(tmp_path, "1 0.5 0.5 0.2 0.4 0.9\n0 0.1 0.2 0.3 0.2 0.3 0.8 0.9\n")
    data = boxel.data.read(tmp_path)
    assert data.boxes.tolist() == [[40, 15, 60, 35], [10, 10, 30, 40]] and data.issues == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "config", ["", "[", "names: 3", "names: [[a]]", "names: {a: b}", "[" * 3000, "- 1", "\0", "!!x y"]
)
def test_invalid_yaml_is_an_error(tmp_path, config):
    make(tmp_path, "0 0.5 0.5 0.2 0.4\n")
    (tmp_path / "data.yaml").write_text(config)
    with pytest.raises(BoxelError, match=r"data.yaml: [^\n]*\.$"):
        boxel.data.read(tmp_path)


def test_yaml_executes_nothing(tmp_path):
    make(tmp_path, "0 0.5 0.5 0.2 0.4\n")
    (tmp_path / "data.yaml").write_text(f"names: !!python/object/apply:os.mkdir ['{tmp_path / 'made'}']")
    with pytest.raises(BoxelError):
        boxel.data.read(tmp_path)
    assert not (tmp_path / "made").exists()


def test_round_trip(tmp_path):
    make(tmp_path / "a", "1 0.5 0.5 0.2 0.4\n0 0.1 0.2 0.3 0.2 0.3 0.8\n", names={2: "x", 1: "dog", 0: "cat"})
    data = boxel.data.read(tmp_path / "a")
    (sentence,) = yolo.write(data, tmp_path / "b")
    assert sentence.startswith(
        "YOLO: 1 of 2 objects are left out (1 without a mask): a box would be taken for a mask"
    )
    assert (tmp_path / "b/labels/one.txt").read_text() == "2 0.1 0.2 0.3 0.2 0.3 0.8\n"
    data = data.select_instances([1])
    again = boxel.data.read(tmp_path / "b")
    assert again.boxes.tolist() == data.boxes.tolist() and again.ids == data.ids
    assert again.segmentations.tolist() == data.segmentations.tolist()
    assert again.image_ids == data.image_ids and again.categories == data.categories
    assert (tmp_path / "b/labels/two.txt").read_text() == ""
    config = yaml.safe_load((tmp_path / "b/data.yaml").read_text())
    assert config == {"train": "images", "task": "segment", "names": {0: "x", 1: "dog", 2: "cat"}}
    # A hard link: the image is there without taking more space.
    assert (tmp_path / "b/images/one.png").samefile(tmp_path / "a/images/one.png")
    boxes = boxel.data.read(tmp_path / "a").without_masks()
    assert yolo.write(boxes, tmp_path / "c") == []
    assert (tmp_path / "c/labels/one.txt").read_text().splitlines()[0] == "1 0.5 0.5 0.2 0.4"


@pytest.mark.slow
@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 4900)] * 4), min_size=1, max_size=5))
def test_boxes_come_back_to_the_hundredth_pixel(fuzzed, corners):
    boxes = [sorted(pair) for x0, y0, x1, y1 in corners for pair in ((x0, x1 + 4901), (y0, min(y1, y0) + 50))]
    rows = np.array(boxes, dtype=float).reshape(-1, 2, 2).transpose(0, 2, 1).reshape(-1, 4) / 100
    rows = rows.clip(0, [100, 50, 100, 50])
    make(fuzzed / "a", "0 0.5 0.5 0.5 0.5\n" * len(rows))
    data = boxel.data.read(fuzzed / "a")
    data.boxes[:] = rows
    yolo.write(data, fuzzed / "b")
    keep = (rows[:, 2:] > rows[:, :2]).all(axis=1)
    assert boxel.data.read(fuzzed / "b").boxes.tolist() == rows[keep].tolist()


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


numbers = st.sampled_from(["0", "1", "0.5", "-3", "nan", "inf", "1e999", "9" * 400, "x", "\0", "é"])


@pytest.mark.slow
@settings(derandomize=True, max_examples=150, deadline=None)
@given(st.lists(st.lists(numbers, max_size=11).map(" ".join), max_size=3))
def test_fuzzed_files_cost_only_themselves(fuzzed, lines):
    make(fuzzed / "c", "\n".join(lines))
    data = boxel.data.read(fuzzed / "c")
    assert len(data) == 2 and len(data.boxes) == len(data.labels) == len(data.ids)
    assert len(data.labels) + len(data.issues) <= len(lines)
    yolo.write(data, fuzzed / "d")
    boxel.data.read(fuzzed / "d")


def test_real_images_survive_a_round_trip(shared_data, tmp_path):
    data = boxel.data.read(shared_data / "coco/val_boxes.json")
    assert yolo.write(data.select_instances(~data.iscrowd), tmp_path) == []
    again = boxel.data.read(tmp_path)
    order = np.concatenate(
        [data.instances_in(i)[~data.iscrowd[data.instances_in(i)]] for i in range(len(data))]
    )
    np.testing.assert_allclose(again.boxes, data.boxes[order], rtol=0, atol=0.011)
    assert again.image_ids == data.image_ids and again.categories == data.categories
    assert again.ids == [data.ids[i] for i in order]


def test_a_dataset_without_classes_is_read_as_it_was_written(tmp_path):
    data = boxel.data.example_scenes(2).select_instances([]).select_categories([])
    boxel.data.write(data, tmp_path / "yolo", "yolo")
    again = boxel.data.read(tmp_path / "yolo")
    assert (len(again), again.categories, again.issues) == (2, (), [])
