"""Masks go to annotation tools and come back, through the command line."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from PIL import Image

import boxel
from boxel.cli import main
from boxel.data.synthetic import write_scenes


def annotations(file: str) -> dict:
    return {row["id"]: row for row in json.loads(Path(file).read_text())["annotations"]}


@pytest.fixture
def labeled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    """Two scenes that have been labeled; `labeled.json` also lies in `labeled_cvat` and `labeled_label-studio`."""
    write_scenes(tmp_path, 2, height=64, width=96)
    monkeypatch.chdir(tmp_path)
    line = "label boxes.json --images images --teacher ellipse --out labeled.json --to cvat,label-studio"
    assert main(line.split()) == 0
    return annotations("labeled.json")


def test_what_is_edited_in_cvat_comes_back(labeled: dict, capsys) -> None:
    file = Path("labeled_cvat/annotations.xml")
    tree = ElementTree.parse(file)
    image = tree.find("image")
    first, second = image.findall("mask")[:2]
    image.remove(first)
    second.set("label", "other")
    tree.write(file)
    assert main(["convert", "labeled_cvat", "back.json"]) == 0
    back = annotations("back.json")
    ids = [*labeled]
    assert [*back] == ids[1:]
    changed = ids[1]
    assert back[changed]["category_id"] not in {row["category_id"] for row in labeled.values()}
    assert {id: row for id, row in back.items() if id != changed} == {id: labeled[id] for id in ids[2:]}


def test_what_is_corrected_in_label_studio_comes_back(labeled: dict, capsys) -> None:
    file = Path("labeled_label-studio/tasks.json")
    tasks = json.loads(file.read_text())
    for task in tasks:  # as after "submit"
        (prediction,) = task.pop("predictions")
        task["annotations"] = [{"result": prediction["result"], "was_cancelled": False}]
    results = tasks[0]["annotations"][0]["result"]
    del results[0]
    file.write_text(json.dumps(tasks))
    assert main(["convert", "labeled_label-studio", "back.json"]) == 0
    assert annotations("back.json") == {id: row for id, row in labeled.items() if id != next(iter(labeled))}


def test_an_export_of_cvat_is_checked_converted_and_labeled(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    Image.effect_noise((120, 80), 50).convert("RGB").save("photos/a.jpg")
    box = '<box label="cat" occluded="0" xtl="20.00" ytl="15.00" xbr="60.00" ybr="55.00" z_order="0"></box>'
    image = (
        f'<image id="0" name="a.jpg" width="120" height="80">{box}<points label="cat" points="1,2"/></image>'
    )
    Path("task.xml").write_text(f"<annotations><version>1.1</version>{image}</annotations>")
    assert main(["check", "task.xml", "--images", "photos"]) == 1
    assert "1 x points: not a box" in capsys.readouterr().out
    assert main(["convert", "task.xml", "o.json", "--images", "photos"]) == 0
    (row,) = annotations("o.json").values()
    assert row["bbox"] == [20, 15, 40, 40]
    assert main(["label", "task.xml", "--images", "photos", "--teacher", "ellipse", "--out", "m.json"]) == 0
    (row,) = annotations("m.json").values()
    assert row["segmentation"]["size"] == [80, 120]


@pytest.mark.parametrize("format", ["cvat", "label-studio"])
@pytest.mark.parametrize("flags", [["--polygons"], ["--simplify", "1"]])
def test_masks_become_polygons_if_wanted(labeled: dict, capsys, format: str, flags: list[str]) -> None:
    assert main(["convert", "labeled.json", "out", "--to", format, *flags]) == 0
    assert main(["convert", "out", "back.json"]) == 0
    back = boxel.read("back.json")
    truth = boxel.read("labeled.json")
    assert back.ids == truth.ids
    assert all(isinstance(back.segmentation(i), list) for i in range(len(back.ids)))
    masks = [(truth.mask(i), back.mask(i)) for i in range(len(truth.ids))]
    assert min((a & b).sum() / (a | b).sum() for a, b in masks) > (0.985 if "--polygons" in flags else 0.7)
