"""Names, links and images that were made to do harm."""

import json
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import boxel
from boxel.data import ConversionWarning, images

NAMES = ["cat", "cat ", "c\nat", "\x1b]0;owned\x07dog", "nul\0", "a\u202eb"]


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder with a dataset of hostile names, and a secret beside it that images lead to."""
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3)).astype(np.uint8)
    for place in (tmp_path / "elsewhere.png", folder / "images/own.png"):
        Image.fromarray(pixels).save(place)
    (tmp_path / "secret").write_text("secret")
    for name, target in {
        "a": "secret",
        "b": "elsewhere.png",
        "c": "/dev/zero",
        "d": "data/images/own.png",
    }.items():
        (folder / f"images/{name}.png").symlink_to(tmp_path / target)
    files = ["own.png", "a.png", "b.png", "c.png", "d.png"]
    rows = [{"id": k, "file_name": name, "width": 60, "height": 40} for k, name in enumerate(files)]
    classes = [{"id": k, "name": name} for k, name in enumerate(NAMES)]
    boxes = [
        {"id": k, "image_id": k % 5, "category_id": k, "bbox": [2 + 9 * k, 5, 8, 9], "area": 36, "iscrowd": 0}
        | {"segmentation": [[2 + 9 * k, 5, 10 + 9 * k, 5, 10 + 9 * k, 14]]}
        for k in range(len(NAMES))
    ]
    content = {"images": rows, "categories": classes, "annotations": boxes}
    (folder / "boxes.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("format", ["yolo", "voc", "semantic", "labelme", "cvat", "salient"])
def test_only_images_are_copied_through_links_and_none_is_linked(hostile: Path, format: str) -> None:
    with pytest.warns(
        ConversionWarning, match="2 of 5 images are links out of .* to files that are not images"
    ):
        boxel.convert(hostile / "boxes.json", hostile / "out", format, images=hostile / "images")
    placed = {
        file.name: file for file in (hostile / "out").rglob("*.png") if "abel" not in str(file.parent.name)
    }
    placed = {
        name: file for name, file in placed.items() if name in ("own.png", "a.png", "b.png", "c.png", "d.png")
    }
    assert {"own.png", "b.png", "d.png"} <= placed.keys()
    assert not any(file.is_symlink() for file in (hostile / "out").rglob("*"))
    assert not any(b"secret" in file.read_bytes() for file in (hostile / "out").rglob("*.*"))
    assert (hostile.parent / "elsewhere.png").stat().st_nlink == 1


@pytest.mark.parametrize("format", ["voc", "cvat", "darknet", "semantic"])
def test_classes_that_differ_in_white_space_alone_stay_apart(hostile: Path, format: str) -> None:
    with pytest.warns(ConversionWarning, match="1 class is numbered, e.g. 'cat_2'"):
        boxel.convert(hostile / "boxes.json", hostile / "out", format, images=hostile / "images")
    again = boxel.read(hostile / "out")
    names = [category.name for category in again.categories]
    if format == "semantic":  # which has no place for what a line cannot hold
        assert names == ["background", "cat", "cat_2", "c at", "]0;owned dog", "nul", "a b"]
    else:
        assert names == NAMES
        found = dict(zip(again.ids, (names[label] for label in again.labels), strict=True))
        assert all(found[k] == NAMES[k] for k in found)


@pytest.mark.parametrize(
    "line",
    [
        "check boxes.json --images images",
        "label boxes.json --images images --teacher ellipse --out out/masks.json",
        "convert boxes.json out/voc --images images --to voc",
        "draw boxes.json --images images --out out",
        "evaluate boxes.json boxes.json --images images",
        "next boxes.json --images images --count 6",
    ],
)
def test_no_control_character_reaches_the_terminal(commands: Any, hostile: Path, line: str) -> None:
    said = commands.run(line, hostile).text
    assert not {"\x1b", "\x07", "\0", "\u202e"} & set(said)
    assert "c\nat" not in said


def test_large_images_are_worked_on_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for side in (8, 40):
        Image.new("L", (side, side)).save(tmp_path / f"{side}.png")
    monkeypatch.setattr(images, "MAX_SHARED_PIXELS", 100)
    entered = threading.Event()

    def work(name: str) -> threading.Thread:
        def run() -> None:
            with images.in_turn(tmp_path / name):
                entered.set()

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    with images.in_turn(tmp_path / "40.png"):
        work("8.png").join()  # a small one passes
        assert entered.is_set()
        entered.clear()
        waiting = work("40.png")
        assert not entered.wait(0.2)
    waiting.join()
    assert entered.is_set()


def test_an_image_of_too_many_pixels_is_refused_unread(tmp_path: Path) -> None:
    Image.new("1", (20_000, 10_000)).save(tmp_path / "bomb.png")
    assert os.path.getsize(tmp_path / "bomb.png") < 100_000
    with pytest.raises(boxel.BoxelError, match="more than 178956970 pixels"):
        images.read_image(tmp_path / "bomb.png")
