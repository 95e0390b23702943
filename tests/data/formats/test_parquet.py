"""Tables of large datasets."""

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import boxel.data
from boxel.data import Category
from boxel.data.formats import parquet, write_as_given
from boxel.data.samples import sample_images
from boxel.utils.errors import BoxelError

NUMBERS = ("widths", "heights", "image_index", "labels", "boxes", "iscrowd", "quality", "trusted", "areas")
OBJECTS = ("segmentations", "source", "extras")
LISTS = (
    "image_ids",
    "paths",
    "categories",
    "ids",
    "label_maps",
    "splits",
    "image_extras",
    "dataset_extras",
    "void",
)


def check_equal(found, data):
    for name in NUMBERS:
        assert getattr(found, name).dtype == getattr(data, name).dtype
        np.testing.assert_array_equal(getattr(found, name), getattr(data, name), err_msg=name)
    for name in (*OBJECTS, *LISTS, "map_labels"):
        mine, theirs = getattr(found, name), getattr(data, name)
        assert (mine.tolist() if hasattr(mine, "tolist") else mine) == (
            theirs.tolist() if hasattr(theirs, "tolist") else theirs
        ), name


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_everything_round_trips_exactly(draw_random, draw):
    pytest.importorskip("pyarrow")
    with tempfile.TemporaryDirectory() as folder:
        data = draw_random(draw, Path(folder) / "images")
        order = draw.draw(st.permutations(range(len(data.ids))))
        data = data.select_instances(order)
        data.boxes[:1, 0] = np.nan
        data = replace(
            data,
            **{
                "map_labels": np.array([-2, 0, -1], dtype=np.int16),
                "void": 9,
                "label_maps": ["maps/a.png"] + [None] * (len(data) - 1),
            },
        )
        write_as_given(data, Path(folder) / "data.parquet")
        assert boxel.data.recognize(Path(folder) / "data.parquet") == "parquet"
        found = boxel.data.read(Path(folder) / "data.parquet")
        assert found.root == data.root
        check_equal(found, data)


def test_groups_of_images_and_large_ids(tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    monkeypatch.setattr(parquet, "_IMAGES_PER_GROUP", 2)
    data = sample_images()
    data = data.select_images([*range(len(data))] * 3)
    data = replace(data, **{"ids": [2**70 + k for k in range(len(data.ids))]})
    write_as_given(data, tmp_path / "a.parquet")
    check_equal(boxel.data.read(tmp_path / "a.parquet"), data)
    empty = data.select_images([])
    write_as_given(empty, tmp_path / "b.parquet")
    check_equal(boxel.data.read(tmp_path / "b.parquet"), empty)


def test_a_folder_of_tables_is_one_dataset(tmp_path):
    pytest.importorskip("pyarrow")
    data = sample_images()
    for k in range(len(data)):
        boxel.data.write(data.select_images([k]), tmp_path / "parts" / f"{k}.parquet")
    assert boxel.data.recognize(tmp_path / "parts") == "parquet"
    found = boxel.data.read(tmp_path / "parts")
    assert found.image_ids == data.image_ids and len(found.ids) == len(data.ids)


def test_other_tools_read_the_table(tmp_path):
    pyarrow = pytest.importorskip("pyarrow.parquet")
    data = sample_images()
    boxel.data.write(data, tmp_path / "a.parquet")
    rows = pyarrow.read_table(tmp_path / "a.parquet").to_pylist()
    assert [row["file_name"] for row in rows] == data.paths
    first = rows[0]["objects"][0]
    assert (
        first["category"] == data.categories[data.labels[0]].name and first["box"] == data.boxes[0].tolist()
    )
    metadata = json.loads(pyarrow.read_schema(tmp_path / "a.parquet").metadata[b"boxel"])
    assert [name for _, name, _, _ in metadata["categories"]] == [c.name for c in data.categories]


def test_damaged_and_foreign_tables_are_one_sentence(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet as tables

    data = sample_images()
    boxel.data.write(data, tmp_path / "a.parquet")
    content = (tmp_path / "a.parquet").read_bytes()
    schema = tables.read_schema(tmp_path / "a.parquet")
    for damaged in (content[: len(content) // 2], content[:4], content[:-4] + b"PAR2"):
        (tmp_path / "b.parquet").write_bytes(damaged)
        with pytest.raises(BoxelError, match="not a table that boxel has written"):
            boxel.data.read(tmp_path / "b.parquet")
    tables.write_table(pyarrow.table({"x": [1]}), tmp_path / "b.parquet")
    with pytest.raises(BoxelError, match="it has no b'boxel'"):
        boxel.data.read(tmp_path / "b.parquet")
    tables.write_table(
        pyarrow.table({"x": [1]}).replace_schema_metadata(schema.metadata), tmp_path / "b.parquet"
    )
    with pytest.raises(BoxelError, match="not a table that boxel has written"):
        boxel.data.read(tmp_path / "b.parquet")
    few = replace(data, **{"categories": (Category(1, "a"),), "labels": data.labels * 0})
    boxel.data.write(few, tmp_path / "few.parquet")
    wrong = tables.read_table(tmp_path / "a.parquet").replace_schema_metadata(
        tables.read_schema(tmp_path / "few.parquet").metadata
    )
    tables.write_table(wrong, tmp_path / "b.parquet")
    with pytest.raises(BoxelError, match="a label stands for no category"):
        boxel.data.read(tmp_path / "b.parquet")


def test_the_suffix_and_the_package_are_named(tmp_path, monkeypatch):
    data = sample_images()
    with pytest.raises(BoxelError, match=r"a Parquet dataset is one file; end its name in \.parquet"):
        boxel.data.write(data, tmp_path / "a", "parquet")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(BoxelError, match=r"a Parquet table needs pyarrow.*'boxel\[parquet\]'"):
        boxel.data.write(data, tmp_path / "a.parquet")
