"""Images are larger if the boxes of a dataset would be small in training."""

from dataclasses import replace

import numpy as np
import pytest
import yaml

from boxel.training import train
from boxel.training.input_size import settle_input_size
from boxel.training.settings import resolve_run

SIZES = {"short_sides": [224, 256, 288], "max_size": 432}


@pytest.fixture
def boxes(scenes):
    """A box of 40 x 20 pixels in an image of 960 x 640, and a crowd."""
    one = scenes.select_images(np.arange(len(scenes)) == 0)
    rows = one.select_instances(np.array([0, 0]))
    sides = np.array([[0, 0, 40, 20], [0, 0, 90, 5]], dtype=rows.boxes.dtype)
    rows = replace(rows, boxes=sides, iscrowd=np.array([False, True]))
    return replace(rows, widths=rows.widths * 0 + 960, heights=rows.heights * 0 + 640)


def settle(data, recipe="boxinst-small", **changes):
    run = resolve_run("boxinst", recipe, None, None, changes)
    settle_input_size(run, data)
    return run.settings.augment


@pytest.mark.parametrize(
    ("min_side", "own", "short_sides", "max_size"),
    [
        (16, (960, 640), [224, 256, 288], 432),  # 256 / 640 x 40 are 16 pixels in training
        (20, (960, 640), [288, 320, 352], 544),  # 1.25 times, to multiples of 32
        (64, (960, 640), [320, 384, 448], 640),  # 1.5 times at most
        (64, (480, 320), [288, 320, 352], 544),  # to 320 at the most, and boxes of 32 pixels
        (64, (240, 160), [224, 256, 288], 432),  # larger than the image already
    ],
    ids=["large enough", "to the side", "not too far", "to its own size", "small image"],
)
def test_images_grow_until_the_boxes_are_large_enough(boxes, min_side, own, short_sides, max_size):
    data = replace(boxes, widths=boxes.widths * 0 + own[0], heights=boxes.heights * 0 + own[1])
    augment = settle(data, **{"augment.min_side": min_side})
    assert (augment.short_sides, augment.max_size) == (short_sides, max_size)
    assert augment.min_side is None  # so that a run with these settings does not grow again


def test_the_log_states_the_size(boxes, caplog):
    caplog.set_level("INFO", logger="boxel")
    settle(boxes)
    assert (
        "a median longer side of only 16 pixels in training, so images are resized to shorter sides of 320, 384, 448"
        in caplog.text
    )


@pytest.mark.parametrize(
    "given",
    [
        {"augment.short_sides": [320]},
        {"augment.max_size": 400},
        {"augment": SIZES},
        {"augment.min_side": None},
    ],
)
def test_a_given_size_stays(boxes, given, caplog):
    caplog.set_level("INFO", logger="boxel")
    augment = settle(boxes, **given)
    assert max(augment.short_sides) <= 320 and augment.min_side is None and not caplog.text


def test_only_the_small_recipe_fits_sizes_and_boxes_of_unknown_size_leave_them(boxes):
    assert settle(boxes, recipe="boxinst/coco-r50-1x").short_sides == [640, 672, 704, 736, 768, 800]
    lost = replace(
        boxes.without_masks(), widths=boxes.widths * 0, heights=boxes.heights * 0, root=boxes.root / "nowhere"
    )
    assert settle(lost).short_sides == [224, 256, 288]
    assert settle(replace(boxes, boxes=boxes.boxes * 0)).short_sides == [224, 256, 288]
    settle_input_size(resolve_run("fcrn", None, None, None, {}), boxes)


@pytest.mark.slow
def test_the_run_stores_the_sizes_and_is_resumed_with_the_same_settings(scenes, tiny, run_folder):
    """Images of 96 x 64 at a shorter side of 32 grow by half, which is rounded to 64."""
    tiny = tiny | {"augment": {"short_sides": [32], "max_size": 96, "min_side": 64}}
    train("boxinst", scenes, out=run_folder, config=tiny)
    assert yaml.safe_load((run_folder / "config.yaml").read_text())["augment"]["short_sides"] == [64]
    train("boxinst", scenes, out=run_folder, config=tiny, resume=True)
