"""Complete trainings of segmenters, and of instances by voting on top of them."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import boxel
from boxel.data.annotations import Annotations
from boxel.data.dataset import SemanticDataset
from boxel.data.label_maps import pixel_classes
from boxel.evaluation.run import predict_dataset
from boxel.evaluation.semantic import measure_segmenter
from boxel.models.fcrn import FCRN, FCRNInstances
from boxel.training import train
from boxel.training.semantic import SemanticTask
from boxel.utils.errors import BoxelError, UsageError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def semantic_run(scenes, tiny_fcrn, tmp_path_factory):
    folder = tmp_path_factory.mktemp("semantic") / "run"
    train("fcrn", scenes, out=folder, config=tiny_fcrn)
    return folder


def test_a_segmenter_is_trained_on_masks(scenes: Annotations, semantic_run) -> None:
    model = boxel.load(semantic_run)
    assert isinstance(model, FCRN)
    assert [c.name for c in model.categories] == ["background", *(c.name for c in scenes.categories)]
    kept = json.loads((semantic_run / "metrics.json").read_text())
    assert kept["step"] in (2, 4) and 0 <= kept["val/mean_iou"] <= kept["val/pixel_accuracy"] <= 1
    assert {"config.yaml", "categories.json", "curves.png", "samples"} <= {
        p.name for p in semantic_run.iterdir()
    }
    photo = scenes.image_path(0)
    found = model.predict(photo)
    assert found.labels.shape == (scenes.heights[0], scenes.widths[0]) and found.scores.max() <= 1
    values = measure_segmenter(scenes, model)
    assert values["images"] == len(scenes) and values["per_class"].keys() == {
        c.name for c in model.categories
    }


def test_instances_are_found_on_top_of_a_semantic_run(
    scenes: Annotations, tiny_fcrn, semantic_run, tmp_path
) -> None:
    out = tmp_path / "instances"
    model = train("fcrn-instances", scenes, out=out, config=tiny_fcrn, semantic=semantic_run)
    assert isinstance(model, FCRNInstances) and model.categories == scenes.categories
    before, again = boxel.load(semantic_run).network.state_dict(), boxel.load(out)
    assert all(torch.equal(tensor, before[name]) for name, tensor in again.semantic.state_dict().items())
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, again.state_dict()[name])
    rows = predict_dataset(again, scenes)
    assert all(0 <= row["score"] <= 1 and row["bbox"][2] >= 0 for row in rows)


def test_a_resumed_run_equals_an_uninterrupted_one(
    scenes, tiny_fcrn, semantic_run, tmp_path, monkeypatch
) -> None:
    settings = {"config": tiny_fcrn, "semantic": semantic_run}
    whole = train("fcrn-instances", scenes, out=tmp_path / "whole", **settings)
    read, seen = SemanticDataset._read, []

    def interrupted(self, index):
        seen.append(index)
        if len(seen) == 3:  # in the second step
            signal.raise_signal(signal.SIGINT)
        return read(self, index)

    with monkeypatch.context() as patch:
        patch.setattr(SemanticDataset, "_read", interrupted)
        assert train("fcrn-instances", scenes, out=tmp_path / "halves", **settings) is None
    resumed = train("fcrn-instances", scenes, out=tmp_path / "halves", **settings, resume=True)
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(tensor, resumed.state_dict()[name], msg=name)


def test_data_without_targets_is_reported(scenes, tiny_fcrn, semantic_run, tmp_path) -> None:
    boxes = scenes.without_masks()
    with pytest.raises(
        BoxelError, match=r"not one of its .* images has a label map or a mask .*`label` names a teacher"
    ):
        train("fcrn", boxes, out=tmp_path / "a", config=tiny_fcrn)
    with pytest.raises(BoxelError, match="none of its 24 instances has a mask"):
        train("fcrn-instances", boxes, out=tmp_path / "b", config=tiny_fcrn, semantic=semantic_run)
    with pytest.raises(UsageError, match="name it with `semantic`"):
        train("fcrn-instances", scenes, out=tmp_path / "c", config=tiny_fcrn)
    with pytest.raises(UsageError, match="fcrn does not use `semantic`; leave it out"):
        train("fcrn", scenes, out=tmp_path / "d", config=tiny_fcrn, semantic=semantic_run)
    with pytest.raises(BoxelError, match="is not a run of fcrn"):
        train("fcrn-instances", scenes, out=tmp_path / "e", config=tiny_fcrn, semantic="boxcaseg")


def test_images_with_boxes_only_are_left_out(scenes, tiny_fcrn, tmp_path, caplog) -> None:
    caplog.set_level("INFO", logger="boxel")
    segmentations = scenes.segmentations.copy()
    segmentations[scenes.image_index == 0] = None
    config = {**tiny_fcrn, "data": {"val_share": 0, "workers": 0}}
    train("fcrn", replace(scenes, segmentations=segmentations), out=tmp_path / "run", config=config)
    assert f"1 of {len(scenes)} images have boxes only and are left out" in caplog.text


def test_a_field_of_view_larger_than_the_crop_is_reported(scenes, tiny_fcrn, tmp_path, caplog) -> None:
    wide = {**tiny_fcrn, "model": {**tiny_fcrn["model"], "dilation": 12}}
    train("fcrn", scenes, out=tmp_path / "run", config=wide)
    assert "field of view, 200 pixels, is larger than the crops of 64" in caplog.text


@pytest.mark.parametrize(
    ("found", "progress", "warns"),
    [
        ([[6, 0], [2, 0]], 0.5, True),
        ([[6, 0], [2, 0]], 0.4, False),  # it has only started
        ([[6, 0], [1, 1]], 0.9, False),
        ([[8, 0], [0, 0]], 0.9, False),  # there is no other class
    ],
)
def test_a_network_that_predicts_one_class_is_reported(found, progress, warns, monkeypatch, caplog) -> None:
    classes = [SimpleNamespace(name="background"), SimpleNamespace(name="car")]
    task = SemanticTask.__new__(SemanticTask)
    torch.nn.Module.__init__(task)
    task.model = torch.nn.Module()
    task.model.categories = classes
    task.confusion = SimpleNamespace(compute=lambda: torch.tensor(found), reset=lambda: None)
    monkeypatch.setattr(task, "progress", lambda: progress)
    monkeypatch.setattr(task, "log_dict", lambda values, sync_dist: None)
    task.on_validation_epoch_end()
    assert ("all pixels are predicted as background" in caplog.text) == warns


@pytest.mark.parametrize("processes", [1, 3])
def test_each_validation_image_counts_in_one_process(scenes, processes) -> None:
    """Shares have one length, so that an image may be in two, but only one process counts it."""
    counted = []
    for rank in range(processes):
        task = SemanticTask.__new__(SemanticTask)
        torch.nn.Module.__init__(task)
        task.model = SimpleNamespace(categories=pixel_classes(scenes))
        loader = task.val_loader(scenes, processes, rank)
        assert len(loader) == -(-len(scenes) // processes)
        counted += [scenes.image_ids[image] for image in loader.dataset.indices[: task.own_images]]
    assert sorted(counted) == sorted(scenes.image_ids)
