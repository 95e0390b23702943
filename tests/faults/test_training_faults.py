"""Trainings of every method that are stopped, resumed, damaged or out of disk space, and two that should be equal."""

import errno
import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import boxel
from boxel.cli import main
from boxel.data import Annotations
from boxel.data.synthetic import write_scenes
from boxel.training import train
from boxel.training.adapt import adapt
from boxel.training.callbacks import metrics_csv
from boxel.training.callbacks.checkpoints import AtomicCheckpoints
from boxel.training.lit_module import Task
from boxel.utils.errors import BoxelError
from boxel.utils.locks import lock_folder

pytestmark = pytest.mark.slow

METHODS = ["boxinst", "mask-rcnn", "boxcaseg", "fcrn", "fcrn-instances", "boxsup"]
DATED = {"run.json", "report.html", "hints.json", "hints.sqlite", ".lock"}


class Killed(BaseException):
    """Stands for a kill: nothing handles it."""


@pytest.fixture(autouse=True)
def _short_report(monkeypatch) -> None:
    """Reports take longer than these trainings."""
    monkeypatch.setattr("boxel.training.run._write_report", lambda run, _: (run.out / "report.html").touch())


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Annotations:
    return write_scenes(tmp_path_factory.mktemp("scenes"), 5, height=64, width=96)


@pytest.fixture(scope="module")
def start(scenes, tiny_boxcaseg, tiny_segmenter, tmp_path_factory):
    """A function that trains a method for four steps, with a checkpoint after each second one."""
    folder = tmp_path_factory.mktemp("shared")
    common = {"loggers": [], "steps": 4, "checkpoint_every": 2, "batch_size": 2, "device": "cpu"}
    common |= {"data": {"workers": 0, "val_share": 0.2}, "optim": {"lr": 0.01, "reference_batch": 0}}
    network = {"backbone": "resnet10t", "weights": "none", "backbone_norm": "gn"}
    detector = {
        "neck_channels": 32,
        "frozen_stages": 0,
        "mask_convs": 1,
        "score_threshold": 0.0,
        "max_detections": 5,
    }
    images = {"augment": {"short_sides": [64], "max_size": 96}}
    segmenter = tiny_segmenter["model"] | network
    views = {"views": {"crop": 64, "long_side": 96}}
    voting = network | {"kernel": 3, "dilation": 1, "min_kept": 64}
    own = {
        "boxinst": images | {"model": network | detector | {"head_convs": 1}},
        "mask-rcnn": images | {"model": network | detector | {"box_channels": 32, "mask_loss": "mil"}},
        "boxcaseg": {"model": tiny_boxcaseg["model"], "crops": {"side": 64}, "hints": "rectangle"},
        "fcrn": views | {"model": segmenter},
        "fcrn-instances": views | {"model": voting},
        "boxsup": views | {"model": segmenter, "segments": {"count": 20}, "updates": {"every": 0.5}},
    }
    own["boxsup"]["segments_folder"] = str(folder / "segments")

    def run(method: str, out: Path, data: Annotations = scenes, **changes):
        given = {"config": common | own[method], "out": out, **changes}
        if method == "fcrn-instances":
            given["semantic"] = folder / "fcrn"
            if not (folder / "fcrn").exists():
                train("fcrn", data, config=common | own["fcrn"], out=folder / "fcrn")
        learned = data if method.startswith(("fcrn", "mask")) else data.keep_masks(data.image_index == 4)
        return train(method, learned, **given)

    return run


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a run but checkpoints, which hold the times of their writing, and those with dates."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    kept = [file for file in files if file.name not in DATED and file.suffix != ".ckpt"]
    return {str(file.relative_to(folder)): file.read_bytes() for file in kept}


def kill_after(monkeypatch, step: int) -> None:
    """Kill the next run right after the checkpoint of a step."""
    save = AtomicCheckpoints.save_checkpoint

    def killed(self, checkpoint, path, storage_options=None):
        save(self, checkpoint, path, storage_options)
        if checkpoint["global_step"] == step and Path(path).name == "last.ckpt":
            raise Killed

    monkeypatch.setattr(AtomicCheckpoints, "save_checkpoint", killed)


@pytest.mark.parametrize("method", METHODS)
def test_runs_are_equal_whether_broken_or_not(start, method, tmp_path, monkeypatch) -> None:
    """The second run is killed after its first and its last checkpoint, and resumed."""
    start(method, tmp_path / "whole")
    for step in (2, 4):
        with monkeypatch.context() as patch:
            kill_after(patch, step)
            with pytest.raises(Killed):
                start(method, tmp_path / "broken", resume=step > 2)
    start(method, tmp_path / "broken", resume=True)
    whole, broken = contents(tmp_path / "whole"), contents(tmp_path / "broken")
    assert {"model.safetensors", "metrics.csv", "metrics.json", "curves.png"} <= whole.keys()
    assert [name for name in whole.keys() | broken.keys() if whole.get(name) != broken.get(name)] == []
    assert (tmp_path / "broken" / "report.html").exists()


@pytest.fixture(scope="module")
def whole(start, tmp_path_factory):
    """A finished run of FCRN."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    start("fcrn", folder)
    return folder


def test_a_damaged_last_checkpoint_falls_back_to_the_best_one(start, whole, tmp_path, caplog) -> None:
    shutil.copytree(whole, tmp_path / "run")
    checkpoints = tmp_path / "run" / "checkpoints"
    (tmp_path / "run" / "model.safetensors").unlink()
    last = checkpoints / "last.ckpt"
    last.write_bytes(last.read_bytes()[:10_000])
    step = torch.load(checkpoints / "best.ckpt", weights_only=True)["global_step"]
    start("fcrn", tmp_path / "run", resume=True)
    said = f"{last}: the checkpoint is damaged (it is cut, or not a checkpoint), so the run resumes from step {step}"
    assert said in caplog.text
    assert contents(tmp_path / "run") == contents(whole)


def test_a_run_without_a_whole_checkpoint_stays_as_it_is(start, whole, tmp_path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "run" / "model.safetensors").unlink()
    for name in ("last", "best"):
        (tmp_path / "run" / "checkpoints" / f"{name}.ckpt").write_bytes(b"PK")
    before = contents(tmp_path / "run")
    with pytest.raises(BoxelError, match=r"last\.ckpt: the checkpoint is damaged .*; restore it from a copy"):
        start("fcrn", tmp_path / "run", resume=True)
    assert contents(tmp_path / "run") == before


def test_weights_to_start_from_must_be_finite(start, whole, tmp_path) -> None:
    from safetensors.torch import save_file

    shutil.copytree(whole, tmp_path / "broken")
    weights = load_file(whole / "model.safetensors")
    name = next(name for name, tensor in weights.items() if tensor.is_floating_point())
    weights[name].flatten()[0] = float("nan")
    save_file(weights, tmp_path / "broken" / "model.safetensors")
    said = (
        rf"broken: no model to start from \({name} in its model\.safetensors has values that are not finite\)"
    )
    with pytest.raises(BoxelError, match=said):
        start("fcrn", tmp_path / "run", init=tmp_path / "broken")


def test_a_run_stopped_before_its_report_writes_it_when_it_is_resumed(start, whole, tmp_path, caplog) -> None:
    caplog.set_level("INFO", logger="boxel")
    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "run" / "report.html").unlink()
    start("fcrn", tmp_path / "run", resume=True)
    assert "is finished already" in caplog.text
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.parametrize(
    ("signals", "said"),
    [
        (
            [signal.SIGTERM],
            "stopped at step 3 of 4; its state is in {out}, and the same command with `resume`",
        ),
        (
            [signal.SIGINT] * 2,
            "stopped at once after step 2 of 4; its state of step 2 is in {out}, and the same",
        ),
    ],
)
def test_signals_state_how_far_the_run_is(start, whole, tmp_path, monkeypatch, caplog, signals, said) -> None:
    caplog.set_level("INFO", logger="boxel")
    step, before = Task.training_step, signal.getsignal(signal.SIGTERM)

    def signaled(self, batch, batch_idx):
        for number in signals if batch_idx == 2 else ():
            signal.raise_signal(number)
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(Task, "training_step", signaled)
        assert start("fcrn", tmp_path / "run") is None
    assert said.format(out=tmp_path / "run") in caplog.text
    assert signal.getsignal(signal.SIGTERM) == before
    start("fcrn", tmp_path / "run", resume=True)
    assert contents(tmp_path / "run") == contents(whole)


@pytest.mark.parametrize("what", ["checkpoint", "table"])
def test_a_full_disk_is_named_and_costs_nothing(start, whole, tmp_path, monkeypatch, what) -> None:
    """The disk is full when the checkpoint of the last step, or the row of the third, is written."""
    if what == "checkpoint":
        save, seen = torch.save, []

        def full(state, file, **given):
            seen.append(file)
            if state.get("global_step") == 4:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return save(state, file, **given)

        target, name = torch, "save"
    else:
        write, full_at = metrics_csv.csv.DictWriter.writerow, 3

        def full(self, row):
            if row.get("step") == full_at - 1:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write(self, row)

        target, name = metrics_csv.csv.DictWriter, "writerow"
    with monkeypatch.context() as patch:
        patch.setattr(target, name, full)
        with pytest.raises(
            BoxelError, match=r"run.*: cannot be written \(No space left on device\); free some"
        ):
            start("fcrn", tmp_path / "run")
    assert not list((tmp_path / "run").rglob("*.partial*"))
    start("fcrn", tmp_path / "run", resume=True)
    assert contents(tmp_path / "run") == contents(whole)


@pytest.mark.parametrize("damage", ["deleted", "cut"])
def test_an_image_that_breaks_during_a_training_costs_only_itself(
    start, scenes, tmp_path, monkeypatch, caplog, damage
):
    shutil.copytree(scenes.root, tmp_path / "images")
    moved = replace(scenes, root=tmp_path / "images")
    victim = moved.image_path(1)
    step = Task.training_step

    def broken(self, batch, batch_idx):
        if batch_idx == 1:
            victim.unlink() if damage == "deleted" else victim.write_bytes(victim.read_bytes()[:300])
        return step(self, batch, batch_idx)

    monkeypatch.setattr(Task, "training_step", broken)
    assert start("fcrn", tmp_path / "run", data=moved, steps=6) is not None
    found = {
        record.getMessage() for record in caplog.records if str(tmp_path / "images") in record.getMessage()
    }
    assert all(str(victim) in message for message in found) and any(
        "It is skipped" in message for message in found
    )
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["step"] in range(1, 7)


def test_a_name_that_is_too_long_is_reported_in_one_sentence(scenes, capsys) -> None:
    data = str(scenes.root.parent / "boxes.json")
    assert main(["train", "boxinst", data, "--images", str(scenes.root), "--out", "a" * 300]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.endswith("a: cannot be written (File name too long); check the folder.")


def test_an_adaptation_holds_its_folder_and_names_a_damaged_note(scenes, tmp_path) -> None:
    out = tmp_path / "adapted"
    with lock_folder(out), pytest.raises(BoxelError, match="adapted: another run is writing to it"):
        adapt(scenes, out)
    for content in (b"", b"{", b"[]", b'{"from": 1}', b"\xff"):
        (out / "adapted.json").write_bytes(content)
        with pytest.raises(
            BoxelError, match=r"adapted\.json: is damaged \(.*\); remove the folder to adapt again"
        ):
            adapt(scenes, out)
        assert (out / "adapted.json").read_bytes() == content


def test_a_teacher_whose_weights_are_not_finite_is_not_adapted(tmp_path, scenes) -> None:
    from safetensors.torch import save_file

    shutil.copytree("src/boxel/weights/boxcaseg", tmp_path / "teacher")
    weights = load_file(tmp_path / "teacher" / "model.safetensors")
    name = next(name for name, tensor in weights.items() if tensor.is_floating_point())
    weights[name].flatten()[0] = float("inf")
    save_file(weights, tmp_path / "teacher" / "model.safetensors")
    with pytest.raises(BoxelError, match=rf"model\.safetensors: is damaged \({name} has values"):
        boxel.adapt(scenes, tmp_path / "out", teacher=str(tmp_path / "teacher"))
