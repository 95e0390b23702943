"""The demo on photographs: what it writes, that its metrics are those of its files, and that it resumes."""

import json

import numpy as np
import pytest
from PIL import Image

from boxel.data import read
from boxel.demo import demo
from boxel.demo.photos import draw_photos


@pytest.mark.slow
def test_photographs_are_labeled_evaluated_and_not_labeled_twice(tmp_path):
    result = demo(tmp_path)
    first, printed = result.summary, str(result)
    made, truth = read(tmp_path / "photos_masks.json"), read(tmp_path / "photos" / "masks.json")
    assert "check: no issues found" in printed and f"labeled {len(truth)} photographs" in printed
    assert made.ids == truth.ids and made.has_mask.all()
    np.testing.assert_array_equal(made.boxes, truth.boxes)
    assert first["labeled"] == len(truth) == len(list((tmp_path / "photos").glob("*.[pj][np]g")))

    ious = []
    for i in range(len(truth.ids)):
        ours, theirs = made.mask(i).astype(bool), truth.mask(i).astype(bool)
        ious.append((ours & theirs).sum() / (ours | theirs).sum())
    assert min(np.diff(truth.boxes.reshape(-1, 2, 2), axis=1).reshape(-1)) >= 16  # so that all are measured
    assert first["masks"]["mask_iou"] == pytest.approx(np.mean(ious), abs=1e-4)
    assert first["masks"]["instances"] == len(ious)
    assert first["masks"]["mask_iou"] > 0.85 > 0.8 > first["box"]["mask_iou"]
    assert f"{first['masks']['mask_iou']:.3f}" in printed and f"{first['box']['mask_iou']:.3f}" in printed
    assert "photos_masks.json" in (tmp_path / "report.html").read_text()
    assert Image.open(tmp_path / "photos.jpg").width == 4 * 300

    masks = (tmp_path / "photos_masks.json").read_bytes()
    again = demo(tmp_path).summary
    assert (tmp_path / "photos_masks.json").read_bytes() == masks
    assert again["labeled"] == 0 and (again["masks"], again["box"]) == (first["masks"], first["box"])


def test_boxes_are_drawn_beside_masks_two_images_per_row(tmp_path):
    square = [[100, 100, 200, 100, 200, 200, 100, 200]]
    images, annotations = [], []
    for n in (1, 2, 3):
        Image.new("RGB", (300, 300), (100, 100, 100)).save(tmp_path / f"{n}.png")
        images.append({"id": n, "file_name": f"{n}.png", "width": 300, "height": 300})
        annotations.append({"id": n, "image_id": n, "category_id": 1, "bbox": [100, 100, 100, 100]})
        if n < 3:  # the last has no mask
            annotations[-1] |= {"segmentation": square, "quality": 0.5}
    categories = [{"id": 1, "name": "thing"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "masks.json").write_text(json.dumps(content))

    draw_photos(read(tmp_path / "masks.json"), tmp_path / "sheet.png")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape == (600, 1200, 3)
    gray, tinted, blank = [100] * 3, [132, 72, 144], [255] * 3  # 0.6 of the gray and 0.4 of (180, 30, 210)
    centers = sheet[150::300, 150::300].tolist()
    assert centers == [[gray, tinted, gray, tinted], [gray, gray, blank, blank]]
