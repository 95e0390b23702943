"""`boxel draw`."""

import json
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
from PIL import Image

from boxel.cli import main
from boxel.data import Category, write
from boxel.data.synthetic import write_scenes
from boxel.models import io
from boxel.models.boxinst import BoxInstConfig


@pytest.fixture
def scenes(tmp_path):
    return write_scenes(tmp_path / "scenes", 3, height=64, width=96)


def draw(tmp_path, *words):
    """Run the command in a folder; paths are relative to it."""
    given = [str(tmp_path / word) if "/" in word or "." in word else word for word in words]
    return main(["draw", *given])


def drawings(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg"))


def make_results(data, images, **fields):
    """A result of the first category for each image."""
    row = {"category_id": data.categories[0].id, "bbox": [4, 4, 40, 40], "score": 0.9}
    rows = [{**row, "image_id": data.image_ids[k], "file_name": data.paths[k]} for k in images]
    return [{**row, **fields} for row in rows]


def test_draw_writes_a_drawing_per_image_and_reports_missing_images(tmp_path, capsys, scenes):
    words = ["scenes/masks.json", "--out", "./drawn"]
    assert draw(tmp_path, *words) == 0
    assert f"3 of 3 images drawn: {tmp_path / 'drawn'}" in capsys.readouterr().out
    assert len(drawings(tmp_path / "drawn")) == 3
    for count in (1, 2):
        scenes.image_path(count - 1).unlink()
        assert draw(tmp_path, *words) == 1
        captured = capsys.readouterr()
        assert f"{3 - count} of 3 images drawn" in captured.out
        assert captured.err == (
            f"warning: images are missing ({count} of 3), the first is "
            f"{scenes.image_path(0)}; name their folder with --images.\n"
        )


def test_a_broken_image_costs_only_itself(tmp_path, capsys, scenes):
    scenes.image_path(1).write_bytes(b"no image")
    assert draw(tmp_path, "scenes/boxes.json", "--out", "./drawn") == 1
    captured = capsys.readouterr()
    assert "2 of 3 images drawn" in captured.out
    assert (
        captured.err.count("\n") == 1
        and f"{scenes.image_path(1)}: the image cannot be decoded" in captured.err
    )


def test_drawings_of_other_images_in_the_folder_are_announced(tmp_path, capsys, scenes):
    (tmp_path / "drawn").mkdir()
    (tmp_path / "drawn" / "old.jpg").touch()
    words = ["scenes/masks.json", "--out", "./drawn"]
    assert draw(tmp_path, *words) == 0
    assert "drawn has 1 other drawings, e.g. old.jpg, which stay there" in capsys.readouterr().err
    (tmp_path / "drawn" / "old.jpg").unlink()
    assert draw(tmp_path, *words) == 0 and "other drawings" not in capsys.readouterr().err


def test_no_detections_are_stated(tmp_path, capsys, scenes):
    results = tmp_path / "results.json"
    results.write_text("[]")
    for words in (
        ["scenes/boxes.json", "--results", "./results.json"],
        ["./results.json", "--images", "./scenes"],
    ):
        assert draw(tmp_path, *words, "--out", "./drawn") == 0
        assert capsys.readouterr().out == f"{results} has no detections; nothing is drawn.\n"
    assert not (tmp_path / "drawn").exists()


def test_detections_are_drawn_on_the_images_of_a_dataset(tmp_path, scenes):
    (tmp_path / "results.json").write_text(json.dumps(make_results(scenes, [1])))
    assert draw(tmp_path, "scenes/boxes.json", "--results", "./results.json", "--out", "./drawn") == 0
    assert drawings(tmp_path / "drawn") == ["000001.jpg"]


def test_a_results_file_is_recognized_and_finds_its_images(tmp_path, capsys, scenes):
    rows = [
        *make_results(scenes, [0, 1]),
        *make_results(scenes, [2], image_id=2, file_name=None),
    ]  # its number
    (tmp_path / "results.json").write_text(json.dumps(rows))
    assert draw(tmp_path, "./results.json", "--out", "./drawn") == 2
    assert "give their folder as --images" in capsys.readouterr().err
    assert draw(tmp_path, "./results.json", "--images", "scenes/images", "--out", "./drawn") == 0
    assert drawings(tmp_path / "drawn") == ["000000.jpg", "000001.jpg", "000002.jpg"]


def test_results_of_other_images_are_reported_with_the_name_of_the_file(tmp_path, capsys, scenes):
    rows = [*make_results(scenes, [1]), *make_results(scenes, [1], image_id=77, file_name="other.png")]
    (tmp_path / "found.json").write_text(json.dumps(rows))
    assert draw(tmp_path, "./found.json", "--truth", "scenes/masks.json", "--out", "./drawn") == 0
    assert f"warning: {tmp_path / 'found.json'}: 1 of 2 results " in capsys.readouterr().err


def test_results_beside_the_truth_show_images_without_detections_too(tmp_path, scenes):
    (tmp_path / "results.json").write_text(json.dumps(make_results(scenes, [1])))
    words = ["./results.json", "--truth", "scenes/masks.json", "--out", "./drawn"]
    assert draw(tmp_path, *words, "--sheet", "./sheet.jpg") == 0
    assert drawings(tmp_path / "drawn") == ["000000.jpg", "000001.jpg", "000002.jpg"]
    with Image.open(tmp_path / "drawn" / "000000.jpg") as panels:
        assert panels.width > 1.9 * panels.height  # of two images of 3:2, and a caption
    assert (tmp_path / "sheet.jpg").exists()


def test_the_truth_needs_no_images(tmp_path, capsys, scenes):
    for folder in ("a", "b"):  # either may be those of the truth
        shutil.copytree(scenes.root, tmp_path / "both" / folder)
    shutil.copy(scenes.file, tmp_path / "both" / "truth.json")
    assert draw(tmp_path, "scenes/masks.json", "--truth", "both/truth.json", "--out", "./drawn") == 0
    assert capsys.readouterr().err == ""


def test_the_worst_and_the_number_of_images_can_be_chosen(tmp_path, capsys, scenes):
    rows = [
        {**row, "score": score}
        for row, score in zip(make_results(scenes, range(3)), (0.9, 0.1, 0.5), strict=True)
    ]
    (tmp_path / "results.json").write_text(json.dumps(rows))
    words = ["./results.json", "--images", "scenes/images"]
    assert draw(tmp_path, *words, "--worst", "2", "--out", "./worst") == 0
    assert drawings(tmp_path / "worst") == ["000001.jpg", "000002.jpg"]
    assert draw(tmp_path, *words, "--count", "1", "--out", "./first") == 0
    assert drawings(tmp_path / "first") == ["000000.jpg"]
    assert draw(tmp_path, "scenes/boxes.json", "--worst", "2", "--out", "./none") == 2
    assert "--worst does nothing here" in capsys.readouterr().err


def test_a_sheet_alone_needs_no_folder(tmp_path, monkeypatch, scenes):
    monkeypatch.chdir(tmp_path)
    assert draw(tmp_path, "scenes/masks.json", "--sheet", "./sheet.png") == 0
    assert not (tmp_path / "drawn").exists()
    assert np.asarray(Image.open(tmp_path / "sheet.png")).shape[2] == 3


def test_settings_change_the_drawing(tmp_path, scenes):
    images = set()
    settings = [
        [],
        ["--color-by", "instance"],
        ["--style", "outline"],
        ["--no-labels"],
        ["--no-boxes"],
        ["--line-width", "9"],
    ]
    for number, words in enumerate(settings):
        assert draw(tmp_path, "scenes/masks.json", "--count", "1", "--out", f"./{number}", *words) == 0
        images.add((tmp_path / str(number) / "000000.jpg").read_bytes())
    assert len(images) == len(settings)


def test_the_folder_of_the_images_is_refused(tmp_path, capsys, scenes):
    before = scenes.image_path(0).read_bytes()
    for out in ("scenes/images", "./scenes"):
        assert draw(tmp_path, "scenes/masks.json", "--out", out) == 2
        assert "holds the images" in capsys.readouterr().err
    assert scenes.image_path(0).read_bytes() == before
    assert drawings(tmp_path / "scenes") == []


@pytest.mark.parametrize("format", ["yolo", "labelme", "voc"])
def test_other_formats_are_drawn(tmp_path, format, scenes):
    target = tmp_path / format
    assert main(["convert", str(tmp_path / "scenes/masks.json"), str(target), "--to", format]) == 0
    assert draw(tmp_path, f"./{format}", "--out", "./drawn") == 0
    assert len(drawings(tmp_path / "drawn")) == 3


@pytest.fixture
def run(tmp_path, tiny_boxinst):
    """A run with random weights, which finds four objects in each image, all with low scores."""
    model = asdict(BoxInstConfig(**tiny_boxinst, score_threshold=0.0, max_detections=4))
    record = {"method": "boxinst", "model": model, "augment": {"short_sides": [64], "max_size": 96}}
    io.save(
        io.build("boxinst", 2, model).eval(),
        tmp_path / "run",
        record,
        (Category(1, "disc"), Category(2, "b")),
    )
    return tmp_path / "run"


def test_a_run_is_drawn_on_images(tmp_path, capsys, scenes, run):
    (tmp_path / "scenes/images/torn.png").write_bytes(b"no image")
    assert draw(tmp_path, "./run", "--out", "./drawn") == 2
    assert "give the folder of the images to predict on as --images" in capsys.readouterr().err
    words = ["./run", "--images", "scenes/images"]
    assert draw(tmp_path, *words, "--class-list", "voc", "--out", "./none") == 2
    assert "--class-list is for label maps, and " in capsys.readouterr().err
    assert draw(tmp_path, *words, "--out", "./confident") == 1
    assert "3 of 4 images drawn" in capsys.readouterr().out
    assert draw(tmp_path, *words, "--out", "./all", "--min-score", "0", "--count", "1") == 0
    assert drawings(tmp_path / "all") == ["000000.jpg"]
    with (
        Image.open(tmp_path / "all/000000.jpg") as all,
        Image.open(tmp_path / "confident/000000.jpg") as none,
    ):
        assert np.ptp(np.asarray(all), axis=2).mean() > np.ptp(np.asarray(none), axis=2).mean()
    (run / "score_thresholds.json").write_text('{"all": 0, "by_class": {}}')
    capsys.readouterr()
    assert draw(tmp_path, *words, "--out", "./best", "--count", "1") == 0
    assert "minimum scores in drawings: all classes 0.00" in capsys.readouterr().err
    assert (tmp_path / "best/000000.jpg").read_bytes() == (tmp_path / "all/000000.jpg").read_bytes()


def test_a_run_is_drawn_beside_the_truth(tmp_path, scenes, run):
    words = ["./run", "--truth", "scenes/masks.json", "--out", "./drawn", "--min-score", "0", "--worst", "2"]
    assert draw(tmp_path, *words) == 0
    assert len(drawings(tmp_path / "drawn")) == 2


def test_label_maps_of_a_semantic_run_are_drawn(tmp_path, place):
    words = [str(place / "run"), "--images", str(place / "maps/images"), "--out", str(tmp_path / "drawn")]
    assert main(["draw", *words]) == 0
    assert len(drawings(tmp_path / "drawn")) == 4
    assert main(["draw", words[0], "--truth", str(place / "maps"), "--sheet", str(tmp_path / "s.png")]) == 0


def test_scores_of_a_dataset_are_drawn_as_quality(tmp_path, scenes):
    content = json.loads((tmp_path / "scenes/masks.json").read_text())
    for number, row in enumerate(content["annotations"]):
        row["score"] = 1 - number / 100
    (tmp_path / "scenes/scored.json").write_text(json.dumps(content))
    assert draw(tmp_path, "scenes/scored.json", "--worst", "1", "--out", "./drawn") == 0
    assert drawings(tmp_path / "drawn") == ["000002.jpg"]


def test_a_bundled_model_is_drawn_by_its_name_and_needs_boxes(tmp_path, capsys, scenes):
    words = ["boxcaseg", "--sheet", "./sheet.png"]
    assert draw(tmp_path, *words, "--images", "scenes/images") == 2
    assert (
        "boxcaseg predicts masks of given boxes; give annotations with boxes as --truth."
        in capsys.readouterr().err
    )
    assert draw(tmp_path, "nothing", "--images", "scenes/images") == 1
    assert capsys.readouterr().err == "boxel: nothing: there is no such file or folder; check the path.\n"
    pytest.importorskip("torch")
    assert draw(tmp_path, *words, "--truth", "scenes/masks.json") == 0
    assert "3 of 3 images drawn: contact sheet" in capsys.readouterr().out


@pytest.mark.slow
def test_masks_of_given_boxes_keep_their_categories(tmp_path, scenes):
    from boxel.evaluation.drawing import _predict

    names = ["background", *(category.name for category in scenes.categories[1:])]
    categories = tuple(replace(c, name=name) for c, name in zip(scenes.categories, names, strict=True))
    truth = replace(scenes, categories=categories)
    paths = [scenes.image_path(image) for image in range(len(scenes))]
    made = _predict("boxcaseg", paths, truth, tmp_path, [])
    assert [category.name for category in made.categories] == names
    assert sorted(made.labels.tolist()) == sorted(scenes.labels.tolist())


def test_a_class_list_is_for_the_label_maps_beside_another_truth(tmp_path, scenes):
    with pytest.warns(UserWarning, match="a semantic dataset has no instances"):
        write(scenes, tmp_path / "maps", format="semantic")
    (tmp_path / "maps/classes.txt").rename(tmp_path / "names.txt")
    words = ["--class-list", "names.txt", "--truth", "scenes/masks.json", "--out", "./drawn"]
    assert draw(tmp_path, "./maps", *words) == 0 and len(drawings(tmp_path / "drawn")) == len(scenes)
