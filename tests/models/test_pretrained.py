"""The bundled models: their folders, and that they load."""

from pathlib import Path

import pytest

from boxel.data.samples import sample_images
from boxel.evaluation import evaluate
from boxel.evaluation.boxes import measure_masks
from boxel.labeling.api import label
from boxel.labeling.quality import find_calibration
from boxel.models.io import load
from boxel.models.pretrained import BUNDLED, model_folder

TEACHERS = ("boxcaseg", "boxcaseg-boxes")


@pytest.mark.parametrize("name", BUNDLED)
def test_it_is_small_and_says_what_it_is(name):
    folder = model_folder(name)
    assert (folder / "model.safetensors").stat().st_size < 15e6
    card = (folder / "README.md").read_text()
    assert card.startswith(f"# Model card: `{name}`")
    assert all(f"**{part}" in card for part in ("Learned from", "Licenses", "Made by", "Results", "Limits"))
    assert load(name) is not None


@pytest.mark.parametrize("name", TEACHERS)
def test_a_teacher_is_calibrated_and_chooses_thresholds(name):
    assert find_calibration(name) is not None
    assert load(name).config.threshold is None


@pytest.mark.slow
def test_the_detector_finds_objects_of_real_photos():
    """Photos of installed packages, with boxes drawn by hand, that no training has seen."""
    truth = sample_images().class_agnostic()
    assert evaluate("boxinst", truth, boundary=False).metrics["box"]["AP50"] > 0.6


@pytest.mark.slow
@pytest.mark.parametrize("name", TEACHERS)
def test_its_masks_of_real_photos_are_better_than_filled_boxes(name):
    # Photos of installed packages, with outlines drawn by hand, that no training has seen.
    truth = sample_images()
    truth = truth.select_categories([c.name for c in truth.categories if c.name != "coin"])
    boxes = truth.without_masks()
    ours = measure_masks(truth, label(boxes, teacher=name))
    filled = measure_masks(truth, label(boxes, teacher="rectangle"))
    assert ours["mask_iou"] > filled["mask_iou"] + 0.1


def test_a_folder_of_the_same_name_takes_precedence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert model_folder("boxcaseg") != Path("boxcaseg")
    (tmp_path / "boxcaseg").mkdir()
    assert model_folder("boxcaseg") == Path("boxcaseg")
