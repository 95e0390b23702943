"""The real command line, in processes of their own."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from safetensors.numpy import load_file

from boxel.cli.main import COMMANDS, build_parser, main
from boxel.data.synthetic import write_scenes

RECIPE = {
    "model": {
        "backbone": "tf_efficientnet_lite0",
        "weights": "none",
        "backbone_norm": "bn",
        "frozen_stages": 0,
        "neck_channels": 32,
        "head_convs": 1,
        "mask_convs": 1,
        "mask_channels": 16,
        "hint_weight": 1.0,
    },
    "augment": {"short_sides": [64], "max_size": 96},
    "data": {"workers": 0, "val_share": 0.0},
    "optim": {"name": "adamw", "lr": 0.001, "reference_batch": 0},
    "batch_size": 2,
    "steps": 12,
    "checkpoint_every": 3,
    "device": "cpu",
}


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "boxel", *map(str, words)]


def boxel(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*words), capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, 8, height=64, width=96)
    return folder


@pytest.fixture(scope="module")
def recipe(scenes) -> Path:
    path = scenes / "recipe.yaml"
    path.write_text(yaml.safe_dump(RECIPE))
    return path


@pytest.fixture(scope="module")
def train_words(scenes, recipe) -> list[object]:
    return ["train", "boxinst", scenes / "boxes.json", "--images", scenes / "images", "--config", recipe]


@pytest.fixture(scope="module")
def run(scenes, train_words) -> Path:
    """An unbroken run."""
    done = boxel(*train_words, "--out", scenes / "unbroken")
    assert done.returncode == 0, done.stderr
    return scenes / "unbroken"


def losses(folder: Path) -> dict[int, str]:
    """The total loss of each step that was logged; what a killed run had logged last counts no more."""
    with open(folder / "metrics.csv", newline="") as file:
        return {int(row["step"]): row["loss/total"] for row in csv.DictReader(file) if row["loss/total"]}


def goes_on_as_if_nothing_had_happened(broken: Path, unbroken: Path) -> None:
    theirs = losses(unbroken)
    ours = losses(broken)
    assert theirs and all(theirs[step] == loss for step, loss in ours.items())
    weights, expected = load_file(broken / "model.safetensors"), load_file(unbroken / "model.safetensors")
    assert all((weights[name] == expected[name]).all() for name in expected)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_run_killed_at_any_moment_is_resumed_exactly(train_words, run, scenes):
    broken = scenes / "killed"
    process = subprocess.Popen(
        command(*train_words, "--out", broken), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    checkpoint = broken / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 200
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert checkpoint.exists()
    assert not (broken / "model.safetensors").exists(), "the run was over before it was killed"

    refused = boxel(*train_words, "--out", broken)
    assert refused.returncode == 1
    assert "--resume" in refused.stderr

    resumed = boxel(*train_words, "--out", broken, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    goes_on_as_if_nothing_had_happened(broken, run)


def test_predict_skips_a_corrupt_file_and_does_the_rest(run, scenes, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    good = sorted((scenes / "images").iterdir())[:2]
    for path in good:
        (photos / path.name).write_bytes(path.read_bytes())
    (photos / "torn.png").write_bytes(good[0].read_bytes()[:500])
    refused = boxel("predict", run, photos, "--out", tmp_path)
    assert refused.returncode == 2 and "is a folder" in refused.stderr
    done = boxel("predict", run, photos, "--out", tmp_path / "p.json", "--draw", tmp_path / "drawn")
    assert done.returncode == 1
    assert "torn.png" in done.stderr and "Traceback" not in done.stderr
    assert "2 of 3 images" in done.stdout
    assert {path.stem for path in (tmp_path / "drawn").iterdir()} == {path.stem for path in good}
    rows = json.loads((tmp_path / "p.json").read_text())
    assert {row["file_name"] for row in rows} <= {path.name for path in good}


def test_check_convert_and_check_again(scenes, tmp_path):
    faulty = json.loads((scenes / "boxes.json").read_text())
    faulty["annotations"][0]["bbox"] = [90, 50, 500, 500]
    faulty["annotations"].append({**faulty["annotations"][1], "id": 999, "image_id": 12345})
    (tmp_path / "faulty.json").write_text(json.dumps(faulty))
    words = ["check", tmp_path / "faulty.json", "--images", scenes / "images"]

    found = boxel(*words, "--json", "-")
    assert found.returncode == 1
    faults = json.loads(found.stdout)
    assert {fault["kind"] for fault in faults} == {"box-outside", "unknown-image"}
    assert faulty["annotations"][0]["id"] in {fault["annotation_id"] for fault in faults}

    assert boxel(*words, "--repair", tmp_path / "mended.json").returncode == 0
    twice = boxel(*words, "--repair", tmp_path / "mended.json")
    assert twice.returncode == 2 and "mended.json exists already" in twice.stderr
    again = boxel("check", tmp_path / "mended.json", "--images", scenes / "images")
    assert (again.returncode, "no issues found" in again.stdout) == (0, True)

    there = boxel(
        "convert", tmp_path / "mended.json", tmp_path / "voc", "--images", scenes / "images", "--to", "voc"
    )
    back = boxel("convert", tmp_path / "voc", tmp_path / "back.json")
    assert (there.returncode, back.returncode) == (0, 0), there.stderr + back.stderr
    before, after = (json.loads((tmp_path / name).read_text()) for name in ("mended.json", "back.json"))
    assert [a["bbox"] for a in before["annotations"]] == [a["bbox"] for a in after["annotations"]]


# In this process from here on: how it is called, not what it does.


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["trian"], 2, "Did you mean 'train'?"),
        (["train", "boxinst", "x.json", "--model.tauu", "1"], 2, "Did you mean '--model.tau'?"),
        (["train", "boxinst", "missing.json"], 1, "missing.json"),
        (["evaluate", "missing.json", "truth.json"], 1, "missing.json"),
        (["predict", "missing_run", "x.jpg"], 1, "missing_run"),
        (["train", "boxinst", "truth.json", "--rename", "a"], 2, "OLD=NEW"),
        (["train", "boxinst", "truth.json", "--steps", "0"], 2, "--steps is 0; give a whole number above 0."),
        (
            ["train", "boxinst", "truth.json", "--optim.momentum", "2"],
            2,
            "--optim.momentum is 2; give a number from 0 to 1.",
        ),
        (["check", "truth.json", "--repair", "folder"], 2, ".json"),
        (["evaluate", "results.json", "truth.json", "--baselines", "boxes"], 1, "'boxes'"),
        (["evaluate", "results.json", "truth.json", "--json", "."], 2, "is a folder"),
    ],
)
def test_errors_are_one_sentence_and_exit_codes_tell_whose_fault(
    words, code, said, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "truth.json").write_text('{"images": [], "annotations": [], "categories": []}')
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(words) == code
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error
    assert error.count("\n") == 1


def test_evaluate_baselines_and_categories(run, scenes, tmp_path, capsys):
    words = ["evaluate", run, scenes / "masks.json", "--images", scenes / "images", "--device", "cpu"]
    words += ["--baselines", "box", "--categories", "ring,star", "--json", tmp_path / "new" / "figures.json"]
    assert main([str(word) for word in words]) == 0
    assert "box filled" in capsys.readouterr().out
    figures = json.loads((tmp_path / "new" / "figures.json").read_text())
    assert set(figures["baselines"]) == {"box"}
    assert set(figures["box"]["per_class"]) == {"ring", "star"}


def test_evaluate_says_what_can_not_be_read(run, scenes, tmp_path, capsys):
    shutil.copytree(scenes / "images", tmp_path / "images")
    torn = next((tmp_path / "images").iterdir())
    torn.write_bytes(torn.read_bytes()[:200])
    words = ["evaluate", run, scenes / "boxes.json", "--images", tmp_path / "images", "--device", "cpu"]
    assert main([str(word) for word in words]) == 1
    assert torn.name in capsys.readouterr().err


def test_predict_flips_and_scales_and_skips_what_is_not_there(run, scenes, tmp_path, capsys):
    """A second look finds other boxes; a photo that is missing costs only itself."""
    eager = tmp_path / "eager"  # the same network, giving out all it finds
    shutil.copytree(run, eager)
    settings = yaml.safe_load((eager / "config.yaml").read_text())
    settings["model"] |= {"score_threshold": 0.0, "max_detections": 5}
    (eager / "config.yaml").write_text(yaml.safe_dump(settings))
    photo = sorted((scenes / "images").iterdir())[0]
    found = []
    for look in ([], ["--flip"], ["--scales", "1,1.5"], ["--short-side", "96"]):
        out = tmp_path / f"{len(found)}.json"
        words = ["predict", eager, photo, tmp_path / "gone.jpg", "--out", out, "--device", "cpu", *look]
        assert main([str(word) for word in words]) == 1
        assert "gone.jpg" in capsys.readouterr().err
        found.append(out.read_text())
    assert found[0] not in found[1:]


def test_inspect_affinity_prints_a_table_and_draws_it(scenes, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["inspect", "affinity", str(scenes / "masks.json"), "--images", str(scenes / "images")]
    assert main(words) == 0
    plain = capsys.readouterr().out
    assert plain.count("%") == 2 * 12
    assert (tmp_path / "affinity.png").stat().st_size > 1000
    assert main([*words, "--theta", "5", "--plot", "other.png"]) == 0
    assert capsys.readouterr().out != plain
    assert (tmp_path / "other.png").exists()
    assert main([*words, "--theta", "0"]) == 2
    assert "--theta is 0; give a number above 0." in capsys.readouterr().err
    assert main([*words, "--size", "4"]) == 1
    assert "odd" in capsys.readouterr().err


def test_categories_by_other_names_and_small_boxes(scenes, recipe, tmp_path, capsys):
    words = ["train", "boxinst", scenes / "masks.json", "--images", scenes / "images", "--config", recipe]
    words += ["--steps", 1, "--rename", "star=pointed,cross=pointed", "--min-box", 20, "--mask-classes", ""]
    assert main([str(word) for word in [*words, "--batch-size", 1, "--out", tmp_path / "run"]]) == 0
    names = [row["name"] for row in json.loads((tmp_path / "run" / "categories.json").read_text())]
    assert names == ["ring", "pointed", "crescent", "spoon"]
    settings = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert settings["data"]["min_box"] == 20
    assert settings["data"]["mask_classes"] == []
    assert settings["batch_size"] == 1
    assert (tmp_path / "run" / "curves.png").exists()


def test_help_names_every_command(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(
        name in text for name in ("check", "convert", "train", "evaluate", "predict", "inspect", "demo")
    )


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_states_usage_and_an_example_and_explains_every_flag(name, capsys):
    assert main([*name.split(), "--help-all"]) == 0
    text = capsys.readouterr().out
    first, last = text.splitlines()[0], text.splitlines()[-1]
    assert first.startswith(f"usage: boxel {name} ") and first.endswith("[flags]")
    assert last.startswith(f"example: boxel {name}")
    assert all(option.help for option in build_parser(name).options)
