"""Ids and fields that a format lacks find their instance again by class and geometry."""

import json
import logging
import warnings
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from PIL import Image

import boxel.data
from boxel.data.annotations import Annotations, Category
from boxel.data.formats import write_as_given
from boxel.data.formats.identity import _Row, match_rows
from boxel.data.formats.rotated import CORNERS


@pytest.fixture
def data(tmp_path) -> Annotations:
    (tmp_path / "in").mkdir()
    Image.new("RGB", (100, 80)).save(tmp_path / "in/a.png")
    ring = [10.0, 10.0, 30.0, 10.0, 20.0, 30.0]
    return Annotations(
        root=tmp_path / "in",
        image_ids=[7],
        paths=["a.png"],
        widths=[100],
        heights=[80],
        categories=(Category(3, "cat", extras=b'{"color":"red"}'), Category(9, "dog")),
        ids=[40, 50, 60],
        image_index=[0, 0, 0],
        labels=[0, 0, 1],
        boxes=[[9, 9, 31, 31], [50, 10, 60, 20], [50, 40, 90, 70]],
        iscrowd=[False, False, True],
        segmentations=np.array([msgspec.json.encode([ring]), None, None], dtype=object),
        quality=[0.8, np.nan, np.nan],
        source=np.array(["boxcaseg", None, None], dtype=object),
        extras=np.array([b'{"track_id":5}', None, None], dtype=object),
        image_extras=[b'{"coco_url":"x"}'],
        dataset_extras=b'{"info":{"year":2026}}',
        splits=["val"],
    )


@pytest.fixture
def masked(data) -> Annotations:
    """The same with a mask for every object, as YOLO needs them if any has one."""
    rings = [[50.0, 10, 60, 10, 55, 20], [50.0, 40, 90, 40, 70, 70]]
    segmentations = data.segmentations.copy()
    segmentations[1:] = [msgspec.json.encode([ring]) for ring in rings]
    return replace(data, segmentations=segmentations)


def test_a_yolo_folder_keeps_what_yolo_lacks(masked, tmp_path):
    data = masked
    with pytest.warns(boxel.data.ConversionWarning):
        write_as_given(data, tmp_path / "out", "yolo")
    again = boxel.data.read(tmp_path / "out")
    assert again.ids == [40, 50, 60] and again.image_ids == [7] and again.categories == data.categories
    np.testing.assert_allclose(again.boxes, data.boxes, atol=1e-4)
    assert again.iscrowd.tolist() == [False, False, True]
    assert again.quality[0] == pytest.approx(0.8) and again.source[0] == "boxcaseg"
    assert again.extras.tolist() == [b'{"track_id":5}', None, None]
    assert again.image_extras == [b'{"coco_url":"x"}'] and again.splits == ["val"]
    assert again.dataset_extras == b'{"info":{"year":2026}}'


def test_deleting_the_first_row_shifts_no_id(masked, tmp_path, caplog):
    with pytest.warns(boxel.data.ConversionWarning):
        boxel.data.write(masked, tmp_path / "out", "yolo")
    labels = tmp_path / "out/labels/val/a.txt"
    _first, *rest = labels.read_text().splitlines()
    labels.write_text("\n".join([*rest, "1 0.1 0.1 0.1 0.1 0.2 0.1 0.15 0.2"]))
    with caplog.at_level(logging.INFO):
        again = boxel.data.read(tmp_path / "out")
    assert again.ids == [50, 60, 61]
    assert "2 annotations matched, 1 new, 1 gone" in caplog.text


def test_an_edited_mask_keeps_its_id_and_loses_the_quality_of_the_old_one(masked, tmp_path):
    with pytest.warns(boxel.data.ConversionWarning):
        boxel.data.write(masked, tmp_path / "out", "yolo")
    labels = tmp_path / "out/labels/val/a.txt"
    _first, *rest = labels.read_text().splitlines()
    edited = "0 0.1 0.125 0.3 0.125 0.3 0.2 0.2 0.375"  # one more corner, the same extent
    labels.write_text("\n".join([edited, *rest]))
    again = boxel.data.read(tmp_path / "out")
    assert again.ids[0] == 40 and np.isnan(again.quality[0]) and again.source[0] is None
    assert again.extras[0] == b'{"track_id":5}'


def row(id, category, *box):
    return _Row(id, category, box)


def test_rows_match_by_class_and_overlap_before_place():
    rows = [row(1, "a", 0, 0, 10, 10), row(2, "a", 20, 0, 30, 10), row(3, "b", 0, 0, 10, 10)]
    boxes = np.array([[20, 1, 30, 11], [0, 0, 10, 10], [0, 0, 10, 10.0]])
    pairs = match_rows(boxes, ["a", "b", "a"], rows)
    assert {k: (r.id, same) for k, (r, same) in pairs.items()} == {
        0: (2, False),
        1: (3, True),
        2: (1, True),
    }


def test_duplicates_keep_their_order_and_a_changed_class_its_row():
    rows = [row(1, "a", 0, 0, 10, 10), row(2, "a", 0, 0, 10, 10), row(3, "a", 40, 0, 50, 10)]
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [40, 0, 50, 10.0]])
    pairs = match_rows(boxes, ["a", "a", "b"], rows)
    assert [(pairs[k][0].id, pairs[k][1]) for k in range(3)] == [(1, True), (2, True), (3, True)]


def test_a_box_far_away_is_new(data, tmp_path):
    moved = replace(data, boxes=data.boxes + np.array([[0.0], [30.0], [0.0]]))
    with pytest.warns(boxel.data.ConversionWarning):
        boxel.data.write(data, tmp_path / "out", "voc")
        boxel.data.write(moved, tmp_path / "moved", "voc")
    (tmp_path / "moved/boxel-ids.json").write_bytes((tmp_path / "out/boxel-ids.json").read_bytes())
    assert boxel.data.read(tmp_path / "moved").ids == [40, 61, 60]


def write_and_edit(data, folder, format, file, change):
    """Write a dataset, edit a JSON file of it, and read it again."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", boxel.data.ConversionWarning)
        write_as_given(data, folder, format)
    content = json.loads((folder / file).read_text())
    change(content)
    (folder / file).write_text(json.dumps(content))
    return boxel.data.read(folder)


def test_what_is_deleted_or_changed_in_fiftyone_does_not_return(data, tmp_path):
    extras = np.array([b'{"attributes":{"color":"red","size":2,"deep":{"x":1}}}', None, None], dtype=object)
    data = replace(data, extras=extras, image_extras=[b'{"tags":["sun"],"coco_url":"x"}'])

    def change(content):
        (sample,) = content["samples"]
        sample["tags"] = ["val"]
        first, _, crowd = sample["ground_truth"]["detections"]
        del first["color"], crowd["iscrowd"]
        first |= {"quality": 0.5, "source": "me"}

    again = write_and_edit(data, tmp_path / "out", "fiftyone", "samples.json", change)
    assert json.loads(again.extras[0])["attributes"] == {"deep": {"x": 1}, "size": 2}
    assert again.image_extras == [b'{"coco_url":"x"}'] and again.splits == ["val"]
    assert (again.quality[0], again.source[0]) == (0.5, "me") and not again.iscrowd.any()


def test_what_is_deleted_in_label_studio_does_not_return(data, tmp_path):
    corners = json.dumps({CORNERS: [[50, 14], [56, 10], [60, 16], [54, 20]], "track_id": 5}).encode()
    extras = np.array([None, corners, None], dtype=object)
    data = replace(data, extras=extras, image_extras=[b'{"data":{"site":"A"}}'])

    def change(content):
        del content[0]["data"]["site"]
        content[0]["predictions"][0]["result"][1]["value"]["rotation"] = 0

    again = write_and_edit(data, tmp_path / "out", "label-studio", "tasks.json", change)
    assert again.ids == [40, 50, 60] and again.image_extras == [None]
    assert again.extras[1] == b'{"track_id":5}'


def test_flags_of_labelme_are_those_of_its_files(data, tmp_path):
    extras = np.array([b'{"track_id":5,"flags":{"old":true}}', None, None], dtype=object)
    data = replace(data, extras=extras, image_extras=[b'{"flags":{"rain":true}}'])

    def change(content):
        content["flags"] = {}
        for key in ("id", "written", "track_id"):  # as a tool does that does not know them
            content["shapes"][0].pop(key)
        content["shapes"][0] |= {"flags": {"blurred": True}, "description": "mine"}

    again = write_and_edit(data, tmp_path / "out", "labelme", "a.json", change)
    assert again.ids == [40, 50, 60] and again.image_extras == [None]
    assert json.loads(again.extras[0]) == {"track_id": 5, "flags": {"blurred": True}, "description": "mine"}


def test_fields_follow_an_id_that_the_format_holds(masked, tmp_path):
    data = replace(masked, labels=np.zeros(3), extras=np.array([b'{"track_id":5}', None, None], dtype=object))

    def change(content):
        first, second, _ = detections = content["samples"][0]["ground_truth"]["detections"]
        first["bounding_box"], second["bounding_box"] = second["bounding_box"], first["bounding_box"]
        detections.append(dict(first))  # a copy, which is new

    again = write_and_edit(data, tmp_path / "out", "fiftyone", "samples.json", change)
    assert again.ids == [40, 50, 60, 61]
    assert again.extras.tolist() == [b'{"track_id":5}', None, None, None]
