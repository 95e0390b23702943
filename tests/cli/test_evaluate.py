"""Labeled datasets of any format, evaluated through the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from boxel.cli import main
from boxel.data import read, write
from boxel.data.synthetic import write_scenes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes (`truth/masks.json`), their labels as `labeled.json` and in folders beside it, and their truth as VOC."""
    folder = tmp_path_factory.mktemp("evaluate")
    scenes = write_scenes(folder / "truth", 3, height=64, width=96)
    write(scenes, folder / "voc", format="voc")
    (folder / "voc" / "boxel-ids.json").unlink()
    words = [
        "label",
        str(folder / "truth" / "boxes.json"),
        "--teacher",
        "ellipse",
        "--to",
        "voc,yolo,labelme",
    ]
    assert main([*words, "--out", str(folder / "labeled.json")]) == 0
    return folder


def measured(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[dict[str, float], str]:
    """The metrics of the masks, and what is logged."""
    assert main(["evaluate", *map(str, words), "--json", "-"]) == 0
    printed = capsys.readouterr()
    return json.loads(printed.out)["masks"], printed.err


@pytest.mark.parametrize("name", ["labeled_voc", "labeled_yolo", "labeled_labelme"])
def test_labeled_datasets_of_every_format_are_evaluated(folder: Path, capsys, name: str) -> None:
    truth = folder / "truth" / "masks.json"
    expected, _ = measured(capsys, folder / "labeled.json", truth)
    metrics, log = measured(capsys, folder / name, truth)
    assert metrics["instances"] == expected["instances"] and "compared" not in log
    assert metrics["mask_iou"] == pytest.approx(expected["mask_iou"], abs=0.05)
    # The same without the ids that boxel keeps in these folders.
    foreign = folder / f"foreign_{name}"
    shutil.copytree(folder / name, foreign, ignore=shutil.ignore_patterns("boxel-ids.json"))
    again, log = measured(capsys, foreign, truth)
    assert again["mask_iou"] == pytest.approx(metrics["mask_iou"], abs=1e-6)
    assert f"{foreign} is compared with {truth} by image name, class and box, since their ids differ" in log


def test_a_voc_dataset_that_is_labeled_is_evaluated_against_itself(folder: Path, capsys) -> None:
    images = folder / "voc" / "ImageSets" / "Main" / "trainval.txt"
    words = ["label", str(images), "--relabel", "--teacher", "ellipse", "--out", str(folder / "vc.json")]
    assert main(words) == 0
    capsys.readouterr()
    metrics, log = measured(capsys, folder / "vc.json", images)
    assert metrics["mask_iou"] > 0.5 and "by image name, class and box" in log
    assert len(read(images).labels) >= metrics["instances"] > 0


def test_baselines_use_the_images_that_either_dataset_names(folder: Path, tmp_path: Path, capsys) -> None:
    truth = tmp_path / "truth.json"
    shutil.copy(folder / "truth" / "masks.json", truth)
    metrics, log = measured(capsys, folder / "labeled.json", truth, "--baselines", "box,grabcut")
    assert "instead" not in log and metrics["instances"] > 0
    labeled = tmp_path / "labeled.json"
    labeled.write_text(truth.read_text())
    assert main(["evaluate", str(labeled), str(truth), "--baselines", "grabcut"]) == 1
    assert (
        "images are missing (3 of 3)" in (error := capsys.readouterr().err)
        and "name their folder with --images" in error
    )


def test_a_folder_of_something_else_and_a_dataset_without_masks_are_refused(
    folder: Path, tmp_path: Path, capsys
) -> None:
    truth = str(folder / "truth" / "masks.json")
    assert main(["evaluate", str(folder / "truth" / "boxes.json"), truth]) == 1
    assert "boxes.json has no masks to evaluate" in capsys.readouterr().err
    (tmp_path / "notes.md").write_text("")
    assert main(["evaluate", str(tmp_path), truth]) == 1
    assert "no dataset of a known format" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:a semantic dataset has no instances")
def test_a_dataset_of_label_maps_is_a_subject_too(folder: Path, capsys) -> None:
    maps = folder / "maps"
    write(read(folder / "truth" / "masks.json"), maps, format="semantic")
    assert main(["evaluate", str(maps), str(maps), "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["mean_iou"] == 1
