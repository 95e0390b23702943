"""The shared network: its grid, its dropout, and what it takes."""

import pytest
import torch
from torch import nn

from boxel.errors import BoxelError
from boxel.models.semantic import FullyConvolutional, SemanticConfig

TINY = {"backbone": "resnet10t", "weights": "none", "backbone_norm": "bn", "frozen_stages": 0, "kernel": 3}


@pytest.mark.parametrize("stride", [8, 16])
@pytest.mark.parametrize("backbone", ["resnet10t", "tf_efficientnet_lite0"])
def test_cells_of_the_output_stride(backbone, stride) -> None:
    network = FullyConvolutional(
        4, SemanticConfig(**TINY | {"backbone": backbone}, output_stride=stride)
    ).eval()
    assert network(torch.rand(1, 3, 64, 96)).shape == (1, 4, 64 // stride, 96 // stride)
    assert network(torch.rand(2, 3, 50, 65)).shape == (2, 4, -(-50 // stride), -(-65 // stride))


def test_a_dilated_network_has_the_weights_of_a_strided_one() -> None:
    """On a constant image striding and dilating see the same, away from the border."""
    torch.manual_seed(0)
    dense = FullyConvolutional(2, SemanticConfig(**TINY, output_stride=8)).eval()
    coarse = FullyConvolutional(2, SemanticConfig(**TINY, output_stride=16)).eval()
    coarse.load_state_dict(dense.state_dict())
    grey = torch.full((1, 3, 512, 512), 0.3)
    # The classifier's own dilation is in cells, so compare features.
    (fine,), (rough,) = dense.backbone(grey), coarse.backbone(grey)
    torch.testing.assert_close(fine[0, :, 32, 32], rough[0, :, 16, 16])


def test_dropout_is_in_the_last_blocks_and_only_in_training() -> None:
    torch.manual_seed(0)
    network = FullyConvolutional(2, SemanticConfig(**TINY, dropout=[0.3, 0.9]))
    plain = FullyConvolutional(2, SemanticConfig(**TINY))
    assert network.state_dict().keys() == plain.state_dict().keys()
    hooked = [
        name for name, m in network.named_modules() if isinstance(m, nn.Conv2d) and m._forward_pre_hooks
    ]
    assert hooked == ["backbone.body.layer3.0.conv2", "backbone.body.layer4.0.conv2"]
    plain.load_state_dict(network.state_dict())
    image = torch.rand(1, 3, 64, 64)
    assert torch.equal(network.eval()(image), plain.eval()(image))
    seen = []
    network.backbone.body.layer4[0].conv2.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network.train()(image)
    assert 0.8 < float((seen[0] == 0).float().mean()) < 1  # 0.9 dropped, and ReLU's zeros


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(BoxelError, match="kernel is 4; give an odd number"):
        SemanticConfig(kernel=4)
    with pytest.raises(BoxelError, match="dropout is"):
        SemanticConfig(dropout=[1.0])
    with pytest.raises(BoxelError, match="fewer than dropout has entries"):
        FullyConvolutional(2, SemanticConfig(**TINY, dropout=[0.1] * 50))
    with pytest.raises(BoxelError, match="timm gives no features of backbone swin"):
        FullyConvolutional(2, SemanticConfig(**TINY | {"backbone": "swin_tiny_patch4_window7_224"}))
