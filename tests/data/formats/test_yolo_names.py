"""Class names and texts of YOLO datasets: as they are written, from the right list, in any encoding that is certain."""

import codecs
import json
from pathlib import Path

import pytest
import yaml
from PIL import Image

import boxel.data
from boxel.cli import main
from boxel.utils.errors import BoxelError


def make(folder, classes=2):
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    Image.new("RGB", (100, 50)).save(folder / "images/a.png")
    text = "".join(f"{k} 0.5 0.5 0.{k + 1} 0.4\n" for k in range(classes))
    (folder / "labels/a.txt").write_text(text)
    return folder


def names(path):
    return [category.name for category in boxel.data.read(path).categories]


@pytest.mark.parametrize(
    "text",
    [
        "names: [007, 1.10, 12:30, on, no, 1_000, 2026-01-02, ~, 0x1F, .inf]",
        "names: {0: 007, 1: 1.10, 2: 12:30, 3: on, 4: no, 5: 1_000, 6: 2026-01-02, 7: ~, 8: 0x1F, 9: .inf}",
    ],
)
def test_names_stay_as_written(tmp_path, text):
    make(tmp_path, 10)
    (tmp_path / "data.yaml").write_text(f"train: images\nval:\nnc: 10\n{text}\n")
    expected = ["007", "1.10", "12:30", "on", "no", "1_000", "2026-01-02", "~", "0x1F", ".inf"]
    assert names(tmp_path) == expected
    boxel.data.write(boxel.data.read(tmp_path), tmp_path / "out", "yolo")
    assert names(tmp_path / "out") == expected
    # PyYAML's own loader, which Ultralytics uses, finds texts.
    assert list(yaml.safe_load((tmp_path / "out/data.yaml").read_text())["names"].values()) == expected


def test_the_nearest_list_counts(tmp_path):
    (tmp_path / "data.yaml").write_text("names: [wrong, more wrong]")
    make(tmp_path / "set")
    (tmp_path / "set/classes.txt").write_text("cat\ndog\n")
    data = boxel.data.read(tmp_path / "set")
    assert [category.name for category in data.categories] == ["cat", "dog"]
    (issue,) = data.issues
    assert issue.kind == "class-lists" and "'cat' here and 'wrong' in" in issue.message
    (tmp_path / "set/classes.txt").unlink()
    assert names(tmp_path / "set") == ["wrong", "more wrong"]  # the only one


def test_lists_of_two_label_folders_that_differ_are_refused(tmp_path):
    for split, first in (("train", "cat"), ("val", "dog")):
        make(tmp_path / split)
        (tmp_path / split / "labels/classes.txt").write_text(f"{first}\nbird\n")
    with pytest.raises(
        BoxelError, match=r"train/labels/classes.txt and .*val/labels/classes.txt give the same class"
    ):
        boxel.data.read(tmp_path)
    (tmp_path / "val/labels/classes.txt").write_text("cat\nbird\n")
    assert names(tmp_path) == ["cat", "bird"]


def test_a_list_in_another_encoding_is_refused_by_name(tmp_path):
    make(tmp_path)
    (tmp_path / "classes.txt").write_bytes("狗\n羊\n".encode("gbk"))
    with pytest.raises(BoxelError, match=r"classes\.txt: the text cannot be decoded .* save it as UTF-8"):
        boxel.data.read(tmp_path)
    (tmp_path / "classes.txt").write_bytes("猫\n犬\n".encode("utf-16"))  # which begins with a mark
    assert names(tmp_path) == ["猫", "犬"]


@pytest.mark.parametrize("encode", [lambda t: codecs.BOM_UTF8 + t.encode(), lambda t: t.encode("utf-16")])
def test_marks_of_the_byte_order_are_passed_over(tmp_path, encode):
    make(tmp_path)
    for file in ("labels/a.txt", "data.yaml", "list.txt"):
        text = {"data.yaml": "train: list.txt\nnames: [cat, dog]\n", "list.txt": "images/a.png\n"}.get(file)
        (tmp_path / file).write_bytes(encode(text or (tmp_path / file).read_text()))
    data = boxel.data.read(tmp_path / "data.yaml")
    assert len(data) == 1 and data.labels.tolist() == [0, 1] and data.issues == []


def test_a_name_that_is_not_text_is_written_out(tmp_path, monkeypatch, capsys):
    make(tmp_path / "set", 1)
    (tmp_path / "set/data.yaml").write_text('names: ["\\uD800"]\n')
    monkeypatch.chdir(tmp_path)
    assert main(["convert", "set", "o.json"]) == 0
    assert "the name of class 0 is not valid text; it is read as \\ud800" in capsys.readouterr().err
    assert json.loads(Path("o.json").read_text())["categories"][0]["name"] == "\\ud800"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.json", "set"]


def test_files_of_macos_are_no_images(tmp_path):
    make(tmp_path)
    (tmp_path / "images/._a.png").write_bytes(b"\0\5\x16\7")
    (tmp_path / "labels/._a.txt").write_bytes(b"\0\5\x16\7")
    data = boxel.data.read(tmp_path)
    assert data.paths == ["images/a.png"] and len(data.labels) == 2
    assert [issue.kind for issue in data.issues] == ["no-class-names"]


def test_two_images_of_one_label_file_are_reported(tmp_path):
    make(tmp_path)
    Image.new("RGB", (9, 9)).save(tmp_path / "images/a.jpg")
    data = boxel.data.read(tmp_path)
    assert [issue.kind for issue in data.issues] == ["ambiguous-image", "no-class-names"]
    assert "a.jpg and a.png both have this label file" in data.issues[0].message


def test_a_wrong_number_of_classes_is_reported(tmp_path):
    make(tmp_path)
    (tmp_path / "data.yaml").write_text("nc: 3\nnames: [cat, dog]\n")
    (issue,) = boxel.data.read(tmp_path).issues
    assert issue.kind == "class-lists" and "`nc` is 3, but `names` lists 2" in issue.message


def test_names_in_a_file_of_their_own(tmp_path):
    make(tmp_path)
    (tmp_path / "data.yaml").write_text("names: my.names\n")
    (tmp_path / "my.names").write_text("cat\ndog\n")
    assert names(tmp_path) == ["cat", "dog"]
