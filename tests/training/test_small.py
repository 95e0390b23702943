"""Without a GPU and without a recipe, a run takes the small one of its method."""

from __future__ import annotations

import pytest

import boxel
from boxel.methods import METHODS
from boxel.models.io import read_config_file
from boxel.training import small
from boxel.training.recipe import read_config
from boxel.training.small import announce_recipe, choose_recipe


@pytest.fixture(params=[False, True], ids=["cpu", "gpu"])
def gpu(request, monkeypatch):
    monkeypatch.setattr("boxel.training.small.has_gpu", lambda: request.param)
    return request.param


def test_the_small_recipe_is_for_machines_without_a_gpu(gpu, caplog):
    caplog.set_level("INFO", logger="boxel")
    chosen = choose_recipe("boxinst", {"epochs": 3})
    assert chosen == (None if gpu else "boxinst-small")
    announce_recipe(chosen)
    assert ("by the recipe `boxinst-small`" in caplog.text) != gpu
    caplog.clear()
    announce_recipe(None)
    assert not caplog.text


@pytest.mark.parametrize(
    ("system", "nodes", "visible", "found"),
    [
        ("Linux", [], None, False),
        ("Linux", ["/dev/nvidia0"], None, True),
        ("Linux", ["/dev/nvidia0"], "", False),
        ("Linux", ["/dev/nvidia0"], "-1", False),
        ("Linux", ["/dev/kfd"], "0", True),
        ("Darwin", [], None, True),
    ],
)
def test_a_gpu_is_found_without_pytorch(system, nodes, visible, found, monkeypatch):
    monkeypatch.setattr(small.platform, "system", lambda: system)
    monkeypatch.setattr(small.platform, "machine", lambda: "arm64")
    monkeypatch.setattr(small.Path, "exists", lambda path: str(path) in nodes)
    monkeypatch.setattr(small.shutil, "which", lambda name: None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert small.has_gpu() == found


@pytest.mark.parametrize(
    ("settings", "chosen"),
    [
        ({"device": "cpu"}, "boxinst-small"),
        ({"device": "cuda"}, None),
        ({"device": "cpu", "model.backbone": "resnet18"}, None),
        ({"device": "cpu", "model.weights": "none"}, None),
        ({"device": "cpu", "model.tau": 0.2}, "boxinst-small"),
    ],
)
def test_a_device_or_a_network_that_was_named_decides(settings, chosen):
    assert choose_recipe("boxinst", settings) == chosen


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_a_small_recipe(method):
    recipe = METHODS[method].small
    assert read_config(recipe, method).model.backbone.startswith("tf_efficientnet_lite")


@pytest.mark.slow
def test_a_run_keeps_the_settings_of_the_recipe(scenes, tmp_path):
    tiny = {"augment.short_sides": [64], "steps": 1, "data.workers": 0, "model.hint_weight": 0.0}
    boxel.train("boxinst", scenes.without_masks(), out=tmp_path / "run", device="cpu", **tiny)
    written = read_config_file(tmp_path / "run")
    assert written["model"]["backbone"] == "tf_efficientnet_lite0" and written["optim"]["name"] == "adamw"
    assert written["steps"] == 1
