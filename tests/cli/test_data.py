"""`boxel check` and `boxel convert`."""

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
