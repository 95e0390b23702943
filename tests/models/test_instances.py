"""Instances: indexing, dense masks, and what they convert to."""

import json

import numpy as np
import pytest
from PIL import Image

from boxel.data.annotations import Category
from boxel.masks.rle import encode
from boxel.models.instances import Instances
from boxel.utils.errors import BoxelError


def mask(x: int) -> np.ndarray:
    pixels = np.zeros((24, 32), dtype=bool)
    pixels[4:12, x : x + 8] = True
    return pixels


@pytest.fixture
def instances() -> Instances:
    return Instances(
        boxes=np.array([[x, 4, x + 8, 12] for x in (0, 8, 20)], dtype=np.float32),
        scores=np.array([0.9, 0.6, 0.2], dtype=np.float32),
        labels=np.array([1, 0, 1]),
        rles=[encode(mask(x)) for x in (0, 8, 20)],
        categories=(Category(5, "lamp"), Category(9, "sun")),
        image_size=(24, 32),
        source=np.zeros((24, 32, 3), dtype=np.uint8),
    )


@pytest.mark.parametrize(
    ("index", "rows"),
    [
        (0, [0]),
        (-1, [2]),
        (np.int64(1), [1]),
        (slice(1, None), [1, 2]),
        ([2, 0], [2, 0]),
        ([], []),
        (np.array([True, False, True]), [0, 2]),
        (np.array([1, 1]), [1, 1]),
        (np.zeros(3, dtype=bool), []),
    ],
)
def test_every_field_is_indexed_alike(instances: Instances, index, rows) -> None:
    chosen = instances[index]
    assert isinstance(chosen, Instances) and len(chosen) == len(rows)
    np.testing.assert_array_equal(chosen.boxes, instances.boxes[rows])
    np.testing.assert_array_equal(chosen.scores, instances.scores[rows])
    np.testing.assert_array_equal(chosen.masks, instances.masks[rows])
    assert chosen.names == [instances.names[row] for row in rows]


def test_an_index_out_of_range_or_a_mask_of_another_length_raises(instances: Instances) -> None:
    for index in (3, [0, 3], np.array([True])):
        with pytest.raises(IndexError):
            instances[index]


def test_filtering_by_score_and_iterating_keep_the_order(instances: Instances) -> None:
    assert instances[instances.scores > 0.5].names == ["sun", "lamp"]
    assert [one.names[0] for one in instances] == ["sun", "lamp", "sun"]


def test_masks_are_dense_contiguous_and_keep_the_image_size(instances: Instances) -> None:
    assert instances.masks.dtype == bool and instances.masks.flags.c_contiguous
    np.testing.assert_array_equal(instances.masks, np.stack([mask(0), mask(8), mask(20)]))
    assert instances[[]].masks.shape == (0, 24, 32)


def test_coco_results_have_original_category_ids_and_the_id_of_the_file(instances: Instances) -> None:
    assert [row["category_id"] for row in instances.to_coco(3)] == [9, 5, 9]
    assert {row["image_id"] for row in instances.to_coco()} == {0}
    assert instances.to_coco(3)[1]["bbox"] == [8, 4, 8, 8]


def test_supervision_gets_masks_and_class_names(instances: Instances) -> None:
    detections = instances.to_supervision()
    assert detections.mask.shape == (3, 24, 32)
    assert detections.data["class_name"].tolist() == ["sun", "lamp", "sun"]
    assert len(instances[[]].to_supervision()) == 0


def test_save_writes_results_or_a_drawing_by_the_suffix(instances: Instances, tmp_path) -> None:
    instances.save(tmp_path / "results.json")
    assert len(json.loads((tmp_path / "results.json").read_text())) == 3
    instances.save(tmp_path / "drawing.png")
    assert np.array(Image.open(tmp_path / "drawing.png")).any()


def test_notebooks_get_a_drawing_if_the_image_is_known(instances: Instances) -> None:
    assert instances._repr_png_().startswith(b"\x89PNG")
    unknown = Instances(
        instances.boxes, instances.scores, instances.labels, instances.rles, instances.categories, (24, 32)
    )
    assert unknown._repr_png_() is None
    with pytest.raises(BoxelError, match="give it as `image`"):
        unknown.plot()
    assert repr(unknown) == "Instances(3 in 32 x 24 pixels: sun 0.90, lamp 0.60, sun 0.20)"
