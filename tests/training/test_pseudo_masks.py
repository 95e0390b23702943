"""Hints: masks that a teacher makes from boxes before the training starts, and that are not trusted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.fabric import Fabric

import boxel
from boxel.data import Annotations, read
from boxel.data.dataset import InstanceDataset
from boxel.data.joining import join
from boxel.data.synthetic import write_scenes
from boxel.training.prepare import TrainingData
from boxel.training.pseudo_masks import label_boxes
from boxel.training.settings import resolve_run


@pytest.fixture(scope="module")
def boxed(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("hints"), 3, height=96, width=128).without_masks()


@pytest.fixture(autouse=True)
def info(caplog):
    caplog.set_level("INFO", logger="boxel")


def add_hints(
    data: Annotations, out: Path, teacher: str = "boxcaseg", method: str = "boxinst"
) -> Annotations:
    """Return a training's dataset with its hints."""
    run = resolve_run(method, None, None, out, {"model.hint_weight": 1.0, "hints": teacher})
    given = TrainingData(data, None, data.categories, None)
    return label_boxes(run, given, Fabric(accelerator="cpu", devices=1)).training


@pytest.mark.parametrize("method", ["boxinst", "boxcaseg"])
def test_hints_are_the_masks_of_the_teacher_and_not_trusted(boxed, tmp_path, method):
    hinted = add_hints(boxed, tmp_path, method=method)
    made = boxel.label(boxed, teacher="boxcaseg")
    assert not hinted.has_mask.any() and not hinted.trusted.any()
    assert set(hinted.source) == {"boxcaseg"}
    np.testing.assert_allclose(hinted.quality, made.quality, atol=1e-3)
    for i in range(len(boxed.ids)):
        np.testing.assert_array_equal(hinted.mask(i), made.mask(i))


def test_predicted_masks_to_train_on_are_not_made_again(boxed, tmp_path):
    some = boxel.label(boxed, teacher="ellipse")
    some.segmentations[0], some.source[0], some.quality[0] = None, None, np.nan
    run = resolve_run("mask-rcnn", None, None, tmp_path, {"label": "rectangle"})
    given = TrainingData(some, None, some.categories, None)
    made = label_boxes(run, given, Fabric(accelerator="cpu", devices=1)).training
    assert made.source.tolist() == ["rectangle"] + ["ellipse"] * (len(some.ids) - 1)
    assert made.segmentations[1:].tolist() == some.segmentations[1:].tolist()
    np.testing.assert_array_equal(made.quality[1:], some.quality[1:])


def test_masks_of_low_quality_are_no_hints(boxed, tmp_path, monkeypatch):
    quality = boxel.label(boxed, teacher="boxcaseg").quality
    least = float(np.median(quality))
    monkeypatch.setattr("boxel.training.pseudo_masks.MIN_QUALITY", least)
    hinted = add_hints(boxed, tmp_path)
    found = np.array([one is not None for one in hinted.segmentations])
    assert found[quality > least + 1e-3].all() and not found[quality < least - 1e-3].any()


def test_hints_are_made_only_for_boxes_without_a_mask(boxed, tmp_path):
    iscrowd = np.zeros(len(boxed.ids), dtype=bool)
    iscrowd[0] = True
    segmentations = boxed.segmentations.copy()
    segmentations[1] = b"[[10, 10, 20, 10, 20, 20]]"
    boxes = boxed.boxes.copy()
    boxes[2] = np.nan
    data = replace(boxed, iscrowd=iscrowd, segmentations=segmentations, boxes=boxes)
    hinted = add_hints(data, tmp_path)
    assert hinted.segmentations[0] is None and hinted.segmentations[2] is None
    assert hinted.segmentations[3] is not None and hinted.segmentations[1] == segmentations[1]
    assert hinted.has_mask.tolist() == [i == 1 for i in range(len(data.ids))]


def test_a_resumed_run_does_not_make_hints_again(boxed, tmp_path, caplog):
    first = add_hints(boxed, tmp_path, "rectangle")
    again = add_hints(boxed, tmp_path, "rectangle")
    assert "3 of 3 images are labeled already" in caplog.text
    assert again.segmentations.tolist() == first.segmentations.tolist() and not again.has_mask.any()
    assert set(read(tmp_path / "hints.json").source) == {"rectangle"}


@pytest.fixture
def joined(boxed):
    """Two datasets in one; some of their ids are the same, so that they are not numbers."""
    return join([boxed.select_images([0]), replace(boxed, file="again")])


def test_hints_of_joined_datasets_belong_to_their_instances(boxed, joined, tmp_path):
    hinted = add_hints(joined, tmp_path)
    apart = [boxel.label(data, teacher="boxcaseg") for data in (boxed.select_images([0]), boxed)]
    masks = [data.mask(i) for data in apart for i in range(len(data.ids))]
    assert len(masks) == len(hinted.ids)
    for i, mask in enumerate(masks):
        np.testing.assert_array_equal(hinted.mask(i), mask)


def test_a_teacher_masks_all_instances_of_joined_datasets(joined, tmp_path):
    run = resolve_run("boxinst", None, None, tmp_path, {"label": "rectangle"})
    given = TrainingData(joined, None, joined.categories, None)
    labeled = label_boxes(run, given, Fabric(accelerator="cpu", devices=1)).training
    assert labeled.has_mask.all() and labeled.ids == joined.ids


def test_without_a_good_mask_there_are_no_hints(boxed, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("boxel.training.pseudo_masks.MIN_QUALITY", 1.0)
    assert not add_hints(boxed, tmp_path).has_segmentation.any()
    assert "there are no hints" in caplog.text


def test_the_dataset_includes_hints_on_request(boxed, tmp_path):
    hinted = add_hints(boxed, tmp_path, "rectangle")
    _, without = InstanceDataset(hinted)[0]
    _, target = InstanceDataset(hinted, include_untrusted=True)[0]
    assert "masks" not in without
    assert target["masks"].flatten(1).any(1).all() and not target["has_mask"].any()
    assert torch.isfinite(target["quality"]).all()
