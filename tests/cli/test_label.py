"""`boxel label` and BoxCaseg through the command line."""

import json
import os
import shutil
import sys

import pytest
import yaml

import boxel
from boxel.cli import main
from boxel.data import write
from boxel.data.synthetic import write_scenes

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_boxcaseg):
    """A folder with `scenes` and the `run` of a BoxCaseg that was trained on them by the command line."""
    folder = tmp_path_factory.mktemp("cli")
    scenes = write_scenes(folder / "scenes", 4, height=64, width=96)
    single = scenes.select_instances([scenes.instances_in(image)[0] for image in range(4)])
    write(single, folder / "salient.json")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(tiny_boxcaseg))
    words = ["train", "boxcaseg", folder / "scenes" / "boxes.json", "--images", folder / "scenes" / "images"]
    words += [
        "--salient",
        folder / "salient.json",
        "--config",
        folder / "tiny.yaml",
        "--out",
        folder / "run",
    ]
    assert main([str(word) for word in words]) == 0
    return folder


def run(*words):
    return main([str(word) for word in words])


def test_label_writes_masks_exports_and_a_report_and_resumes(folder, tmp_path, capsys, monkeypatch):
    boxes, images = folder / "scenes" / "boxes.json", folder / "scenes" / "images"
    words = ["label", boxes, "--images", images, "--out", tmp_path / "m.json", "--teacher", "grabcut-ellipse"]
    more = ["--to", "yolo", "--report", tmp_path / "page.html"]
    monkeypatch.setattr(sys, "argv", ["/usr/bin/boxel", *map(str, [*words, *more])])
    assert main() == 0
    said = capsys.readouterr().out
    made = boxel.read(tmp_path / "m.json")
    given = boxel.read(boxes, images=images)
    count = len(given.labels)
    assert f"{count} of {count} boxes in 4 images got a mask; mean quality of these masks 0." in said
    assert made.has_mask.all() and made.ids == given.ids and set(made.source) == {"grabcut-ellipse"}
    assert ((made.quality > 0) & (made.quality < 1)).all()
    assert boxel.read(tmp_path / "m_yolo").has_mask.sum() == len(given.labels)
    page = (tmp_path / "page.html").read_text()
    assert (
        f"{count} of {count} boxes in 4 images got a mask" in page and f"<code>boxel label {boxes} " in page
    )
    # The same command again has nothing left to do.
    assert run(*words) == 0
    assert "4 of 4 images are labeled already" in capsys.readouterr().err
    assert run(*words, "--report", boxes) == 2
    assert "with .html or .htm" in capsys.readouterr().err and boxel.read(boxes).ids == given.ids
    # Another setting would mix two kinds of masks in one file.
    assert run(*words, "--box-slack", "0.1") == 1
    assert "box_slack was 0.0 and is 0.1" in capsys.readouterr().err


def test_a_trained_model_labels_and_is_evaluated(folder, tmp_path, capsys):
    boxes, images = folder / "scenes" / "boxes.json", folder / "scenes" / "images"
    truth = folder / "scenes" / "masks.json"
    out = tmp_path / "m.json"
    assert run("label", boxes, "--images", images, "--out", out, "--teacher", folder / "run", "--flip") == 0
    metrics = [tmp_path / "set.json", tmp_path / "run.json"]
    assert run("evaluate", out, truth, "--images", images, "--json", metrics[0]) == 0
    words = [
        "evaluate",
        folder / "run",
        truth,
        "--images",
        images,
        "--baselines",
        "box",
        "--json",
        metrics[1],
    ]
    assert run(*words) == 0
    assert run(*words, "--results", tmp_path / "r.json") == 2
    said = capsys.readouterr()
    assert "is a model that predicts masks of given boxes" in said.err
    said = said.out
    assert "mask_iou  IoU@50  IoU@75" in said
    of_set, of_run = (json.loads(file.read_text()) for file in metrics)
    assert set(of_run) == {"masks", "box", "info"}
    # Each box is that of an object, which fills some part of it; both evaluations use the same boxes.
    assert 0.3 < of_run["box"]["mask_iou"] < 1
    assert of_set["masks"]["instances"] == of_run["masks"]["instances"]


def test_predict_segments_given_boxes(folder, tmp_path, capsys):
    images = folder / "scenes" / "images"
    boxes = boxel.read(folder / "scenes" / "boxes.json", images=images)
    out = tmp_path / "p.json"
    words = ["predict", folder / "run", images, "--out", out]
    assert run(*words, "--boxes", folder / "scenes" / "boxes.json", "--draw", tmp_path / "drawn") == 0
    results = json.loads(out.read_text())
    assert len(results) == len(boxes.labels)
    assert sorted(tuple(row["bbox"]) for row in results) == sorted(
        (x0, y0, x1 - x0, y1 - y0) for x0, y0, x1, y1 in boxes.boxes.tolist()
    )
    assert len(list((tmp_path / "drawn").iterdir())) == 4
    capsys.readouterr()
    assert run(*words) == 2
    assert "either --boxes or --detector" in capsys.readouterr().err
    # A flag without effect is refused.
    assert run(*words, "--boxes", folder / "scenes" / "boxes.json", "--flip") == 2
    assert (
        "--flip does nothing here, since masks are predicted for the given --boxes" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["label", "missing.json"], 1, "missing.json"),
        (["label", "BOXES", "--teacher", "grabcat"], 2, "Did you mean 'grabcut'?"),
        (["label", "BOXES", "--out", "masks.txt"], 2, "end its name in .json"),
        (["adapt", "BOXES", "--minutes", "0"], 2, "--minutes is 0; give a number above 0"),
        (["label", "BOXES", "--out", "OUT", "--to", "jolo"], 2, "Did you mean 'yolo'?"),
        (["label", "BOXES", "--out", "OUT", "--drop", "2"], 2, "--drop is 2; give a number from 0 to 1."),
        (["train", "boxinst", "BOXES", "--salient", "x"], 2, "no flag '--salient'"),
    ],
)
def test_errors_are_one_sentence(folder, tmp_path, capsys, words, code, message):
    names = {"BOXES": folder / "scenes" / "boxes.json", "OUT": tmp_path / "m.json"}
    assert run(*(names.get(word, word) for word in words)) == code
    err = capsys.readouterr().err
    assert message in err and err.count("\n") <= 1


def test_missing_images_are_one_sentence_with_the_flag(tmp_path, capsys):
    write_scenes(tmp_path / "scenes", 3, height=64, width=96)
    boxes = (tmp_path / "scenes" / "boxes.json").rename(tmp_path / "boxes.json")
    shutil.rmtree(tmp_path / "scenes")  # near the boxes they would be found
    assert run("label", boxes, "--out", tmp_path / "m.json", "--teacher", "ellipse") == 1
    err = capsys.readouterr().err
    assert err.startswith(f"boxel: {boxes}: none of its 3 images can be labeled; images are missing (3 of 3)")
    assert err.endswith("; name their folder with --images.\n") and err.count("\n") == 1
    assert run("check", boxes) == 1
    assert "name their folder with --images" in capsys.readouterr().out


def test_a_dataset_without_boxes_is_a_warning(tmp_path, capsys):
    (tmp_path / "empty.json").write_text('{"images": [], "annotations": [], "categories": []}')
    assert run("label", tmp_path / "empty.json", "--out", tmp_path / "m.json", "--teacher", "ellipse") == 0
    captured = capsys.readouterr()
    assert "empty.json: there are no boxes in it; check that it is the right file" in captured.err
    assert "0 of 0 boxes in 0 images got a mask\n" in captured.out


def test_a_dataset_none_of_whose_boxes_can_be_used_is_an_error(tmp_path, capsys):
    boxes = [{"id": 1, "image_id": 1, "category_id": 1, "boxes": [1, 2, 3, 4]}]
    images = [{"id": 1, "file_name": "a.jpg", "width": 9, "height": 9}]
    file = tmp_path / "boxes.json"
    file.write_text(
        json.dumps({"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "cat"}]})
    )
    assert run("label", file, "--out", tmp_path / "m.json", "--teacher", "ellipse") == 1
    assert "boxes.json: none of its boxes can be used; `boxel check` states why." in capsys.readouterr().err
    assert not (tmp_path / "m.json").exists()


def test_what_is_wrong_with_the_boxes_is_stated_of_the_input_alone(tmp_path, capsys):
    write_scenes(tmp_path / "scenes", 12, height=64, width=96)
    file = tmp_path / "scenes" / "boxes.json"
    content = json.loads(file.read_text())
    for row in content["annotations"]:
        x, y, width, height = row["bbox"]
        row["bbox"] = [x, y, x + width, y + height]
    file.write_text(json.dumps(content))
    assert run("label", file, "--out", tmp_path / "m.json", "--teacher", "ellipse", "--to", "yolo") == 0
    err = capsys.readouterr().err
    assert err.count("are written as x0, y0, x1, y1") == 1 and "partial" not in err


def test_a_folder_without_permission_is_named(tmp_path, capsys, monkeypatch):
    write_scenes(tmp_path / "scenes", 1, height=64, width=96)
    boxes, folder = tmp_path / "scenes" / "boxes.json", tmp_path / "locked"
    folder.mkdir()
    # The tests may run as root, who may write anywhere.
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != folder and access(path, mode))
    for command in (["label", boxes, "--out"], ["convert", boxes]):
        assert run(*command, folder / "m.json") == 1
        assert capsys.readouterr().err.splitlines()[-1] == (
            f"boxel: {folder / 'm.json'}: cannot be written (no permission to write into {folder}); check the folder."
        )
    assert not list(folder.iterdir())
