"""The graph of Mask R-CNN against the model's own code, in torch and in onnxruntime."""

from pathlib import Path

import numpy as np
import pytest
import torch

from boxel.exporting import export
from boxel.exporting.accelerate import accelerate
from boxel.exporting.mask_rcnn import MaskRCNNGraph, pool
from boxel.exporting.onnx import trace
from boxel.models.detector import Detections
from boxel.models.mask_rcnn.heads import grid_windows
from boxel.models.onnx import OnnxMaskRCNN

SHAPES = [(1, 94, 75), (3, 64, 64), (1, 61, 250), (2, 256, 330)]
"""Batch, height and width, with little padding, whose proposals tie; the graph is traced at 2 x 96 x 128."""


def make_batch(pixels, count, height, width):
    """Pieces of a photo."""
    image = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
    return [image[:, 20 * k : 20 * k + height, 60 * k : 60 * k + width] for k in range(count)]


def same(expected, found):
    assert len(expected.scores) == len(found.scores)
    np.testing.assert_array_equal(found.labels, expected.labels)
    # With random weights, an image that differs by a ten-millionth changes the scores by half of this.
    np.testing.assert_allclose(found.scores, expected.scores, rtol=0, atol=1e-4)
    for name in ("boxes", "windows", "bounds"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=0, atol=0.01)
    largest = float(expected.mask_logits.abs().amax()) if len(expected.scores) else 0.0
    np.testing.assert_allclose(found.mask_logits, expected.mask_logits, rtol=0, atol=1e-4 * largest)


@pytest.mark.slow
@pytest.mark.usefixtures("onnx_installed")
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"backbone": "tf_efficientnet_lite0", "level_scale": 0.5, "max_detections": 7, "classes": 1},
        {"proposals": 300, "nms_threshold": 0.3, "mask_convs": 0, "classes": 12},
    ],
    ids=["small", "few", "many"],
)
def test_any_batch_and_size(mask_rcnn, pixels, tmp_path: Path, options):
    model = mask_rcnn(**options)
    trace(MaskRCNNGraph(model).eval(), tmp_path / "model.onnx")
    exported = OnnxMaskRCNN(model, tmp_path / "model.onnx")
    for count, height, width in SHAPES:
        images = make_batch(pixels, count, height, width)
        expected = model.detect(images)
        assert all(len(one.scores) for one in expected)
        for pair in zip(expected, exported.detect(images), strict=True):
            same(*pair)


@pytest.mark.slow
@pytest.mark.usefixtures("onnx_installed")
def test_images_without_detections(mask_rcnn, pixels, tmp_path: Path):
    model = mask_rcnn()
    images = make_batch(pixels, 3, 64, 100)
    # A threshold between the best scores of the images: some have instances, and some have none.
    best = sorted(float(found.scores[0]) for found in model.detect(images))
    model.roi_heads.score_thresh = (best[-1] + best[-2]) / 2
    trace(MaskRCNNGraph(model).eval(), tmp_path / "some.onnx")
    found = OnnxMaskRCNN(model, tmp_path / "some.onnx").detect(images)
    assert sorted(len(one.scores) > 0 for one in found) == [False, False, True]
    for pair in zip(model.detect(images), found, strict=True):
        same(*pair)

    model.roi_heads.score_thresh = 1.0
    trace(MaskRCNNGraph(model).eval(), tmp_path / "none.onnx")
    for one in OnnxMaskRCNN(model, tmp_path / "none.onnx").detect(images):
        assert one.boxes.shape == (0, 4) and one.mask_logits.shape == (0, 28, 28)


def test_in_torch_the_graph_is_the_model(mask_rcnn, pixels):
    model = mask_rcnn()
    images = make_batch(pixels, 2, 70, 100)
    with torch.no_grad():
        *found, image = MaskRCNNGraph(model).eval()(torch.stack(images))
    assert image.tolist() == sorted(image.tolist())
    for index, expected in enumerate(model.detect(images)):
        boxes, *others = (values[image == index] for values in found)
        same(expected, Detections(boxes, *others, grid_windows(boxes), boxes))


def test_features_of_boxes_come_from_the_level_of_their_size(mask_rcnn):
    align = mask_rcnn().roi_heads.box_roi_pool
    features = {str(level): torch.rand(2, 3, 128 >> level, 128 >> level) for level in range(4)}
    corners = torch.tensor([[3.0, 5], [40, 0], [7, 9], [1, 2], [0, 0]])
    boxes = torch.cat([corners, corners + torch.tensor([40.0, 450, 200, 300, 20])[:, None]], 1)
    assert align.map_levels([boxes]).tolist() == [0, 3, 1, 2, 0]
    expected = align(features, [boxes[:2], boxes[2:]], [(512, 512)] * 2)
    found = pool(align, features, boxes, torch.tensor([0, 0, 1, 1, 1]))
    assert torch.equal(found, expected)


@pytest.mark.slow
@pytest.mark.usefixtures("onnx_installed")
def test_a_file_and_what_it_tells(mask_rcnn, photo, tmp_path: Path):
    from boxel.utils.onnx import load_session

    model = mask_rcnn()
    check = export(model, tmp_path / "model.onnx", [photo])
    assert check.agrees and check.instances > 10
    about = load_session(tmp_path / "model.onnx").get_modelmeta().custom_metadata_map
    assert about["method"] == "mask-rcnn" and about["short_side"] == "96" and about["max_size"] == "160"
    assert isinstance(accelerate(model), OnnxMaskRCNN)
