"""Adapting BoxCaseg to the boxes to label."""

import json
import re
from importlib import import_module

import numpy as np
import pytest
import torch

import boxel
from boxel.cli import main
from boxel.data import example_scenes
from boxel.data.synthetic import write_scenes
from boxel.evaluation.boxes import measure_masks
from boxel.labeling.api import label_data
from boxel.labeling.quality import CUES, find_calibration, save_calibration
from boxel.labeling.teachers.base import NO_OPINION
from boxel.training.adapt import adapt
from boxel.training.few_masks import MIN_MASKS
from boxel.training.own_masks import MIN_BOXES, JitteredTeacher, OwnAdaptation, draw_images
from boxel.utils.errors import BoxelError

pytestmark = pytest.mark.slow

MODULE = import_module("boxel.training.adapt")  # the package has a function of this name


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_boxcaseg):
    """The folder of a BoxCaseg after a few steps."""
    folder = tmp_path_factory.mktemp("adapt")
    scenes = write_scenes(folder / "scenes", 3, height=64, width=96)
    boxel.train("boxcaseg", scenes.without_masks(), out=folder / "run", config=tiny_boxcaseg)
    save_calibration(find_calibration("boxcaseg"), folder / "run" / "quality.json")
    return folder


@pytest.fixture
def eager(monkeypatch):
    """Few boxes are enough to adapt to, and the result is kept."""
    monkeypatch.setattr("boxel.training.own_masks.MIN_BOXES", 4)
    monkeypatch.setattr(MODULE, "MIN_BOXES", 4)
    monkeypatch.setattr("boxel.training.own_masks.MAX_LOSS", 1.0)


def read_boxes(run):
    return boxel.read(run / "scenes" / "boxes.json", images=run / "scenes" / "images")


def test_a_model_learns_from_its_own_masks_of_boxes(run, tmp_path, caplog, eager):
    caplog.set_level("INFO", logger="boxel")
    teacher = str(run / "run")
    out = adapt(read_boxes(run), tmp_path / "adapted", teacher=teacher, minutes=0.05)
    before, after = (boxel.load(folder).state_dict() for folder in (run / "run", out))
    moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert any("heads.shared" in name for name in moved)
    # The learning rate is small, so that the model stays similar.
    name = "heads.shared.0.weight"
    assert (before[name] - after[name]).abs().max() < 0.1 * before[name].abs().max()
    notes = json.loads((out / "adapted.json").read_text())
    assert notes["own_masks"] >= 4 and notes["steps"] >= 1
    assert f"learned from {notes['own_masks']} of its own masks" in caplog.text
    adapt(read_boxes(run), out, teacher=teacher, minutes=0.05)
    assert "was adapted already, in about 0.05 min; remove it to adapt again" in caplog.text
    with pytest.raises(BoxelError, match="was adapted from another model than"):
        adapt(read_boxes(run), out, teacher=str(out), minutes=0.05)


def test_a_model_that_becomes_certain_does_not_become_better_in_its_own_estimate(run, tmp_path, monkeypatch):
    """The quality of masks that are left out is the same on average before and after, as nobody knows better."""
    cues = np.tile(find_calibration("boxcaseg").mean, (400, 1))
    scale = find_calibration("boxcaseg").scale
    before = cues + np.random.default_rng(0).normal(0, 0.3, cues.shape) * scale
    certain = before.copy()
    certain[:, CUES.index("expected_iou")] += scale[CUES.index("expected_iou")]
    found = OwnAdaptation(boxel.load(run / "run"), 5, 400, before, certain)
    monkeypatch.setattr(MODULE, "learn_own_masks", lambda *_: found)
    out = adapt(read_boxes(run), tmp_path / "out", teacher=str(run / "run"), minutes=1)
    old, new = find_calibration("boxcaseg"), find_calibration(str(out))
    expected = old.estimate(before).mean()
    assert abs(old.estimate(certain).mean() - expected) > 0.02
    assert new.estimate(certain).mean() == pytest.approx(expected, abs=0.01)
    assert np.array_equal(new.precision, old.precision)  # unlike images are still unlike


def test_a_model_whose_outlines_get_worse_stays_as_it_is(run, tmp_path, caplog, eager, monkeypatch):
    monkeypatch.setattr("boxel.training.own_masks.MAX_LOSS", -1.0)
    out = adapt(read_boxes(run), tmp_path / "out", teacher=str(run / "run"), minutes=0.05)
    assert "outlines of masks that were left out got worse" in caplog.text
    before, after = (boxel.load(folder).state_dict() for folder in (run / "run", out))
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert json.loads((out / "metrics.json").read_text()) == {"step": 0}
    assert find_calibration(str(out)).identity == find_calibration(str(run / "run")).identity


def test_too_few_boxes_leave_the_model_as_it_is(run, tmp_path, caplog):
    boxes = read_boxes(run).select_instances(np.arange(3))
    out = adapt(boxes, tmp_path / "few", teacher=str(run / "run"), minutes=0.01)
    assert f"3 boxes are too few to learn from, {MIN_BOXES} are needed" in caplog.text
    before, after = (boxel.load(folder).state_dict() for folder in (run / "run", out))
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_a_mask_made_for_a_segmentation_that_is_none_is_not_the_truth(run, tmp_path, seen):
    data = boxel.read(run / "scenes" / "masks.json", images=run / "scenes" / "images")
    data = data.select_instances(np.arange(MIN_MASKS + 1))
    data.segmentations[0], data.segmentations[1] = b"[]", None
    adapt(data, tmp_path / "out", teacher=str(run / "run"), minutes=0.01)
    assert seen[0].has_mask.tolist() == [False, False, *[True] * (len(data.ids) - 2)]


@pytest.fixture
def seen(run, monkeypatch):
    """The datasets that models are adapted to, of which they learn nothing."""
    datasets, nothing = [], np.zeros((0, len(CUES)))

    def learn(model, data, minutes):
        datasets.append(data)
        return OwnAdaptation(model, 0, 0, nothing, nothing)

    monkeypatch.setattr(MODULE, "learn_own_masks", learn)
    return datasets


def test_a_folder_of_a_model_that_was_not_adapted_is_left_alone(run, tmp_path):
    content = (run / "run" / "model.safetensors").read_bytes()
    with pytest.raises(BoxelError, match="holds a model that was not adapted; name another `out`"):
        adapt(read_boxes(run), run / "run", teacher="boxcaseg", minutes=0.01)
    assert (run / "run" / "model.safetensors").read_bytes() == content


def test_the_minutes_are_those_of_the_adaptation_that_was_finished(run, tmp_path, seen):
    """Not those of an interrupted one."""
    teacher, note = str(run / "run"), tmp_path / "out" / "adapted.json"
    adapt(read_boxes(run), tmp_path / "out", teacher=teacher, minutes=0.01)
    (tmp_path / "out" / "model.safetensors").unlink()
    adapt(read_boxes(run), tmp_path / "out", teacher=teacher, minutes=0.02)
    assert json.loads(note.read_text())["minutes"] == 0.02


def test_too_few_masks_are_announced(run, tmp_path, seen, caplog):
    few = boxel.read(run / "scenes" / "masks.json", images=run / "scenes" / "images").select_instances([0])
    adapt(read_boxes(run), tmp_path / "out", masks=few, teacher=str(run / "run"), minutes=0.01)
    assert f"true masks are too few to learn from ({MIN_MASKS} are needed)" in caplog.text
    assert len(seen[0].ids) > 1


def test_labels_are_made_by_the_adapted_model(run, tmp_path, eager):
    file, images = run / "scenes" / "boxes.json", run / "scenes" / "images"
    arguments = {"images": images, "teacher": str(run / "run")}
    plain = label_data(file, out=tmp_path / "a.json", **arguments).data
    model = adapt(read_boxes(run), tmp_path / "b_adapted", teacher=str(run / "run"), minutes=0.05)
    adapted = label_data(file, out=tmp_path / "b.json", **arguments | {"teacher": str(model)}).data
    assert set(adapted.source[adapted.has_segmentation]) == {(tmp_path / "b_adapted").as_posix()}
    assert len(plain.labels) == len(adapted.labels)
    assert json.loads((tmp_path / "b_adapted" / "metrics.json").read_text())["step"] >= 1
    assert np.isfinite(adapted.quality[adapted.has_segmentation]).all()


def test_an_interrupted_adaptation_is_made_again_by_the_same_command(
    run, tmp_path, monkeypatch, capsys, eager
):
    scenes = run / "scenes"
    words = ["adapt", scenes / "boxes.json", "--images", scenes / "images", "--teacher", run / "run"]
    words = [*map(str, words), "--out", str(tmp_path / "cut"), "--minutes", "0.05"]

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("boxel.training.own_masks.predict_own_masks", interrupt)
    assert main(words) == 1
    assert not (tmp_path / "cut" / "model.safetensors").exists()
    monkeypatch.undo()
    assert main(words) == 0
    assert f"adapted model: {tmp_path / 'cut'}" in capsys.readouterr().out
    assert boxel.load(tmp_path / "cut").settings["method"] == "boxcaseg"


def test_a_jittered_teacher_moves_boxes_alike_for_a_seed():
    given = []

    def teacher(image, boxes, labels):
        given.append(boxes)
        return [NO_OPINION] * len(boxes)

    boxes = np.tile([10.0, 20, 110, 70], (500, 1))
    for seed in (0, 0, 1):
        JitteredTeacher(teacher, seed)(np.zeros((90, 120, 3), np.uint8), boxes, np.zeros(500, np.int32))
    assert np.array_equal(given[0], given[1]) and not np.array_equal(given[0], given[2])
    assert (given[0] - boxes).std(axis=0) == pytest.approx([3, 1.5, 3, 1.5], rel=0.1)  # 3 % of each side


def test_images_are_drawn_until_they_have_enough_boxes():
    data = example_scenes(8)
    some = draw_images(data, 5, seed=0)
    counts = np.bincount(some.image_index)
    assert counts.sum() >= 5 and counts.sum() - counts.max() < 5
    assert len(draw_images(data, 1000, seed=0)) == 8


def test_a_few_masks_teach_a_model_that_knows_nothing(tmp_path, tiny_boxcaseg, monkeypatch, caplog):
    """It needs a higher learning rate than one that knows much."""
    monkeypatch.setattr("boxel.training.few_masks._RATE", 0.01)
    caplog.set_level("INFO", logger="boxel")
    data = example_scenes(6)
    boxel.train("boxcaseg", data.without_masks(), out=tmp_path / "new", config=tiny_boxcaseg, steps=1)
    boxes, few = data.without_masks(), data.select_images([0, 1, 2])
    out = adapt(
        boxes, tmp_path / "out", masks=few, teacher=str(tmp_path / "new"), minutes=10
    )  # more than it takes
    (found,) = re.findall(r"IoU of masks that were left out: (\S+), before (\S+) \(", caplog.text)
    assert float(found[0]) > float(found[1])
    unseen = data.select_images([3, 4, 5])
    before, after = (
        measure_masks(unseen, boxel.label(unseen.without_masks(), teacher=folder))["mask_iou"]
        for folder in (tmp_path / "new", out)
    )
    assert after > before
    assert not torch.equal(
        *(boxel.load(f).state_dict()["heads.shared.0.weight"] for f in (tmp_path / "new", out))
    )


def test_a_model_whose_masks_get_worse_stays_as_it_is(run, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("boxel.training.few_masks.MAX_LOSS", -1.0)
    data = boxel.read(run / "scenes" / "masks.json", images=run / "scenes" / "images")
    out = adapt(data, tmp_path / "out", teacher=str(run / "run"), minutes=0.05)
    assert "masks that were left out got worse (IoU" in caplog.text
    before, after = (boxel.load(folder).state_dict() for folder in (run / "run", out))
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert json.loads((out / "metrics.json").read_text())["step"] == 0
    assert find_calibration(str(out)).identity != find_calibration("boxcaseg").identity  # it is corrected


def test_masks_of_a_teacher_are_not_the_truth(run, tmp_path, seen):
    """The model makes its own."""
    data = boxel.read(run / "scenes" / "masks.json", images=run / "scenes" / "images")
    assert len(data.ids) > MIN_MASKS and data.trusted.all()
    data.source[:] = "boxcaseg"
    adapt(data, tmp_path / "out", teacher=str(run / "run"), minutes=0.01)
    assert not seen[0].trusted.any()
