"""Semantic models and label maps through the command line."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boxel.cli import main

pytestmark = pytest.mark.slow


def read_metrics(file: Path) -> dict:
    return {name: value for name, value in json.loads(file.read_text()).items() if name != "info"}


def test_predicted_label_maps_score_like_their_model(place: Path, tmp_path: Path, capsys) -> None:
    images, maps, run = place / "maps" / "images", place / "maps", place / "run"
    out, drawn, metrics = tmp_path / "found", tmp_path / "drawn", tmp_path / "a.json"
    assert main(["predict", str(run), str(images), "--out", str(out), "--draw", str(drawn)]) == 0
    assert f"label maps of 4 of 4 images: {out}, drawn in {drawn}" in capsys.readouterr().out
    assert len(list(drawn.iterdir())) == 4
    ids = {int(line.split()[0]) for line in (maps / "classes.txt").read_text().splitlines()}
    assert set(np.unique(np.array(Image.open(next(out.iterdir()))))) <= ids
    assert main(["evaluate", str(run), str(maps), "--json", str(metrics)]) == 0
    of_run = json.loads(metrics.read_text())
    made = of_run.pop("info")["boxel"]
    assert made["command"].startswith(f"boxel evaluate {run} ")
    assert [Path(made["inputs"][name]["path"]) for name in made["inputs"]] == [
        run / "model.safetensors",
        maps,
    ]
    assert all(len(made["inputs"][name]["sha256"]) == 64 for name in made["inputs"])
    assert main(["evaluate", str(out), str(maps), "--json", str(metrics)]) == 0
    assert read_metrics(metrics) == of_run
    assert re.search(r"^mean_iou: \d\.\d{3}, ", capsys.readouterr().out, re.MULTILINE)
    # The masks that the label maps were painted from are the same ground truth.
    masks = place / "scenes" / "masks.json"
    assert main(["evaluate", str(run), str(masks), "--json", str(metrics)]) == 0
    from_masks = read_metrics(metrics)
    found, expected = from_masks.pop("worst_images"), of_run.pop("worst_images")
    assert from_masks == of_run and [row["mean_iou"] for row in found] == [
        row["mean_iou"] for row in expected
    ]


def test_train_learns_from_predicted_label_maps(place: Path, tmp_path: Path, capsys) -> None:
    images, run, found = place / "maps" / "images", str(place / "run"), tmp_path / "set"
    assert main(["predict", run, str(images), "--out", str(found / "labels")]) == 0
    shutil.copytree(images, found / "images")
    words = ["train", "fcrn", str(found), "--class-list", run, "--config", str(place / "recipe.yaml")]
    assert main([*words, "--out", str(tmp_path / "run"), "--steps", "1"]) == 0
    theirs, own = (
        json.loads((folder / "categories.json").read_text()) for folder in (place / "run", tmp_path / "run")
    )
    assert [row["name"] for row in own] == [row["name"] for row in theirs]


def test_a_semantic_model_is_a_teacher(place: Path, tmp_path: Path) -> None:
    boxes, run, made = str(place / "scenes" / "boxes.json"), str(place / "run"), tmp_path / "made.json"
    assert main(["label", boxes, "--teacher", run, "--out", str(made)]) == 0
    rows = json.loads(made.read_text())["annotations"]
    assert len(rows) == len(json.loads(Path(boxes).read_text())["annotations"])
    assert any("segmentation" in row for row in rows)
    words = ["train", "fcrn", boxes, "--label", run, "--config", str(place / "recipe.yaml"), "--steps", "1"]
    assert main([*words, "--out", str(tmp_path / "run")]) == 0


def test_predict_settings_keep_the_size_of_the_image(place: Path, tmp_path: Path) -> None:
    words = ["predict", str(place / "run"), str(place / "maps" / "images"), "--out", str(tmp_path)]
    closer = ["--flip", "--scales", "0.5,1", "--shifts", "2", "--tile", "64", "--long-side", "128"]
    assert main([*words, *closer]) == 0
    assert Image.open(next(tmp_path.glob("*.png"))).size == (96, 64)


def test_fcrn_instances_is_trained_on_a_semantic_model_and_evaluated(
    place: Path, tmp_path: Path, capsys
) -> None:
    masks, semantic = str(place / "scenes" / "masks.json"), tmp_path / "semantic"
    assert main(["train", "fcrn", masks, "--config", str(place / "recipe.yaml"), "--out", str(semantic)]) == 0
    words = ["train", "fcrn-instances", masks, "--config", str(place / "recipe.yaml")]
    run = str(tmp_path / "run")
    assert main([*words, "--semantic", str(semantic), "--out", run]) == 0
    capsys.readouterr()
    assert main(["evaluate", run, masks, "--no-boundary", "--regions"]) == 0
    assert "mAPr_vol" in capsys.readouterr().out
    assert main(["evaluate", run, masks, "--no-boundary", "--regions", "--true-classes"]) == 0
    assert "mAPr_vol" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["predict", "RUN", "PHOTOS", "--score-threshold", "0.5"], 2, "--score-threshold does nothing here"),
        (["predict", "RUN", "PHOTOS", "--shifts", "3"], 1, "shifts is 3; with cells of 8 pixels"),
        (["predict", "boxcaseg", "PHOTOS", "--detector", "RUN"], 1, "the model (FCRN) predicts no instances"),
        (["evaluate", "RUN", "MAPS", "--baselines", "box"], 2, "--baselines does nothing here"),
        (["evaluate", "MAPS/labels", "MAPS", "--flip"], 2, "--flip does nothing here"),
        (["evaluate", "RUN", "MAPS", "--class-list", "cityscape"], 1, "Did you mean 'cityscapes'?"),
        (["evaluate", "RUN", "MAPS", "--class-list", "camvid"], 1, "none of its classes"),
        (["evaluate", "boxcaseg", "MASKS", "--tile", "64"], 2, "--tile does nothing here"),
        (["train", "fcrn-instances", "MASKS"], 2, "name it with --semantic"),
        (
            ["train", "fcrn-instances", "MASKS", "--semantic", "RUN", "--out", "OUT"],
            1,
            "instances has a mask to learn from",
        ),
    ],
)
def test_errors_are_one_sentence(place: Path, tmp_path: Path, capsys, monkeypatch, words, code, said) -> None:
    monkeypatch.chdir(tmp_path)  # the default output is written here
    names = {
        "RUN": place / "run",
        "PHOTOS": place / "maps" / "images",
        "MASKS": place / "scenes" / "boxes.json",
        "MAPS": place / "maps",
        "OUT": tmp_path,
    }
    for name, path in names.items():
        words = [re.sub(f"^{name}(?=/|$)", str(path), word) for word in words]
    assert main(words) == code
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error and error.count("\n") <= 2


@pytest.mark.slow
def test_a_run_is_exported(place: Path, tmp_path: Path, capsys) -> None:
    pytest.importorskip("onnx")
    assert main(["export", str(place / "run"), str(tmp_path / "model.onnx")]) == 0
    assert "pixels, 0 of another class" in capsys.readouterr().out
    assert (tmp_path / "model.onnx").is_file()
