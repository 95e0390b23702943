"""The splits of a dataset, through the commands that train, adapt and evaluate."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from boxel.cli import main
from boxel.data import write
from boxel.data.annotations import Annotations
from boxel.data.synthetic import write_scenes
from boxel.training.few_masks import MIN_MASKS

pytestmark = pytest.mark.slow

SPLITS = ["train"] * 5 + ["val"] * 2 + ["test"]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Annotations:
    folder = tmp_path_factory.mktemp("splits")
    data = replace(write_scenes(folder, 8, height=64, width=96), splits=SPLITS)
    write(data, folder / "split.json")
    write(data, folder / "yolo", format="yolo")
    write(data, folder / "folders", format="yolo")
    (folder / "folders" / "data.yaml").unlink()
    return data


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, tiny_fcrn: dict) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    path.write_text(yaml.safe_dump(tiny_fcrn | {"steps": 1, "device": "cpu"}))
    return path


@pytest.mark.parametrize("source", ["split.json", "yolo/data.yaml", "yolo", "folders"])
def test_train_learns_from_train_and_validates_on_val(scenes, recipe, tmp_path, capfd, source) -> None:
    folder, out = scenes.root.parent, tmp_path / "run"
    images = ["--images", str(scenes.root)] if source == "split.json" else []
    words = ["train", "fcrn", str(folder / source), *images, "--config", str(recipe), "--out", str(out)]
    assert main(words) == 0
    record = json.loads((out / "run.json").read_text())
    assert (record["training"]["images"], record["validation"]["images"]) == (5, 2)
    printed = capfd.readouterr().err
    assert "validating on its own split val: 2 images" in printed
    assert "images of other splits are not trained on (test: 1)" in printed


def test_val_given_replaces_the_own_split_and_leaks_are_reported(scenes, recipe, tmp_path, capfd) -> None:
    folder, out = scenes.root.parent, tmp_path / "run"
    words = [
        "train",
        "fcrn",
        str(folder / "split.json"),
        "--images",
        str(scenes.root),
        "--config",
        str(recipe),
    ]
    assert main([*words, "--val", str(folder / "masks.json"), "--out", str(out)]) == 0
    record = json.loads((out / "run.json").read_text())
    assert (record["training"]["images"], record["validation"]["images"]) == (5, 8)
    printed = capfd.readouterr().err
    assert "images of other splits are not trained on (val: 2, test: 1)" in printed
    assert "5 of the images to validate on are trained on too, by name or content" in printed


def test_a_model_is_evaluated_on_val_of_annotations_in_memory_as_of_a_file(scenes, recipe, tmp_path) -> None:
    import boxel

    folder, out = scenes.root.parent, tmp_path / "run"
    boxel.train("fcrn", scenes, out=out, config=recipe)
    in_memory = boxel.evaluate(out, scenes).metrics
    assert in_memory["images"] == 2
    assert boxel.evaluate(out, folder / "split.json", images=scenes.root).metrics == in_memory


def test_adapt_learns_from_train(scenes, tmp_path, tiny_boxcaseg, capfd) -> None:
    import boxel

    folder, teacher = scenes.root.parent, tmp_path / "teacher"
    boxel.train("boxcaseg", folder / "boxes.json", images=scenes.root, out=teacher, config=tiny_boxcaseg)
    words = ["adapt", str(folder / "split.json"), "--images", str(scenes.root), "--teacher", str(teacher)]
    assert main([*words, "--out", str(tmp_path / "out"), "--minutes", "0.01"]) == 0
    record = json.loads((tmp_path / "out" / "adapted.json").read_text())
    training = boxel.read(folder / "split.json", images=scenes.root, split="train")
    assert record["masks"] == training.has_mask.sum() >= MIN_MASKS and record["command"].startswith(
        "boxel adapt"
    )
    assert "images of other splits are not trained on (val: 2, test: 1)" in capfd.readouterr().err
