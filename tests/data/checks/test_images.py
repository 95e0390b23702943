from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boxel.data.checks import check, repair
from boxel.data.images import MAX_PIXELS

BOXES = [(10, 10, 50, 40), (20, 20, 60, 60)]


def gradient(path: Path, size: tuple[int, int] = (100, 80)) -> Path:
    pixels = np.arange(size[0] * size[1] * 3, dtype=np.uint32).reshape(size[1], size[0], 3) * 2654435761 >> 24
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


@pytest.mark.parametrize(
    "kind, damage",
    [
        ("image-missing", lambda path: path.unlink()),
        ("image-empty", lambda path: path.write_bytes(b"")),
        ("image-unreadable", lambda path: path.write_bytes(b"<html>")),
        ("image-truncated", lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])),
    ],
)
def test_an_unreadable_image_is_left_out_with_its_annotations(make, tmp_path, kind, damage) -> None:
    for name in ("a.png", "b.png"):
        gradient(tmp_path / name)
    damage(tmp_path / "a.png")
    data = make([*BOXES, (10, 10, 10, 10)], root=tmp_path, image_index=[0, 1, 0])
    first, second = check(data)
    assert (first.kind, first.image_id, first.annotation_id) == (kind, 1, None)
    assert first.file == str(tmp_path / "a.png")
    assert first.values["annotations"] == 2
    assert first.repair == "left out with its 2 annotations"
    assert (second.kind, second.annotation_id) == ("box-empty", 13)  # boxes of lost images are looked at too
    repaired, _ = repair(data)
    assert (repaired.image_ids, repaired.ids) == ([2], [12])
    assert check(repaired) == []


@pytest.mark.slow
def test_a_decompression_bomb_is_reported(make, tmp_path) -> None:
    gradient(tmp_path / "a.png")
    Image.new("1", (20_000, 20_000)).save(tmp_path / "b.png")
    data = make(BOXES, root=tmp_path)
    (issue,) = check(data)
    assert (issue.kind, issue.image_id) == ("image-too-large", 2)
    assert issue.values == {"max_pixels": MAX_PIXELS, "annotations": 0}


def test_a_wrong_image_folder_is_one_issue_and_loses_nothing(make, tmp_path) -> None:
    data = make([(10, 10, 50, 140)], root=tmp_path / "elsewhere")
    issues = check(data)
    assert [(f.kind, f.repair) for f in issues] == [
        ("images-missing", ""),
        ("box-outside", "clipped to the image"),
    ]
    assert issues[0].values == {"images": 2, "first": str(tmp_path / "elsewhere" / "a.png")}
    assert "`images`" in issues[0].message
    repaired, _ = repair(data)
    assert (repaired.image_ids, repaired.boxes.tolist()) == ([1, 2], [[10, 10, 50, 80]])


def test_wrong_and_missing_sizes_are_corrected(make) -> None:
    data = make([(10, 10, 150, 40)], widths=[200, 0], heights=[80, 0])
    issues = check(data)
    assert [issue.kind for issue in issues] == ["image-size", "box-outside"]
    assert issues[0].values == {"recorded": [200, 80], "found": [100, 80], "orientation": 1}
    repaired, _ = repair(data)
    assert (repaired.widths.tolist(), repaired.heights.tolist()) == ([100, 100], [80, 80])
    assert repaired.boxes.tolist() == [[10, 10, 100, 40]]
    assert check(repaired) == []


def test_unusable_label_maps_are_left_out(make, tmp_path) -> None:
    for name in ("a.png", "b.png", "c.png", "d.png", "map_d.png"):
        gradient(tmp_path / name)
    Image.new("L", (100, 80)).save(tmp_path / "map_b.png")
    Image.new("P", (50, 40)).save(tmp_path / "map_c.png")
    data = make(
        BOXES,
        root=tmp_path,
        image_ids=[1, 2, 3, 4],
        paths=["a.png", "b.png", "c.png", "d.png"],
        label_maps=["map_a.png", "map_b.png", "map_c.png", "map_d.png"],
    )
    missing, small, colored = check(data)
    assert (missing.kind, missing.image_id) == ("label-map-missing", 1)
    assert (small.kind, small.image_id) == ("label-map-size", 3)
    assert (colored.kind, colored.image_id) == ("label-map-unreadable", 4)
    assert small.values["found"] == [50, 40] and small.values["image"] == [100, 80]
    repaired, _ = repair(data)
    assert repaired.label_maps == [None, "map_b.png", None, None]
    assert check(repaired) == []
