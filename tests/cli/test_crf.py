"""`boxel tune-crf`, and the CRF in `boxel evaluate` and `boxel predict`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import boxel
from boxel.cli import main
from boxel.crf import CRFConfig
from boxel.data.label_maps import pixel_classes
from boxel.data.synthetic import write_scenes
from boxel.evaluation.tune_crf import VALUES
from boxel.models.io import build, save

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tiny_fcrn: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with scenes (`masks.json`) and an untrained model of their classes (`run`)."""
    folder = tmp_path_factory.mktemp("place")
    classes = pixel_classes(write_scenes(folder, 4, height=48, width=64))
    torch.manual_seed(0)
    model = build("fcrn", len(classes), tiny_fcrn["model"])
    save(model, folder / "run", {"method": "fcrn", "model": tiny_fcrn["model"]}, classes)
    return folder


def run(*words: Any) -> int:
    return main([str(word) for word in words])


def evaluate_run(place: Path, tmp_path: Path, *flags: str) -> dict[str, Any]:
    file = tmp_path / "metrics.json"
    assert run("evaluate", place / "run", place / "masks.json", "--json", file, *flags) == 0
    return {name: value for name, value in json.loads(file.read_text()).items() if name != "info"}


def test_the_tuned_crf_is_used_by_evaluate_and_predict(place: Path, tmp_path: Path, capsys, caplog) -> None:
    plain, default = evaluate_run(place, tmp_path), evaluate_run(place, tmp_path, "--crf")
    capsys.readouterr()
    with caplog.at_level("INFO", "boxel.evaluation.tune_crf"):
        assert run("tune-crf", place / "run", place / "masks.json") == 0
    said = capsys.readouterr()
    rows = [line.split() for line in said.out.splitlines() if re.match(r" *(\d|no CRF).*\.\d{4}$", line)]
    assert [name for name in said.out.split()[:4]] == list(VALUES)
    assert rows[0][:2] == ["no", "CRF"] and rows[1][:4] == ["10", "80", "13", "3"]
    # Probabilities are kept in half precision, so nearly equal ones may change places.
    assert float(rows[0][-1]) == pytest.approx(plain["mean_iou"], abs=0.0005)
    assert float(rows[1][-1]) == pytest.approx(default["mean_iou"], abs=0.0005)
    assert len([text for text in caplog.messages if "mean IoU" in text]) == len(rows)

    best = max(rows[1:], key=lambda row: float(row[-1]))
    kept = yaml.safe_load((place / "run" / "crf.yaml").read_text())
    assert [kept[name] for name in VALUES] == [float(value) for value in best[:-1]]
    assert f"the best CRF: {place / 'run' / 'crf.yaml'}" in said.out
    verdict = "do not use `crf`" if float(best[-1]) <= float(rows[0][-1]) else "with the best one."
    assert verdict in said.out

    tuned = evaluate_run(place, tmp_path, "--crf")
    assert tuned["mean_iou"] == pytest.approx(float(best[-1]), abs=0.0005)
    assert evaluate_run(place, tmp_path) == plain  # only with --crf

    images, out = place / "images", tmp_path / "found"
    assert run("predict", place / "run", images, "--out", out, "--crf") == 0
    photo = min(images.iterdir())
    model = boxel.load(place / "run")
    found = np.array(Image.open(out / f"{photo.stem}.png"))
    np.testing.assert_array_equal(found, model.predict(photo, crf=True).values)
    np.testing.assert_array_equal(found, model.predict(photo, crf=CRFConfig(**kept)).values)
    assert (model.predict(photo).values != found).any()


def test_a_broken_crf_file_is_named(place: Path, tmp_path: Path, capsys) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for file in ("config.yaml", "categories.json", "model.safetensors"):
        (folder / file).write_bytes((place / "run" / file).read_bytes())
    (folder / "crf.yaml").write_text("appearance_weight: much")
    assert run("predict", folder, place / "images", "--out", tmp_path / "out") == 1
    said = capsys.readouterr().err
    assert "crf.yaml cannot be read as settings of a CRF" in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["tune-crf", "MASKS", "MASKS"], 2, "masks.json is not the folder of a semantic model"),
        (["tune-crf", "boxcaseg", "MASKS"], 2, "boxcaseg is not the folder of a semantic model"),
        (
            ["tune-crf", "RUN", "MASKS", "--max-images", "0"],
            2,
            "--max-images is 0; give a whole number above 0",
        ),
        (["tune-crf", "RUN", "MASKS", "--max-imgaes", "9"], 2, "Did you mean '--max-images'?"),
        (["tune-crf", "RUN", "missing.json"], 1, "missing.json"),
        (["evaluate", "boxcaseg", "MASKS", "--crf"], 2, "--crf does nothing here"),
        (["evaluate", "MAPS", "MASKS", "--crf"], 2, "--crf does nothing here"),
        (["predict", "boxcaseg", "PHOTOS", "--boxes", "MASKS", "--crf"], 2, "--crf does nothing here"),
    ],
)
def test_errors_are_one_sentence(place: Path, tmp_path: Path, capsys, words, code, said) -> None:
    maps = tmp_path / "maps"
    maps.mkdir()
    Image.new("L", (64, 48)).save(maps / "0.png")
    names = {"RUN": place / "run", "MASKS": place / "masks.json", "PHOTOS": place / "images", "MAPS": maps}
    assert run(*(names.get(word, word) for word in words)) == code
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error and error.count("\n") == 1
