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
    if name != "labeled_labelme":  # whose ids are in the shapes
        assert (
            f"{foreign} is compared with {truth} by image name, class and box, since their ids differ" in log
        )


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


# detections ----------------------------------------------------------------------------------------------------------

TRUTH = {
    "images": [{"id": k, "file_name": f"im{k}.jpg", "width": 200, "height": 100} for k in (1, 2)],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 3, "bbox": [20, 10, 40, 30], "iscrowd": 0, "area": 1200},
        {"id": 2, "image_id": 1, "category_id": 5, "bbox": [100, 40, 50, 20], "iscrowd": 0, "area": 1000},
        {"id": 3, "image_id": 2, "category_id": 3, "bbox": [60, 50, 30, 40], "iscrowd": 0, "area": 1200},
    ],
    "categories": [{"id": 3, "name": "cat"}, {"id": 5, "name": "dog"}],
}
RESULTS = [
    {"image_id": row["image_id"], "category_id": row["category_id"], "bbox": row["bbox"], "score": 0.9}
    for row in TRUTH["annotations"]
]


def evaluate_rows(tmp_path: Path, capsys, rows: object, truth: object = TRUTH) -> tuple[int, dict, str]:
    """The exit code, the metrics, and what is printed beside them."""
    for name, value in (("truth.json", truth), ("results.json", rows)):
        text = value if isinstance(value, str) else json.dumps(value)
        (tmp_path / name).write_text(text, encoding="utf-8")
    code = main(["evaluate", str(tmp_path / "results.json"), str(tmp_path / "truth.json"), "--json", "-"])
    printed = capsys.readouterr()
    return code, json.loads(printed.out) if printed.out else {}, printed.err


@pytest.mark.parametrize(
    "change",
    [
        lambda row: row | {"image_id": str(row["image_id"])},
        lambda row: row | {"image_id": float(row["image_id"])},
        lambda row: row | {"image_id": f"im{row['image_id']}"},
        lambda row: row | {"image_id": f"im{row['image_id']}.jpg"},
        lambda row: row | {"image_id": 9, "file_name": rf"C:\photos\IM{row['image_id']}.JPG"},
        lambda row: row | {"category_id": float(row["category_id"])},
        lambda row: row | {"category_id": str(row["category_id"])},
        lambda row: row | {"category_id": {3: "cat", 5: "dog"}[row["category_id"]]},
        lambda row: (
            {k: v for k, v in row.items() if k != "category_id"}
            | {"category_name": {3: "cat", 5: "dog"}[row["category_id"]]}
        ),
        lambda row: row | {"segmentation": []},
        lambda row: row | {"segmentation": None, "id": 5, "iscrowd": 0, "area": 3.0},
        lambda row: row | {"score": "0.9", "bbox": [str(v) for v in row["bbox"]]},
    ],
)
def test_results_of_other_programs_are_read(tmp_path: Path, capsys, change) -> None:
    code, metrics, log = evaluate_rows(tmp_path, capsys, [change(row) for row in RESULTS])
    assert (code, log, metrics["box"]["AP"]) == (0, "", 1.0)


def test_results_with_a_byte_order_mark_are_read(tmp_path: Path, capsys) -> None:
    code, metrics, log = evaluate_rows(tmp_path, capsys, "\ufeff" + json.dumps(RESULTS))
    assert (code, log, metrics["box"]["AP"]) == (0, "", 1.0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda row: row | {"category_id": row["category_id"] + 2}, "the boxes agree"),
        (lambda row: row | {"bbox": [*row["bbox"][:2], *map(sum, zip(row["bbox"][:2], row["bbox"][2:], strict=True))]},
         "the boxes fit the ground truth as x0, y0, x1, y1"),
        (lambda row: row | {"bbox": [v / s for v, s in zip(row["bbox"], (200, 100) * 2, strict=True)]},
         "shares of the image (x, y, width, height)"),
        (lambda row: row | {"bbox": [v / 2 for v in row["bbox"]]}, "the boxes fit images"),
        (lambda row: row | {"bbox": [0, 0, 3, 3]}, "no true box overlaps a box"),
    ],
)  # fmt: skip
def test_the_likely_cause_is_shown_beside_the_numbers(tmp_path: Path, capsys, change, said) -> None:
    code, metrics, log = evaluate_rows(tmp_path, capsys, [change(row) for row in RESULTS])
    assert code == 0 and metrics["box"]["AP"] < 0.5
    assert log.startswith("warning: ") and said in log


def test_a_results_file_that_is_cut_is_named(tmp_path: Path, capsys) -> None:
    code, _, log = evaluate_rows(tmp_path, capsys, json.dumps(RESULTS)[:-5])
    assert code == 1 and "results.json: not a COCO results file (it ends too early)" in log
    assert log.count("\n") == 1


# YOLO ----------------------------------------------------------------------------------------------------------------


def write_texts(folder: Path, texts: dict[str, str]) -> None:
    folder.mkdir(parents=True)
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")


def yolo_line(row: dict, end: str = "") -> str:
    x, y, w, h = row["bbox"]
    numbers = (x + w / 2) / 200, (y + h / 2) / 100, w / 200, h / 100
    return f"{(3, 5).index(row['category_id'])} {' '.join(map(str, numbers))}{end}\n"


def test_yolo_predictions_with_confidences_are_detections(tmp_path: Path, capsys) -> None:
    lines = {f"im{k}": "".join(yolo_line(r, " 0.9") for r in RESULTS if r["image_id"] == k) for k in (1, 2)}
    write_texts(tmp_path / "predict" / "labels", lines | {"im3": "0 0.5 0.5 0.1 0.1 0.4\n"})
    (tmp_path / "truth.json").write_text(json.dumps(TRUTH))
    for subject in ("predict", "predict/labels"):
        words = [str(tmp_path / subject), str(tmp_path / "truth.json")]
        code = main(["evaluate", *words, "--json", "-"])
        printed = capsys.readouterr()
        assert json.loads(printed.out)["box"]["AP"] == 1
        assert code == 1 and "1 text is of no image: im3.txt" in printed.err


def test_yolo_polygons_end_in_a_confidence(tmp_path: Path, capsys) -> None:
    truth = json.loads(json.dumps(TRUTH))
    texts = {"im1": "", "im2": ""}
    for row in truth["annotations"]:
        x, y, w, h = row["bbox"]
        row["segmentation"] = [[x, y, x + w, y, x + w, y + h]]
        shares = [v / s for v, s in zip(row["segmentation"][0], (200, 100) * 3, strict=True)]
        label = (3, 5).index(row["category_id"])
        texts[f"im{row['image_id']}"] += f"{label} {' '.join(map(str, shares))} 0.{row['id']}\n"
    write_texts(tmp_path / "labels", texts)
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    assert main(["evaluate", str(tmp_path / "labels"), str(tmp_path / "truth.json"), "--json", "-"]) == 0
    metrics = json.loads(capsys.readouterr().out)
    assert metrics["mask"]["AP"] == metrics["box"]["AP"] == 1


def test_yolo_texts_that_cannot_be_used_are_named(tmp_path: Path, capsys) -> None:
    write_texts(tmp_path / "labels", {"im1": f"{yolo_line(RESULTS[0], ' 0.5')}1 0.5 nonsense\n"})
    (tmp_path / "truth.json").write_text(json.dumps(TRUTH))
    assert main(["evaluate", str(tmp_path / "labels"), str(tmp_path / "truth.json"), "--json", "-"]) == 1
    assert "im1.txt: 1 line cannot be used: line 2 (" in capsys.readouterr().err
    (tmp_path / "labels" / "im1.txt").rename(tmp_path / "labels" / "other.txt")
    assert main(["evaluate", str(tmp_path / "labels"), str(tmp_path / "truth.json")]) == 1
    assert "none of its 1 texts has the name of an image" in capsys.readouterr().err


def test_yolo_predictions_of_a_tracker_and_of_named_classes_are_read(tmp_path: Path, capsys) -> None:
    """The tracker's line ends in the number of the track; classes.txt has its own order."""
    swapped = [row | {"category_id": {3: 5, 5: 3}[row["category_id"]]} for row in RESULTS]
    ends = (" 0.9 1", " 0.9 2", " 0.8 1")
    lines = [yolo_line(row, end) for row, end in zip(swapped, ends, strict=True)]
    write_texts(tmp_path / "labels", {"im1": lines[0] + lines[1], "im2": lines[2], "classes": "dog\ncat\n"})
    (tmp_path / "truth.json").write_text(json.dumps(TRUTH))
    assert main(["evaluate", str(tmp_path / "labels"), str(tmp_path / "truth.json"), "--json", "-"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["box"]["AP"] == 1 and printed.err == ""


@pytest.mark.parametrize("folder", ["predict", "predict/labels"])
def test_yolo_predictions_without_confidences_are_named(tmp_path: Path, capsys, folder: str) -> None:
    write_texts(tmp_path / "predict" / "labels", {"im1": yolo_line(RESULTS[0])})
    (tmp_path / "truth.json").write_text(json.dumps(TRUTH))
    assert main(["evaluate", str(tmp_path / folder), str(tmp_path / "truth.json")]) == 1
    assert (
        "im1.txt: the lines of this prediction have no confidence at their end; predict again with `save_conf"
        in (capsys.readouterr().err)
    )


# one file for another ------------------------------------------------------------------------------------------------


def test_swapped_files_are_named(tmp_path: Path, capsys) -> None:
    for name, value in (("truth.json", TRUTH), ("results.json", RESULTS)):
        (tmp_path / name).write_text(json.dumps(value))
    truth, results = str(tmp_path / "truth.json"), str(tmp_path / "results.json")
    assert main(["evaluate", truth, results]) == 1
    assert f"these are results and not ground truth; swap {truth} and {results}" in capsys.readouterr().err
    assert main(["evaluate", results, results]) == 1
    assert "not ground truth; name the annotations of the images" in capsys.readouterr().err
    assert main(["evaluate", truth, truth]) == 1
    assert "truth.json has no masks to evaluate, and its boxes have no scores" in capsys.readouterr().err


def test_annotations_as_results_are_named(tmp_path: Path, capsys) -> None:
    code, _, log = evaluate_rows(tmp_path, capsys, TRUTH["annotations"])
    assert code == 1 and "has no score; these are the annotations of a dataset, so give the file" in log


@pytest.mark.parametrize("form", ["coco", "voc", "yolo", "labelme", "sbd"])
@pytest.mark.parametrize("key", ["stem", "number", "file_name"])
def test_detections_are_evaluated_against_truth_of_every_format(
    folder: Path, tmp_path: Path, capsys, form: str, key: str
) -> None:
    """Whatever ids a reader gives its images, the names of their files find them."""
    scenes = read(folder / "truth" / "masks.json")
    truth = tmp_path / ("truth.json" if form == "coco" else "truth")
    write(scenes, truth, format=form)
    if form not in ("coco", "sbd"):  # SBD has only numbers of classes
        (truth / "boxel-ids.json").unlink(missing_ok=True)
    rows = []
    for i, (x0, y0, x1, y1) in enumerate(scenes.boxes.tolist()):
        path = Path(scenes.paths[scenes.image_index[i]])
        named = {"stem": {"image_id": path.stem}, "number": {"image_id": int(path.stem)}}
        named["file_name"] = {"image_id": 99, "file_name": path.name}
        row = {"category_name": scenes.categories[scenes.labels[i]].name, "score": 0.9, **named[key]}
        rows.append(row | {"bbox": [x0, y0, x1 - x0, y1 - y0], "segmentation": scenes.rle(i)})
    (tmp_path / "results.json").write_text(json.dumps(rows))
    words = ["evaluate", str(tmp_path / "results.json"), str(truth), "--no-boundary", "--json", "-"]
    assert main(words) == 0
    metrics = json.loads(capsys.readouterr().out)
    assert metrics["box"]["AP50"] == metrics["mask"]["AP50"] == 1


# output --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_files():
    """Let no file grow over 200 bytes, as on a disk that is full."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("flag", ["--json", "--results"])
def test_what_cannot_be_written_is_named_and_the_old_file_stays(
    tmp_path: Path, capsys, request: pytest.FixtureRequest, flag: str
) -> None:
    for name, value in (("truth.json", TRUTH), ("results.json", RESULTS)):
        (tmp_path / name).write_text(json.dumps(value))
    out = tmp_path / "out.json"
    out.write_text("old")
    request.getfixturevalue("small_files")
    assert (
        main(["evaluate", str(tmp_path / "results.json"), str(tmp_path / "truth.json"), flag, str(out)]) == 1
    )
    assert capsys.readouterr().err == f"boxel: {out}: cannot be written (File too large); check the folder.\n"
    assert out.read_text() == "old" and len(list(tmp_path.iterdir())) == 3


def test_a_yolo_dataset_without_val_is_compared_as_a_whole_if_it_is_not_split(
    folder: Path, tmp_path: Path, capsys
) -> None:
    write(read(folder / "truth" / "masks.json"), tmp_path / "yolo", format="yolo")
    config = tmp_path / "yolo" / "data.yaml"
    config.write_text("train: images\nnames: [crescent, cross, disc, ring, star]\n")
    (tmp_path / "results.json").write_text("[]")
    words = ["evaluate", str(tmp_path / "results.json"), str(config), "--json", "-"]
    assert main(words) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["images"] == 3
    assert "lists no `val`, so all of its 3 images are compared" in printed.err
    config.write_text("train: images\ntest: images\nnames: [crescent, cross, disc, ring, star]\n")
    assert main(words) == 1 and "it lists no `val`" in capsys.readouterr().err
