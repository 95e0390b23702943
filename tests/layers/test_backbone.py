import copy
from types import SimpleNamespace

import pytest
import timm
import torch
from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import save_file
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from boxel.layers.backbone import Backbone
from boxel.layers.deformable import ModulatedDeformConv2d
from boxel.layers.weights import load_matching, read_weights
from boxel.utils.errors import BoxelError

SWIN = "swin_s3_tiny_224"


@pytest.fixture
def images():
    return torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("resnet18", [128, 256, 512]),
        ("resnet50", [512, 1024, 2048]),
        ("tf_efficientnet_lite0", [40, 112, 320]),
        ("convnext_atto", [80, 160, 320]),
        (SWIN, [192, 384, 768]),  # gives its features as (B, H, W, C), and was built for 224 x 224
        ("mobilenetv3_small_050", [16, 24, 288]),
    ],
)
def test_returns_strides_8_16_and_32(name, channels, images):
    backbone = Backbone(name, weights="none").eval()
    with torch.no_grad():
        features = backbone(images)
    assert backbone.channels == channels
    assert [tuple(feature.shape) for feature in features] == [
        (2, channels[0], 8, 12),
        (2, channels[1], 4, 6),
        (2, channels[2], 2, 3),
    ]


@pytest.mark.slow
def test_features_are_those_of_timm_on_normalized_images(images):
    backbone = Backbone("resnet18", weights="none").eval()
    body = timm.create_model("resnet18", features_only=True, out_indices=(2, 3, 4)).eval()
    body.load_state_dict(backbone.body.state_dict(), strict=False)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        expected = body((images - mean.view(3, 1, 1)) / std.view(3, 1, 1))
        for feature, truth in zip(backbone(images), expected, strict=True):
            torch.testing.assert_close(feature, truth)


def test_mean_and_std_belong_to_the_weights():
    assert Backbone("tf_efficientnet_lite0", weights="none").mean.flatten().tolist() == [0.5] * 3
    resnet = Backbone("resnet18", weights="none")
    assert resnet.std.flatten().tolist() == pytest.approx([0.229, 0.224, 0.225])


def test_state_dict_rebuilds_the_backbone_with_its_normalization(images):
    trained = Backbone("tf_efficientnet_lite0", weights="none").eval()
    trained.mean.fill_(127 / 255)
    rebuilt = Backbone("tf_efficientnet_lite0", weights="none").eval()
    rebuilt.load_state_dict(trained.state_dict())
    with torch.no_grad():
        assert torch.equal(rebuilt(images)[2], trained(images)[2])


def test_channels_last_gives_the_same(images):
    backbone = Backbone("tf_efficientnet_lite0", weights="none", deformable=True).eval()
    with torch.no_grad():
        plain = backbone(images)
        last = backbone.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))
    for a, b in zip(plain, last, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


# strides and channels --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "channels"),
    [("tf_efficientnet_lite0", [24, 40, 112, 320]), ("convnext_atto", [40, 80, 160, 320])],
)
def test_returns_the_requested_strides(name, channels, images):
    backbone = Backbone(name, weights="none", strides=(4, 8, 16, 32)).eval()
    usual = Backbone(name, weights="none").eval()
    usual.load_state_dict(backbone.state_dict())
    with torch.no_grad():
        first, *others = backbone(images)
        assert backbone.channels == channels
        assert first.shape == (2, channels[0], 16, 24)
        assert all(torch.equal(a, b) for a, b in zip(others, usual(images), strict=True))


def test_missing_strides_are_an_error():
    with pytest.raises(BoxelError, match=r"resnet18 has features of strides .*, not of \[8, 64\]"):
        Backbone("resnet18", weights="none", strides=(8, 64))


@pytest.fixture(scope="module")
def hrnet():
    return Backbone(
        "hrnet_w18_small", weights="none", norm="bn", frozen_stages=0, strides=(4, 8, 16, 32)
    ).eval()


def test_hrnet_returns_its_branches(hrnet, images):
    """The features of timm have 128 to 1024 channels, from layers for classification."""
    branches = []
    hook = hrnet.body.stage4.register_forward_hook(lambda *call: branches.extend(call[2]))
    with torch.no_grad():
        features = hrnet(images)
    hook.remove()
    assert hrnet.channels == [16, 32, 64, 128]
    assert [tuple(feature.shape[1:]) for feature in features] == [
        (16, 16, 24),
        (32, 8, 12),
        (64, 4, 6),
        (128, 2, 3),
    ]
    assert all(torch.equal(a, b) for a, b in zip(features, branches, strict=True))


def test_hrnet_loads_the_weights_of_the_whole_classifier(hrnet, tmp_path):
    network = timm.create_model("hrnet_w18_small").state_dict()
    save_file(network, tmp_path / "weights.safetensors")
    load_matching(hrnet.body, read_weights(str(tmp_path / "weights.safetensors")), "weights.safetensors")
    assert all(torch.equal(tensor, network[name]) for name, tensor in hrnet.body.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet10t", "tf_efficientnet_lite0"])
def test_an_extra_channel_is_ignored_before_training(name, images):
    plain = Backbone(name, weights="none").eval()
    wide = Backbone(name, weights="none", extra_channels=1).eval()
    first = {"resnet10t": "body.conv1.0.weight"}.get(name, "body.conv_stem.weight")
    weights = plain.state_dict()
    weights[first] = torch.cat([weights[first], torch.zeros_like(weights[first][:, :1])], dim=1)
    assert wide.state_dict()[first].shape == weights[first].shape
    assert wide.state_dict()[first][:, 3].abs().sum() == 0
    wide.load_state_dict(weights)
    with torch.no_grad():
        found = wide(torch.cat([images, torch.randn(2, 1, 64, 96)], dim=1))
        for a, b in zip(found, plain(images), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_an_extra_channel_is_not_normalized_and_gets_a_gradient(images):
    """Colors are normalized; extra channels are not."""
    backbone = Backbone("resnet10t", weights="none", norm="bn", frozen_stages=0, extra_channels=2)
    first = backbone.body.conv1[0]
    seen = []
    first.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    extra = torch.randn(2, 2, 64, 96)
    backbone(torch.cat([images, extra], dim=1))[0].square().mean().backward()
    torch.testing.assert_close(seen[0][:, :3], (images - backbone.mean) / backbone.std)
    assert torch.equal(seen[0][:, 3:], extra)
    assert (first.weight.grad[:, 3:].flatten(2).abs().sum(2) > 0).all()


# VGG -------------------------------------------------------------------------------------------------------


@pytest.fixture
def narrow_vgg(monkeypatch):
    """Give vgg11 and vgg11_bn of timm few channels and a small head."""
    layers = [2, "M", 3, "M", 4, 4, "M", 5, 5, "M", 6, 6, "M"]
    monkeypatch.setitem(timm.models.vgg.cfgs, "vgg11", layers)
    monkeypatch.setattr(timm.models.vgg, "ConvMlp", lambda *options, **more: nn.Identity())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vgg11", "vgg11_bn"])
@pytest.mark.parametrize(
    ("output_stride", "strides", "channels", "dilation"),
    [(8, (8,), [6], 2), (8, (4, 8), [4, 6], 2), (16, (8, 16), [5, 6], 1), (32, (8, 16, 32), [5, 6, 6], 1)],
)
def test_vgg_returns_the_deepest_map_of_a_stride(
    name, output_stride, strides, channels, dilation, narrow_vgg, images
):
    backbone = Backbone(name, "none", frozen_stages=0, strides=strides, output_stride=output_stride)
    assert backbone.channels == channels
    assert [tuple(feature.shape) for feature in backbone(images)] == [
        (2, count, 64 // stride, 96 // stride) for count, stride in zip(channels, strides, strict=True)
    ]
    convolutions = [layer for layer in backbone.modules() if isinstance(layer, nn.Conv2d)]
    assert [layer.dilation for layer in convolutions] == [(1, 1)] * 6 + [(dilation, dilation)] * 2


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_dilated_vgg_loads_the_weights_of_the_whole_classifier(narrow_vgg, tmp_path, images, suffix):
    state = timm.create_model("vgg11").state_dict()
    path = tmp_path / f"weights{suffix}"
    features = {name: tensor for name, tensor in state.items() if name.startswith("features")}
    (save_file if suffix == ".safetensors" else torch.save)(features, path)
    backbone = Backbone("vgg11", str(path), strides=(8,), output_stride=8).eval()
    for name, tensor in features.items():
        assert torch.equal(backbone.state_dict()["body." + name.replace(".", "_", 1)], tensor)
    whole = Backbone("vgg11", str(path), strides=(1, 2, 4), frozen_stages=0).eval()
    begin = Backbone("vgg11", str(path), strides=(1, 2, 4), frozen_stages=0, output_stride=8).eval()
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(whole(images), begin(images), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("output_stride", [8, 32])
@pytest.mark.parametrize(("stages", "frozen"), [(0, 0), (1, 2), (2, 4), (3, 6), (4, 8), (5, 8)])
def test_stages_of_a_vgg_are_the_same_dilated(stages, frozen, output_stride, narrow_vgg):
    body = Backbone("vgg11", "none", frozen_stages=stages, strides=(4,), output_stride=output_stride).body
    learns = [parameter.requires_grad for name, parameter in body.named_parameters() if "weight" in name]
    assert learns == [False] * frozen + [True] * (8 - frozen)


def test_a_deformable_dilated_vgg_starts_as_the_plain_one(narrow_vgg, images):
    options = {"weights": "none", "strides": (8,), "output_stride": 8}
    plain, deformable = Backbone("vgg11", **options), Backbone("vgg11", **options, deformable=True)
    deformable.load_state_dict(plain.state_dict(), strict=False)
    assert sum(isinstance(m, ModulatedDeformConv2d) for m in deformable.modules()) == 4
    with torch.no_grad():
        torch.testing.assert_close(plain(images)[0], deformable(images)[0], rtol=1e-3, atol=1e-5)


# norm ------------------------------------------------------------------------------------------------------


def buffers_after_a_training_step(norm, images, frozen_stages=0):
    backbone = Backbone("tf_efficientnet_lite0", weights="none", norm=norm, frozen_stages=frozen_stages)
    before = copy.deepcopy(backbone.state_dict())
    backbone.train()
    optimizer = torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad], lr=0.1)
    sum(feature.square().mean() for feature in backbone(images)).backward()
    optimizer.step()
    after = backbone.state_dict()
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_frozen_bn_changes_neither_statistics_nor_affine(images):
    changed = buffers_after_a_training_step("frozen_bn", images)
    assert {"body.conv_stem.weight", "body.blocks.2.0.conv_dw.weight"} <= changed
    assert not [name for name in changed if "bn" in name]


def test_bn_learns_statistics_and_affine(images):
    changed = buffers_after_a_training_step("bn", images)
    names = ("bn1.running_mean", "blocks.2.0.bn1.running_var", "blocks.2.0.bn1.weight")
    assert {f"body.{name}" for name in names} <= changed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("norm", "kind"),
    [
        ("frozen_bn", FrozenBatchNorm2d),
        ("bn", nn.BatchNorm2d),
        ("sync_bn", nn.SyncBatchNorm),
        ("gn", nn.GroupNorm),
    ],
)
def test_norm_is_the_requested_one(norm, kind):
    backbone = Backbone("resnet18", weights="none", norm=norm)
    norms = [m for m in backbone.modules() if "Norm" in type(m).__name__]
    assert len(norms) == 20  # one in the stem, 16 in the blocks, 3 in the shortcuts
    assert all(type(m).__name__.startswith(kind.__name__) for m in norms)


def test_group_norm_does_not_depend_on_the_batch(images):
    backbone = Backbone("tf_efficientnet_lite0", weights="none", norm="gn").train()
    with torch.no_grad():
        torch.testing.assert_close(backbone(images)[0][:1], backbone(images[:1])[0])


def test_group_norm_without_batch_norm_to_replace_is_an_error():
    with pytest.raises(BoxelError, match='convnext_atto has no batch norm to replace by "gn"'):
        Backbone("convnext_atto", weights="none", norm="gn")


def test_unknown_norm():
    with pytest.raises(BoxelError, match="Did you mean 'sync_bn'"):
        Backbone("resnet18", weights="none", norm="syncbn")


# frozen stages ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "stages", "last_frozen", "first_free"),
    [
        ("resnet18", 1, "bn1.bias", "layer1.0.conv1.weight"),
        ("resnet18", 2, "layer1.1.bn2.bias", "layer2.0.conv1.weight"),
        ("resnet18", 3, "layer2.1.bn2.bias", "layer3.0.conv1.weight"),
        ("resnet18", 4, "layer3.1.bn2.bias", "layer4.0.conv1.weight"),
        ("tf_efficientnet_lite0", 1, "blocks.0.0.bn2.bias", "blocks.1.0.conv_pw.weight"),
        ("tf_efficientnet_lite0", 2, "blocks.1.1.bn3.bias", "blocks.2.0.conv_pw.weight"),
        ("tf_efficientnet_lite0", 4, "blocks.4.2.bn3.bias", "blocks.5.0.conv_pw.weight"),
        ("convnext_atto", 1, "stem_1.bias", "stages_0.blocks.0.gamma"),
        ("convnext_atto", 2, "stages_0.blocks.1.mlp.fc2.bias", "stages_1.downsample.0.weight"),
    ],
)
def test_frozen_stages_end_where_they_should(name, stages, last_frozen, first_free):
    body = Backbone(name, weights="none", norm="bn", frozen_stages=stages).body
    names = [name for name, _ in body.named_parameters()]
    cut = names.index(first_free)
    assert names[cut - 1] == last_frozen
    assert [p.requires_grad for p in body.parameters()] == [False] * cut + [True] * (len(names) - cut)


@pytest.mark.slow
def test_zero_freezes_nothing_and_five_everything():
    for name in ("resnet18", SWIN):
        nothing = Backbone(name, weights="none", norm="bn", frozen_stages=0)
        everything = Backbone(name, weights="none", norm="bn", frozen_stages=5)
        assert all(p.requires_grad for p in nothing.parameters())
        assert not any(p.requires_grad for p in everything.parameters())


def test_frozen_stages_keep_their_statistics_in_training(images):
    changed = buffers_after_a_training_step("bn", images, frozen_stages=2)
    assert {"body.blocks.2.0.bn1.running_mean", "body.blocks.2.0.bn1.weight"} <= changed
    assert not [name for name in changed if name.startswith(("body.conv_stem", "body.bn1", "body.blocks.1."))]


def test_impossible_frozen_stages_are_an_error():
    with pytest.raises(BoxelError, match="set frozen_stages to 0"):
        Backbone("hrnet_w18_small", weights="none")
    with pytest.raises(BoxelError, match="frozen_stages is 6"):
        Backbone("resnet18", weights="none", frozen_stages=6)


# deformable ------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0"])
def test_deformable_starts_as_the_plain_network(name, images):
    plain = Backbone(name, weights="none").eval()
    deformable = Backbone(name, weights="none", deformable=True).eval()
    left = deformable.load_state_dict(plain.state_dict(), strict=False)
    assert left.missing_keys and all("offset_and_mask" in key for key in left.missing_keys)
    with torch.no_grad():
        for a, b in zip(plain(images), deformable(images), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_deformable_replaces_3x3_convolutions_of_c3_to_c5_only():
    body = Backbone("resnet50", weights="none", deformable=True).body
    replaced = {name for name, module in body.named_modules() if isinstance(module, ModulatedDeformConv2d)}
    blocks = {"layer2": 4, "layer3": 6, "layer4": 3}
    assert replaced == {f"{layer}.{i}.conv2" for layer, count in blocks.items() for i in range(count)}


def test_offsets_of_deformable_convolutions_get_a_gradient(images):
    backbone = Backbone("tf_efficientnet_lite0", weights="none", deformable=True)
    backbone(images)[1].square().sum().backward()
    grad = backbone.body.blocks[3][0].conv_dw.offset_and_mask.weight.grad
    offsets, modulations = grad.split([18, 9])
    assert offsets.abs().sum() > 0
    assert modulations.abs().sum() > 0


@pytest.mark.slow
def test_deformable_without_convolutions_to_replace_is_an_error():
    with pytest.raises(BoxelError, match="no plain 3x3 convolutions"):
        Backbone(SWIN, weights="none", deformable=True)


# weights ---------------------------------------------------------------------------------------------------


def test_an_error_that_is_not_the_hubs_keeps_its_reason(monkeypatch):
    def damaged(name, pretrained=False, **kwargs):
        raise RuntimeError("a tensor is cut off")

    def refuse(*_, **__):
        raise OSError("no connection")

    monkeypatch.setattr(timm, "create_model", damaged)
    monkeypatch.setattr("huggingface_hub.utils.get_session", lambda: SimpleNamespace(head=refuse))
    with pytest.raises(BoxelError, match=r"cannot be loaded from the hub \(a tensor is cut off\)"):
        Backbone("resnet50")


def test_an_unreachable_hub_names_the_alternatives(monkeypatch):
    def unreachable(name, pretrained=False, **kwargs):
        assert pretrained
        assert constants.HF_HUB_OFFLINE  # so that the client of the hub does not try again and again
        raise LocalEntryNotFoundError("it is not in the cache")

    def refuse(*_, **__):
        raise OSError("no connection.\nmore lines")

    monkeypatch.setattr(timm, "create_model", unreachable)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.utils.get_session", lambda: SimpleNamespace(head=refuse))
    with pytest.raises(BoxelError) as error:
        Backbone("resnet50")
    assert not constants.HF_HUB_OFFLINE
    assert str(error.value) == (
        "ImageNet weights of backbone resnet50 cannot be loaded from the hub (no connection); "
        "without it, use `config` coco-small for BoxInst, or set `model.weights` to lite (with `model.backbone` "
        "tf_efficientnet_lite0 to 2), to a local .safetensors or .pth file, or to none for random weights."
    )


def test_imagenet_requests_pretrained_weights_from_timm(monkeypatch):
    create_model, asked = timm.create_model, []

    def offline(name, pretrained=False, **kwargs):
        asked.append((name, pretrained))
        return create_model(name, **kwargs)

    monkeypatch.setattr(timm, "create_model", offline)
    Backbone("resnet18")
    Backbone("resnet18", weights="none")
    assert asked == [("resnet18", True), ("resnet18", False)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "tf_efficientnet_lite0"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_local_file_of_the_whole_classifier_is_loaded(name, suffix, tmp_path, images):
    network = timm.create_model(name).eval()
    path = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(network.state_dict(), path)
    backbone = Backbone(name, weights=str(path)).eval()
    with torch.no_grad():
        _, maps = network.forward_intermediates((images - backbone.mean) / backbone.std)
        torch.testing.assert_close(backbone(images)[2], maps[-1], rtol=1e-3, atol=1e-4)


def test_unknown_network_names_the_nearest():
    with pytest.raises(BoxelError, match="Did you mean 'resnet50'"):
        Backbone("resnet_50", weights="none")


def test_network_of_one_stride_is_an_error():
    with pytest.raises(BoxelError, match=r"strides \[16, 16, 16\], not of \[8, 16, 32\]"):
        Backbone("vit_tiny_patch16_224", weights="none")
