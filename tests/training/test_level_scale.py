"""The sizes that the levels of a pyramid detect follow the boxes of the dataset, unless a recipe fixes them."""

from dataclasses import replace

import numpy as np
import pytest
import yaml

from boxel.data.config import AugmentConfig
from boxel.training import train
from boxel.training.level_scale import (
    PAPER_SIDE,
    choose_level_scale,
    measure_median_side,
    settle_level_scale,
)
from boxel.training.recipe import list_recipes, read_config
from boxel.training.settings import resolve_run


@pytest.fixture
def boxes(scenes):
    """Three boxes in an image of 96 x 64, of which the middle one is a crowd: longer sides of 10, 90 and 30."""
    one = scenes.select_images(np.arange(len(scenes)) == 0)
    rows = one.select_instances(np.array([0, 0, 0]))
    sides = np.array([[0, 0, 10, 5], [0, 0, 90, 5], [10, 20, 20, 50]], dtype=rows.boxes.dtype)
    return replace(rows, boxes=sides, iscrowd=np.array([False, True, False]))


@pytest.mark.parametrize(
    ("short_sides", "max_size", "median"),
    [([64], 96, 20), ([640, 800], 9999, 20 * 11.25), ([640], 480, 20 * 5)],
    ids=["at its size", "mean of the sizes", "limited by the longer side"],
)
def test_the_median_side_is_that_of_the_resized_boxes_without_crowds(boxes, short_sides, max_size, median):
    augment = AugmentConfig(short_sides=short_sides, max_size=max_size)
    assert measure_median_side(boxes, augment) == pytest.approx(median)


def test_boxes_that_are_missing_do_not_count_nor_those_in_images_of_unknown_size(boxes):
    augment = AugmentConfig(short_sides=[64], max_size=96)
    lost = replace(boxes, boxes=boxes.boxes.copy())
    lost.boxes[0] = np.nan
    assert measure_median_side(lost, augment) == pytest.approx(30)
    unknown = replace(boxes, widths=boxes.widths * 0, heights=boxes.heights * 0)
    assert measure_median_side(unknown, augment) == pytest.approx(20)  # read from the image
    lost = replace(unknown.without_masks(), root=unknown.root / "nowhere")
    assert measure_median_side(lost, augment) == PAPER_SIDE


def test_sizes_are_halved_below_the_geometric_mean_of_both():
    """128 / sqrt 2 is 90.5."""
    assert [choose_level_scale(side) for side in (20, 90, 91, 128, 1000)] == [0.5, 0.5, 1, 1, 1]


def test_small_boxes_halve_the_sizes_and_large_ones_do_not(boxes, caplog):
    caplog.set_level("INFO", logger="boxel")
    run = resolve_run("boxinst", None, None, None, {})
    settle_level_scale(run, boxes, resume=False)  # 20 pixels at a shorter side of 720 instead of 64
    assert run.settings.model.level_scale == 1
    assert "a median longer side of 225 pixels in training, where the paper's sizes suit 128" in caplog.text
    small = resolve_run("mask-rcnn", None, None, None, {"augment.short_sides": [256]})
    settle_level_scale(small, boxes, resume=False)
    assert small.settings.model.level_scale == 0.5
    assert "detect half of these sizes (`model.level_scale` 0.5)" in caplog.text


def test_a_chosen_scale_stays_and_other_methods_have_none(boxes):
    run = resolve_run("boxinst", None, None, None, {"model.level_scale": 0.75, "augment.short_sides": [64]})
    settle_level_scale(run, boxes, resume=False)
    assert run.settings.model.level_scale == 0.75
    settle_level_scale(resolve_run("fcrn", None, None, None, {}), boxes, resume=False)


@pytest.mark.slow
def test_the_run_stores_the_scale_and_a_resumed_run_keeps_it(scenes, tiny, run_folder, boxes):
    model = train("boxinst", scenes, out=run_folder, config=tiny)
    assert model.config.level_scale == 0.5
    assert yaml.safe_load((run_folder / "config.yaml").read_text())["model"]["level_scale"] == 0.5
    resumed = resolve_run("boxinst", tiny, None, run_folder, {"augment.short_sides": [800]})
    settle_level_scale(resumed, boxes, resume=True)
    assert resumed.settings.model.level_scale == 0.5


def test_recipes_of_tables_keep_the_papers_sizes():
    scales = {
        recipe.name: read_config(recipe.name).model.level_scale
        for recipe in list_recipes()
        if recipe.method in ("boxinst", "mask-rcnn")
    }
    assert scales.pop("mask-rcnn-small") == scales.pop("boxinst-small") == 0.5
    assert len(scales) > 30 and set(scales.values()) == {1.0}
