"""Prediction on files: COCO results, label maps and drawings; bad images cost only themselves."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from boxel.data import read
from boxel.data.sources import to_image
from boxel.models.boxcaseg import BoxCaseg, BoxCasegConfig
from boxel.models.boxinst import BoxInst, BoxInstConfig
from boxel.models.fcrn import FCRN, FCRNConfig
from boxel.models.prediction import drawing_names, image_ids, iter_predictions, label_map_names, predict
from boxel.utils.errors import BoxelError, UsageError

TINY = {"backbone": "tf_efficientnet_lite0", "weights": "none"}


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """A folder of two images and a broken one."""
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for name in ("7", "street"):
        Image.fromarray(random.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(folder / f"{name}.png")
    (folder / "torn.png").write_bytes((folder / "7.png").read_bytes()[:300])
    return folder


@pytest.fixture(scope="module")
def detector(tiny_boxinst: dict[str, Any]) -> BoxInst:
    torch.manual_seed(0)
    model = BoxInst(3, BoxInstConfig(**tiny_boxinst, score_threshold=0.0, max_detections=4))
    model.settings = {"augment": {"short_sides": [48], "max_size": 64}}
    return model.eval()


@pytest.fixture(scope="module")
def boxcaseg() -> BoxCaseg:
    return BoxCaseg(BoxCasegConfig(**TINY, neck="top_down", neck_channels=8, side=32)).eval()


def test_a_detector_writes_results_and_drawings(detector, images, tmp_path, caplog) -> None:
    summary = predict(detector, images, tmp_path / "out" / "p.json", tmp_path / "drawn", draw_score=0.0)
    rows = json.loads((tmp_path / "out" / "p.json").read_text())
    assert (summary.images, summary.requested, summary.instances) == (2, 3, len(rows))
    assert {(row["image_id"], row["file_name"]) for row in rows} == {(7, "7.png"), ("street", "street.png")}
    assert {path.name for path in (tmp_path / "drawn").iterdir()} == {"7.jpg", "street.jpg"}
    assert len(summary.errors) == len(caplog.records) == 1 and "torn.png" in summary.errors[0]
    assert str(summary).startswith("8 instances in 2 images (skipped 1 of 3): ") and "drawn in" in str(
        summary
    )


def test_a_folder_gives_what_each_image_gives_alone(detector, tmp_path) -> None:
    random = np.random.default_rng(0)
    for index in range(7):
        size = (40 + 3 * index, 70 - 2 * index, 3)
        Image.fromarray(random.integers(0, 256, size, dtype=np.uint8)).save(tmp_path / f"{index}.png")
    paths = sorted(tmp_path.glob("*.png"))
    alone = [row for path in paths for row in detector.predict(path).to_coco()]
    predict(detector, tmp_path, tmp_path / "p.json", tmp_path / "drawn", draw_score=0.0)
    found = json.loads((tmp_path / "p.json").read_text())
    assert [{key: row[key] for key in alone[0]} for row in found] == json.loads(json.dumps(alone))
    for path in paths:
        detector.predict(path).save(tmp_path / "one.jpg")
        assert (tmp_path / "one.jpg").read_bytes() == (tmp_path / "drawn" / f"{path.stem}.jpg").read_bytes()


def test_predictions_that_nobody_takes_are_not_made(detector, images, monkeypatch) -> None:
    read: list[Path] = []
    monkeypatch.setattr("boxel.models.prediction.to_image", lambda path: read.append(path) or to_image(path))
    predictions = iter_predictions(detector, [images / "7.png"] * 50)
    assert next(predictions).index == 0
    predictions.close()
    assert len(read) <= 5


def test_a_drawing_that_cannot_be_written_ends_the_job(detector, images, tmp_path) -> None:
    (tmp_path / "drawn").mkdir()
    (tmp_path / "drawn" / "7.jpg").mkdir()
    with pytest.raises(BoxelError, match=r"7\.jpg"):
        predict(detector, images / "7.png", tmp_path / "p.json", tmp_path / "drawn")


def test_drawings_use_the_score_thresholds_of_the_training(
    detector, images, tmp_path, caplog, monkeypatch
) -> None:
    caplog.set_level("INFO", logger="boxel")
    predict(detector, images, tmp_path / "all.json")
    scores = sorted(row["score"] for row in json.loads((tmp_path / "all.json").read_text()))
    below = int(np.diff(scores).argmax()) + 1
    middle = (scores[below - 1] + scores[below]) / 2
    monkeypatch.setitem(detector.settings, "score_thresholds", {"all": middle, "by_class": {}})
    summary = predict(detector, images, tmp_path / "p.json")
    assert (summary.instances, summary.confident) == (8, 8 - below)
    assert f"; {8 - below} with the model's score threshold or more" in str(summary)
    assert f"minimum scores in drawings: all classes {middle:.2f}" in caplog.text
    assert predict(detector, images, tmp_path / "p.json", draw_score=0.0).confident == 8
    assert predict(detector, images, tmp_path / "p.json", score_threshold="best").instances == 8 - below
    monkeypatch.delitem(detector.settings, "score_thresholds")
    with pytest.raises(UsageError, match="`draw_score` is best, but the model has no score thresholds"):
        predict(detector, images, draw_score="best")


def test_images_are_never_drawn_over(detector, images) -> None:
    before = (images / "7.png").read_bytes()
    with pytest.raises(UsageError, match=r"holds the images .* as `draw`"):
        predict(detector, images, images / "p.json", images)
    with pytest.raises(UsageError, match=r"holds the images .* as `out`"):
        predict(FCRN(3, FCRNConfig(**TINY, kernel=3, dilation=1)).eval(), images, images)
    assert (images / "7.png").read_bytes() == before and not (images / "p.json").exists()


def test_a_source_without_images_is_an_error_of_its_own(detector, images, tmp_path) -> None:
    sources = [images / "7.png", images / "gone.png"]
    summary = predict(detector, sources, tmp_path / "p.json")
    assert (summary.images, summary.requested) == (1, 1) and "gone.png" in summary.errors[0]


def test_a_semantic_model_writes_label_maps(images, tmp_path) -> None:
    model = FCRN(3, FCRNConfig(**TINY, kernel=3, dilation=1)).eval()
    summary = predict(model, images, tmp_path / "maps", tmp_path / "drawn", flip=True)
    assert Image.open(tmp_path / "maps" / "7.png").size == (64, 48)
    assert summary.instances is None and str(summary).startswith("label maps of 2 of 3 images")
    assert len(list((tmp_path / "drawn").iterdir())) == 2


def test_boxcaseg_segments_the_boxes_of_a_detector_or_of_annotations(
    detector, boxcaseg, images, tmp_path
) -> None:
    out = tmp_path / "p.json"
    assert predict(boxcaseg, images, out, detector=detector).instances == 8
    annotated = {
        "images": [{"id": 1, "file_name": "7.png", "width": 64, "height": 48}],
        "annotations": [
            {"id": k, "image_id": 1, "category_id": 4, "bbox": [8 * k, 8, 16, 16], "iscrowd": k // 3}
            for k in (1, 2, 3)
        ],
        "categories": [{"id": 4, "name": "cat"}],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(annotated))
    summary = predict(boxcaseg, images, out, boxes=read(tmp_path / "boxes.json", images=images))
    rows = json.loads(out.read_text())
    assert [row["category_id"] for row in rows] == [4, 4]
    assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
    assert len(summary.errors) == 2 and "no image of this name" in " ".join(summary.errors)


def test_boxes_are_found_by_path_if_names_repeat(boxcaseg, images, tmp_path) -> None:
    """`a/1.png` and `b/1.png` have boxes of different classes; a third image of this name has none."""
    rows = [
        {"id": k, "file_name": f"{name}/1.png", "width": 64, "height": 48} for k, name in ((1, "a"), (2, "b"))
    ]
    boxes = [{"id": k, "image_id": k, "category_id": k, "bbox": [8, 8, 16, 16]} for k in (1, 2)]
    classes = [{"id": k, "name": f"class {k}"} for k in (1, 2)]
    for name in "abc":
        (tmp_path / "photos" / name).mkdir(parents=True)
        (tmp_path / "photos" / name / "1.png").write_bytes((images / "7.png").read_bytes())
    (tmp_path / "boxes.json").write_text(
        json.dumps({"images": rows, "annotations": boxes, "categories": classes})
    )
    annotated = read(tmp_path / "boxes.json", images=tmp_path / "photos")
    summary = predict(boxcaseg, tmp_path / "photos", tmp_path / "p.json", boxes=annotated)
    assert [row["category_id"] for row in json.loads((tmp_path / "p.json").read_text())] == [1, 2]
    assert len(summary.errors) == 1 and "c/1.png: " in summary.errors[0] and "or several" in summary.errors[0]


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        ("detector", {"shifts": 2}, "`shifts` does nothing here, since BoxInst is not a semantic model"),
        ("detector", {"detector": "boxcaseg"}, "BoxInst predicts without boxes; remove `detector`"),
        ("detector", {"conf": 0.5}, "did you mean 'score_threshold'?"),
        ("detector", {"batch_size": 0}, "`batch_size` is 0"),
        ("boxcaseg", {}, "BoxCaseg predicts masks for given boxes; give either `boxes` or `detector`"),
    ],
)
def test_arguments_without_effect_are_refused(detector, boxcaseg, images, kind, arguments, message) -> None:
    model = {"detector": detector, "boxcaseg": boxcaseg}[kind]
    with pytest.raises(UsageError) as error:
        predict(model, images, **arguments)
    assert message in str(error.value)


def test_ids_and_names_are_paths_if_two_files_have_the_same_name() -> None:
    assert image_ids([Path("a/000012.jpg"), Path("a/b.jpg")]) == [12, "b"]
    assert image_ids([Path("a/1.jpg"), Path("b/1.jpg")]) == ["a/1.jpg", "b/1.jpg"]
    assert drawing_names([Path("a/1.png"), Path("b/1.png")]) == ["a_1.png.jpg", "b_1.png.jpg"]


def test_label_maps_are_called_like_their_images_and_in_folders_if_two_have_the_same_name(tmp_path) -> None:
    assert label_map_names([Path("a/1.jpg"), Path("b/v1.2.png"), Path("clip.mp4#000003")]) == [
        *("1", "v1.2", "clip_000003")
    ]
    paths = ["in/x/1.jpg", "in/y/1.jpg", "in/2.png", "in/2.jpg", "in/3.png"]
    expected = ["x/1", "y/1", "2.png", "2.jpg", "3"]
    assert label_map_names(list(map(Path, paths))) == expected
    assert label_map_names([tmp_path / path for path in paths]) == expected
    assert label_map_names([Path("in/x/A.jpg"), Path("in/y/a.jpg")]) == ["x/A", "y/a"]
