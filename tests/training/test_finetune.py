"""Fine-tuning: starting from the weights of another model, as far as they fit."""

import dataclasses

import pytest
import torch

from boxel.data.annotations import Category
from boxel.models import io
from boxel.models.io import load
from boxel.training import finetune
from boxel.training.finetune import find_frozen, name_layers
from boxel.training.start_weights import read_start_settings, read_start_weights
from boxel.utils.errors import BoxelError

pytestmark = pytest.mark.slow

_TWO = (Category(1, "cat"), Category(2, "dog"))


def init_from(model, run, categories):
    return finetune.init_from(model, read_start_weights(run), categories)


@pytest.fixture
def build(tiny):
    return lambda classes, **changes: io.build("boxinst", classes, tiny["model"] | changes)


@pytest.fixture
def run(build, tiny, run_folder):
    model = build(2)
    io.save(model, run_folder, {"method": "boxinst", "model": tiny["model"]}, _TWO)
    return run_folder, model.state_dict()


_CLASSES = ["head.classify.weight", "head.classify.bias"]


def test_all_weights_are_loaded_for_the_same_categories(build, run):
    path, weights = run
    model = build(2)
    renumbered = [dataclasses.replace(category, id=category.id + 10) for category in _TWO]
    loaded, new, unused, classes = init_from(model, path, renumbered)
    assert (len(loaded), new, unused, classes) == (len(weights), [], [], ["cat", "dog"])
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("names", [["cat", "dog", "cow"], ["cow", "cat"], ["dog", "cat"]])
def test_the_classifier_of_boxinst_takes_the_rows_of_classes_by_name(build, run, names):
    path, weights = run
    model = build(len(names))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    loaded, new, unused, classes = init_from(model, path, [Category(k, name) for k, name in enumerate(names)])
    assert (sorted(loaded), new, unused) == (sorted(weights), [], [])
    assert classes == [name for name in names if name != "cow"]
    after = model.state_dict()
    assert all(torch.equal(after[name], weights[name]) for name in loaded if name not in _CLASSES)
    for layer in _CLASSES:
        for row, name in enumerate(names):
            expected = before[layer][row] if name == "cow" else weights[layer][["cat", "dog"].index(name)]
            assert torch.equal(after[layer][row], expected)


def test_class_layers_are_new_without_a_common_class(build, run):
    path, weights = run
    model = build(2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    loaded, new, unused, classes = init_from(model, path, [Category(1, "cow"), Category(2, "Cat")])
    assert (new, sorted(unused), classes) == (_CLASSES, sorted(_CLASSES), [])
    assert sorted([*loaded, *new]) == sorted(weights)
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in new)


def test_each_class_takes_the_row_of_a_class_agnostic_model(build, tiny, tmp_path):
    trained = build(1)
    io.save(trained, tmp_path / "run", {"method": "boxinst", "model": tiny["model"]}, [Category(1, "object")])
    model = build(2)
    _, new, unused, classes = init_from(model, tmp_path / "run", _TWO)
    assert (new, unused, classes) == ([], [], ["cat", "dog"])
    for layer in _CLASSES:
        row = trained.state_dict()[layer][0]
        assert all(torch.equal(own, row) for own in model.state_dict()[layer])


def test_mask_rcnn_takes_the_rows_of_classes_and_of_the_background(tmp_path):
    """A class has one row of scores and of masks, and four of its box; the background's come first."""
    settings = {"backbone": "resnet10t", "weights": "none", "backbone_norm": "bn", "neck_channels": 8}
    settings |= {"box_channels": 8, "mask_channels": 8, "mask_convs": 0}
    trained = io.build("mask-rcnn", 2, settings)
    io.save(trained, tmp_path / "run", {"method": "mask-rcnn", "model": settings}, _TWO)
    model = io.build("mask-rcnn", 3, settings)
    heads = [
        "roi_heads.box_predictor.cls_score",
        "roi_heads.box_predictor.bbox_pred",
        "roi_heads.mask_predictor.mask_fcn_logits",
    ]
    before = {head: model.get_submodule(head).weight.clone() for head in heads}
    categories = [Category(k, name) for k, name in enumerate(["dog", "cow", "cat"])]
    _, new, unused, classes = init_from(model, tmp_path / "run", categories)
    assert (new, unused, classes) == ([], [], ["dog", "cat"])
    for head, rows in zip(
        heads, [[0, 2, None, 1], [*range(4), *range(8, 12), *[None] * 4, *range(4, 8)]], strict=False
    ):
        theirs, own = trained.get_submodule(head).weight, model.get_submodule(head).weight
        for place, row in enumerate(rows):
            assert torch.equal(own[place], before[head][place] if row is None else theirs[row])
    masks = (part.get_submodule(heads[2]).weight for part in (model, trained))
    own, theirs = masks
    assert torch.equal(own[[0, 1, 3]], theirs[[0, 2, 1]]) and torch.equal(own[2], before[heads[2]][2])


def test_weights_of_another_shape_stay_new(build, run):
    loaded, new, _, _ = init_from(build(2, mask_channels=32), run[0], _TWO)
    assert new and all(name.startswith("mask_branch.") for name in new)
    assert any(name.startswith("backbone.") for name in loaded)


@pytest.mark.parametrize("name", ["boxcaseg-boxes", "boxcaseg"])
@pytest.mark.parametrize("method", ["boxinst", "mask-rcnn"])
def test_a_detector_takes_the_colors_of_boxcaseg(method, name):
    """Its first convolution also has a channel of the box, and one of the neighbors: 4 or 5 in all."""
    settings = {"backbone": "tf_efficientnet_lite2", "weights": "none"}  # two frozen stages, frozen norms
    model = io.build(method, 2, settings)
    loaded, new, unused, classes = init_from(model, name, _TWO)
    trunk = load(name).backbone.state_dict()
    for key, tensor in model.backbone.state_dict().items():
        expected = trunk[key][:, :3] if key == "body.conv_stem.weight" else trunk[key]
        assert torch.equal(tensor, expected), key
    assert model.backbone.body.conv_stem.weight.shape[1] == 3
    assert not any(key.startswith("backbone.") for key in new)
    assert {key.split(".")[0] for key in unused} <= {"neck", "heads", "fine", "backbone"}
    assert find_frozen(model, new) == classes == []
    assert (
        name_layers(new, loaded)
        == {
            "boxinst": "neck, head, mask_branch",
            "mask-rcnn": "neck, rpn, roi_heads",
        }[method]
    )


def test_input_channels_that_the_run_lacks_stay_zero(tmp_path):
    settings = {"backbone": "resnet10t", "weights": "none", "backbone_norm": "bn", "frozen_stages": 0}
    model = io.build("boxinst", 2, settings)
    io.save(model, tmp_path / "run", {"method": "boxinst", "model": settings}, _TWO)
    own = {"backbone": "resnet10t", "weights": "none", "box_channel": True, "neighbor_channel": True}
    boxcaseg = io.build("boxcaseg", 1, own)
    init_from(boxcaseg, tmp_path / "run", _TWO)
    stem, theirs = (net.backbone.body.conv1[0].weight for net in (boxcaseg, model))
    assert torch.equal(stem[:, :3], theirs) and not stem[:, 3:].any()


def test_layers_are_named_as_a_whole_if_all_of_their_weights_are():
    names = ["neck.0.weight", "neck.1.weight", "head.a.bias", "head.b.weight", "scale"]
    assert name_layers(names, ["head.a.weight", "header.weight"]) == "neck, head.a.bias, head.b, scale"
    assert name_layers([], names) == ""


def test_a_folder_without_a_model_is_reported(build, run, tmp_path):
    with pytest.raises(BoxelError, match=r"nowhere: no model to start from .* finished run"):
        init_from(build(2), tmp_path / "nowhere", _TWO)
    (run[0] / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(BoxelError, match="no model to start from"):
        init_from(build(2), run[0], _TWO)


@pytest.mark.parametrize("hidden", [0, 8])
def test_only_the_last_layer_of_a_segmenter_depends_on_classes(hidden, tmp_path):
    settings = {
        "backbone": "resnet10t",
        "weights": "none",
        "backbone_norm": "bn",
        "kernel": 3,
        "hidden": hidden,
    }
    model = io.build("fcrn", 2, settings)
    io.save(model, tmp_path / "run", {"method": "fcrn", "model": settings}, _TWO)
    fresh = io.build("fcrn", 2, settings)
    _, new, _, _ = init_from(fresh, tmp_path / "run", [Category(1, "sheep"), Category(2, "cow")])
    scores = ["network.classifier.scores.weight", "network.classifier.scores.bias"]
    assert new == scores
    _, new, _, classes = init_from(fresh, tmp_path / "run", [Category(1, "cow"), Category(2, "cat")])
    assert (new, classes) == ([], ["cat"])
    for layer in scores:
        assert torch.equal(fresh.state_dict()[layer][1], model.state_dict()[layer][0])


def test_weights_of_the_semantic_run_are_not_reported_as_new(tmp_path):
    network = {"backbone": "resnet10t", "weights": "none", "backbone_norm": "bn", "kernel": 3, "hidden": 0}
    semantic = io.build("fcrn", 3, network)
    io.save(
        semantic, tmp_path / "run", {"method": "fcrn", "model": network}, [Category(0, "background"), *_TWO]
    )
    model = io.build("fcrn-instances", 2, network | {"semantic": network})
    loaded, new, _, classes = init_from(model, tmp_path / "run", _TWO)
    assert classes == []
    assert not any(name.startswith("semantic.") for name in [*loaded, *new])
    assert new == ["network.classifier.scores.weight", "network.classifier.scores.bias"]


def test_layers_that_agree_in_size_but_not_in_rows_per_class_stay_new(tmp_path):
    """Two classes have four rows each in the localization network, as many as eight classes of a segmenter."""
    network = {"backbone": "resnet10t", "weights": "none", "backbone_norm": "bn", "kernel": 3, "hidden": 0}
    names = ["background", "cat", "dog", *"abcde"]
    categories = [Category(k, name) for k, name in enumerate(names)]
    io.save(io.build("fcrn", 8, network), tmp_path / "run", {"method": "fcrn", "model": network}, categories)
    model = io.build("fcrn-instances", 2, network | {"semantic": network})
    _, new, unused, classes = init_from(model, tmp_path / "run", _TWO)
    scores = ["network.classifier.scores.weight", "network.classifier.scores.bias"]
    assert (new, sorted(unused), classes) == (scores, sorted(scores), [])


def test_a_bundled_model_is_found_by_its_name():
    model = load("boxcaseg-boxes")
    fresh = io.build("boxcaseg", 1, read_start_settings("boxcaseg-boxes")[1] | {"weights": "none"})
    _, new, _, classes = init_from(fresh, "boxcaseg-boxes", model.categories)
    assert new == classes == []
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in fresh.state_dict().items())
