"""The folder of a run: what it was trained on, one run at a time, and what is reported if it is damaged."""

import dataclasses
import json
import shutil
import signal
from hashlib import sha256
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import boxel
from boxel.cli import main
from boxel.data.dataset import InstanceDataset
from boxel.training import train
from boxel.training.run_folder import check_weights, read_checkpoint
from boxel.utils.errors import BoxelError
from boxel.utils.locks import lock_folder


def interrupt(monkeypatch, scenes, config, out):
    """Start a run that Ctrl-C ends after its first step."""

    def stop(self, index, read=InstanceDataset._read):
        signal.raise_signal(signal.SIGINT)
        monkeypatch.undo()
        return read(self, index)

    monkeypatch.setattr(InstanceDataset, "_read", stop)
    assert train("boxinst", scenes, out=out, config=config) is None


# a whole checkpoint, without a training -------------------------------------------------------------------------------

STATE = {
    "state_dict": {"a": torch.zeros(2)},
    "optimizer_states": [],
    "lr_schedulers": [],
    "loops": {},
    "callbacks": {},
    "metrics": {},
    "global_step": 4,
}


@pytest.fixture
def checkpoint(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    torch.save(STATE, tmp_path / "checkpoints" / "last.ckpt")
    return tmp_path / "checkpoints" / "last.ckpt"


def test_a_checkpoint_is_read(checkpoint):
    assert read_checkpoint(checkpoint)["global_step"] == 4
    check_weights(checkpoint, {"a": torch.ones(2)})
    check_weights(None, {})


class Other:
    """Something that a checkpoint should not hold."""


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.unlink(), r"damaged \(it is cut, or not a checkpoint\)"),
        (lambda path: path.write_bytes(b""), r"damaged \(it is cut, or not a checkpoint\)"),
        (lambda path: path.write_bytes(b"garbage" * 100), r"damaged \(it is cut, or not a checkpoint\)"),
        (
            lambda path: path.write_bytes(path.read_bytes()[:-200]),
            r"damaged \(it is cut, or not a checkpoint\)",
        ),
        (
            lambda path: torch.save({**STATE, "state_dict": {"a": torch.tensor([0.0, torch.inf])}}, path),
            r"damaged \(a has values that are not finite\)",
        ),
        (lambda path: torch.save({"global_step": 4}, path), r"damaged \(it has no callbacks, loops"),
        (lambda path: torch.save([1], path), r"damaged \(it has no callbacks"),
        (lambda path: torch.save(Other(), path), "it holds more than tensors and plain values, or is cut"),
    ],
)
def test_a_damaged_checkpoint_is_named_with_a_remedy(checkpoint, damage, said):
    damage(checkpoint)
    with pytest.raises(BoxelError, match=said) as caught:
        read_checkpoint(checkpoint)
    message = str(caught.value)
    assert message.startswith(f"{checkpoint}: the checkpoint is damaged (") and "\n" not in message
    assert message.endswith("; restore it from a copy, or start from scratch in another `out`.")
    assert "weights_only" not in message and "torch" not in message


@pytest.mark.parametrize("model", [{"b": torch.zeros(2)}, {"a": torch.zeros(3)}, {}])
def test_weights_of_another_model_are_refused(checkpoint, model):
    with pytest.raises(BoxelError, match=r"its weights are not those of this run, e\.g\. [ab]; restore it"):
        check_weights(checkpoint, model)


# runs ----------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_folder_tells_what_it_was_trained_on(scenes, tiny, tmp_path, monkeypatch, caplog):
    source = Path(scenes.file)
    words = [
        "train",
        "boxinst",
        str(source),
        "--config",
        str(tmp_path / "r.yaml"),
        "--out",
        str(tmp_path / "run"),
    ]
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(tiny | {"steps": 1}))
    assert main(words) == 0
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["command"] == " ".join(["boxel", *words])
    assert (record["method"], record["seed"], record["device"]) == ("boxinst", 0, "1 x cpu")
    assert record["boxel"] == boxel.__version__ and record["versions"]["torch"] == torch.__version__
    assert record["recipe"] == str(tmp_path / "r.yaml") and record["date"].endswith("+00:00")
    digest = sha256(source.read_bytes()).hexdigest()
    assert record["inputs"] == {"data": [{"path": str(source.resolve()), "sha256": digest}]}
    assert record["training"]["images"] == 6 and record["validation"]["images"] == 2
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "run").iterdir() if path.is_file()}
    (tmp_path / "ordinary").touch()
    assert modes == {(tmp_path / "ordinary").stat().st_mode & 0o777}


@pytest.mark.slow
def test_a_resumed_run_adds_to_its_record_and_reports_changed_inputs(
    scenes, tiny, tmp_path, monkeypatch, caplog
):
    out = tmp_path / "run"
    interrupt(monkeypatch, scenes, tiny, out)
    before = json.loads((out / "run.json").read_text())
    assert before["command"] is None and "resumed" not in before
    assert before["inputs"]["data"]["images"] == 8 and before["inputs"]["data"]["sha256"]
    moved = dataclasses.replace(scenes, boxes=scenes.boxes + 0.25)
    train("boxinst", moved, out=out, config=tiny, resume=True)
    assert (
        f"{out / 'run.json'}: `data` has changed since the run started; images to validate on may have been trained on"
        in caplog.text
    )
    after = json.loads((out / "run.json").read_text())
    assert len(after.pop("resumed")) == 1 and after == before


@pytest.mark.slow
def test_a_second_run_in_the_same_folder_is_refused(scenes, tiny, tmp_path, monkeypatch):
    interrupt(monkeypatch, scenes, tiny, tmp_path / "run")
    with lock_folder(tmp_path / "run"), pytest.raises(BoxelError, match="run: another run is writing to it"):
        train("boxinst", scenes, out=tmp_path / "run", config=tiny, resume=True)
    with lock_folder(tmp_path / "new"), pytest.raises(BoxelError, match="new: another run is writing to it"):
        train("boxinst", scenes, out=tmp_path / "new", config=tiny)
    assert not (tmp_path / "new" / "config.yaml").exists()


DAMAGED = {
    "checkpoints/last.ckpt": "last.ckpt: the checkpoint is damaged",
    "config.yaml": "config.yaml: is damaged",
    "categories.json": "categories.json: is damaged",
}


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00garbage{[", b"[1, 2]", b"{}", b"null", b"{: ["])
def test_a_damaged_run_is_named_and_not_changed(
    scenes, tiny, tmp_path, tmp_path_factory, monkeypatch, content
):
    whole = tmp_path_factory.getbasetemp() / "whole_run"
    if not whole.exists():
        interrupt(monkeypatch, scenes, tiny, whole)
    for name, said in DAMAGED.items():
        out = tmp_path / name.replace("/", "_")
        shutil.copytree(whole, out)
        (out / name).write_bytes(content)
        table = (out / "metrics.csv").read_bytes()
        with pytest.raises(BoxelError) as caught:
            train("boxinst", scenes, out=out, config=tiny, resume=True)
        message = str(caught.value)
        # An empty list of categories is a list of categories, but not that of this run.
        assert f"{out / name}: " in message or "started with other settings (categories)" in message, message
        assert "\n" not in message and " object at 0x" not in message and said.split(":")[0]
        assert (out / "metrics.csv").read_bytes() == table


@pytest.mark.slow
def test_a_damaged_best_checkpoint_costs_only_itself(scenes, tiny, tmp_path, caplog):
    out = tmp_path / "run"
    train("boxinst", scenes, out=out, config=tiny)
    (out / "model.safetensors").unlink()
    (out / "checkpoints" / "best.ckpt").write_bytes(b"cut")
    assert train("boxinst", scenes, out=out, config=tiny, resume=True) is not None
    assert (
        "best.ckpt: the checkpoint is damaged (it is cut, or not a checkpoint), so the model gets the last "
        in (caplog.text)
    )


@pytest.mark.parametrize("name", ["config.yaml", "categories.json"])
@pytest.mark.parametrize("content", ["", "{: [", "[1]", "method: 5\nmodel: {}"])
def test_a_damaged_model_folder_is_named(tmp_path, name, content):
    shutil.copytree("src/boxel/weights/boxcaseg", tmp_path / "model")
    (tmp_path / "model" / name).write_text(content)
    with pytest.raises(
        BoxelError, match=rf"{name}: is damaged \(.*\); restore it from a copy, or train again\.$"
    ):
        boxel.load(tmp_path / "model")


def test_weights_that_are_not_finite_are_refused(tmp_path):
    shutil.copytree("src/boxel/weights/boxcaseg", tmp_path / "model")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    name = next(name for name, tensor in weights.items() if tensor.is_floating_point())
    weights[name].flatten()[0] = float("nan")
    save_file(weights, tmp_path / "model" / "model.safetensors")
    said = rf"model\.safetensors: is damaged \({name} has values that are not finite\); restore it"
    with pytest.raises(BoxelError, match=said):
        boxel.load(tmp_path / "model")
