"""`boxel next` and `boxel label --guarantee`, from boxes to guaranteed masks, through the command line."""

import json
import shlex
from dataclasses import replace

import numpy as np
import pytest

import boxel
from boxel.cli import main
from boxel.data import write
from boxel.data.synthetic import write_scenes

pytestmark = pytest.mark.slow


def run(*words):
    return main([str(word) for word in words])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with `scenes`, and `masks.json` of them."""
    folder = tmp_path_factory.mktemp("next")
    write_scenes(folder / "scenes", 70, height=64, width=96)
    words = ["--images", folder / "scenes" / "images", "--teacher", "ellipse", "--out", folder / "masks.json"]
    assert run("label", folder / "scenes" / "boxes.json", *words) == 0
    return folder


def test_next_lists_masks_as_text_and_json_and_writes_them(folder, tmp_path, capsys):
    words = ["next", folder / "masks.json", "--images", folder / "scenes" / "images", "--count", "4"]
    assert run(*words, "--out", tmp_path / "next.json") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["file", "id", "class", "quality", "reason"] and len(lines) == 6
    assert lines[-1] == f"written to {tmp_path / 'next.json'}"
    assert run(*words, "--json", "-") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [line.split()[:2] for line in lines[1:5]] == [[row["file"], str(row["id"])] for row in rows]
    assert all(0 <= row["quality"] <= 1 and row["reason"] for row in rows)
    found = boxel.read(tmp_path / "next.json")
    assert {found.ids[k] for k in np.flatnonzero(found.has_mask)} == {row["id"] for row in rows}
    assert run(*words, "--count", "0") == 2
    assert run(*words, "--out", tmp_path / "next.txt") == 2


def test_a_random_sample_is_corrected_and_guarantees_masks(folder, tmp_path, capsys, monkeypatch):
    boxes, images = folder / "scenes" / "boxes.json", folder / "scenes" / "images"
    sample = tmp_path / "sample.json"
    draw = ["next", folder / "masks.json", "--images", images, "--random", "--count"]
    assert run(*draw, "25", "--out", sample) == 0
    words = ["label", boxes, "--images", images, "--teacher", "ellipse", "--guarantee", "0.3"]
    assert run(*words, "--out", tmp_path / "few.json", "--calibrate", sample) == 1
    err = capsys.readouterr().err
    assert "a --guarantee needs at least 29 true masks" in err and "correct at least 4 more" in err
    # The next draw goes with what was corrected so far, through the format of an annotation tool.
    assert run("convert", sample, tmp_path / "tool", "--to", "labelme", "--images", images) == 0
    assert run(*draw, "40", "--checked", tmp_path / "tool", "--out", tmp_path / "more.json") == 0
    truth = boxel.read(folder / "scenes" / "masks.json", images=images)
    more = boxel.read(tmp_path / "more.json", images=images)
    assert more.has_mask.sum() == 65
    true = {id: segmentation for id, segmentation in zip(truth.ids, truth.segmentations, strict=True)}
    drawn = [true[id] if mask else None for id, mask in zip(more.ids, more.has_mask, strict=True)]
    write(replace(more, segmentations=np.array(drawn, dtype=object)), tmp_path / "corrected.json")
    capsys.readouterr()
    out = tmp_path / "guaranteed.json"
    assert run(*words, "--out", out, "--calibrate", tmp_path / "corrected.json") == 0
    lines = capsys.readouterr().out.splitlines()
    assert (
        "masks that nobody checked are guaranteed: with 95% confidence, at least 90% of them have an IoU of at "
        "least 0.3, if the true masks were drawn at random from the dataset, or from one like it (quality"
        in lines[0]
    )
    made = boxel.read(out)
    same = {id: k for k, id in enumerate(truth.ids)}
    unchecked = np.array([source is not None for source in made.source])
    assert (~unchecked).sum() == 65 and made.trusted[~unchecked].all()  # which are kept
    trusted = np.flatnonzero(made.trusted & unchecked)
    pairs = [(made.mask(k), truth.mask(same[made.ids[k]])) for k in trusted]
    good = [(a & b).sum() >= 0.3 * (a | b).sum() for a, b in pairs]
    assert 0 < len(trusted) < unchecked.sum() and np.mean(good) >= 0.9
    assert f"{len(trusted)} masks that nobody checked are guaranteed" in lines[0]
    # The command that the summary names runs.
    monkeypatch.chdir(tmp_path)
    follow = next(line for line in lines if line.startswith("next: boxel next "))
    assert run(*shlex.split(follow.removeprefix("next: boxel "))) == 0
    assert (tmp_path / "next.json").exists()


def test_unlike_images_name_what_to_correct(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images, out = folder / "scenes" / "images", tmp_path / "masks.json"
    words = [
        "label",
        folder / "scenes" / "boxes.json",
        "--images",
        images,
        "--teacher",
        "ellipse",
        "--out",
        out,
    ]
    monkeypatch.setattr("boxel.labeling.runner.MAX_DISTANCE", 0.1)
    assert run(*words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "these images are unlike those that the quality was calibrated on" in lines[0]
    follow = next(line for line in lines if line.startswith("next: boxel next "))
    assert "--random --count 20" in follow
    assert run(*shlex.split(follow.removeprefix("next: boxel "))) == 0
    assert boxel.read(tmp_path / "next.json").has_mask.sum() == 20
    # Calibrated on true masks, they are no longer unlike.
    truth = boxel.read(folder / "scenes" / "masks.json", images=images)
    write(truth.keep_masks(np.arange(60)), tmp_path / "corrected.json")
    monkeypatch.setattr("boxel.labeling.runner.MAX_DISTANCE", 2.0)
    assert run(*words, "--calibrate", tmp_path / "corrected.json") == 1  # the settings of this job differ
    assert run(*words[:-1], tmp_path / "other.json", "--calibrate", tmp_path / "corrected.json") == 0
    assert "images are unlike" not in capsys.readouterr().out
