"""The page on other networks: the folder that they read, and, if their packages are installed, what it shows.

Install `ultralytics` or `rfdetr[train]` into an environment of its own that has boxel too, and run this file there.
Nothing is downloaded: weights start at random.
"""

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from boxel.cli import main
from boxel.data.synthetic import write_scenes

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "other-networks.md"
CONVERT = "convert masks.json yolo/ --to yolo --images photos/ --val-share 0.25 --untrusted image"


def run(line: str) -> int:
    return main(line.split())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with `masks.json` of 9 images in `photos`, one of which has a mask that is not trusted.

    `val.json` has the true masks of 4 images in `val_photos`.
    """
    write_scenes(tmp_path, 9, height=64, width=96)
    (tmp_path / "images").rename(tmp_path / "photos")
    content = json.loads((tmp_path / "masks.json").read_text())
    content["annotations"][0]["trusted"] = False
    (tmp_path / "masks.json").write_text(json.dumps(content))
    write_scenes(tmp_path / "val", 4, height=64, width=96, seed=7)
    (tmp_path / "val/images").rename(tmp_path / "val_photos")
    (tmp_path / "val/masks.json").rename(tmp_path / "val.json")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_folder_has_what_both_read_and_no_image_that_is_not_trusted(folder: Path, capsys) -> None:
    assert run(CONVERT) == 0
    content = json.loads(Path("masks.json").read_text())
    images = {image["id"]: image["file_name"] for image in content["images"]}
    doubtful = images[content["annotations"][0]["image_id"]]
    total = len(content["annotations"])
    left = sum(images[row["image_id"]] == doubtful for row in content["annotations"])
    sentence = f"1 image left out, with {left} of {total} objects (1 with a mask that is not trusted)"
    assert sentence in capsys.readouterr().err
    config = yaml.safe_load(Path("yolo/data.yaml").read_text())
    names = [category["name"] for category in content["categories"]]
    assert config == {
        "train": "images/train",
        "val": "images/val",
        "task": "segment",
        "names": dict(enumerate(names)),
    }
    found = {
        split: sorted(file.stem for file in Path("yolo/images", split).iterdir())
        for split in ("train", "val")
    }
    for split, stems in found.items():
        assert sorted(file.stem for file in Path("yolo/labels", split).iterdir()) == stems
        for stem in stems:
            for row in Path(f"yolo/labels/{split}/{stem}.txt").read_text().splitlines():
                label, *numbers = row.split()
                assert int(label) < len(names) and len(numbers) >= 6 and len(numbers) % 2 == 0
                assert all(0 <= float(number) <= 1 for number in numbers)
    stems = [Path(name).stem for name in images.values() if name != doubtful]
    assert sorted(found["train"] + found["val"]) == sorted(stems)
    assert min(map(len, found.values())) >= 1


def test_a_coco_file_of_the_folder_has_trusted_masks_alone(folder: Path) -> None:
    assert run(CONVERT) == 0
    assert run("convert yolo/ clean.json") == 0
    clean, masks = (json.loads(Path(name).read_text()) for name in ("clean.json", "masks.json"))
    assert {image["split"] for image in clean["images"]} == {"train", "val"} and len(clean["images"]) == 8
    assert all(row["segmentation"] and row.get("trusted", True) for row in clean["annotations"])
    dropped = masks["annotations"][0]["image_id"]
    assert {row["id"] for row in clean["annotations"]} == {
        row["id"] for row in masks["annotations"] if row["image_id"] != dropped
    }


def evaluate(results: str, images: int, capsys) -> None:
    """Evaluate results as the page does; they are of the images and classes of the truth."""
    capsys.readouterr()
    assert run(f"evaluate {results} val.json --images val_photos/ --json metrics.json") == 0
    metrics = json.loads(Path("metrics.json").read_text())
    assert 0 <= metrics["mask"]["AP"] <= 1, metrics
    assert "not in the ground truth" not in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ultralytics") is None, reason="ultralytics (AGPL-3.0) is not installed")
def test_ultralytics_trains_and_is_evaluated(folder: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    from ultralytics import YOLO

    assert run(CONVERT) == 0
    tiny = {"imgsz": 64, "device": "cpu", "project": str(folder / "runs"), "exist_ok": True}
    model = YOLO("yolo11n-seg.yaml")
    model.train(data="yolo/data.yaml", epochs=1, batch=4, workers=0, plots=False, name="train", **tiny)
    best = YOLO(folder / "runs/train/weights/best.pt")
    assert best.names == yaml.safe_load(Path("yolo/data.yaml").read_text())["names"]
    best.predict("val_photos/", conf=1e-6, save_txt=True, save_conf=True, save=False, name="predict", **tiny)
    assert 1 <= len(list(Path("runs/predict/labels").iterdir())) <= 4
    evaluate("runs/predict", 4, capsys)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("rfdetr") is None, reason="rfdetr is not installed")
def test_the_scripts_for_rf_detr_run(folder: Path, capsys) -> None:
    assert run(CONVERT) == 0
    train, predict = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert train.count("RFDETRSegNano()") == 1 and train.count("epochs=20") == 1
    settings = "pretrain_weights=None, resolution=60, device='cpu'"
    train = train.replace("RFDETRSegNano()", f"RFDETRSegNano({settings})")
    train = train.replace("epochs=20", "epochs=1, num_workers=0, multi_scale=False, tensorboard=False")
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    for code in (train, predict):
        subprocess.run([sys.executable, "-c", code], check=True, env=offline)
    results = json.loads(Path("predictions.json").read_text())
    truth = json.loads(Path("val.json").read_text())
    assert {row["image_id"] for row in results} == {image["id"] for image in truth["images"]}
    assert {row["category_id"] for row in results} <= {category["id"] for category in truth["categories"]}
    assert all(row["segmentation"]["size"] == [64, 96] for row in results)
    evaluate("predictions.json", 4, capsys)
