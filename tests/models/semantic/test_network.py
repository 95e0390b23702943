"""The shared network: its grid, its dropout, and what it takes."""

import logging
from dataclasses import asdict

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.vgg import ConvMlp
from torch import nn

from boxel.data.annotations import Category
from boxel.models import io
from boxel.models.fcrn import FCRN, FCRNConfig
from boxel.models.semantic import FullyConvolutional, SemanticConfig
from boxel.utils.errors import BoxelError

TINY = {"backbone": "resnet10t", "weights": "none", "backbone_norm": "bn", "frozen_stages": 0, "kernel": 3}


@pytest.mark.slow
@pytest.mark.parametrize("stride", [8, 16])
@pytest.mark.parametrize("backbone", ["resnet10t", "tf_efficientnet_lite0"])
def test_cells_of_the_output_stride(backbone, stride) -> None:
    network = FullyConvolutional(
        4, SemanticConfig(**TINY | {"backbone": backbone}, output_stride=stride)
    ).eval()
    assert network(torch.rand(1, 3, 64, 96)).shape == (1, 4, 64 // stride, 96 // stride)
    assert network(torch.rand(2, 3, 50, 65)).shape == (2, 4, -(-50 // stride), -(-65 // stride))


@pytest.mark.slow
def test_a_dilated_network_has_the_weights_of_a_strided_one() -> None:
    """On a constant image striding and dilating see the same, away from the border."""
    torch.manual_seed(0)
    dense = FullyConvolutional(2, SemanticConfig(**TINY, output_stride=8)).eval()
    coarse = FullyConvolutional(2, SemanticConfig(**TINY, output_stride=16)).eval()
    coarse.load_state_dict(dense.state_dict())
    gray = torch.full((1, 3, 512, 512), 0.3)
    # The classifier's own dilation is in cells, so compare features.
    (fine,), (rough,) = dense.backbone(gray), coarse.backbone(gray)
    torch.testing.assert_close(fine[0, :, 32, 32], rough[0, :, 16, 16])


def test_synchronized_norms_are_those_of_the_classifier_too() -> None:
    network = FullyConvolutional(2, SemanticConfig(**TINY | {"backbone_norm": "sync_bn"}, hidden=8))
    assert isinstance(network.classifier.norm, nn.SyncBatchNorm)


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


def test_settings_that_cannot_be_built_are_refused() -> None:
    with pytest.raises(BoxelError, match="kernel is 4; give an odd number"):
        SemanticConfig(kernel=4)
    with pytest.raises(BoxelError, match="dropout is"):
        SemanticConfig(dropout=[1.0])
    with pytest.raises(BoxelError, match="fewer than dropout has entries"):
        FullyConvolutional(2, SemanticConfig(**TINY, dropout=[0.1] * 50))
    with pytest.raises(BoxelError, match="timm cannot return features of backbone swin"):
        FullyConvolutional(2, SemanticConfig(**TINY | {"backbone": "swin_tiny_patch4_window7_224"}))
    with pytest.raises(BoxelError, match="hidden is 0; give a number from 1 up"):
        SemanticConfig(classifier="fully-connected")


# DeepLab's network -----------------------------------------------------------------------------------------

VGG = {"backbone": "vgg11", "classifier": "fully-connected", "kernel": 4, "dilation": 4, "hidden": 3}


@pytest.fixture
def narrow_vgg(monkeypatch):
    """timm's vgg11, whole, of few channels: 6 of the features, 7 of the fully connected layers."""

    def narrow(channels, hidden, *options, **more):
        return ConvMlp(channels, 7, *options, **more)

    layers = [2, "M", 3, "M", 4, 4, "M", 5, 5, "M", 6, 6, "M"]
    monkeypatch.setitem(timm.models.vgg.cfgs, "vgg11", layers)
    monkeypatch.setattr(timm.models.vgg, "ConvMlp", narrow)
    torch.manual_seed(0)
    return timm.create_model("vgg11")


def is_filled_from(network, vgg) -> bool:
    """fc6 and fc7 are every other row and column, and channels 0, 3 and 6 of 7."""
    six, seven = vgg.pre_logits.fc1, vgg.pre_logits.fc2
    fc6, fc7 = network.classifier.fc6, network.classifier.fc7
    return all(
        (
            torch.equal(fc6.weight, six.weight[::3, :, ::2, ::2]),
            torch.equal(fc6.bias, six.bias[::3]),
            torch.equal(fc7.weight, seven.weight[::3, ::3]),
            torch.equal(fc7.bias, seven.bias[::3]),
        )
    )


@pytest.mark.parametrize(
    ("kernel", "dilation", "stride", "pixels"),
    [
        (3, 6, 16, 208),
        (3, 6, 8, 104),
        (3, 12, 8, 200),
        (3, 18, 8, 296),
        (5, 6, 8, 200),
        (5, 12, 8, 392),
        (5, 18, 8, 584),
        (7, 6, 8, 296),
        (7, 12, 8, 584),
    ],
)
def test_fields_of_view_equal_those_of_the_paper(kernel, dilation, stride, pixels) -> None:
    config = SemanticConfig(kernel=kernel, dilation=dilation, output_stride=stride)
    assert config.field_of_view == pixels


@pytest.mark.parametrize(("kernel", "dilation", "pixels"), [(4, 4, 104), (3, 12, 200)])
def test_deeplabs_fields_of_view(kernel, dilation, pixels) -> None:
    options = VGG | {"weights": "none", "kernel": kernel, "dilation": dilation}
    assert SemanticConfig(**options).field_of_view == pixels


def test_deeplabs_grid_and_its_layers(narrow_vgg) -> None:
    network = FullyConvolutional(5, SemanticConfig(**VGG, weights="none", frozen_stages=0)).eval()
    assert network(torch.rand(2, 3, 50, 65)).shape == (2, 5, 7, 9)
    dilations = [m.dilation[0] for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert dilations == [1] * 6 + [2, 2] + [4, 1, 1]
    assert not is_filled_from(network, narrow_vgg)
    network(torch.rand(1, 3, 64, 64)).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())


@pytest.mark.parametrize("style", ["timm", "torchvision"])
def test_a_file_fills_the_fully_connected_layers_too(style, narrow_vgg, tmp_path, caplog) -> None:
    narrow_vgg.pre_logits.fc1.bias.data.normal_()
    state = narrow_vgg.state_dict()
    if style == "torchvision":
        for theirs, own in (("classifier.0", "pre_logits.fc1"), ("classifier.3", "pre_logits.fc2")):
            state[f"{theirs}.weight"] = state.pop(f"{own}.weight").flatten(1)
            state[f"{theirs}.bias"] = state.pop(f"{own}.bias")
    save_file(state, tmp_path / "vgg.safetensors")
    network = FullyConvolutional(5, SemanticConfig(**VGG, weights=str(tmp_path / "vgg.safetensors")))
    assert is_filled_from(network, narrow_vgg)
    assert torch.equal(network.backbone.body.features_0.weight, narrow_vgg.features[0].weight)
    assert not caplog.messages


def test_imagenet_fills_the_fully_connected_layers_too(narrow_vgg, monkeypatch) -> None:
    create_model = timm.create_model

    def pretrained_here(name, pretrained=False, features_only=False, **options):
        model = create_model(name, features_only=features_only, **options)
        if pretrained and not features_only:
            model.load_state_dict(narrow_vgg.state_dict())
        return model

    monkeypatch.setattr(timm, "create_model", pretrained_here)
    assert is_filled_from(FullyConvolutional(5, SemanticConfig(**VGG)), narrow_vgg)


def test_a_file_without_fully_connected_layers_gives_a_warning(narrow_vgg, tmp_path, caplog) -> None:
    path = tmp_path / "features.safetensors"
    save_file({name: tensor for name, tensor in narrow_vgg.state_dict().items() if "features" in name}, path)
    with caplog.at_level(logging.WARNING):
        FullyConvolutional(5, SemanticConfig(**VGG, weights=str(path)))
    (message,) = caplog.messages
    assert message.startswith(
        f"{path} has no fully connected layers of vgg11, so the classifier starts at random"
    )


def test_the_fully_connected_layers_of_another_backbone_start_at_random(caplog) -> None:
    config = SemanticConfig(**TINY | VGG | {"backbone": "resnet10t"})
    assert FullyConvolutional(5, config).eval()(torch.rand(1, 3, 64, 64)).shape == (1, 5, 8, 8)
    assert not caplog.messages


def test_a_saved_model_is_rebuilt_without_the_file_it_began_with(narrow_vgg, tmp_path) -> None:
    path = tmp_path / "vgg.safetensors"
    save_file(narrow_vgg.state_dict(), path)
    config = FCRNConfig(**VGG, weights=str(path))
    model = FCRN(2, config).eval()
    categories = [Category(0, "background"), Category(1, "cat")]
    io.save(model, tmp_path / "run", {"method": "fcrn", "model": asdict(config)}, categories)
    path.unlink()
    loaded = io.load(tmp_path / "run")
    assert loaded.config.classifier == "fully-connected" and is_filled_from(loaded.network, narrow_vgg)
    photo = torch.rand(1, 3, 64, 96)
    assert torch.equal(loaded.network(photo), model.network(photo))
