"""`boxel check` and `boxel convert`."""

import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

import boxel
from boxel.cli import main
from boxel.data.synthetic import write_scenes


@pytest.fixture
def scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two scenes: `boxes.json`, its images in `photos/`; `lost.json` names images that are nowhere."""
    write_scenes(tmp_path, 2, height=64, width=96)
    (tmp_path / "images").rename(tmp_path / "photos")
    (tmp_path / "lost.json").write_text((tmp_path / "boxes.json").read_text().replace(".png", "_lost.png"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (
            "convert lost.json voc --to voc",
            "lost.json: images are missing (2 of 2), the first is ",
        ),
        ("convert boxes.json voc", "voc: name the format to write with --to (semantic, darknet, yolo"),
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


def test_nothing_is_written_if_there_is_nothing_to_repair(scenes: None, capsys) -> None:
    assert main(["check", "boxes.json", "--images", "photos", "--repair", "copy.json"]) == 0
    output = capsys.readouterr().out
    assert output.endswith("no issues found\nthere is nothing to repair, so no copy is written\n")
    assert not list(Path().glob("copy*.json"))


def test_what_cannot_be_repaired_writes_no_copy_and_what_the_reader_left_out_does(
    scenes: None, capsys
) -> None:
    content = json.loads(Path("boxes.json").read_text())
    crowds = [annotation | {"iscrowd": 1} for annotation in content["annotations"]]
    Path("crowds.json").write_text(json.dumps(content | {"annotations": crowds}))
    assert main(["check", "crowds.json", "--images", "photos", "--repair", "copy.json"]) == 1
    assert not list(Path().glob("copy*.json"))
    dangling = content["annotations"][0] | {"id": 999, "image_id": 999}
    Path("dangling.json").write_text(
        json.dumps(content | {"annotations": [*content["annotations"], dangling]})
    )
    assert main(["check", "dangling.json", "--images", "photos", "--repair", "copy.json"]) == 0
    printed = capsys.readouterr().out
    assert "unknown-image: 1 (1 left out by a repair)" in printed
    assert printed.endswith(
        "repaired copy: copy.json\n"
        "1 entry of the original cannot be used and cannot be put back; all are in copy_changes.json\n"
    )
    (left_out,) = json.loads(Path("copy_changes.json").read_text())["left_out_by_reader"]
    assert left_out["kind"] == "unknown-image" and left_out["annotation_id"] == 999
    assert json.loads(Path("copy.json").read_text())["annotations"][-1]["id"] != 999


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


def run(line: str) -> int:
    return main(line.split())


def break_boxes() -> None:
    """Put into `boxes.json` an inverted box, an id twice, a box outside its image, and an image without a file."""
    content = json.loads(Path("boxes.json").read_text())
    first, second = content["annotations"][:2]
    x, y, w, h = first["bbox"]
    first |= {"bbox": [x + w, y, -w, h], "note": "kept"}
    content["annotations"][2]["attributes"] = {"rotation": 31.7}
    second["id"] = first["id"]
    content["annotations"].append(
        {"id": 99, "image_id": 1, "category_id": 1, "bbox": [500, 500, 9, 9], "note": "lost"}
    )
    content["images"].append({"id": 77, "file_name": "gone.png", "width": 9, "height": 9})
    content["annotations"].append({"id": 100, "image_id": 77, "category_id": 1, "bbox": [1, 1, 5, 5]})
    Path("boxes.json").write_text(json.dumps(content))


def test_a_repair_is_written_beside_the_annotations_and_can_be_undone(scenes: None, capsys) -> None:
    break_boxes()
    original = Path("boxes.json").read_bytes()
    assert run("check boxes.json --images photos --repair") == 0
    assert Path("boxes.json").read_bytes() == original
    output = capsys.readouterr().out
    assert (
        "repaired copy: boxes_repaired.json\n6 changes, with the values before and after: boxes_repaired_ch"
        in output
    )
    record = json.loads(Path("boxes_repaired_changes.json").read_text())
    (image,) = record["images"]
    assert (image["kinds"], image["image_id"], image["before"]["file_name"]) == (
        ["image-missing"],
        77,
        "gone.png",
    )
    kinds = {
        change["annotation_id"]: change["kinds"] for change in record["instances"] if "after" not in change
    }
    assert kinds == {99: ["box-outside"], 100: ["image-missing"]}
    assert run("check boxes_repaired.json --images photos") == 0
    capsys.readouterr()

    assert run("check boxes_repaired.json --images photos --undo boxes_repaired_changes.json") == 0
    assert "6 of 6 changes undone: boxes_repaired_restored.json" in capsys.readouterr().out
    before, after = boxel.read("boxes.json", "photos"), boxel.read("boxes_repaired_restored.json", "photos")
    for column in fields(before):
        if column.name not in ("file", "issues", "areas", "dataset_extras"):
            expected = getattr(before, column.name)
            np.testing.assert_equal(getattr(after, column.name), expected, err_msg=column.name)


def test_an_edit_after_the_repair_is_not_undone(scenes: None, capsys) -> None:
    break_boxes()
    run("check boxes.json --images photos --repair fixed.json")
    content = json.loads(Path("fixed.json").read_text())
    content["annotations"][0]["bbox"] = [1, 2, 30, 40]
    Path("fixed.json").write_text(json.dumps(content))
    assert run("check fixed.json --images photos --undo fixed_changes.json") == 1
    assert "annotation 1 was edited after the repair and stays as it is." in capsys.readouterr().out
    assert boxel.read("fixed_restored.json", "photos").boxes[0].tolist() == [1, 2, 31, 42]


def test_a_repair_is_undone_although_an_annotation_was_deleted_since(scenes: None, capsys) -> None:
    break_boxes()
    run("check boxes.json --images photos --repair fixed.json")
    content = json.loads(Path("fixed.json").read_text())
    gone = content["annotations"].pop(3)
    Path("fixed.json").write_text(json.dumps(content))
    assert run("check fixed.json --images photos --undo fixed_changes.json") == 0
    before, after = boxel.read("boxes.json", "photos"), boxel.read("fixed_restored.json", "photos")
    keep = np.array([id != gone["id"] for id in before.ids])
    expected = before.select_instances(keep)
    order = [expected.ids.index(id) for id in after.ids[2:]]  # the first two share an id
    assert sorted(after.ids) == sorted(expected.ids)
    np.testing.assert_allclose(after.boxes[2:], expected.boxes[order])
    capsys.readouterr()


def test_the_record_of_another_dataset_is_refused(scenes: None, capsys) -> None:
    break_boxes()
    run("check boxes.json --images photos --repair fixed.json")
    content = json.loads(Path("fixed.json").read_text())
    content["categories"] = content["categories"][:1]
    for row in content["annotations"]:
        row["category_id"] = content["categories"][0]["id"]
    Path("other.json").write_text(json.dumps(content))
    Path("junk.json").write_text("{}")
    for record, message in (
        ("fixed_changes.json", "categories, but the repair of"),
        ("junk.json", "not a record"),
    ):
        assert run(f"check other.json --images photos --undo {record}") == 1
        assert message in capsys.readouterr().err
    assert not Path("other_restored.json").exists()


def test_a_repair_never_replaces_a_file(scenes: None, capsys) -> None:
    for file in ("boxes_repaired.json", "other_changes.json"):
        Path(file).write_text("mine")
    for line in (
        "check boxes.json --images photos --repair",
        "check boxes.json --images photos --repair other.json",
    ):
        assert run(line) == 2
        assert "exists already; name a new file" in capsys.readouterr().err
    assert Path("boxes_repaired.json").read_text() == "mine" and not Path("other.json").exists()


def test_what_a_dataset_holds_comes_before_its_issues(scenes: None, capsys) -> None:
    break_boxes()
    assert run("check boxes.json --images photos") == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        "boxes.json",
        "format: coco, images: 3 (all with objects, 1 cannot be read), 96 x 64 pixels",
    ]
    assert lines.index("") < lines.index("5 issues of 5 kinds")


def test_statistics_and_issues_are_written_as_data_and_as_a_page(scenes: None, capsys) -> None:
    break_boxes()
    run("check boxes.json --images photos --json found.json --report page.html")
    found = json.loads(Path("found.json").read_text())
    assert found["statistics"]["images"] == 3 and found["statistics"]["format"] == "coco"
    assert {issue["kind"] for issue in found["issues"]} == {
        "image-missing",
        "box-inverted",
        "box-outside",
        "box-rotated",
        "duplicate-annotation-id",
    }
    page = Path("page.html").read_text()
    assert "Dataset: boxes.json" in page and "box-inverted: 1 (1 corrected by a repair)" in page
    assert "<code>boxel check boxes.json --images photos --json found.json --report page.html</code>" in page
    assert capsys.readouterr().out.endswith("report: page.html\n")


def test_a_split_that_is_made_is_printed(scenes: None, capsys) -> None:
    assert run("convert boxes.json out.json --images photos --val-share 0.5") == 0
    assert capsys.readouterr().out.endswith("\nimages per split: train: 1, val: 1\nwritten to out.json\n")


def test_the_help_names_every_format_that_is_read(capsys) -> None:
    assert main(["label", "--help"]) == 0
    help = " ".join(capsys.readouterr().out.split())
    for name in (
        "COCO",
        "YOLO",
        "Darknet",
        "VOC",
        "SBD",
        "LabelMe",
        "CVAT",
        "Label Studio",
        "FiftyOne",
        "Parquet",
    ):
        assert name in help
