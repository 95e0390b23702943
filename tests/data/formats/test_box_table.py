"""Tables with one row per box."""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import boxel.data
from boxel.data import example_scenes
from boxel.data.formats import box_table
from boxel.data.formats.box_table import BoxTable
from boxel.utils.errors import BoxelError

pandas = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")


def make_rows(**columns):
    return {
        "image": ["b.jpg", "a.jpg", "b.jpg"],
        "ann_id": [7, 3, 9],
        "x0": [1, 2, 3],
        "y0": [0.5, 2, 3],
        "x1": [4, 5, 6],
        "y1": [4, 5, 6],
        "label": ["dog", "cat", "cat"],
    } | columns


@pytest.fixture
def table(tmp_path):
    def write(**columns):
        path = tmp_path / "boxes.parquet"
        rows = {name: values for name, values in make_rows(**columns).items() if values is not None}
        pandas.DataFrame(rows).to_parquet(path, index=False)
        return path

    return write


def test_a_table_of_corners_is_a_dataset(table):
    path = table()
    assert boxel.data.recognize(path) == "parquet"
    data = boxel.data.read(path)
    assert data.paths == ["b.jpg", "a.jpg"] and data.ids == [7, 3, 9]
    assert data.image_index.tolist() == [0, 1, 0]
    assert data.boxes.tolist() == [[1, 0.5, 4, 4], [2, 2, 5, 5], [3, 3, 6, 6]]
    assert [(c.id, c.name) for c in data.categories] == [(1, "cat"), (2, "dog")]
    assert data.labels.tolist() == [1, 0, 0]


def test_boxes_may_be_one_column(table):
    corners = dict.fromkeys(("x0", "y0", "x1", "y1"))
    data = boxel.data.read(table(**corners, box=[[1, 0, 4, 4], None, [3.5, 3, 6, 6]], ann_id=[7, None, 9]))
    assert data.boxes.tolist() == [[1, 0, 4, 4], [3.5, 3, 6, 6]]
    assert data.paths == ["b.jpg", "a.jpg"] and data.ids == [7, 9]  # an image without boxes


def test_what_is_missing_has_plain_values(table):
    data = boxel.data.read(table(ann_id=None, label=None))
    assert data.ids == [1, 2, 3] and [c.name for c in data.categories] == ["object"]
    data = boxel.data.read(table(label=["dog", None, "cat"]))
    assert [data.categories[label].name for label in data.labels] == ["dog", "object", "cat"]
    assert [c.name for c in boxel.data.read(table(label=[5, 2, 5])).categories] == ["2", "5"]


def test_a_box_that_is_no_box_costs_only_itself(table):
    data = boxel.data.read(table(x0=[float("nan"), 2, float("inf")]))
    assert data.ids == [7, 3, 9] and data.has_box.tolist() == [False, True, False]


def test_columns_of_another_meaning_are_left_alone(table):
    others = {
        "size": [10, 20, 30],
        "source": [1, 2, 3],
        "extras": ["a", "b", "c"],
        "quality": ["x", "y", "z"],
    }
    data = boxel.data.read(table(**others))
    assert not any(data.widths) and data.source.tolist() == [None] * 3 and data.extras.tolist() == [None] * 3


def test_rows_from_anywhere_in_files_and_groups(tmp_path):
    pyarrow = box_table.import_pyarrow()
    for number in range(3):
        names = [f"{number}{k // 2}.jpg" for k in range(10)]
        rows = make_rows(image=names, ann_id=[number * 10 + k for k in range(10)], label=["a"] * 10)
        rows |= {name: [0 if name[1] == "0" else 9] * 10 for name in ("x0", "y0", "x1", "y1")}
        rows["x0"] = list(range(10))
        pyarrow.parquet.write_table(pyarrow.table(rows), tmp_path / f"{number}.parquet", row_group_size=4)
    table = BoxTable(tmp_path)
    assert len(table) == 30
    assert [table.read("", k, k + 1).ids for k in range(30)] == [[k] for k in range(30)]
    assert table.read("", 9, 23).ids == list(range(9, 23))
    assert boxel.data.read(tmp_path).ids == list(range(30))


@pytest.mark.parametrize("content", ["columns", "cut", "type"])
def test_what_is_no_table_is_refused(tmp_path, table, content):
    if content == "columns":
        pandas.DataFrame({"image": ["a.jpg"], "x0": [1]}).to_parquet(path := tmp_path / "a.parquet")
    else:
        path = table(x0=["a", "b", "c"]) if content == "type" else table()
    if content == "cut":
        path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(BoxelError, match="this is not a table"):
        boxel.data.read(path)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_everything_round_trips(draw_random, draw):
    with tempfile.TemporaryDirectory() as folder:
        data = draw_random(draw, Path(folder) / "images")
        data = replace(data, label_maps=None, map_labels=None, void=255)
        header = box_table.make_header(data)
        box_table.write_table(data, Path(folder) / "t.parquet", header)
        found = BoxTable(Path(folder) / "t.parquet").read(data.root)
    order = np.concatenate([data.instances_in(image) for image in range(len(data))] or [[]]).astype(int)
    assert found.image_ids == data.image_ids and found.paths == data.paths
    assert found.categories == data.categories and found.dataset_extras == data.dataset_extras
    assert found.splits == data.splits and found.image_extras == data.image_extras
    assert found.ids == [data.ids[k] for k in order]
    for name in ("image_index", "labels", "boxes", "iscrowd", "quality", "trusted", "areas"):
        np.testing.assert_array_equal(getattr(found, name), getattr(data, name)[order], err_msg=name)
    for name in ("source", "extras"):
        assert getattr(found, name).tolist() == getattr(data, name)[order].tolist()
    for instance, k in enumerate(order):
        assert found.segmentation(instance) == data.segmentation(k)


def test_a_mask_of_another_size_than_its_image_stays_as_it_is(tmp_path):
    data = example_scenes(1)
    data = replace(data, widths=data.widths + 1)
    box_table.write_table(data, tmp_path / "t.parquet", box_table.make_header(data))
    rows = pandas.read_parquet(tmp_path / "t.parquet")
    assert rows["counts"].isna().all()
    found = boxel.data.read(tmp_path / "t.parquet", images=data.root)
    assert found.segmentation(0) == data.segmentation(0)
