"""Datasets of worker processes."""

import gc
import multiprocessing
import pickle
import tempfile
from dataclasses import fields, replace
from multiprocessing import context
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boxel.data import example_scenes
from boxel.data.sharing import SharedValues


@pytest.fixture
def spawning():
    """Pickle as for a process that is being started."""
    context.set_spawning_popen(object())
    yield
    context.set_spawning_popen(None)


def columns(data):
    found = {field.name: getattr(data, field.name) for field in fields(data)}
    return {name: value.tolist() if hasattr(value, "tolist") else value for name, value in found.items()}


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_another_process_has_the_same_dataset(draw_random, draw):
    with tempfile.TemporaryDirectory() as folder:
        data = draw_random(draw, Path(folder))
        context.set_spawning_popen(object())
        try:
            pickled = pickle.dumps(data)
        finally:
            context.set_spawning_popen(None)
        found = pickle.loads(pickled)
    np.testing.assert_equal(columns(found), columns(data))
    for image in range(len(data)):
        assert found.instances_in(image).tolist() == data.instances_in(image).tolist()
    half = np.arange(len(data.ids)) % 2 == 0
    np.testing.assert_equal(columns(found.select_instances(half)), columns(data.select_instances(half)))
    assert [found.segmentation(k) for k in range(len(data.ids))] == [
        data.segmentation(k) for k in range(len(data.ids))
    ]


def test_it_takes_a_file_instead_of_memory(spawning):
    data = example_scenes(40)
    pickled = pickle.dumps(data)
    assert len(pickled) < 6000 < len(b"".join(data.segmentations))
    assert pickle.dumps(data) == pickled  # one file for all processes
    found = pickle.loads(pickled)
    assert isinstance(found.segmentations, SharedValues)
    path = Path(data._shared_file.path)
    assert path.exists()
    del data
    gc.collect()
    assert not path.exists()
    assert found.mask(3).any()  # what was opened stays


def test_an_id_of_many_digits_goes_along(spawning):
    data = example_scenes(1)
    data = replace(data, ids=[2**70, *data.ids[1:]])
    assert pickle.loads(pickle.dumps(data)).ids == data.ids


def test_a_plain_pickle_holds_everything():
    data = example_scenes(2)
    data.instances_in(0)
    found = pickle.loads(pickle.dumps(data))
    np.testing.assert_equal(columns(found), columns(data))


def test_values_are_indexed_as_a_list_or_an_array(spawning):
    data = example_scenes(3)
    found = pickle.loads(pickle.dumps(data))
    assert found.paths[-1] == data.paths[-1] and found.paths[1:] == data.paths[1:] and len(found.paths) == 3
    with pytest.raises(IndexError):
        found.paths[3]
    chosen = found.segmentations[np.array([2, 0])]
    assert chosen.dtype == object and chosen.tolist() == data.segmentations[[2, 0]].tolist()
    assert found.segmentations[np.arange(len(data.ids)) == 1].tolist() == [data.segmentations[1]]


def sum_masks(data):
    return sum(int(data.mask(k).sum()) for k in range(len(data.ids)))


def test_a_process_that_is_started_reads_it():
    data = example_scenes(4)
    process = multiprocessing.get_context("spawn").Pool(1, initializer=sum_masks, initargs=(data,))
    with process as pool:
        assert pool.apply(sum_masks, (data,)) == sum_masks(data)
