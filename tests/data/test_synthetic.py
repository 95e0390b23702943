import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from scipy import ndimage

from boxel.data import read
from boxel.data.synthetic import CLASSES, make_scene, write_scenes


@pytest.fixture(scope="module")
def scenes() -> list:
    return [make_scene(0, index) for index in range(40)]


def test_first_scene_is_pinned() -> None:
    image, instances = make_scene(0, 0)
    assert image.shape == (192, 256, 3) and image.dtype == np.uint8
    names = [CLASSES[instance.label] for instance in instances]
    assert names == ["crescent", "ring", "cross", "star", "cross"]
    assert [instance.box.tolist() for instance in instances] == [
        [191.0, 46.0, 253.0, 108.0],
        [104.0, 61.0, 172.0, 119.0],
        [12.0, 36.0, 123.0, 134.0],
        [12.0, 133.0, 59.0, 180.0],
        [154.0, 83.0, 197.0, 132.0],
    ]
    assert [int(instance.mask.sum()) for instance in instances] == [1904, 2428, 5977, 1068, 1102]
    np.testing.assert_allclose(image.mean((0, 1)), [130.597, 126.388, 154.562], atol=0.01)
    np.testing.assert_allclose(image.std((0, 1)), [28.469, 23.182, 41.337], atol=0.01)


def test_a_scene_depends_on_its_seed_and_index_alone() -> None:
    image, instances = make_scene(3, 7)
    again, instances_again = make_scene(3, 7)
    np.testing.assert_array_equal(image, again)
    np.testing.assert_array_equal([i.mask for i in instances], [i.mask for i in instances_again])
    assert not np.array_equal(image, make_scene(3, 8)[0])
    assert not np.array_equal(image, make_scene(4, 7)[0])


@pytest.mark.slow
def test_masks_are_apart_and_boxes_tight(scenes) -> None:
    for image, instances in scenes:
        masks = np.array([instance.mask for instance in instances])
        assert masks.shape[1:] == image.shape[:2]
        assert masks.sum(axis=0).max() == 1
        for instance in instances:
            x, y, w, h = coco_mask.toBbox(coco_mask.encode(np.asfortranarray(instance.mask, dtype=np.uint8)))
            assert instance.box.tolist() == [x, y, x + w, y + h]


@pytest.mark.slow
def test_scenes_have_holes_overlaps_and_shared_colors(scenes) -> None:
    instances = [instance for _, found in scenes for instance in found]
    assert {instance.label for instance in instances} == set(range(len(CLASSES)))
    filled = [i.mask.sum() / ((i.box[2] - i.box[0]) * (i.box[3] - i.box[1])) for i in instances]
    assert np.mean(filled) < 0.55
    holes = [ndimage.binary_fill_holes(i.mask).sum() - i.mask.sum() for i in instances]
    assert np.mean(np.array(holes) > 20) > 0.1
    sizes = [max(i.box[2:] - i.box[:2]) for i in instances]
    assert min(sizes) < 50 and max(sizes) > 120
    assert np.mean([len(found) for _, found in scenes]) > 3


def test_scenes_have_any_size() -> None:
    image, instances = make_scene(0, 1, height=200, width=90)
    assert image.shape == (200, 90, 3)
    assert all(instance.mask.shape == (200, 90) for instance in instances)


def test_datasets_are_written_as_coco(tmp_path) -> None:
    data = write_scenes(tmp_path, 3, seed=5)
    expected = [instance for index in range(3) for instance in make_scene(5, index)[1]]
    coco = COCO(tmp_path / "masks.json")
    annotations = coco.loadAnns(sorted(coco.getAnnIds()))
    assert len(annotations) == len(data.labels) == len(expected)
    for annotation, instance in zip(annotations, expected, strict=True):
        np.testing.assert_array_equal(coco.annToMask(annotation), instance.mask)
        assert coco.cats[annotation["category_id"]]["name"] == CLASSES[instance.label]
    boxes = json.loads((tmp_path / "boxes.json").read_text())
    assert not any(annotation.get("segmentation") for annotation in boxes["annotations"])
    boxes_only = read(tmp_path / "boxes.json", images=tmp_path / "images")
    np.testing.assert_array_equal(boxes_only.boxes, data.boxes)
    assert not boxes_only.has_mask.any() and boxes_only.image_path(2).is_file()
