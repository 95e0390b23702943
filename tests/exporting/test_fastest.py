"""What runs a BoxCaseg where there is a choice."""

import numpy as np
import pytest
from torch import nn

from boxel.exporting import fastest as module
from boxel.exporting.fastest import fastest
from boxel.models.boxcaseg.predict import soft_masks
from boxel.models.predict import PredictConfig, predict_batch
from boxel.models.runtime import OnnxBoxCaseg, OnnxBoxInst


@pytest.mark.usefixtures("onnx_installed")
def test_onnxruntime_where_it_is_installed_and_it_says_the_same(boxcaseg, pixels):
    model = boxcaseg()
    found = fastest(model)
    assert isinstance(found, OnnxBoxCaseg)
    boxes = np.array([[-5.0, 3.5, 40, 60], [30, 20, 120, 90]])
    for ours, theirs in zip(soft_masks(found, pixels, boxes), soft_masks(model, pixels, boxes), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3 * np.std(theirs))


@pytest.mark.usefixtures("onnx_installed")
def test_a_detector_too(boxinst, pixels):
    model = boxinst()
    found = fastest(model)
    assert isinstance(found, OnnxBoxInst)
    config = PredictConfig(short_side=64, max_size=128)
    (ours,), (theirs,) = (predict_batch(network, [pixels], config) for network in (found, model))
    assert len(theirs) > 0
    np.testing.assert_allclose(ours.boxes, theirs.boxes, atol=0.1)
    np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-3)


def test_what_cannot_be_exported_stays_as_it_is():
    model = nn.Linear(1, 1)
    assert fastest(model) is model


def test_torch_where_it_is_not(boxcaseg, monkeypatch):
    model = boxcaseg()
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    assert fastest(model) is model


@pytest.mark.usefixtures("onnx_installed")
def test_torch_where_the_network_cannot_be_traced(boxcaseg, monkeypatch):
    model = boxcaseg()

    def fail(graph, path):
        raise RuntimeError("no such operator")

    monkeypatch.setattr(module, "trace", fail)
    assert fastest(model) is model
