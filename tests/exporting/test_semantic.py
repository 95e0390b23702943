"""The graph of FCRN and BoxSup against the model's own code."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from boxel.exporting import export
from boxel.exporting.accelerate import accelerate
from boxel.exporting.check import TIE, LabelCheck, check_segmenter
from boxel.exporting.onnx import trace
from boxel.exporting.semantic import SegmenterGraph
from boxel.models.onnx import OnnxSegmenter
from boxel.models.semantic.inference import predict_label_map
from boxel.models.settings import SemanticInferenceConfig

RESNET = {"backbone": "resnet10t", "output_stride": 8, "kernel": 5, "dilation": 3, "hidden": 8}
VGG = {"backbone": "vgg11", "output_stride": 8, "classifier": "fully-connected", "hidden": 8}
MODELS = [
    ("fcrn", RESNET),
    ("boxsup", {}),
    ("boxsup", VGG | {"kernel": 4, "dilation": 4}),
    ("boxsup", VGG | {"kernel": 4, "dilation": 1}),
]


@pytest.mark.slow
@pytest.mark.usefixtures("onnx_installed")
@pytest.mark.parametrize(("method", "options"), MODELS, ids=["resnet", "lite", "vgg", "lopsided"])
def test_any_batch_and_size(segmenter, pixels, tmp_path: Path, method, options):
    model = segmenter(method, **options)
    trace(SegmenterGraph(model).eval(), tmp_path / "model.onnx")
    exported = OnnxSegmenter(model, tmp_path / "model.onnx")
    for count, height, width in ((1, 75, 100), (3, 64, 64), (2, 33, 130)):
        batch = torch.stack(
            [torch.from_numpy(pixels[40 * k :][:height, 60 * k :][:, :width]) for k in range(count)]
        )
        batch = batch.permute(0, 3, 1, 2).float() / 255
        labels, logits = exported.network.predict_labels(batch)
        stride = model.network.stride
        assert labels.shape == (count, height, width) and labels.dtype == torch.uint8
        assert logits.shape == (count, 4, -(-height // stride), -(-width // stride))
        for found, (expected, scores) in zip(labels, model(list(batch)), strict=True):
            assert len(expected.unique()) > 1
            # A tie of the best two classes leaves each less than half.
            np.testing.assert_array_equal(found[scores > 0.5 + TIE], expected[scores > 0.5 + TIE])
            assert (found == expected).float().mean() > 0.999
        with torch.no_grad():
            expected = model.network(batch)
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.slow
@pytest.mark.usefixtures("onnx_installed")
def test_it_takes_the_place_of_the_network(segmenter, pixels):
    model = segmenter("fcrn", **RESNET)
    exported = accelerate(model)
    assert isinstance(exported, OnnxSegmenter)
    config = SemanticInferenceConfig(long_side=120, tile=64, flip=True, shifts=2)
    expected, found = (predict_label_map(network, pixels, config) for network in (model, exported))
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
    assert found.classes == expected.classes and (found.labels == expected.labels).mean() > 0.999


@pytest.mark.slow
@pytest.mark.usefixtures("onnx_installed")
def test_a_file_and_what_it_tells(segmenter, photo, tmp_path: Path):
    from boxel.utils.onnx import load_session

    check = export(segmenter("boxsup"), tmp_path / "model.onnx", [photo])
    assert check.agrees and check.pixels == 2 * 96 * 64
    about = load_session(tmp_path / "model.onnx").get_modelmeta().custom_metadata_map
    assert about["method"] == "boxsup" and about["long_side"] == "96" and about["stride"] == "16"
    assert about["categories"].startswith('[{"id": 0, "name": "class 0"}, {"id": 3,')


def test_other_classes_and_other_probabilities_differ(segmenter, pixels):
    class Altered(OnnxSegmenter):
        """The model itself, with some labels and the logits of a class changed."""

        def __init__(self, model, labels=0, logits=0.0):
            self.network, self._model, self._labels, self._logits = (
                self,
                SegmenterGraph(model),
                labels,
                logits,
            )

        def predict_labels(self, images):
            labels, logits = self._model(images)
            labels[0, 0, : self._labels] = (labels[0, 0, : self._labels] + 1) % 4
            return labels, logits + torch.tensor([self._logits, 0, 0, 0])[:, None, None]

    model = segmenter("fcrn", **RESNET)
    same = check_segmenter(model, Altered(model), [pixels])
    # Batches of two and single images may differ in the last bit.
    assert same == LabelCheck(2 * 96 * 64, 0, pytest.approx(0, abs=1e-6)) and same.agrees
    assert str(replace(same, difference=0.0)) == "12288 pixels, 0 of another class, probabilities within 0"
    relabeled = check_segmenter(model, Altered(model, labels=5), [pixels])
    assert relabeled.changed == 5 and not relabeled.agrees
    assert not check_segmenter(model, Altered(model, logits=0.1), [pixels]).agrees
