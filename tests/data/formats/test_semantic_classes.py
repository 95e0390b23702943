"""The classes of the values in label maps."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boxel.data.formats.semantic_classes import TABLES, load_class_table
from boxel.data.formats.voc import CLASSES
from boxel.utils.errors import BoxelError


def test_bundled_tables():
    assert TABLES == ("camvid", "cityscapes", "cityscapes-train-ids", "pascal-context", "voc")
    assert list(load_class_table("camvid").values()) == [
        *("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian"),
        "bicyclist",
    ]
    assert load_class_table("voc") == dict(enumerate(("background", *CLASSES)))
    cityscapes = load_class_table("cityscapes")
    assert list(cityscapes) == [7, 8, 11, 12, 13, 17, *range(19, 29), 31, 32, 33]
    assert cityscapes[7] == "road" and cityscapes[19] == "traffic light" and cityscapes[33] == "bicycle"
    assert load_class_table("cityscapes-train-ids") == dict(enumerate(cityscapes.values()))
    context = load_class_table("pascal-context")
    assert list(context) == list(range(60)) and len(set(context.values())) == 60
    # The first twenty are VOC's, under the names of PASCAL-Context's own labels.txt.
    assert [context[k] for k in range(1, 21)] == [c.replace("diningtable", "table") for c in CLASSES]
    assert context[0] == "background" and context[28] == "cloth" and context[59] == "wood"


@pytest.mark.parametrize(
    ("text", "table"),
    [
        ("sky\nroad\n", {0: "sky", 1: "road"}),
        ("# two\n\n  sky \r\nvoid\r\ntraffic light", {0: "sky", 2: "traffic light"}),
        ("7 road\n20 traffic sign\n", {7: "road", 20: "traffic sign"}),
        ("17: traffic  sign\n3:\tsky\n4,road\n5 : car", {17: "traffic  sign", 3: "sky", 4: "road", 5: "car"}),
        ("0 Void\n1 unlabeled\n2 Unlabeled\n3 ignore\n65535 sky\n", {65535: "sky"}),
        ("26 car\n27 truck\n28 car\n", {26: "car", 27: "truck", 28: "car"}),
        ("\ufeff0 Straße\n1 # 9\n", {0: "Straße", 1: "# 9"}),
        ("1 2\n2 3d model\n", {1: "2", 2: "3d model"}),
    ],
)
def test_class_tables_are_parsed(tmp_path, text, table):
    (tmp_path / "classes.txt").write_bytes(text.encode())
    assert load_class_table(tmp_path / "classes.txt") == table
    assert list(load_class_table(str(tmp_path / "classes.txt"))) == list(table)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "lists 0 classes"),
        (b"void\n# sky\n", "lists 0 classes"),
        (b"sky\n7\n", r"line 1 has no value, but others have"),
        (b"1 sky\nroad\n", r"line 2 has no value, but others have"),
        (b"1\n2\n", r"line 1 has no class name; write it like `7 road`"),
        (b"1: \n", r"line 1 has no class name"),
        (b"-1 license plate\n", r"line 1 has the value -1; a pixel has 0 to 65535"),
        (b"\n65536 sky\n", r"line 2 has the value 65536"),
        (b"3 sky\n3 sky\n", r"line 2 repeats the value 3"),
        (b"sky\x00\n", "line 1 has no class name"),
        (b"\x89PNG\r\n\x1a\n", "not UTF-8 text"),
        ("größe\n".encode("latin-1"), "not UTF-8 text"),
        (b"\n".join(b"class %d" % k for k in range(40_000)), "lists 40000 classes; list 1 to 32767"),
        (b"a\n" * 70_000, r"line 65537 has the value 65536"),
    ],
)
def test_invalid_class_tables_are_refused(tmp_path, content, message):
    file = tmp_path / "classes.txt"
    file.write_bytes(content)
    with pytest.raises(BoxelError, match=f"^{re.escape(str(file))}: .*{message}"):
        load_class_table(file)


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.binary(max_size=60) | st.text(alphabet="0 7:#ab-\n\t\r\0é", max_size=30).map(str.encode))
def test_garbage_is_a_table_or_one_sentence(tmp_path_factory, content):
    file = tmp_path_factory.getbasetemp() / "garbage.txt"
    file.write_bytes(content)
    try:
        table = load_class_table(file)
    except BoxelError as error:
        assert str(error).startswith(f"{file}: ") and "\n" not in str(error)
    else:
        assert table and all(0 <= value <= 65535 and name.strip() for value, name in table.items())


@pytest.mark.parametrize("source", ["cityscape", "no/such.txt", "\0", "x" * 300, Path("camvid")])
def test_an_unknown_class_list_is_an_error(source):
    with pytest.raises(
        BoxelError,
        match="there is no such class list; give a file, a run folder, or one of camvid, citys",
    ) as e:
        load_class_table(source)
    assert ("Did you mean 'cityscapes'?" in str(e.value)) == (source == "cityscape")


def test_a_run_folder_is_a_class_list(tmp_path):
    rows = [{"id": 0, "name": "background"}, {"id": 17, "name": "cat", "supercategory": "animal"}]
    (tmp_path / "categories.json").write_text(json.dumps(rows))
    assert load_class_table(tmp_path) == {0: "background", 17: "cat"}
    (tmp_path / "categories.json").write_text('[{"id": 0}]')
    with pytest.raises(BoxelError, match="these are not the categories of a run"):
        load_class_table(str(tmp_path))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_passed_over(tmp_path, encoding):
    (tmp_path / "classes.txt").write_text("7 größe\n", encoding=encoding)
    assert load_class_table(tmp_path / "classes.txt") == {7: "größe"}
