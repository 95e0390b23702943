"""Training, prediction and evaluation through the command line, from boxes to a killed and resumed run."""

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

from boxel.cli import main
from boxel.data.synthetic import write_scenes

pytestmark = pytest.mark.slow

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
    """A run that was not interrupted."""
    done = boxel(*train_words, "--out", scenes / "unbroken")
    assert done.returncode == 0, done.stderr
    return scenes / "unbroken"


def losses(folder: Path) -> dict[int, str]:
    """Return the total loss of each logged step; steps that a resumed run repeats replace those before."""
    with open(folder / "metrics.csv", newline="") as file:
        return {int(row["step"]): row["loss/total"] for row in csv.DictReader(file) if row["loss/total"]}


def assert_same_training(broken: Path, unbroken: Path) -> None:
    theirs = losses(unbroken)
    ours = losses(broken)
    assert theirs and all(theirs[step] == loss for step, loss in ours.items())
    weights, expected = load_file(broken / "model.safetensors"), load_file(unbroken / "model.safetensors")
    assert all((weights[name] == expected[name]).all() for name in expected)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_killed_run_resumes_exactly(train_words, run, scenes):
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
    assert_same_training(broken, run)


def test_predict_skips_corrupt_images(run, scenes, tmp_path):
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
    assert "2 images (skipped 1 of 3)" in done.stdout
    assert {path.stem for path in (tmp_path / "drawn").iterdir()} == {path.stem for path in good}
    rows = json.loads((tmp_path / "p.json").read_text())
    assert {row["file_name"] for row in rows} <= {path.name for path in good}


def test_check_repairs_and_conversion_keeps_boxes(scenes, tmp_path):
    faulty = json.loads((scenes / "boxes.json").read_text())
    faulty["annotations"][0]["bbox"] = [90, 50, 500, 500]
    faulty["annotations"].append({**faulty["annotations"][1], "id": 999, "image_id": 12345})
    (tmp_path / "faulty.json").write_text(json.dumps(faulty))
    words = ["check", tmp_path / "faulty.json", "--images", scenes / "images"]

    found = boxel(*words, "--json", "-")
    assert found.returncode == 1
    issues = json.loads(found.stdout)["issues"]
    assert {issue["kind"] for issue in issues} == {"box-outside", "unknown-image"}
    assert faulty["annotations"][0]["id"] in {issue["annotation_id"] for issue in issues}

    assert boxel(*words, "--repair", tmp_path / "repaired.json").returncode == 0
    twice = boxel(*words, "--repair", tmp_path / "repaired.json")
    assert twice.returncode == 2 and "repaired.json exists already" in twice.stderr
    again = boxel("check", tmp_path / "repaired.json", "--images", scenes / "images")
    assert (again.returncode, "no issues found" in again.stdout) == (0, True)

    there = boxel(
        "convert", tmp_path / "repaired.json", tmp_path / "voc", "--images", scenes / "images", "--to", "voc"
    )
    back = boxel("convert", tmp_path / "voc", tmp_path / "back.json")
    assert (there.returncode, back.returncode) == (0, 0), there.stderr + back.stderr
    before, after = (json.loads((tmp_path / name).read_text()) for name in ("repaired.json", "back.json"))
    assert [a["bbox"] for a in before["annotations"]] == [a["bbox"] for a in after["annotations"]]


def test_evaluate_compares_baselines_on_chosen_categories(run, scenes, tmp_path, capsys):
    words = ["evaluate", run, scenes / "masks.json", "--images", scenes / "images", "--device", "cpu"]
    words += ["--baselines", "box", "--categories", "ring,star", "--json", tmp_path / "new" / "metrics.json"]
    assert main([str(word) for word in words]) == 0
    assert "box filled" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "new" / "metrics.json").read_text())
    assert set(metrics["baselines"]) == {"box"}
    assert set(metrics["box"]["per_class"]) == {"ring", "star"}


def test_evaluate_reports_unreadable_images(run, scenes, tmp_path, capsys):
    shutil.copytree(scenes / "images", tmp_path / "images")
    torn = next((tmp_path / "images").iterdir())
    torn.write_bytes(torn.read_bytes()[:200])
    words = ["evaluate", run, scenes / "boxes.json", "--images", tmp_path / "images", "--device", "cpu"]
    assert main([str(word) for word in words]) == 1
    assert torn.name in capsys.readouterr().err


def test_predict_settings_change_detections_and_missing_images_are_skipped(run, scenes, tmp_path, capsys):
    eager = tmp_path / "eager"  # the same network without a score threshold
    shutil.copytree(run, eager)
    settings = yaml.safe_load((eager / "config.yaml").read_text())
    settings["model"] |= {"score_threshold": 0.0, "max_detections": 50}
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


def test_inspect_affinity_prints_and_plots_its_table(scenes, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["inspect", "affinity", str(scenes / "masks.json"), "--images", str(scenes / "images")]
    assert main(words) == 0
    plain = capsys.readouterr().out
    assert len(plain.splitlines()) >= 12 and "%" not in plain  # shares
    assert (tmp_path / "affinity.png").stat().st_size > 1000
    assert main([*words, "--theta", "5", "--plot", "other.png"]) == 0
    assert capsys.readouterr().out != plain
    assert (tmp_path / "other.png").exists()
    assert main([*words, "--theta", "0"]) == 2
    assert "--theta is 0; give a number above 0." in capsys.readouterr().err
    assert main([*words, "--size", "4"]) == 1
    assert "odd" in capsys.readouterr().err


def test_train_renames_categories_and_ignores_small_boxes(scenes, recipe, tmp_path, capsys):
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
