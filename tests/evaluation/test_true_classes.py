"""FCRN's pilot experiment: the localization network votes on the true classes of pixels."""

from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch import nn

from boxel.data.annotations import Category
from boxel.evaluation import evaluate_detections, predict_dataset
from boxel.models import FCRNConfig, FCRNInstances, FCRNInstancesConfig, InferenceConfig
from boxel.models.fcrn.instances import OFFSET_SCALE, to_offsets
from boxel.utils.errors import UsageError

TINY = {"backbone": "resnet10t", "weights": "none", "output_stride": 8}
AS_IT_IS = InferenceConfig(short_side=None)


class Perfect(nn.Module):
    """Points each cell of a 64 x 64 image at one of two touching squares, the left or the right half."""

    stride = 8

    def forward(self, batch):
        boxes = torch.zeros(4, 8, 8)
        for half in (0, 1):
            x0 = 32 * half
            boxes[:, :, 4 * half : 4 * half + 4] = torch.tensor([x0, 16.0, x0 + 32, 48])[:, None, None]
        return (to_offsets(boxes, 8) / OFFSET_SCALE).repeat(len(batch), 2, 1, 1)


@pytest.fixture
def model():
    """One that finds the boxes exactly and knows nothing of classes; its classes are those of the dataset, turned."""
    torch.manual_seed(0)
    model = FCRNInstances(2, FCRNInstancesConfig(**TINY, semantic=FCRNConfig(**TINY))).eval()
    model.network.forward = Perfect().forward
    model.categories = (Category(1, "class 3"), Category(2, "class 7"))
    return model


@pytest.fixture
def two_squares(tmp_path, make_truth, rectangle):
    Image.new("RGB", (64, 64)).save(tmp_path / "0.png")
    masks = [rectangle(64, 64, x, 16, x + 32, 48) for x in (0, 32)]
    return make_truth([(64, 64)], [{"mask": mask} for mask in masks], category_ids=(7, 3), root=tmp_path)


def test_true_classes_and_exact_boxes_give_the_true_masks(model, two_squares):
    results = predict_dataset(model, two_squares, AS_IT_IS, true_classes=True)
    assert [row["category_id"] for row in results] == [7, 7]
    found = evaluate_detections(two_squares, results)["mask_iou"]
    assert found["matched"] == 2 and found["mask_iou"] > 0.98  # between cells, corners are cut
    assert predict_dataset(model, two_squares, AS_IT_IS) != results


def test_true_classes_are_flipped_with_the_image(model, two_squares):
    """The two boxes mirror each other, so that classes of the other side would find the other instance too."""
    left = two_squares.select_instances([0])
    (found,) = predict_dataset(model, left, InferenceConfig(short_side=None, flip=True), true_classes=True)
    assert found["bbox"] == [0, 16, 32, 32]


def test_images_that_cannot_be_used_are_reported(model, two_squares, make_truth, tmp_path):
    (tmp_path / "1.png").write_bytes(b"torn")
    two = make_truth([(64, 64)] * 2, [{"mask": two_squares.mask(0)}], category_ids=(7, 3), root=tmp_path)
    errors = []
    assert len(predict_dataset(model, two, AS_IT_IS, errors=errors, true_classes=True)) == 1
    assert len(errors) == 1 and "1.png" in errors[0]


def test_models_that_do_not_vote_are_refused(two_squares):
    model = SimpleNamespace(settings={}, categories=two_squares.categories)
    with pytest.raises(
        UsageError, match="`true_classes` does nothing here, since a SimpleNamespace finds no"
    ):
        predict_dataset(model, two_squares, AS_IT_IS, true_classes=True)
