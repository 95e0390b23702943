"""Broken teachers, files and folders: errors are clear, and cost no more than the thing itself."""

import json
import sys
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest

import boxel
from boxel.data import write
from boxel.labeling import api as api_module
from boxel.labeling import calibration as calibration_module
from boxel.labeling import fusion as masks_module
from boxel.labeling.api import label, label_data
from boxel.labeling.calibration import calibrate, collect_cues
from boxel.labeling.config import LabelConfig
from boxel.labeling.teachers import make_teacher
from boxel.labeling.teachers.base import SoftMask
from boxel.utils.errors import BoxelError, UsageError


class Own:
    """A teacher that returns the result of a function of an image and its boxes."""

    name = "own"

    def __init__(self, predict):
        self.predict = predict

    def __call__(self, image, boxes, labels):
        return self.predict(image, boxes)


def squares(value, image, boxes):
    return [SoftMask(np.full((8, 8), value, np.float32), tuple(box)) for box in boxes]


@pytest.mark.parametrize(
    ("predict", "message"),
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
def test_invalid_predictions_of_a_teacher_are_refused(make_set, predict, message):
    with pytest.raises(BoxelError, match=message):
        label(make_set(1), teacher=Own(predict))


def test_infinite_logits_count_as_large_ones(make_set):
    """They cannot be interpolated."""

    def left_half(value):
        half = np.where(np.arange(8) < 4, value, -value)
        return Own(lambda image, boxes: [SoftMask(np.tile(half, (8, 1)), tuple(box)) for box in boxes])

    data = make_set(1)
    found, expected = (label(data, teacher=left_half(value)) for value in (np.inf, 50.0))
    assert found.segmentations.tolist() == expected.segmentations.tolist()
    assert found.mask(1).sum() == 300  # of the 30 x 20 pixels of its box


def test_a_teacher_needs_a_name_and_may_be_a_path(make_set, tmp_path):
    with pytest.raises(UsageError, match="has no `name`"):
        label(make_set(1), teacher=lambda image, boxes, labels: [])
    with pytest.raises(BoxelError, match="nowhere"):
        label(make_set(1), teacher=tmp_path / "nowhere")


def test_unsuitable_folders_are_refused(make_set, tmp_path):
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


def test_masks_that_were_not_replaced_are_logged(make_set, tmp_path, logged):
    """A teacher that sees nothing leaves existing masks as they are."""
    masked = label(make_set(1), teacher="rectangle")
    blind = Own(lambda image, boxes: squares(-5, image, boxes))
    outcome = label_data(masked, teacher=blind, relabel=True)
    assert outcome.unmasked.tolist() == [0, 1] and outcome.data.has_mask.all()
    assert logged[-1].startswith("2 boxes without a mask") and "first: annotation 1 " in logged[-1]


def test_settings_of_a_run_without_masks_can_change(make_set, tmp_path):
    data, out = make_set(2), tmp_path / "out" / "masks.json"
    with pytest.raises(BoxelError, match="none of its 2 images"):
        label(replace(data, root=tmp_path / "wrong"), teacher="rectangle", out=out)
    assert label(data, teacher="ellipse", out=out).has_mask.all()


def test_a_missing_image_does_not_count_as_changed(make_set, tmp_path, logged):
    data, out = make_set(2), tmp_path / "out" / "masks.json"
    label(data, teacher="ellipse", out=out)
    (tmp_path / "set" / "0.png").unlink()
    outcome = label_data(data, teacher="ellipse", out=out)
    assert outcome.changed == [] and len(outcome.failures) == 1
    assert not any("changed" in text for text in logged)


def test_calibration_skips_unusable_images_and_masks(make_set, logged):
    """One mask that cannot be read and one image of another size, of 24 masks."""
    masked = label(make_set(12), teacher="rectangle")
    broken = masked.segmentations.copy()
    broken[0] = json.dumps([[1, 1]]).encode()
    masked.widths[1] = 61
    quality = calibrate(replace(masked, segmentations=broken), [make_teacher("ellipse", [])])
    assert quality.identity
    assert len(logged) == 1 and logged[0].startswith(
        "2 images or masks cannot be used for calibration; the first: "
    )


def test_images_of_ground_truth_masks_may_lie_with_those_of_the_boxes(make_set, tmp_path):
    data = make_set(12)
    (tmp_path / "elsewhere").mkdir()
    write(label(data, teacher="rectangle"), tmp_path / "elsewhere" / "true.json")
    outcome = label_data(data, teacher="ellipse", calibrate_on=tmp_path / "elsewhere" / "true.json")
    assert np.isfinite(outcome.data.quality).all()


def test_file_names_that_are_not_text_cost_only_themselves(tmp_path, make_set, logged):
    boxel.write(make_set(2), tmp_path / "yolo", "yolo")
    try:
        for file in ("images/{}.png", "labels/{}.txt"):
            (tmp_path / "yolo" / file.format(0)).rename(tmp_path / "yolo" / file.format("b\udcff"))
    except OSError:
        pytest.skip("this file system knows no such names")
    outcome = label_data(tmp_path / "yolo", teacher="ellipse")
    assert outcome.data.paths == ["images/1.png"] and outcome.data.has_mask.all()
    assert any("not UTF-8" in text for text in logged)


@pytest.mark.parametrize("teachers", [["own"], ["own", "ellipse"]])
def test_masks_of_any_teacher_get_the_quality_that_the_bundled_network_expects(teachers, make_set):
    """The disc is rated better than its whole box, by a network that sees it."""
    own = Own(lambda image, boxes: squares(5, image, boxes))
    data = make_set(12)
    result = label_data(data, teacher=[own, *teachers[1:]])
    assert np.isfinite(result.data.quality).all() and not result.is_calibrated
    assert "typically 0.07 off" in result.summary() and "correct 20 masks" in result.summary()
    true = label(data, teacher="ellipse")
    calibrated = label_data(
        data, teacher=[own, *teachers[1:]], calibrate_on=replace(true, source=[None] * 24)
    )
    assert calibrated.is_calibrated and "typically" not in calibrated.summary()


def test_masks_of_a_teacher_calibrate_nothing(make_set):
    """They agree with what they are compared with, whatever the object is like."""
    data = label(make_set(8), teacher="rectangle")
    data.source[:3] = "ellipse", "rectangle+ellipse", "rectangle"
    _, ious = collect_cues(data, [make_teacher("ellipse")], LabelConfig())
    assert len(ious) == data.has_mask.sum() - 2


def test_other_settings_are_refused_before_calibrating(make_set, tmp_path, monkeypatch):
    data, out = make_set(2), tmp_path / "out" / "masks.json"
    label(data, teacher="ellipse", out=out)
    monkeypatch.setattr(api_module, "calibrate", None)
    for options, message in (
        ({"drop": 0.5}, "drop was 0.0 and is 0.5"),
        ({"teacher": "rectangle"}, "teachers was"),
    ):
        with pytest.raises(BoxelError, match=message):
            label_data(data, out=out, calibrate_on=data, **{"teacher": "ellipse"} | options)


def test_calibration_shows_its_own_progress(make_set, monkeypatch):
    shown = []
    monkeypatch.setattr(
        calibration_module, "progress", lambda *what: nullcontext(shown.append(what) or shown.append)
    )
    calibrate(label(make_set(12), teacher="rectangle"), [make_teacher("ellipse", [])])
    assert shown == [(12, "images to calibrate on"), *[1] * 12]


def test_crf_without_torch_is_refused_before_labeling(make_set, tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "boxel.labeling.teachers.crf", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    for make in (
        lambda: label(make_set(2), crf=True, out=tmp_path / "m.json"),
        lambda: boxel.BoxSegmenter(crf=True),
    ):
        with pytest.raises(BoxelError, match=r"^crf needs torch, .*pip install 'boxel\[train\]'"):
            make()
    assert not (tmp_path / "m.sqlite").exists()


def test_the_quality_is_calibrated_on_the_split_val(make_set, logged):
    data = make_set(12)
    masked = replace(label(data, teacher="rectangle"), splits=["train"] * 2 + ["val"] * 10)
    logged.clear()
    whole = label_data(data, teacher="ellipse", calibrate_on=masked.select_images(range(2, 12))).data.quality
    assert np.array_equal(label_data(data, teacher="ellipse", calibrate_on=masked).data.quality, whole)
