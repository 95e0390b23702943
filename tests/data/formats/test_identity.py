"""Ids and fields that a format lacks find their instance again by class and geometry."""

import logging
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from PIL import Image

import boxel.data
from boxel.data.annotations import Annotations, Category
from boxel.data.formats import write_as_given
from boxel.data.formats.identity import _Row, match_rows


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
