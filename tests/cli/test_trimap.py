"""`boxel evaluate --trimap` of a semantic model and of a folder of label maps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from boxel.cli import main
from boxel.evaluation.semantic import TRIMAP_WIDTHS as WIDTHS

pytestmark = pytest.mark.slow


def evaluate(subject: Path, place: Path, out: Path) -> dict[str, Any]:
    """Run `boxel evaluate --trimap` and return the metrics that it writes."""
    words = ["evaluate", str(subject), str(place / "maps"), "--json", str(out / "metrics.json")]
    assert main([*words, "--trimap", str(out / "new" / "trimap.png")]) == 0
    # JSON has no NaN. What made the file differs by the command.
    metrics = json.loads((out / "metrics.json").read_text(), parse_constant=pytest.fail)
    return {name: value for name, value in metrics.items() if name != "info"}


def test_a_model_and_its_label_maps_have_the_same_trimap(place: Path, tmp_path: Path, capsys) -> None:
    run, out = place / "run", tmp_path / "found"
    assert main(["predict", str(run), str(place / "maps" / "images"), "--out", str(out)]) == 0
    of_run = evaluate(run, place, tmp_path)
    assert of_run["trimap"]["width"] == list(WIDTHS)
    assert Image.open(tmp_path / "new" / "trimap.png").format == "PNG"
    said = capsys.readouterr().out
    mean, table, plot = (
        said.index("\nmean_iou: "),
        said.index("\nwidth  boundary  interior\n"),
        said.index("\nplot: "),
    )
    assert mean < table < plot
    near = of_run["trimap"]["boundary"][0]
    assert said[table:plot].splitlines()[2].split()[:2] == ["1", f"{near:.3f}"]
    assert evaluate(out, place, tmp_path) == of_run


def test_ground_truth_is_right_everywhere(place: Path, tmp_path: Path) -> None:
    trimap = evaluate(place / "maps" / "labels", place, tmp_path)["trimap"]
    assert set(trimap["boundary"]) == {1.0}
    assert set(trimap["interior"]) <= {1.0, None}


def test_no_trimap_without_the_flag(place: Path, tmp_path: Path, capsys) -> None:
    words = ["evaluate", str(place / "run"), str(place / "maps"), "--json", str(tmp_path / "a.json")]
    assert main(words) == 0
    assert "trimap" not in json.loads((tmp_path / "a.json").read_text())
    assert "boundary" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("subject", "png", "code", "said"),
    [
        ("boxcaseg", "a.png", 2, "--trimap does nothing here, since boxcaseg is a model"),
        ("run", ".", 2, "is a folder; name a file to write"),
        ("run", "a.what", 1, "a.what: '.what' is not an image format"),
    ],
)
def test_errors_are_one_sentence(place: Path, tmp_path: Path, capsys, subject, png, code, said) -> None:
    subject = str(place / "run") if subject == "run" else subject
    assert main(["evaluate", subject, str(place / "maps"), "--trimap", str(tmp_path / png)]) == code
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error
