"""What the rows of a YOLO dataset are: boxes, polygons, oriented boxes, poses, with scores and track ids."""

import json
import logging

import numpy as np
import pytest
import yaml
from PIL import Image

import boxel.data
from boxel.data import ConversionWarning
from boxel.data.formats.yolo_rows import Meaning, Row, judge_rows

OBB = "0 0.3 0.2 0.5 0.4 0.3 0.6 0.1 0.4\n0 0.7 0.2 0.9 0.4 0.8 0.5 0.6 0.3\n"


def make(folder, text, config=None, size=(100, 100)):
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    Image.new("RGB", size).save(folder / "images/a.png")
    (folder / "labels/a.txt").write_text(text)
    (folder / "data.yaml").write_text(
        yaml.safe_dump({"train": "images", "names": ["cat", "dog"], **(config or {})})
    )
    return folder


def extras(data):
    return [json.loads(text or b"{}") for text in data.extras]


def rows(*numbers):
    return [Row(0, None, k, 0, list(map(float, row))) for k, row in enumerate(numbers)]


def test_turned_rectangles_are_oriented_boxes(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        data = boxel.data.read(make(tmp_path, OBB))
    assert "all its polygons are turned rectangles: oriented boxes, which are not masks" in caplog.text
    assert not data.has_segmentation.any()
    assert data.boxes.tolist() == [[10, 20, 50, 60], [60, 20, 90, 50]]
    assert extras(data)[0] == {"corners": [[30, 20], [50, 40], [30, 60], [10, 40]]}


@pytest.mark.parametrize(
    "text",
    [
        OBB + "1 0.1 0.1 0.3 0.1 0.2 0.4\n",  # a triangle
        OBB + "1 0.1 0.1 0.9 0.15 0.2 0.4 0.11 0.5\n",  # a kite
        OBB.splitlines()[0],  # one alone shows nothing
    ],
)
def test_other_polygons_are_masks(tmp_path, text):
    data = boxel.data.read(make(tmp_path, text))
    assert data.has_segmentation.all()


def test_a_stated_task_decides(tmp_path):
    assert boxel.data.read(make(tmp_path / "a", OBB, {"task": "segment"})).has_segmentation.all()
    one = OBB.splitlines()[0]
    assert not boxel.data.read(make(tmp_path / "b", one, {"task": "obb"})).has_segmentation.any()


def test_oriented_boxes_are_written_as_they_were(tmp_path):
    data = boxel.data.read(make(tmp_path / "in", OBB + "1 0.1 0.1 0.3 0.1 0.3 0.2 0.1 0.2\n"))
    boxel.data.write(data, tmp_path / "out", "yolo-obb")
    assert (tmp_path / "out/labels/a.txt").read_text() == (tmp_path / "in/labels/a.txt").read_text()
    assert yaml.safe_load((tmp_path / "out/data.yaml").read_text())["task"] == "obb"
    again = boxel.data.read(tmp_path / "out")
    assert again.boxes.tolist() == data.boxes.tolist() and extras(again) == extras(data)
    with pytest.warns(ConversionWarning, match=r"YOLO has no place for corners \(2 objects\)"):
        boxel.data.write(data, tmp_path / "plain", "yolo")
    assert all(len(line.split()) == 5 for line in (tmp_path / "plain/labels/a.txt").read_text().splitlines())


def test_masks_become_the_smallest_turned_rectangles(tmp_path):
    data = boxel.data.read(make(tmp_path / "in", "0 0.3 0.2 0.5 0.4 0.4 0.5 0.3 0.6 0.1 0.4\n"))
    with pytest.warns(
        ConversionWarning, match="YOLO-OBB holds no masks: 1 become the smallest turned rectangles"
    ):
        boxel.data.write(data, tmp_path / "out", "yolo-obb")
    corners = boxel.data.read(tmp_path / "out").boxes
    np.testing.assert_allclose(corners, [[10, 20, 50, 60]], atol=1e-3)


@pytest.mark.parametrize(
    ("text", "keypoints"),
    [
        ("0 0.5 0.5 0.4 0.2 0.4 0.45 1\n", [40, 45, 1]),
        ("0 0.5 0.5 0.4 0.2 0.4 0.45 2 0 0 0\n", [40, 45, 2, 0, 0, 0]),
        ("0 0.5 0.5 0.4 0.2 0.35 0.45 0.65 0.55 0 0\n", [35, 45, 2, 65, 55, 2, 0, 0, 0]),
        ("0 0.5 0.8 0.4 0.2 0.4 0.75\n", [40, 75, 2]),
        ("0 0.5 0.5 0.4 0.2 0.35 0.45 0.9 0.65 0.55 0.8\n", [35, 45, 0.9, 65, 55, 0.8]),
        ("0 0.5 0.5 0.4 0.2 0.35 0.45 0.65 0.55 0.32 0.5 0.93\n", [35, 45, 2, 65, 55, 2, 32, 50, 2]),
    ],
)
def test_poses_without_a_stated_shape_are_boxes_with_keypoints(tmp_path, text, keypoints):
    data = boxel.data.read(make(tmp_path, text))
    x, y = (float(v) for v in text.split()[1:3])
    np.testing.assert_allclose(data.boxes, [[100 * x - 20, 100 * y - 10, 100 * x + 20, 100 * y + 10]])
    assert not data.has_segmentation.any() and extras(data) == [{"keypoints": keypoints}]


@pytest.mark.parametrize("width", [6, 8, 10])
def test_polygons_of_one_length_are_not_poses(width):
    rng = np.random.default_rng(0)
    for radius in (0.02, 0.1, 0.3):
        angles = np.linspace(0, 2 * np.pi, width // 2, endpoint=False)
        ring = np.stack([np.cos(angles), np.sin(angles)], axis=1) * radius
        polygons = [(ring + rng.uniform(0.35, 0.65, 2)).clip(0, 1).ravel() for _ in range(20)]
        assert judge_rows(rows(*polygons), None) == Meaning()


def test_keypoints_are_written_back(tmp_path):
    text = "0 0.5 0.5 0.4 0.2 0.35 0.45 2 0.65 0.55 1\n1 0.5 0.5 0.2 0.2 0.45 0.45 2 0 0 0\n"
    data = boxel.data.read(make(tmp_path / "in", text, {"kpt_shape": [2, 3], "flip_idx": [1, 0]}))
    assert extras(data)[0]["keypoints"] == [35, 45, 2, 65, 55, 1]
    boxel.data.write(data, tmp_path / "out", "yolo")
    assert (tmp_path / "out/labels/a.txt").read_text() == text
    config = yaml.safe_load((tmp_path / "out/data.yaml").read_text())
    assert (config["kpt_shape"], config["flip_idx"], config["task"]) == ([2, 3], [1, 0], "pose")
    assert extras(boxel.data.read(tmp_path / "out")) == extras(data)


def test_scores_and_track_ids_are_told_apart(tmp_path):
    box = "0.5 0.5 0.2 0.2"
    for name, text, expected in (
        ("score", f"0 {box} 0.9\n0 {box} 1\n", [{"score": 0.9}, {"score": 1}]),
        ("track", f"0 {box} 7\n0 {box} 1\n", [{"track_id": 7}, {"track_id": 1}]),
        (
            "both",
            f"0 {box} 0.9 7\n0 {box} 0.8 1\n",
            [{"track_id": 7, "score": 0.9}, {"track_id": 1, "score": 0.8}],
        ),
    ):
        data = boxel.data.read(make(tmp_path / name, text))
        assert data.boxes.tolist() == [[40, 40, 60, 60]] * 2 and extras(data) == expected


def test_tracked_polygons(tmp_path):
    ring = "0.1 0.1 0.5 0.1 0.4 0.7"
    data = boxel.data.read(make(tmp_path, f"0 {ring} 7\n1 {ring} 2\n"))
    assert data.has_segmentation.all() and extras(data) == [{"track_id": 7}, {"track_id": 2}]


def test_files_of_trackers_are_refused_by_name(tmp_path):
    data = boxel.data.read(make(tmp_path, "1,3,794.27,247.59,71.245,174.88,-1,-1,-1,-1\n"))
    (issue,) = data.issues
    assert (
        not len(data.labels) and "these are rows of a MOT file" in issue.message and "a.txt" in issue.message
    )


@pytest.mark.parametrize(
    ("text", "boxes"),
    [
        ("0 60 40 20 20\n0 50 50 100 100\n", [[50, 30, 70, 50], [0, 0, 100, 100]]),
        ("0 0.5 0.5 0.9 0.8\n0 0.6 0.1 0.9 0.3\n", [[50, 50, 90, 80], [60, 10, 90, 30]]),
    ],
)
def test_boxes_in_another_layout_are_read_as_they_are_meant(tmp_path, text, boxes):
    data = boxel.data.read(make(tmp_path, text))
    np.testing.assert_allclose(data.boxes, boxes)
    (issue,) = data.issues
    assert issue.kind == "boxes-layout" and "its 2 boxes are written" in issue.message


@pytest.mark.parametrize(
    "text", ["0 0.5 0.5 1 1\n0 0.95 0.5 0.2 0.4\n", "0 0.9 0.9 0.95 0.95\n", "0 3 3 400 1\n"]
)
def test_boxes_that_may_be_right_are_left_alone(tmp_path, text):
    data = boxel.data.read(make(tmp_path, text))
    x, y, w, h = map(float, text.splitlines()[0].split()[1:])
    np.testing.assert_allclose(data.boxes[0], np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2]) * 100)
    assert data.issues == []


def test_keypoints_and_corners_that_are_deleted_stay_deleted(tmp_path):
    text = "0 0.5 0.5 0.4 0.2 0.35 0.45 2 0.65 0.55 1\n1 0.5 0.5 0.2 0.2 0.45 0.45 2 0.5 0.5 2\n"
    data = boxel.data.read(make(tmp_path / "in", text, {"kpt_shape": [2, 3]}))
    fields = [json.loads(row) | {"num_keypoints": 2, "track_id": k} for k, row in enumerate(data.extras)]
    data.extras[:] = [json.dumps(row).encode() for row in fields]
    with pytest.warns(ConversionWarning, match="track_id"):
        boxel.data.write(data, tmp_path / "out", "yolo")
    assert extras(boxel.data.read(tmp_path / "out")) == fields
    edited = "0 0.5 0.5 0.4 0.2\n1 0.5 0.5 0.2 0.2 0.45 0.45 2 0 0 0\n"
    (tmp_path / "out/labels/a.txt").write_text(edited)
    kept = {"keypoints": [45, 45, 2, 0, 0, 0], "num_keypoints": 1, "track_id": 1}
    assert extras(boxel.data.read(tmp_path / "out")) == [{"num_keypoints": 0, "track_id": 0}, kept]

    boxel.data.write(boxel.data.read(make(tmp_path / "obb", OBB)), tmp_path / "turned", "yolo-obb")
    first, *others = (tmp_path / "turned/labels/a.txt").read_text().splitlines()
    xs, ys = [sorted(map(float, first.split()[k::2])) for k in (1, 2)]
    corners = [xs[0], ys[0], xs[-1], ys[0], xs[-1], ys[-1], xs[0], ys[-1]]
    straight = " ".join(map(str, [0, *corners]))
    (tmp_path / "turned/labels/a.txt").write_text("\n".join([straight, *others]))
    found = extras(boxel.data.read(tmp_path / "turned"))
    assert found[0] == {} and all("corners" in row for row in found[1:])


def test_boxes_written_by_their_corner_are_named_and_read_as_meant(tmp_path):
    lines = ["0.05 0.1 0.4 0.5", "0.1 0.02 0.7 0.3", "0.5 0.5 0.3 0.2", "0.7 0.1 0.2 0.6", "0 0.4 0.3 0.3"]
    data = boxel.data.read(make(tmp_path / "a", "".join(f"1 {line}\n" for line in lines)))
    assert data.boxes[0].tolist() == [5, 10, 45, 60]
    (issue,) = data.issues
    assert (
        issue.kind == "boxes-layout"
        and "its 5 boxes are written as left, top, width, height" in issue.message
    )
    # A box at the right border contradicts it.
    other = boxel.data.read(
        make(tmp_path / "b", "".join(f"1 {line}\n" for line in [*lines, "0.9 0.5 0.2 0.1"]))
    )
    assert other.issues == []


def test_classes_counted_from_one_are_named(tmp_path):
    data = boxel.data.read(make(tmp_path / "a", "1 0.5 0.5 0.2 0.2\n2 0.5 0.5 0.2 0.2\n"))
    assert [issue.kind for issue in data.issues] == ["category-numbering", "unknown-category"]
    assert (
        "the category ids 2 of annotations are not listed, but all are if 1 is subtracted"
        in data.issues[0].message
    )
    other = boxel.data.read(make(tmp_path / "b", "0 0.5 0.5 0.2 0.2\n2 0.5 0.5 0.2 0.2\n"))
    assert [issue.kind for issue in other.issues] == ["unknown-category"]


def test_decimal_commas_are_named(tmp_path):
    data = boxel.data.read(make(tmp_path, "0 0,1 0,1 0,3 0,1 0,2 0,4\n0 0.5 0.5 0.2 0.2\n"))
    (issue,) = data.issues
    assert "line 1 cannot be read (0,1 has a decimal comma; write a point)" in issue.message
    assert len(data.boxes) == 1


def test_the_class_list_of_the_only_dataset_in_a_folder_is_used(tmp_path):
    make(tmp_path / "ds", "1 0.5 0.5 0.2 0.2\n")
    data = boxel.data.read(tmp_path)
    assert [category.name for category in data.categories] == ["cat", "dog"] and data.issues == []
