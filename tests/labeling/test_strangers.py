"""Teachers, files and folders of strangers: what is wrong with them is told, and costs no more than itself."""

import json
from dataclasses import replace

import numpy as np
import pytest

import boxel
from boxel.data import write
from boxel.labeling import fusion as masks_module
from boxel.labeling.api import label, label_data
from boxel.labeling.calibrate import calibrate
from boxel.labeling.teachers import make_teacher
from boxel.labeling.teachers.base import SoftMask
from boxel.utils.errors import BoxelError, UsageError


class Own:
    """A teacher that says what a function of an image and its boxes gives."""

    name = "own"

    def __init__(self, says):
        self.says = says

    def __call__(self, image, boxes, labels):
        return self.says(image, boxes)


def squares(value, image, boxes):
    return [SoftMask(np.full((8, 8), value, np.float32), tuple(box)) for box in boxes]


@pytest.mark.parametrize(
    ("says", "message"),
    [
        (
            lambda image, boxes: squares(5, image, boxes) * 2,
            "own returns 4 masks for 2 boxes; return one per box",
        ),
        (lambda image, boxes: squares(5, image, boxes)[:1], "own returns 1 masks for 2 boxes"),
        (lambda image, boxes: None, "own does not return a list of SoftMask"),
        (lambda image, boxes: [np.ones((4, 4))] * 2, "own does not return a list of SoftMask"),
        (
            lambda image, boxes: [SoftMask(np.ones((2, 2)), (5, 5, 5, 5))] * 2,
            "is not the window of a soft mask",
        ),
        (
            lambda image, boxes: [SoftMask(np.ones((2, 2)), (5, 5, 3, 9))] * 2,
            "is not the window of a soft mask",
        ),
        (lambda image, boxes: [SoftMask(np.ones((2, 2)), (0, 0, np.nan, 9))] * 2, "is not the window"),
        (lambda image, boxes: [SoftMask(np.ones((1, 2, 2)), (0, 0, 9, 9))] * 2, r"shape \(1, 2, 2\)"),
        (lambda image, boxes: [SoftMask(np.ones((0, 2)), (0, 0, 9, 9))] * 2, r"shape \(0, 2\)"),
    ],
)
def test_what_is_no_soft_mask_is_told(make_set, says, message):
    with pytest.raises(BoxelError, match=message):
        label(make_set(1), teacher=Own(says))


def test_infinite_logits_mean_what_large_ones_do(make_set):
    """Nothing can be interpolated between infinite numbers."""

    def left_half(value):
        half = np.where(np.arange(8) < 4, value, -value)
        return Own(lambda image, boxes: [SoftMask(np.tile(half, (8, 1)), tuple(box)) for box in boxes])

    data = make_set(1)
    found, expected = (label(data, teacher=left_half(value)) for value in (np.inf, 50.0))
    assert found.segmentations.tolist() == expected.segmentations.tolist()
    assert found.mask(1).sum() == 300  # of the 30 x 20 pixels of its box


def test_a_teacher_has_a_name_and_may_be_a_path(make_set, tmp_path):
    with pytest.raises(UsageError, match="has no `name`"):
        label(make_set(1), teacher=lambda image, boxes, labels: [])
    with pytest.raises(BoxelError, match="nowhere"):
        label(make_set(1), teacher=tmp_path / "nowhere")


def test_folders_that_do_not_fit(make_set, tmp_path):
    data = make_set(1)
    with pytest.raises(UsageError, match="the masks would lie in"):
        label(tmp_path / "set", teacher="ellipse", out=tmp_path / "set" / "masks.json")
    assert not (tmp_path / "set" / "masks.sqlite").exists()
    with pytest.raises(UsageError, match="those in memory have their own `root`"):
        label(data, images=tmp_path, teacher="ellipse")


def test_large_boxes_are_fused_strip_by_strip(make_set, monkeypatch):
    data = make_set(2)
    whole = label(data, teacher=["ellipse", "grabcut-ellipse"])
    monkeypatch.setattr(masks_module, "_STRIP", 50)
    strips = label(data, teacher=["ellipse", "grabcut-ellipse"])
    assert strips.segmentations.tolist() == whole.segmentations.tolist()


def test_masks_that_are_not_made_anew_are_told(make_set, tmp_path):
    """A teacher that sees nothing leaves the masks that were there, and says so."""
    masked = label(make_set(1), teacher="rectangle")
    told = []
    blind = Own(lambda image, boxes: squares(-5, image, boxes))
    outcome = label_data(masked, teacher=blind, relabel=True, report=told.append)
    assert outcome.without.tolist() == [0, 1] and outcome.data.has_mask.all()
    assert told[-1].startswith("boxes that got no mask") and ": 2, the first of annotation 1" in told[-1]


def test_settings_of_a_run_that_made_nothing_do_not_bind(make_set, tmp_path):
    data, out = make_set(2), tmp_path / "out" / "masks.json"
    with pytest.raises(BoxelError, match="not one of its 2 images"):
        label(replace(data, root=tmp_path / "wrong"), teacher="rectangle", out=out)
    assert label(data, teacher="ellipse", out=out).has_mask.all()


def test_a_photo_that_is_gone_is_missing_and_not_changed(make_set, tmp_path):
    data, out, told = make_set(2), tmp_path / "out" / "masks.json", []
    label(data, teacher="ellipse", out=out)
    (tmp_path / "set" / "0.png").unlink()
    outcome = label_data(data, teacher="ellipse", out=out, report=told.append)
    assert outcome.changed == [] and len(outcome.bad) == 1
    assert not any("changed" in text for text in told)


def test_calibration_passes_over_what_is_wrong(make_set):
    """One mask that can't be read, an image of another size, and one that is not there, of 24 masks."""
    masked = label(make_set(12), teacher="rectangle")
    broken = masked.segmentations.copy()
    broken[0] = json.dumps([[1, 1]]).encode()
    masked.widths[1] = 61
    told = []
    quality = calibrate(
        replace(masked, segmentations=broken), [make_teacher("ellipse", [])], report=told.append
    )
    assert quality.identity
    assert len(told) == 1 and told[0].startswith("2 images or masks can't be calibrated on, the first: ")


def test_photos_of_true_masks_may_lie_where_those_of_the_boxes_do(make_set, tmp_path):
    data = make_set(12)
    (tmp_path / "elsewhere").mkdir()
    write(label(data, teacher="rectangle"), tmp_path / "elsewhere" / "true.json")
    outcome = label_data(
        data, teacher="ellipse", calibrate_on=tmp_path / "elsewhere" / "true.json", report=lambda _: None
    )
    assert np.isfinite(outcome.data.quality).all()


def test_names_that_are_no_text_cost_only_themselves(tmp_path, make_set):
    boxel.write(make_set(2), tmp_path / "yolo", "yolo")
    try:
        for file in ("images/{}.png", "labels/{}.txt"):
            (tmp_path / "yolo" / file.format(0)).rename(tmp_path / "yolo" / file.format("b\udcff"))
    except OSError:
        pytest.skip("this file system knows no such names")
    told = []
    outcome = label_data(tmp_path / "yolo", teacher="ellipse", report=told.append)
    assert outcome.data.paths == ["images/1.png"] and outcome.data.has_mask.all()
    assert any("not UTF-8" in text for text in told)
