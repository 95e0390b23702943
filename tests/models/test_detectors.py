"""What BoxInst and Mask R-CNN have in common: weights from files, images of any size, and finding nothing."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from boxel.masks.rle import decode
from boxel.models.mask_rcnn.model import MaskRCNN


@pytest.fixture
def finder(build):
    """A model that gives out whatever it thinks."""
    return build(score_threshold=0.0).eval()


@pytest.mark.slow
def test_weights_may_start_from_a_file(build, tmp_path):
    """A file instead of a random start."""
    other = build(backbone_norm="bn")
    with torch.no_grad():
        other.backbone.body.conv_stem.weight.fill_(0.25)
    save_file(other.backbone.body.state_dict(), tmp_path / "body.safetensors")
    assert (build(weights=str(tmp_path / "body.safetensors")).backbone.body.conv_stem.weight == 0.25).all()
    assert (build().backbone.body.conv_stem.weight != 0.25).all()


@pytest.mark.slow
def test_weights_come_back_from_a_file(build, finder, picture, tmp_path):
    save_file(finder.state_dict(), tmp_path / "model.safetensors")
    again = build(score_threshold=0.0).eval()
    with torch.no_grad():
        for parameter in again.parameters():
            parameter.zero_()
    again.load_state_dict(load_file(tmp_path / "model.safetensors"))
    before, after = finder([picture()])[0], again([picture()])[0]
    assert torch.equal(before["boxes"], after["boxes"]) and before["masks"] == after["masks"]


@pytest.mark.slow
def test_training_needs_targets(small, picture):
    with pytest.raises(ValueError, match="targets"):
        small([picture()])


@pytest.mark.slow
@pytest.mark.parametrize("size", [(37, 91), (8, 8), (130, 33)])
def test_masks_have_the_size_of_images_of_any_size(finder, picture, size):
    """Masks have the image's size, and those of Mask R-CNN stay inside their boxes."""
    result = finder([picture(*size), picture()])[0]
    assert len(result["scores"]) > 10
    assert (result["scores"].diff() <= 0).all()
    assert set(result["labels"].tolist()) <= {0, 1, 2}
    boxes = result["boxes"].numpy()
    assert (boxes >= 0).all() and (boxes <= [size[1], size[0], size[1], size[0]]).all()
    for box, rle in zip(boxes, result["masks"], strict=True):
        mask = decode(rle)
        assert mask.shape == size
        rows, columns = np.nonzero(mask)
        if isinstance(finder, MaskRCNN) and len(rows):
            assert columns.min() >= np.floor(box[0]) and columns.max() < np.ceil(box[2])
            assert rows.min() >= np.floor(box[1]) and rows.max() < np.ceil(box[3])


@pytest.mark.slow
def test_an_image_without_detections_gives_empty_tensors(build, picture):
    model = build(score_threshold=1.0).eval()
    for result in model([picture(), picture(40, 100)]):
        assert result["boxes"].shape == (0, 4)
        assert result["scores"].shape == result["labels"].shape == (0,)
        assert result["masks"] == []
    photo = np.zeros((64, 64, 3), dtype=np.uint8)
    assert len(model.predict(photo, short_side=64, flip=True, scales=(1.0, 0.5))) == 0


def test_predict_before_any_data_set(finder):
    """Labels go by their numbers, and a model in training stays in training."""
    finder.train()
    (found,) = finder.predict([np.zeros((64, 64, 3), dtype=np.uint8)], short_side=64)
    assert found.names == [str(label) for label in found.labels] != []
    assert finder.training
