"""Adapting BoxCaseg to the boxes to label."""

import json
import re
import sys

import numpy as np
import pytest
import torch
import yaml

import boxel
from boxel.cli import main
from boxel.data import example_scenes
from boxel.data.synthetic import write_scenes
from boxel.evaluation.boxes import measure_masks
from boxel.labeling.api import label_data
from boxel.labeling.quality import find_calibration, save_calibration
from boxel.training.adapt import adapt
from boxel.training.callbacks.checkpoints import LastCheckpoint
from boxel.training.few_masks import MIN_MASKS
from boxel.utils.errors import BoxelError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_boxcaseg):
    """The folder of a BoxCaseg after a few steps."""
    folder = tmp_path_factory.mktemp("adapt")
    scenes = write_scenes(folder / "scenes", 3, height=64, width=96)
    boxel.train("boxcaseg", scenes.without_masks(), out=folder / "run", config=tiny_boxcaseg)
    save_calibration(find_calibration("boxcaseg"), folder / "run" / "quality.json")
    return folder


def test_adapting_continues_training_with_the_models_own_masks_as_hints(run, tmp_path, caplog):
    boxes = boxel.read(run / "scenes" / "boxes.json", images=run / "scenes" / "images")
    caplog.set_level("INFO", logger="boxel")
    teacher = str(run / "run")
    out = adapt(boxes, tmp_path / "adapted", teacher=teacher, minutes=0.03)
    before, after = (boxel.load(folder).state_dict() for folder in (run / "run", out))
    moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert any("heads.shared" in name for name in moved)
    # The learning rate is small, so that the model stays similar.
    name = "heads.shared.0.weight"
    assert (before[name] - after[name]).abs().max() < 0.1 * before[name].abs().max()
    settings = yaml.safe_load((out / "config.yaml").read_text())
    assert settings["model"]["hint_weight"] == 1 and settings["steps"] >= 1
    assert find_calibration(str(out)) is not None  # that of the model it was adapted from
    assert not (out / "hints.json").exists()  # every box had a mask of the model, so that GrabCut made none
    adapt(boxes, out, teacher=teacher, minutes=0.03)
    assert "was adapted already, in about 0.03 min; remove it to adapt again" in caplog.text
    with pytest.raises(BoxelError, match="was adapted from another model than"):
        adapt(boxes, out, teacher=str(out), minutes=0.03)


def test_a_mask_made_for_a_segmentation_that_is_none_is_not_the_truth(run, tmp_path, monkeypatch):
    data = boxel.read(run / "scenes" / "masks.json", images=run / "scenes" / "images")
    data = data.select_instances(np.arange(MIN_MASKS + 1))
    data.segmentations[0], data.segmentations[1] = b"[]", None
    seen = []
    module = sys.modules["boxel.training.adapt"]
    monkeypatch.setattr(module, "train", lambda method, data, **_: seen.append(data))
    assert adapt(data, tmp_path / "out", teacher=str(run / "run"), minutes=0.01) is None
    assert seen[0].trusted.tolist() == [False, False, *[True] * (len(data.ids) - 2)]


def test_labels_are_made_by_the_adapted_model(run, tmp_path):
    file, images = run / "scenes" / "boxes.json", run / "scenes" / "images"
    arguments = {"images": images, "teacher": str(run / "run")}
    plain = label_data(file, out=tmp_path / "a.json", **arguments).data
    boxes = boxel.read(file, images=images)
    model = adapt(boxes, tmp_path / "b_adapted", teacher=str(run / "run"), minutes=0.05)
    adapted = label_data(file, out=tmp_path / "b.json", **arguments | {"teacher": str(model)}).data
    assert set(adapted.source[adapted.has_segmentation]) == {(tmp_path / "b_adapted").as_posix()}
    assert len(plain.labels) == len(adapted.labels)
    assert json.loads((tmp_path / "b_adapted" / "metrics.json").read_text())["step"] >= 1
    assert np.isfinite(adapted.quality[adapted.has_segmentation]).all()


def test_an_interrupted_adaptation_fails_and_the_same_command_resumes_it(run, tmp_path, monkeypatch, capsys):
    scenes = run / "scenes"
    words = ["adapt", scenes / "boxes.json", "--images", scenes / "images", "--teacher", run / "run"]
    words = [*map(str, words), "--out", str(tmp_path / "cut"), "--minutes", "0.05"]

    class Interrupting(LastCheckpoint):
        def on_train_start(self, *_):
            self._interrupted = True

    monkeypatch.setattr("boxel.training.engine.LastCheckpoint", Interrupting)
    assert main(words) == 1
    printed = capsys.readouterr()
    assert printed.out == "" and "--resume" not in printed.err
    assert printed.err.endswith("no model was made yet; the same command resumes the training\n")
    monkeypatch.undo()
    assert main(words) == 0
    assert f"adapted model: {tmp_path / 'cut'}" in capsys.readouterr().out
    assert boxel.load(tmp_path / "cut").settings["steps"] > 1


def test_boxes_for_a_single_batch_are_enough(run, tmp_path):
    boxes = boxel.read(run / "scenes" / "boxes.json", images=run / "scenes" / "images")
    out = adapt(
        boxes.select_instances(np.arange(3)), tmp_path / "few", teacher=str(run / "run"), minutes=0.01
    )
    assert (out / "model.safetensors").exists()


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
    (found,) = re.findall(r"rose from (\S+) to (\S+) IoU", caplog.text)
    assert float(found[1]) > float(found[0])
    unseen = data.select_images([3, 4, 5])
    before, after = (
        measure_masks(unseen, boxel.label(unseen.without_masks(), teacher=folder))["mask_iou"]
        for folder in (tmp_path / "new", out)
    )
    assert after > before
    assert not torch.equal(
        *(boxel.load(f).state_dict()["heads.shared.0.weight"] for f in (tmp_path / "new", out))
    )


def test_masks_that_teach_nothing_leave_the_model_as_it_is(run, tmp_path, monkeypatch, caplog):
    """Of steps that change nothing, none is kept."""
    monkeypatch.setattr("boxel.training.few_masks._RATE", 0.0)
    data = boxel.read(run / "scenes" / "masks.json", images=run / "scenes" / "images")
    out = adapt(data, tmp_path / "out", teacher=str(run / "run"), minutes=0.05)
    assert "no masks that were left out got better" in caplog.text
    before, after = (boxel.load(folder).state_dict() for folder in (run / "run", out))
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert json.loads((out / "metrics.json").read_text())["step"] == 0
    assert find_calibration(str(out)).identity != find_calibration("boxcaseg").identity  # it is corrected


def test_masks_of_a_teacher_are_not_the_truth(run, tmp_path, monkeypatch):
    """They are hints, as those that the model makes itself."""
    data = boxel.read(run / "scenes" / "masks.json", images=run / "scenes" / "images")
    assert len(data.ids) > MIN_MASKS and data.trusted.all()
    data.source[:] = "boxcaseg"
    seen = []
    monkeypatch.setattr(
        sys.modules["boxel.training.adapt"], "train", lambda method, data, **_: seen.append(data)
    )
    assert adapt(data, tmp_path / "out", teacher=str(run / "run"), minutes=0.01) is None
    assert not seen[0].trusted.any()
