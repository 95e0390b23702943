"""Start weights by name: torchvision's detectors and timm's backbones, none of them downloaded."""

import copy
from contextlib import nullcontext
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import get_model, get_model_weights

from boxel.data.annotations import Category
from boxel.models import io
from boxel.models.boxinst import BoxInstConfig
from boxel.models.mask_rcnn import MaskRCNNConfig
from boxel.training.engine import build_model
from boxel.training.finetune import find_frozen, init_from, name_layers
from boxel.training.settings import resolve_run
from boxel.training.start_weights import DETECTORS, from_torchvision, read_start_weights
from boxel.utils.errors import BoxelError, UsageError

pytestmark = pytest.mark.slow

_NAMES = get_model_weights("fcos_resnet50_fpn").COCO_V1.meta["categories"]
_COCO = [Category(row, name) for row, name in enumerate(_NAMES) if name not in ("__background__", "N/A")]
_GAPS = [row for row, name in enumerate(_NAMES) if name == "N/A"]


def _build_torchvision(name, **options):
    """Build a random detector whose features neither vanish nor explode."""
    torch.manual_seed(0)
    options = {"min_size": 128, "max_size": 128} | options
    model = get_model(name, weights=None, weights_backbone=None, **options).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.2, 0.6)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            with torch.no_grad():  # one channel whose variance is that of the epsilon
                module.running_var[0], module.weight[0] = 1e-5, 0.001
            module.eps = 1e-5 if "fcos" in name else 0.0  # as with the weights of COCO
    return model


@pytest.fixture(scope="module")
def fcos():
    model = _build_torchvision("fcos_resnet50_fpn", score_thresh=0.0)
    head = model.head.regression_head
    nn.init.normal_(head.bbox_reg.weight, std=0.01)
    nn.init.constant_(head.bbox_reg.bias, 3.0)  # no side is nearer than half a cell
    nn.init.normal_(head.bbox_ctrness.weight, std=0.05)
    layer = model.head.classification_head.cls_logits
    nn.init.normal_(layer.weight, std=0.05)
    with torch.no_grad():
        layer.bias[[0, *_GAPS]] = -30.0
    return model


@pytest.fixture(scope="module")
def mask_rcnn():
    few = {"rpn_pre_nms_top_n_test": 50, "rpn_post_nms_top_n_test": 50, "box_detections_per_img": 20}
    model = _build_torchvision("maskrcnn_resnet50_fpn", box_score_thresh=0.0, **few)
    nn.init.normal_(model.rpn.head.cls_logits.weight, std=0.1)
    predictor = model.roi_heads.box_predictor
    nn.init.normal_(predictor.cls_score.weight, std=2.0)
    nn.init.normal_(predictor.bbox_pred.weight, std=0.1)
    with torch.no_grad():
        predictor.cls_score.bias[_GAPS] = -1000.0
    return model


def _image():
    return torch.rand(3, 128, 128, generator=torch.Generator().manual_seed(1))


def test_boxinst_finds_the_boxes_of_torchvisions_fcos(fcos):
    image = _image()
    settings = {"weights": "none", "backbone_norm": "frozen_bn", "score_threshold": 0.0, "level_scale": 1.0}
    model = io.build("boxinst", len(_COCO), settings).eval()
    start = from_torchvision("fcos_resnet50_fpn", fcos.state_dict(), "here")
    loaded, new, unused, classes = init_from(model, start, _COCO)
    assert name_layers(new, loaded) == "head.scales, head.controller, mask_branch"
    assert unused == find_frozen(model, new) == [] and len(classes) == 80
    with torch.no_grad():
        expected = fcos([image])[0]
        (found,) = model.detect([image])
    assert len(found.boxes) == 100
    torch.testing.assert_close(found.boxes, expected["boxes"], rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(found.scores, expected["scores"], rtol=1e-4, atol=1e-5)
    assert [_COCO[label].id for label in found.labels.tolist()] == expected["labels"].tolist()


def test_mask_rcnn_finds_the_boxes_and_masks_of_torchvisions(mask_rcnn):
    image = _image()
    settings = {
        "weights": "none",
        "score_threshold": 0.0,
        "level_scale": 1.0,
        "proposals": 50,
        "max_detections": 20,
    }
    model = io.build("mask-rcnn", len(_COCO), settings).eval()
    start = from_torchvision("maskrcnn_resnet50_fpn", mask_rcnn.state_dict(), "here")
    _, new, unused, classes = init_from(model, start, _COCO)
    assert new == unused == [] and len(classes) == 80
    with torch.no_grad():
        (found,) = model.detect([image])
        images, _ = mask_rcnn.transform([image])
        features = mask_rcnn.backbone(images.tensors)
        proposals, _ = mask_rcnn.rpn(images, features)
        (expected,), _ = mask_rcnn.roi_heads(features, proposals, images.image_sizes)
    torch.testing.assert_close(found.boxes, expected["boxes"], rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(found.scores, expected["scores"], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(found.mask_logits.sigmoid(), expected["masks"][:, 0], rtol=1e-3, atol=1e-4)
    assert [_COCO[label].id for label in found.labels.tolist()] == expected["labels"].tolist()
    assert len(found.boxes) == 20 and len(set(found.labels.tolist())) > 1


def test_each_detector_fills_all_but_the_masks_it_lacks(fcos, mask_rcnn, resolve):
    state = {name: tensor for name, tensor in mask_rcnn.state_dict().items() if "mask" not in name}
    expected = {
        ("mask-rcnn", "fasterrcnn_resnet50_fpn"): "roi_heads.mask_head, roi_heads.mask_predictor",
        ("mask-rcnn", "fcos_resnet50_fpn"): "neck, rpn, roi_heads",
        ("boxinst", "fasterrcnn_resnet50_fpn"): "neck, head, mask_branch",
    }
    for (method, name), layers in expected.items():
        start = from_torchvision(name, fcos.state_dict() if "fcos" in name else state, "here")
        model = io.build(method, 80, resolve(method, name, **{"model.weights": "none"}).record["model"])
        loaded, new, _, _ = init_from(model, start, _COCO)
        assert name_layers(new, loaded) == layers


def test_the_meaning_of_the_numbers_is_ours(fcos, mask_rcnn):
    start = from_torchvision("fcos_resnet50_fpn", fcos.state_dict(), "here")
    theirs = fcos.state_dict()
    assert [(c.id, c.name) for c in start.categories if c.id in (1, 13, 90)] == [
        (1, "person"),
        (13, "stop sign"),
        (90, "toothbrush"),
    ]
    assert torch.equal(
        start.weights["head.classify.bias"], theirs["head.classification_head.cls_logits.bias"][1:]
    )
    # Half a cell, from the corner to the center of the cell.
    assert start.weights["head.regress.bias"].tolist() == [3.5, 3.5, 2.5, 2.5]
    norm = "backbone.body.bn1.running_var"
    assert torch.equal(start.weights[norm], theirs[norm])
    # The R-CNNs of COCO were trained without an epsilon; ours is 1e-5.
    start = from_torchvision("maskrcnn_resnet50_fpn", mask_rcnn.state_dict(), "here")
    assert torch.equal(start.weights[norm], mask_rcnn.state_dict()[norm] - 1e-5)
    assert start.weights["backbone.mean"].flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert start.weights["backbone.std"].flatten().tolist() == pytest.approx([0.229, 0.224, 0.225])


@pytest.fixture
def resolve():
    def resolve(method, init, config=None, **settings):
        return resolve_run(method, config, init, None, settings)

    return resolve


def test_settings_follow_the_start_weights(resolve, fcos, tmp_path):
    same = {"backbone": "resnet50.tv_in1k", "level_scale": 1.0}
    other = {"backbone": "resnet50.tv_in1k"}
    save_file(fcos.state_dict(), tmp_path / "mine.safetensors")
    for init in ("fcos_resnet50_fpn", tmp_path / "mine.safetensors"):
        assert resolve("boxinst", init).settings.model == BoxInstConfig(**same)
        assert resolve("mask-rcnn", init).settings.model == MaskRCNNConfig(**other)
    for init in ("maskrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn"):
        assert resolve("mask-rcnn", init).settings.model == MaskRCNNConfig(**same)
        assert resolve("boxinst", init).settings.model == BoxInstConfig(**other)
        assert resolve("boxinst", init, "coco-small").settings.model.backbone == "tf_efficientnet_lite0"
        assert resolve("boxinst", init).init == init


def test_the_name_of_a_backbone_is_a_setting(resolve):
    for method in ("boxinst", "mask-rcnn", "fcrn", "boxcaseg"):
        run = resolve(method, "resnet18.a1_in1k")
        assert (run.settings.model.backbone, run.settings.model.weights) == ("resnet18.a1_in1k", "imagenet")
        assert run.init is None
    run = resolve("boxinst", "tf_efficientnet_lite2", "coco-small", **{"model.weights": "lite"})
    assert (run.settings.model.backbone, run.settings.model.weights) == ("tf_efficientnet_lite2", "lite")
    with pytest.raises(UsageError, match=r"`init` resnet18 is a backbone, and so is `model.backbone`"):
        resolve("boxinst", "resnet18", **{"model.backbone": "resnet50"})


def test_a_folder_takes_precedence_over_names(resolve, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("resnet18", "fcos_resnet50_fpn"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text("method: boxinst\nmodel: {backbone: resnet10t}")
        assert resolve("boxinst", name).settings.model == BoxInstConfig(backbone="resnet10t")
        with pytest.raises(BoxelError, match=r"no model to start from .*model\.safetensors"):
            read_start_weights(name)


def test_weights_are_loaded_by_torchvision_and_never_unpickled(fcos, monkeypatch):
    given = {}

    def load(url, **options):
        given.update(options, url=url)
        return fcos.state_dict()

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", load)
    assert len(read_start_weights("fcos_resnet50_fpn").categories) == 90
    assert given.pop("url").endswith("fcos_resnet50_fpn_coco-99b0c9b7.pth")
    assert given == {"progress": False, "check_hash": True, "weights_only": True}


@pytest.mark.parametrize("name", DETECTORS)
def test_without_network_the_file_to_put_in_place_is_named(name, monkeypatch, tmp_path):
    def fail(*_, **__):
        raise URLError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    url = get_model_weights(name).COCO_V1.url
    with pytest.raises(BoxelError) as error:
        read_start_weights(name)
    assert str(error.value) == (
        f"{name}: its weights cannot be loaded (<urlopen error no route to host>); download {url} to "
        f"{tmp_path}/checkpoints/{url.rpartition('/')[2]}, or name a run folder with `init`."
    )


def test_a_file_may_have_other_classes_and_older_names(mask_rcnn, tmp_path):
    state = copy.copy(mask_rcnn.state_dict())
    expected = state["backbone.fpn.inner_blocks.0.0.weight"]
    for new, old in (
        ("fpn.inner_blocks.0.0.", "fpn.inner_blocks.0."),
        ("rpn.head.conv.0.0.", "rpn.head.conv."),
    ):
        state = {name.replace(new, old): tensor for name, tensor in state.items()}
    state = {
        name: tensor[: len(tensor) // 91 * 3]
        if "mask_fcn_logits" in name or "box_predictor" in name
        else tensor
        for name, tensor in state.items()
    }
    torch.save(state, tmp_path / "mine.pth")
    start = read_start_weights(tmp_path / "mine.pth")
    assert torch.equal(start.weights["neck.inner_blocks.0.0.weight"], expected)
    assert len(start.categories) == 0 and len(start.weights["roi_heads.box_predictor.bbox_pred.bias"]) == 12
    # Only torchvision's own weights leave out the epsilon.
    norm = "backbone.body.bn1.running_var"
    assert torch.equal(start.weights[norm], state[norm])
    _, new, _, classes = init_from(io.build("mask-rcnn", 2, {"weights": "none"}), start, _COCO[:2])
    assert name_layers(new, ["roi_heads.mask_predictor.conv5_mask."]) == (
        "roi_heads.box_predictor, roi_heads.mask_predictor.mask_fcn_logits"
    )
    assert classes == []


def test_files_of_other_networks_are_refused(fcos, tmp_path):
    save_file({"conv1.weight": torch.zeros(3)}, tmp_path / "backbone.safetensors")
    with pytest.raises(
        BoxelError, match=r"not the weights of one of torchvision's detectors .*`model.weights`"
    ):
        read_start_weights(tmp_path / "backbone.safetensors")
    state = fcos.state_dict()
    del state["head.regression_head.bbox_ctrness.bias"]
    save_file(state, tmp_path / "retina.safetensors")
    with pytest.raises(
        BoxelError, match=r"retina.*do not fit torchvision's fcos_resnet50_fpn .*bbox_ctrness"
    ):
        read_start_weights(tmp_path / "retina.safetensors")


def test_a_misspelled_name_is_reported_with_the_right_one(resolve):
    with pytest.raises(BoxelError, match=r"no model to start from .*Did you mean 'maskrcnn_resnet50_fpn'\?"):
        resolve("mask-rcnn", "maskrcnn_resnet50_fpnn")


def _refuse(*_, **__):
    raise AssertionError("the hub was asked")


def test_the_log_names_the_classes_taken_over(fcos, resolve, monkeypatch, caplog):
    caplog.set_level("INFO", logger="boxel")
    monkeypatch.setattr(
        "torchvision.models._api.load_state_dict_from_url", lambda *_, **__: fcos.state_dict()
    )
    monkeypatch.setattr("timm.models._builder.load_pretrained", _refuse)
    classes = [Category(1, "zebra"), Category(2, "okapi"), Category(3, "stop sign")]
    model = build_model(resolve("boxinst", "fcos_resnet50_fpn"), classes, resume=False)
    head = fcos.head.classification_head.cls_logits
    assert torch.equal(model.head.classify.weight[[0, 2]], head.weight[[_NAMES.index("zebra"), 13]])
    assert "new: head.scales, head.controller, mask_branch; not used: none" in caplog.text
    assert "classes taken over: zebra, stop sign; new: okapi" in caplog.text


def test_a_backbone_by_name_loads_weights_of_imagenet(resolve, monkeypatch):
    loaded = []
    monkeypatch.setattr("boxel.layers.backbone.hub_or_cache", nullcontext)
    monkeypatch.setattr(
        "timm.models._builder.load_pretrained", lambda model, **_: loaded.append(model.pretrained_cfg["tag"])
    )
    run = resolve("boxinst", "resnet10t.c3_in1k")
    model = build_model(run, [Category(1, "cat")], resume=False)
    assert loaded == ["c3_in1k"] and model.backbone.body.feature_info.channels()[-1] == 512
