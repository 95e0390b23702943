"""`boxel check` and `boxel convert`."""

import json
from pathlib import Path

import pytest

from boxel.cli import main
from boxel.data.synthetic import write_scenes


@pytest.fixture
def scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two scenes: `boxes.json`, its images in `photos/`."""
    write_scenes(tmp_path, 2, height=64, width=96)
    (tmp_path / "images").rename(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (
            "convert boxes.json voc --to voc",
            "boxes.json: images are missing (2 of 2), the first is ",
        ),
        ("convert boxes.json voc", "voc: name the format to write with --to (semantic, yolo"),
        ("convert boxes.json voc --to coco", "voc: a COCO dataset is one file; end its name in .json"),
        (
            "check photos",
            "photos: these are images, not a dataset; give the annotations, and the folder of the images as --i",
        ),
    ],
)
def test_mistakes_are_refused_before_anything_is_written(scenes: None, capsys, line: str, error: str) -> None:
    assert main(line.split()) == 1
    assert error in capsys.readouterr().err
    assert not Path("voc").exists()


def test_a_copy_without_issues_is_called_unchanged(scenes: None, capsys) -> None:
    assert main(["check", "boxes.json", "--images", "photos", "--repair", "copy.json"]) == 0
    assert capsys.readouterr().out.endswith("no issues found\nunchanged copy: copy.json\n")


@pytest.mark.parametrize(
    "line", ["check bad.json", "convert bad.json out --to yolo", "label bad.json --out m.json"]
)
def test_control_characters_of_names_do_not_reach_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    image = {"id": 1, "file_name": "a\x1b]0;title\x07\r\x9b31m\u202e.jpg", "width": 10, "height": 10}
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5]}
    content = {"images": [image], "annotations": [box], "categories": [{"id": 1, "name": "x\x1b[2J"}]}
    Path("bad.json").write_text(json.dumps(content))
    main(line.split())
    output = "".join(capsys.readouterr())
    assert not {"\x1b", "\x07", "\r", "\x9b", "\u202e"} & set(output)
    assert "a\\x1b]0;title\\x07\\x0d\\x9b31m\\u202e.jpg" in output
