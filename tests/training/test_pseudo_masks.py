"""Rough masks made from boxes before training starts."""

import dataclasses

import numpy as np
import pytest

from boxel.data import read
from boxel.data.dataset import InstanceDataset
from boxel.data.joining import join
from boxel.data.synthetic import write_scenes
from boxel.training.pseudo_masks import add_hints, with_hints


@pytest.fixture(scope="module")
def boxed(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("hints"), 3, height=96, width=128).without_masks()


@pytest.fixture(autouse=True)
def info(caplog):
    caplog.set_level("INFO", logger="boxel")


def test_hints_are_untrusted_masks(boxed):
    hinted = add_hints(boxed, np.ones(len(boxed.ids), dtype=bool))
    assert not hinted.has_mask.any() and not hinted.trusted.any()
    assert set(hinted.source) == {"grabcut"}
    for i, box in enumerate(boxed.boxes):
        y, x = np.nonzero(hinted.mask(i))
        assert len(y) > 0.3 * (box[2:] - box[:2]).prod()
        assert (x >= box[0] - 2).all() and (x <= box[2] + 1).all()
        assert (y >= box[1] - 2).all() and (y <= box[3] + 1).all()


def test_hints_are_made_only_for_boxes_without_a_mask(boxed, tmp_path):
    iscrowd = np.zeros(len(boxed.ids), dtype=bool)
    iscrowd[0] = True
    segmentations = boxed.segmentations.copy()
    segmentations[1] = b"[[10, 10, 20, 10, 20, 20]]"
    boxes = boxed.boxes.copy()
    boxes[2] = np.nan
    data = dataclasses.replace(boxed, iscrowd=iscrowd, segmentations=segmentations, boxes=boxes)
    hinted = with_hints(data, tmp_path / "hints.json")
    assert hinted.segmentations[0] is None and hinted.segmentations[2] is None
    assert hinted.segmentations[3] is not None and hinted.segmentations[1] == segmentations[1]
    assert hinted.has_mask.tolist() == [i == 1 for i in range(len(data.ids))]


@pytest.mark.slow
def test_hints_are_read_from_their_file(boxed, tmp_path, caplog):
    caplog.clear()
    first = with_hints(boxed, tmp_path / "hints.json")
    again = with_hints(boxed, tmp_path / "hints.json")
    assert caplog.text.count("making hints") == 1 and str(tmp_path / "hints.json") in caplog.text
    assert again.ids == first.ids and not again.has_mask.any()
    for i in range(len(first.ids)):
        np.testing.assert_array_equal(again.mask(i), first.mask(i))
    assert read(tmp_path / "hints.json").source.tolist() == ["grabcut"] * len(first.ids)
    other = boxed.select_images([0, 1])  # hints of another dataset are not used
    assert with_hints(other, tmp_path / "hints.json").ids == other.ids


@pytest.mark.slow
def test_hints_of_joined_datasets_are_read_from_their_file(boxed, tmp_path, caplog):
    # Their ids are strings, and one instance in between has no hint.
    twice = join([boxed, dataclasses.replace(boxed, file="again")])
    iscrowd = np.zeros(len(twice.ids), dtype=bool)
    iscrowd[1] = True
    twice = dataclasses.replace(twice, iscrowd=iscrowd)
    caplog.clear()
    first = with_hints(twice, tmp_path / "hints.json")
    again = with_hints(twice, tmp_path / "hints.json")
    assert (
        caplog.text.count("making hints") == 1 and again.ids == twice.ids and again.segmentations[1] is None
    )
    for i in {*range(len(twice.ids))} - {1}:
        np.testing.assert_array_equal(again.mask(i), first.mask(i))


@pytest.mark.slow
def test_hints_with_other_ids_are_made_again(boxed, tmp_path, caplog):
    with_hints(boxed, tmp_path / "hints.json")
    text = (tmp_path / "hints.json").read_text()
    (tmp_path / "hints.json").write_text(text.replace('"id":', '"id":9'))
    caplog.clear()
    with_hints(boxed, tmp_path / "hints.json")
    assert caplog.text.count("making hints") == 1


@pytest.mark.slow
def test_hints_of_other_boxes_are_made_again(boxed, tmp_path, caplog):
    with_hints(boxed, tmp_path / "hints.json")
    caplog.clear()
    moved = dataclasses.replace(boxed, boxes=boxed.boxes * 0.8)
    hinted = with_hints(moved, tmp_path / "hints.json")
    assert caplog.text.count("making hints") == 1
    np.testing.assert_array_equal(hinted.mask(0), add_hints(moved, moved.has_box).mask(0))


def test_an_unreadable_image_costs_only_its_own_hints(boxed, tmp_path):
    paths = [str(boxed.image_path(image)) for image in range(len(boxed))]
    paths[1] = str(tmp_path / "missing.jpg")
    hinted = add_hints(dataclasses.replace(boxed, paths=paths), np.ones(len(boxed.ids), dtype=bool))
    made = np.array([s is not None for s in hinted.segmentations])
    assert np.array_equal(made, boxed.image_index != 1)


def test_the_dataset_includes_hints_on_request(boxed):
    hinted = add_hints(boxed, np.ones(len(boxed.ids), dtype=bool))
    _, without = InstanceDataset(hinted)[0]
    _, target = InstanceDataset(hinted, include_untrusted=True)[0]
    assert "masks" not in without
    assert target["masks"].flatten(1).any(1).all() and not target["has_mask"].any()
