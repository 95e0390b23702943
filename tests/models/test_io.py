"""A model folder: what is written is what is read, and nothing else is trusted."""

import json
import os
import pickle
import re
from dataclasses import asdict

import numpy as np
import pytest
import torch

from boxel.crf import CRFConfig
from boxel.data.annotations import Category
from boxel.models import io
from boxel.models.boxinst import BoxInstConfig
from boxel.models.thresholds import write_thresholds
from boxel.utils.errors import BoxelError
from boxel.utils.files import UMASK

_CATEGORIES = (Category(17, "cat", "animal"), Category(3, "Straße"))


@pytest.fixture
def record(tiny_boxinst):
    """The configuration of a run whose model gives everything out."""
    model = asdict(BoxInstConfig(**tiny_boxinst, score_threshold=0.0, max_detections=5))
    return {"method": "boxinst", "model": model, "augment": {"short_sides": [64, 128], "max_size": 192}}


@pytest.fixture
def saved(tmp_path, record):
    torch.manual_seed(0)
    model = io.build("boxinst", 2, record["model"]).eval()
    io.save(model, tmp_path / "run", record, _CATEGORIES)
    return model, tmp_path / "run"


def test_a_model_comes_back_as_it_was(saved, record):
    model, path = saved
    again = io.load(path)
    assert not again.training
    assert again.categories == _CATEGORIES
    assert again.settings == record
    image = torch.rand(3, 128, 192, generator=torch.Generator().manual_seed(1))
    before, after = model([image])[0], again([image])[0]
    assert len(before["boxes"]) == 5
    assert torch.equal(before["boxes"], after["boxes"]) and before["masks"] == after["masks"]


def test_its_score_thresholds_are_among_its_settings(saved, record):
    thresholds = {"all": 0.5, "by_class": {"cat": 0.25}}
    write_thresholds(thresholds, saved[1])
    assert io.load(saved[1]).settings == record | {"score_thresholds": thresholds}


def test_it_predicts_at_the_size_it_was_trained_at(saved):
    photo = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    shown = []
    again = io.load(saved[1])
    detect = again.detect
    again.detect = lambda images: shown.append(images[0].shape) or detect(images)
    found = again.predict(photo)
    assert shown == [(3, 128, 192)]
    assert {row["category_id"] for row in found.to_coco(1)} <= {17, 3}


def test_weights_kept_elsewhere_are_not_asked_for(saved, record):
    record["model"]["weights"] = "imagenet"  # as trained; there is no network here
    io.save_config(saved[1], record, _CATEGORIES)
    assert io.load(saved[1]).settings["model"]["weights"] == "imagenet"


def test_a_path_is_not_asked_of_the_hub(tmp_path, monkeypatch):
    def snapshot_download(name, **_):
        raise AssertionError(f"{name} was asked of the hub")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "boxinst").mkdir(parents=True)
    for name, hint in (("runs/boxins", "runs/boxinst"), ("runz", "runs"), ("boxcase", "boxcaseg")):
        message = f"{name}: there is no such model folder; check the path. Did you mean '{hint}'?"
        with pytest.raises(BoxelError, match=re.escape(message)):
            io.load(name)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_others_may_read_the_weights_if_the_umask_lets_them(saved):
    modes = {path.name: path.stat().st_mode & 0o777 for path in saved[1].iterdir()}
    assert set(modes.values()) == {0o666 & ~UMASK}, modes


@pytest.mark.slow
@pytest.mark.parametrize("name", ["config.yaml", "categories.json", "model.safetensors"])
def test_what_is_missing_or_broken_is_named(saved, name):
    path = saved[1] / name
    path.write_bytes(b"\x80\x04}q\x00: [")
    with pytest.raises(BoxelError, match=re.escape(name)) as error:
        io.load(saved[1])
    assert "\n" not in str(error.value)
    path.unlink()
    with pytest.raises(BoxelError, match=f"it has no {name}; give the folder of a finished run"):
        io.load(saved[1])


@pytest.mark.slow
def test_weights_that_are_cut_are_damaged(saved):
    path = saved[1] / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(BoxelError, match=r"model\.safetensors: is damaged \(.*\); restore it from a copy"):
        io.load(saved[1])


@pytest.mark.slow
def test_weights_of_another_model_do_not_fit(saved):
    (saved[1] / "categories.json").write_text(json.dumps([{"id": 1, "name": "cat"}]))
    with pytest.raises(
        BoxelError, match=r"model\.safetensors does not fit its config\.yaml .*head\.classify"
    ):
        io.load(saved[1])


@pytest.mark.slow
def test_nothing_is_unpickled(saved, tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    for name in ("model.safetensors", "config.yaml", "categories.json"):
        (saved[1] / name).write_bytes(pickle.dumps(Trap()))
        with pytest.raises(BoxelError):
            io.load(saved[1])
    (saved[1] / "config.yaml").write_text(f"!!python/object/apply:builtins.open ['{tmp_path}/sprung', 'w']")
    with pytest.raises(BoxelError):
        io.load(saved[1])
    assert not (tmp_path / "sprung").exists()


def test_an_unknown_method_or_setting_is_refused():
    with pytest.raises(BoxelError, match="no method 'boxcast'; the methods are boxinst"):
        io.build("boxcast", 2, {})
    with pytest.raises(BoxelError, match="tua"):
        io.build("boxinst", 2, {"tua": 0.3})


def test_the_crf_of_a_run_comes_back_as_it_was_written(tmp_path):
    assert io.read_crf(tmp_path) == {}
    io.write_crf(CRFConfig(appearance_weight=4, color_sigma=2.5), tmp_path)
    assert CRFConfig(**io.read_crf(tmp_path)) == CRFConfig(appearance_weight=4, color_sigma=2.5)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("smoth_weight: 3", "smoth_weight"),
        ("appearance_weight: -1", "appearance_weight is -1; give a number from 0 up"),
        ("iterations: some", "iterations"),
        ("- 3", "list"),
        ("", "None"),
        ("a: [", "flow"),
        ("!!python/object/apply:os.getcwd []", "constructor"),
    ],
)
def test_a_crf_that_cannot_be_read_names_its_file(tmp_path, text, part):
    (tmp_path / io.CRF_FILE).write_text(text)
    with pytest.raises(BoxelError, match=r"crf\.yaml cannot be read as settings of a CRF") as error:
        io.read_crf(tmp_path)
    assert part in str(error.value) and "\n" not in str(error.value)
