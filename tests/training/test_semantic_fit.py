"""A semantic segmenter warns of a dataset from which it learns little, and names what suits it better."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from boxel.data.annotations import Annotations, Category
from boxel.training.fitting import fit_to_data
from boxel.training.prepare import TrainingData
from boxel.training.semantic_fit import measure_covered, warn_if_unsuited
from boxel.training.settings import resolve_run

LARGE = (0, 0, 40, 30)


def dataset(images, *boxes):
    """Return images of 100 x 50 pixels, each with these boxes and a mask for each."""
    count = images * len(boxes)
    return Annotations(
        root=Path("photos"),
        image_ids=list(range(images)),
        paths=[f"{image}.jpg" for image in range(images)],
        widths=np.full(images, 100, dtype=np.int32),
        heights=np.full(images, 50, dtype=np.int32),
        categories=(Category(1, "screw"),),
        ids=list(range(count)),
        image_index=np.repeat(np.arange(images, dtype=np.int32), len(boxes)),
        labels=np.zeros(count, dtype=np.int32),
        boxes=np.tile(np.array(boxes, dtype=np.float64).reshape(-1, 4), (images, 1)),
        iscrowd=np.zeros(count, dtype=bool),
        segmentations=np.full(count, b"[]", dtype=object),
        file="screws.json",
    )


def resolve(method, long_side=400):
    """Return a run that sees images four times as large, in which two cells are 16 pixels."""
    settings = {"views.long_side": long_side, "model.output_stride": 8}
    return resolve_run(method, None, None, None, settings)


@pytest.fixture
def warned(caplog):
    """The message about a dataset, or an empty string."""

    def warned(data, method="fcrn", **settings):
        caplog.clear()
        warn_if_unsuited(resolve(method, **settings), data)
        return caplog.messages[0] if caplog.messages else ""

    return warned


@pytest.mark.parametrize("method", ["fcrn", "boxsup"])
def test_a_dataset_that_suits_gives_no_warning(warned, method):
    assert warned(dataset(40, LARGE), method) == ""


def test_few_images_are_reported(warned):
    assert warned(dataset(39, LARGE)) == (
        "screws.json: fcrn may learn little from 39 training images (fewer than 40); better: `boxel train boxinst`."
    )


def test_images_with_boxes_only_count_where_boxes_are_learned_from(warned):
    data = dataset(45, LARGE)
    data.segmentations[:6] = None
    assert "39 training images" in warned(data)
    assert warned(data, "boxsup") == ""


def test_boxes_below_two_cells_are_reported_with_the_size_that_they_need(warned):
    """A median side of 3 pixels is 12 at four times the size; 16 need images of 400 * 16 / 12 = 533.3."""
    message = warned(dataset(40, (0, 0, 3, 2), (10, 10, 12, 13), LARGE))
    assert (
        "little from boxes with a median longer side of 12 pixels in training (below 16, 2 cells" in message
    )
    assert message.endswith("; better: `boxel train boxinst`, or set `views.long_side` to 534.")
    assert warned(dataset(40, (0, 0, 4, 2), (10, 10, 12, 14), LARGE)) == ""


def test_boxes_of_images_at_their_own_size_are_measured_as_they_are(warned):
    """A side of 10 needs images of 100 * 16 / 10 pixels."""
    assert "of 10 pixels" in warned(dataset(40, (0, 0, 10, 10)), long_side=None)
    assert "to 160." in warned(dataset(40, (0, 0, 10, 10)), long_side=None)
    assert warned(dataset(40, (0, 0, 16, 10)), long_side=None) == ""


def test_boxes_on_less_than_a_hundredth_of_the_pixels_are_reported(warned):
    """7 by 7 of 100 x 50 pixels are 0.98 %, and 10 by 5 are 1 %."""
    assert "from boxes on 0.98% of the pixels (below 1%); better" in warned(dataset(40, (0, 0, 7, 7)))
    assert warned(dataset(40, (0, 0, 10, 5))) == ""


def test_the_covered_share_leaves_out_crowds_and_images_of_unknown_size():
    """40 by 30 of 100 x 50 pixels are 0.24."""
    data = dataset(2, LARGE, (0, 0, 100, 50), (5, 5, np.nan, 9))
    data.iscrowd[1::3] = True
    assert measure_covered(data) == pytest.approx(0.24)
    assert measure_covered(replace(data, widths=np.array([100, 0]))) == pytest.approx(0.24)
    assert measure_covered(replace(data, widths=np.array([0, 0]))) == 1


def test_of_label_maps_only_the_number_of_images_is_known(warned):
    maps = replace(dataset(39), label_maps=["map.png"] * 39)
    assert warned(maps).endswith("(fewer than 40); better: start from a run on more images (`init`).")
    assert warned(replace(dataset(40), label_maps=["map.png"] * 40)) == ""
    both = replace(
        dataset(40, (0, 0, 1, 1)), label_maps=["map.png"] * 40
    )  # boxes that nothing is learned from
    assert warned(both) == ""


def test_every_new_run_of_a_semantic_segmenter_warns_once(caplog):
    data = dataset(10, (0, 0, 2, 2))
    for method, resume, count in (
        ("fcrn", False, 1),
        ("boxsup", False, 1),
        ("fcrn", True, 0),
        ("mask-rcnn", False, 0),
    ):
        caplog.clear()
        run = resolve(method) if method != "mask-rcnn" else resolve_run(method, None, None, None, {})
        fit_to_data(run, TrainingData(data, None, data.categories, None), resume)
        assert len([r for r in caplog.records if r.levelname == "WARNING"]) == count
