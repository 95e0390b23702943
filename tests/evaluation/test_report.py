"""The page on detections: its numbers, what hostile names do to it, and its pictures."""

import json
import re
from base64 import b64decode
from dataclasses import replace
from io import BytesIO

import msgspec
import numpy as np
import pytest
from PIL import Image

from boxel.cli import main
from boxel.data import Category, example_scenes
from boxel.evaluation import evaluate, to_results
from boxel.masks.rle import encode
from boxel.viz import save_image

HOSTILE = '<script>alert(1)</script> & "cat"\''


@pytest.fixture
def scene(make_truth, make_result, rectangle, tmp_path):
    """A gray image with a cat that is found and one that is missed, and a file that is not there."""
    cat = {"mask": rectangle(100, 200, 0, 0, 40, 40)}
    missed = {"mask": rectangle(100, 200, 100, 50, 160, 90)}
    truth = make_truth([(100, 200)] * 2, [cat, missed, {**cat, "image": 1}], (1, 2), (7, 8), tmp_path)
    Image.new("RGB", (200, 100), (128, 128, 128)).save(tmp_path / "0.png")
    false = make_result(rectangle(100, 200, 100, 0, 140, 30), 0.8, 7, category_id=2)
    return truth, [make_result(cat["mask"], 0.9, 7), false]


def write_page(truth, results, path):
    metrics = evaluate(results, truth, boundary=False, report=str(path)).metrics
    return metrics, path.read_text(encoding="utf-8")


def cells(row):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", row)).strip()


def test_the_page_and_the_metrics_have_the_same_numbers(scene, tmp_path):
    metrics, page = write_page(*scene, tmp_path / "page.html")
    analysis = json.loads(json.dumps(metrics))["analysis"]
    assert (analysis["compared"], analysis["recall"]) == ("mask", pytest.approx(1 / 3))
    assert analysis["per_class"]["class 2"]["AP50"] is None  # plain JSON
    rows = [cells(row) for row in re.findall(r"<tr>.*?</tr>", page, re.DOTALL)]
    # 1 of 2 detections is correct and finds 1 of 3 objects at the best threshold, which is above the false one.
    assert any(row.startswith("threshold 0.850 minimum score") for row in rows)
    assert any(row.startswith("F1 0.500 ") for row in rows)
    assert "class 1 3 0.337 0.337 0.450 0.500 1.000 0.333" in rows  # 34 of the 101 recalls; no false cat
    assert "class 2 0 \N{EN DASH} \N{EN DASH} \N{EN DASH} \N{EN DASH} \N{EN DASH} \N{EN DASH}" in rows
    assert "missed 2 1.000 an object that no detection finds or nearly finds" in rows
    assert "class 1 1 2" in rows  # of the confusion matrix: 1 found, 2 missed
    assert "0.8 to 0.9 1 0.800 0.000" in rows and "0.9 to 1 1 0.900 1.000" in rows


def test_nothing_of_a_file_is_run_or_fetched(scene, tmp_path):
    truth, results = scene
    object.__setattr__(truth, "categories", (Category(1, HOSTILE), Category(2, "\x1b[31mred")))
    truth.paths[0] = "<img src=http://example.org/1.png>.png"
    page = write_page(truth, results, tmp_path / "page.html")[1]
    assert "<script>alert" not in page and "<img src=http" not in page and "\x1b" not in page
    assert page.count("<script") == 1
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; &#34;cat&#34;" in page
    assert all(source.startswith("data:image/webp;base64,") for source in re.findall(r'src="([^"]*)', page))
    assert "default-src 'none'" in page


def test_found_is_blue_and_missed_and_false_are_red_truth_left_of_the_prediction(scene, tmp_path):
    truth, results = scene
    results = [*results, {**results[0], "image_id": 8}, {**results[1], "score": 0.95}]
    page = write_page(truth, results, tmp_path / "page.html")[1]
    pictures = re.findall(r'<img alt="(\w+)" src="data:image/webp;base64,([^"]*)"', page)
    assert [side for side, _ in pictures] == ["truth", "prediction"]  # the second image has no error
    left, right = (np.asarray(Image.open(BytesIO(b64decode(data))), dtype=int) for _, data in pictures)

    def color(pixels, x, y):
        scale = pixels.shape[1] / 200
        red, _, blue = pixels[round(y * scale), round(x * scale)]
        return "red" if red > blue + 20 else "blue" if blue > red + 20 else "gray"

    assert [color(left, *at) for at in ((20, 20), (130, 70), (120, 15))] == ["blue", "red", "gray"]
    assert [color(right, *at) for at in ((20, 20), (130, 70), (120, 15))] == ["blue", "gray", "red"]


def test_an_image_that_is_not_there_costs_its_pictures_only(scene, tmp_path):
    page = write_page(*scene, tmp_path / "page.html")[1]
    cards = re.findall(r"<figure>.*?</figure>", page, re.DOTALL)
    (lost,) = [card for card in cards if 'class="lost"' in card]
    assert "1.png" in lost and "image 8: 0 found; missed: 1 class 1; false: none" in lost
    assert page.count("<img") == 2


@pytest.mark.parametrize("masked", [True, False])
def test_pages_of_nothing(scene, tmp_path, masked):
    truth, results = scene
    truth = truth if masked else truth.without_masks()
    assert "There are no detections." in write_page(truth, [], tmp_path / "page.html")[1]
    none = truth.select_instances([])
    assert "There are no objects to find." in write_page(none, results, tmp_path / "page.html")[1]


def test_perfect_detections_have_no_worst_images(tmp_path):
    truth = example_scenes()
    metrics, page = write_page(truth, to_results(truth), tmp_path / "page.html")
    assert metrics["analysis"]["worst_images"] == [] and "No image has an error." in page


def test_the_command_writes_the_page_and_its_numbers(scene, tmp_path, capsys):
    data = example_scenes()
    (tmp_path / "results.json").write_text(json.dumps(to_results(data)))
    given = ["evaluate", str(tmp_path / "results.json"), str(data.file), "--no-boundary"]
    page, numbers = tmp_path / "page.html", tmp_path / "metrics.json"
    assert main([*given, "--report", str(page), "--json", str(numbers)]) == 0
    assert f"report: {page}" in capsys.readouterr().out
    assert json.loads(numbers.read_text())["analysis"]["f1"] == 1
    assert "Evaluation: results.json" in page.read_text()
    assert main([*given, "--report", str(tmp_path / "page.txt")]) == 2


def test_the_page_on_masks_has_their_breakdown_and_the_worst(scene, tmp_path):
    truth, _ = scene
    half = replace(truth, segmentations=truth.segmentations.copy(), quality=np.array([0.9, 0.4, 0.8]))
    half.segmentations[1] = msgspec.json.encode(encode(truth.mask(1) & (np.arange(200) < 120)))
    metrics = evaluate(half, truth, report=str(tmp_path / "page.html")).metrics["masks"]
    assert metrics["per_size"]["medium"]["mask_iou"] == pytest.approx((1 + 1 / 3 + 1) / 3)
    assert metrics["worst"][0] == {
        "file_name": "0.png",
        "image_id": 7,
        "id": 1,
        "class": "class 1",
        "iou": pytest.approx(1 / 3),
    }
    page = (tmp_path / "page.html").read_text()
    rows = [cells(row) for row in re.findall(r"<tr>.*?</tr>", page, re.DOTALL)]
    assert "mask IoU 0.778 mean overlap (IoU) of masks" in " ".join(rows)
    assert "medium 3 0.778 0.667 0.667" in rows
    first = re.search(r"<figure>.*?</figure>", page, re.DOTALL)
    assert "IoU 0.33" in first[0] and "annotation 1<" in first[0] and first[0].count("<img") == 2


def test_the_page_on_label_maps_has_classes_confusion_and_the_worst_images(scene, tmp_path):
    truth, _ = scene
    truth = truth.select_images([0])
    save_image(np.where(truth.mask(0), 1, 0).astype(np.uint8), tmp_path / "maps" / "0.png")
    metrics = evaluate(tmp_path / "maps", truth, report=str(tmp_path / "page.html")).metrics
    # 1600 of the 4000 pixels of the class are found, and 16,000 of 20,000 are background.
    assert metrics["classes"]["class 1"] == {
        "share": 4000 / 20000,
        "iou": 1600 / 4000,
        "recall": 1600 / 4000,
        "precision": 1.0,
    }
    iou = (16000 / 18400 + 0.4) / 2
    assert metrics["worst_images"] == [
        {"file_name": "0.png", "image_id": 7, "mean_iou": pytest.approx(iou), "pixel_accuracy": 0.88}
    ]
    page = (tmp_path / "page.html").read_text()
    rows = [cells(row) for row in re.findall(r"<tr>.*?</tr>", page, re.DOTALL)]
    assert "class 1 0.200 0.400 0.400 1.000" in rows
    assert "class 1 0.60 0.40" in rows  # of the confusion matrix: taken for background, right
    assert "IoU 0.63" in page and page.count("<img") == 2
