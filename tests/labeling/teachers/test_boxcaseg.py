"""The ONNX file in the folder of a trained BoxCaseg: when it is run, and when PyTorch is."""

import shlex
import shutil
import sys

import numpy as np
import pytest
import torch
import yaml

import boxel
from boxel.cli import main
from boxel.data.annotations import Category
from boxel.data.synthetic import write_scenes
from boxel.exporting.onnx import export, export_beside
from boxel.labeling.teachers import detector, make_teacher
from boxel.models import io
from boxel.utils.errors import BoxelError

pytestmark = pytest.mark.slow

IMAGE = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
BOXES = np.array([[4.0, 6, 40, 50], [30, 10, 79, 59]])


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_boxcaseg):
    """The folder of a tiny model with its ONNX file."""
    pytest.importorskip("onnx", reason="onnx is not installed: pip install 'boxel[onnx]'")
    folder = tmp_path_factory.mktemp("trained") / "run"
    save(tiny_boxcaseg["model"], folder, seed=0)
    export_beside(folder)
    return folder


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "my run")


def save(config, folder, seed):
    torch.manual_seed(seed)
    model = io.build("boxcaseg", 1, config)
    io.save(model, folder, {"method": "boxcaseg", "model": config}, [Category(0, "object")])


@pytest.fixture
def by_torch(monkeypatch):
    """The folders that PyTorch has loaded."""
    loaded, load = [], detector.load
    monkeypatch.setattr(detector, "load", lambda folder: loaded.append(folder) or load(folder))
    return loaded


def logits(teacher):
    return np.stack([soft.logits for soft in teacher(IMAGE, BOXES, np.zeros(2, np.int32))])


def test_the_file_is_run_on_the_cpu_with_the_identity_and_the_masks_of_torch(run, by_torch):
    onnx = make_teacher(str(run), device="cpu")
    assert by_torch == [] and onnx.name == run.as_posix()
    torches = detector.load_teacher(str(run), (), "cpu")
    assert onnx.identity == torches.identity
    np.testing.assert_allclose(logits(onnx), logits(torches), atol=1e-3)
    (run / "model.onnx").unlink()
    assert make_teacher(str(run), device="cpu").identity == onnx.identity and len(by_torch) == 2


def test_the_identity_depends_on_weights_and_settings(run, tiny_boxcaseg):
    first = make_teacher(str(run), device="cpu").identity
    settings = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(settings | {"steps": 3}, sort_keys=True))
    assert make_teacher(str(run), device="cpu").identity == first  # of the training
    settings["model"]["threshold"] = 0.3
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    second = make_teacher(str(run), device="cpu").identity
    save(settings["model"], run, seed=1)
    assert len({first, second, make_teacher(str(run), device="cpu").identity}) == 3


def change_weights(run):
    save(yaml.safe_load((run / "config.yaml").read_text())["model"], run, seed=1)


def change_settings(run):
    settings = yaml.safe_load((run / "config.yaml").read_text())
    settings["model"]["margin"] = 0.5
    (run / "config.yaml").write_text(yaml.safe_dump(settings))


def cut_file(run):
    (run / "model.onnx").write_bytes((run / "model.onnx").read_bytes()[:5000])


def copy_another(run):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(run / "model.onnx")
    del model.metadata_props[:]
    onnx.save(model, run / "model.onnx")


def halve_precision(run):
    pytest.importorskip("onnx")
    export(run, run / "model.onnx", precision="float16")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (halve_precision, "it is float16"),
        (change_weights, "it was made from other weights or settings"),
        (change_settings, "it was made from other weights or settings"),
        (cut_file, "it cannot be run"),
        (copy_another, "it cannot be run"),
    ],
)
def test_a_stale_or_damaged_file_is_ignored_until_the_command_writes_it_again(
    run, by_torch, caplog, capsys, change, reason
):
    change(run)
    teacher = make_teacher(str(run), device="cpu")
    assert len(by_torch) == 1
    words = ["export", run.as_posix(), f"{run.as_posix()}/model.onnx"]
    command = shlex.join(["boxel", *words])
    (record,) = (r for r in caplog.records if r.levelname == "WARNING")
    assert (
        record.getMessage()
        == f"{run / 'model.onnx'} is ignored, since {reason}; `{command}` writes it again."
    )
    caplog.clear()
    assert main(words) == 0
    again = make_teacher(str(run), device="cpu")
    assert len(by_torch) == 1 and caplog.records == [] and again.identity == teacher.identity
    np.testing.assert_allclose(logits(again), logits(teacher), atol=1e-3)


def test_without_torch_a_stale_file_leads_to_the_extra(run, caplog, monkeypatch):
    change_weights(run)
    monkeypatch.delitem(sys.modules, "boxel.labeling.teachers.detector")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(BoxelError, match=r"needs torch, .* pip install 'boxel\[train\]'"):
        make_teacher(str(run), device="cpu")
    assert "model.onnx is ignored" in caplog.text


def test_weights_that_are_missing_are_named(run):
    (run / "model.safetensors").unlink()
    with pytest.raises(BoxelError, match=r"it has no model\.safetensors"):
        make_teacher(str(run), device="cpu")


def test_a_training_writes_the_file_and_states_how_if_it_cannot(tmp_path, tiny_boxcaseg, caplog, monkeypatch):
    pytest.importorskip("onnx", reason="onnx is not installed: pip install 'boxel[onnx]'")
    caplog.set_level("INFO", logger="boxel")
    scenes = write_scenes(tmp_path / "scenes", 2, height=64, width=96).without_masks()
    boxel.train("boxcaseg", scenes, out=tmp_path / "one", config=tiny_boxcaseg)
    assert "model.onnx" in caplog.messages[-1] and (tmp_path / "one" / "model.onnx").is_file()
    monkeypatch.setitem(sys.modules, "onnx", None)
    boxel.train("boxcaseg", scenes, out=tmp_path / "two", config=tiny_boxcaseg)
    assert not (tmp_path / "two" / "model.onnx").exists()
    run = (tmp_path / "two").as_posix()
    assert caplog.messages[-2] == (
        f"{run} labels with PyTorch only, since onnx is not installed; pip install 'boxel[onnx]', then run "
        f"`boxel export {run} {run}/model.onnx`"
    )
