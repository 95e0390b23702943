"""BoxSup's loss, re-estimated labels, and the predictions of a new network."""

import pytest
import torch

from boxel.data.label_maps import IGNORE_INDEX
from boxel.models.boxsup import BoxSup, BoxSupConfig
from boxel.models.boxsup.model import reestimate_labels
from boxel.models.semantic.inference import predict_probabilities
from boxel.models.settings import SemanticInferenceConfig as Config

TINY = {
    "backbone": "tf_efficientnet_lite0",
    "weights": "none",
    "backbone_norm": "bn",
    "classifier": "dilated",
    "kernel": 3,
    "dilation": 1,
    "hidden": 0,
}


def test_a_new_network_scores_all_classes_alike() -> None:
    model = BoxSup(4, BoxSupConfig(**TINY)).eval()
    found = predict_probabilities(model.network, torch.randint(256, (3, 32, 48), dtype=torch.uint8), Config())
    assert found == pytest.approx(torch.full((4, 32, 48), 0.25))
    labels = torch.zeros(32, 48, dtype=torch.uint8)
    labels[:, :8] = IGNORE_INDEX
    loss = model.train()([torch.rand(3, 32, 48)], [{"labels": labels}])["segmentation"]
    assert float(loss.detach()) == pytest.approx(torch.log(torch.tensor(4.0)).item())
    loss.backward()
    assert model.network.classifier.scores.weight.grad.abs().sum() > 0


def test_labels_of_boxes_become_background_if_it_scores_far_higher() -> None:
    """Four pixels in a box of class 2, one outside, one ignored; the bias is 1."""
    background, foreground = [0.0, 3.0, 1.5, 2.0, 9.0, 9.0], [5.0, 2.5, 0.4, 1.0, 0.0, 0.0]
    scores = torch.stack([torch.tensor(background), torch.full((6,), 100.0), torch.tensor(foreground)])[
        None, :, None
    ]
    labels = torch.tensor([[[2, 2, 2, 2, 0, IGNORE_INDEX]]])
    assert reestimate_labels(scores, labels, 1.0).tolist() == [[[2, 2, 0, 2, 0, IGNORE_INDEX]]]


def test_the_loss_is_that_of_the_reestimated_labels() -> None:
    torch.manual_seed(0)
    config = BoxSupConfig(**TINY, box_bias=-1.0)
    model = BoxSup(3, config).train()
    # A new network scores all classes alike, and a bias below 0 relabels every pixel.
    labels = torch.full((16, 16), 2, dtype=torch.uint8)
    model([torch.rand(3, 16, 16)], [{"labels": labels}])["segmentation"].backward()
    bias = model.network.classifier.scores.bias.grad
    assert bias.tolist() == pytest.approx([-2 / 3, 1 / 3, 1 / 3], abs=1e-6)
