"""A coordinate that is not a number costs its object alone, whatever the format."""

import json
from itertools import chain
from pathlib import Path

import pytest
from PIL import Image

import boxel
from boxel.data.checks import repair

RING = [[20, 15], [60, 15], [60, 35], [40, 35], [40, 55]]
BAD = [[20, 15], [float("nan"), 15], [60, 35]]


def write_coco(folder: Path) -> Path:
    rows = [
        {
            "id": k,
            "image_id": 1,
            "category_id": 1,
            "bbox": [20, 15, 40, 40 - k],
            "segmentation": [list(chain(*ring))],
        }
        for k, ring in enumerate((RING, BAD), 1)
    ]
    image = {"id": 1, "file_name": "a.png", "width": 100, "height": 80}
    content = {"images": [image], "annotations": rows, "categories": [{"id": 1, "name": "cat"}]}
    (folder / "coco.json").write_text(json.dumps(content))
    return folder / "coco.json"


def write_labelme(folder: Path) -> Path:
    shapes = [{"label": "cat", "points": ring, "shape_type": "polygon"} for ring in (RING, BAD)]
    content = {"version": "5", "shapes": shapes, "imagePath": "a.png", "imageHeight": 80, "imageWidth": 100}
    (folder / "a.json").write_text(json.dumps(content))
    return folder


def write_label_studio(folder: Path) -> Path:
    results = [
        {
            "id": f"r{k}",
            "type": "polygonlabels",
            "from_name": "label",
            "to_name": "image",
            "original_width": 100,
            "original_height": 80,
            "value": {"points": [[x, y / 0.8] for x, y in ring], "polygonlabels": ["cat"]},
        }
        for k, ring in enumerate((RING, BAD))
    ]
    (folder / "tasks.json").write_text(
        json.dumps([{"id": 1, "data": {"image": "a.png"}, "annotations": [{"id": 1, "result": results}]}])
    )
    return folder / "tasks.json"


@pytest.mark.parametrize("write", [write_coco, write_labelme, write_label_studio])
def test_a_coordinate_that_is_not_a_number_costs_its_object(tmp_path, write) -> None:
    Image.new("RGB", (100, 80), "gray").save(tmp_path / "a.png")
    source = write(tmp_path)
    data, issues = repair(boxel.read(source))
    assert data.segmentation(0) == [list(chain(*RING))] and not data.has_mask[1:].any()
    assert len(issues) == 1 and "cannot be " in issues[0].message
