"""Figures of label maps on a set."""

import math
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from boxel.data.annotations import Annotations, Category, values_to_labels
from boxel.data.formats.builder import Builder
from boxel.evaluation.semantic import format_semantic, measure_label_maps, select_measurable
from boxel.utils.errors import BoxelError


@pytest.fixture
def truth(tmp_path) -> Annotations:
    """Four images with random label maps of the values 5, 9 and 2, and void."""
    rng = np.random.default_rng(0)
    rows = Builder()
    for k in range(4):
        Image.fromarray(rng.choice([5, 9, 2, 77], (20, 30)).astype(np.uint8)).save(tmp_path / f"{k}_map.png")
        rows.add_image(k, f"{k}.jpg", 30, 20, f"{k}_map.png")
    data = rows.build(tmp_path, [Category(5, "a"), Category(9, "b"), Category(2, "c")], tmp_path)
    return replace(data, map_labels=values_to_labels({5: 0, 9: 1, 2: 2}))


@pytest.fixture
def found(tmp_path, truth):
    """A folder of maps that are right in most places."""
    rng = np.random.default_rng(1)
    folder = tmp_path / "found"
    folder.mkdir()
    for k in range(4):
        values = np.array(Image.open(tmp_path / f"{k}_map.png"))
        wrong = rng.random(values.shape) < 0.3
        values[wrong] = rng.choice([5, 9, 2, 111], wrong.sum())  # 111 is no class
        Image.fromarray(values).save(folder / f"{k}.png")
    return folder


def test_against_sets_of_pixels(truth, found) -> None:
    figures = measure_label_maps(truth, found)
    true, ours = (
        np.concatenate([np.array(Image.open(path)).ravel() for path in sorted(folder.glob("?" + end))])
        for folder, end in ((truth.root, "_map.png"), (found, ".png"))
    )
    known = true != 77
    pixels = [
        [set(np.flatnonzero(known & (m == value)).tolist()) for m in (true, ours)] for value in (5, 9, 2)
    ]
    expected = [len(a & b) / len(a | b) for a, b in pixels]
    assert list(figures["per_class"].values()) == pytest.approx(expected)
    assert figures["mean_iou"] == pytest.approx(np.mean(expected))
    assert figures["pixel_accuracy"] == pytest.approx((true == ours)[known].mean())
    assert figures["images"] == 4


def test_images_with_boxes_only_are_skipped(tmp_path, caplog) -> None:
    """Not even beside an image in which there is nothing, all of which is background."""
    rows = Builder()
    for k in range(3):
        rows.add_image(k, f"{k}.jpg", 30, 20)
    rows.add(1, 0, 0, (2, 2, 9, 9), b"[[2,2,9,2,9,9]]")
    rows.add(2, 1, 0, (2, 2, 9, 9))
    data = rows.build(tmp_path, [Category(5, "a")], tmp_path / "set.json")
    caplog.set_level("INFO")
    assert select_measurable(data).tolist() == [0, 2]
    assert caplog.messages == ["1 of 3 images have boxes only and are skipped"]
    with pytest.raises(BoxelError, match="none of its 3 images has a label map or a mask to compare with"):
        select_measurable(data.without_masks())


def test_an_image_that_can_not_be_measured_costs_only_itself(truth, found) -> None:
    (found / "1.png").unlink()
    Image.new("L", (5, 5)).save(found / "2.png")
    told = []
    assert measure_label_maps(truth, found, errors=told)["images"] == 2
    assert len(told) == 2 and "1.png: cannot be read as a label map" in told[0] and "5 x 5" in told[1]
    for path in found.iterdir():
        path.unlink()
    with pytest.raises(BoxelError, match="none of its 4 images can be evaluated"):
        measure_label_maps(truth, found)


def test_the_table() -> None:
    figures = {"images": 3, "pixel_accuracy": 0.5, "mean_class_accuracy": math.nan, "mean_iou": 0.25}
    text = format_semantic(figures | {"per_class": {"a": 0.25, "long name": math.nan}})
    assert text.splitlines() == [
        "             IoU",
        "a           25.0",
        "long name      -",
        "mean        25.0",
        "",
        "In percent. 3 images; pixel accuracy 50.0, mean class accuracy -.",
    ]
