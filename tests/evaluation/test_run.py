"""A model on a set: a stand-in that finds one square a category in every image."""

import json
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from boxel.data import example_scenes, write
from boxel.data.annotations import Category
from boxel.data.synthetic import write_scenes
from boxel.evaluation import EvaluateConfig, evaluate, evaluate_detections, to_results
from boxel.evaluation.baselines import label_with_baseline
from boxel.evaluation.run import is_class_agnostic, predict_dataset
from boxel.labeling.teachers.base import from_binary_mask
from boxel.models.detector import Detections, Detector, full_image_detections
from boxel.utils.errors import BoxelError


class SquareFinder(Detector):
    def __init__(self, *names, **data):
        super().__init__(len(names), SimpleNamespace(nms_threshold=0.6, max_detections=100))
        self.weight = nn.Parameter(torch.zeros(1))
        self.settings = {"augment": {"short_sides": [32], "max_size": 48}, "data": data} if data else {}
        self.categories = tuple(Category(100 + k, name) for k, name in enumerate(names))

    def detect(self, images: list[Tensor]) -> list[Detections]:
        n = len(self.categories)
        box = torch.tensor([[4.0, 4, 20, 20]]).repeat(n, 1)
        scores = torch.linspace(0.9, 0.5, n)
        grid = torch.full((n, 1, 8, 12), -10.0)
        grid[:, :, 1:5, 1:5] = 10
        return [full_image_detections(box, scores, torch.arange(n), grid[:, 0], stride=4) for _ in images]


@pytest.fixture
def two_images(tmp_path, make_truth, rectangle):
    """Two photos, a square of the first class in one and of the second in the other."""
    for name in ("0.png", "1.png"):
        Image.new("RGB", (48, 32)).save(tmp_path / name)
    mask = rectangle(32, 48, 4, 4, 20, 20)
    instances = [{"image": 0, "label": 0, "mask": mask}, {"image": 1, "label": 1, "mask": mask}]
    return make_truth([(32, 48)] * 2, instances, category_ids=(7, 3), root=tmp_path)


def found(results):
    return [(result["image_id"], result["category_id"]) for result in results]


def test_categories_are_matched_by_name(two_images):
    model = SquareFinder("class 3", "class 7", class_agnostic=False)
    assert found(predict_dataset(model, two_images)) == [(1, 3), (1, 7), (2, 3), (2, 7)]


def test_categories_that_the_dataset_lacks_are_logged_and_left_out(two_images, caplog):
    model = SquareFinder("lamp", "class 7", class_agnostic=False)
    assert found(predict_dataset(model, two_images)) == [(1, 7), (2, 7)]
    assert "lacks some of the model's categories, which are left out: lamp" in caplog.text
    # Without classes, it is an object as good as any.
    everything = predict_dataset(model, two_images, class_agnostic=True)
    assert found(everything) == [(1, 100), (1, 7), (2, 100), (2, 7)]


@pytest.mark.parametrize("names", [("lamp",), ("lamp", "sun")])
def test_a_dataset_with_none_of_the_models_categories_is_refused(two_images, names):
    with pytest.raises(
        BoxelError, match=f"none of the model's categories .{', '.join(names)}.; set `class_agn"
    ):
        predict_dataset(SquareFinder(*names, class_agnostic=False), two_images)
    assert len(predict_dataset(SquareFinder(*names), two_images, class_agnostic=True)) == 2 * len(names)


def test_a_model_is_class_agnostic_if_it_was_trained_so(two_images):
    assert not is_class_agnostic(SquareFinder("red"))
    assert not is_class_agnostic(SquareFinder("red", class_agnostic=False))
    assert not is_class_agnostic(SquareFinder("object", "red"))
    assert is_class_agnostic(SquareFinder("object"))
    assert is_class_agnostic(SquareFinder("thing", class_agnostic=True))
    results = predict_dataset(SquareFinder("thing", class_agnostic=True), two_images)
    assert evaluate_detections(two_images, results, EvaluateConfig(class_agnostic=True))["box"]["AP"] == 1


def test_unreadable_images_are_reported_and_skipped(two_images, tmp_path):
    (tmp_path / "0.png").write_bytes(b"torn")
    errors = []
    assert found(predict_dataset(SquareFinder("class 3"), two_images, errors=errors)) == [(2, 3)]
    assert len(errors) == 1 and "0.png" in errors[0]


def test_a_dataset_without_readable_images_is_an_error(two_images, tmp_path):
    for name in ("0.png", "1.png"):
        (tmp_path / name).unlink()
    with pytest.raises(BoxelError, match=r"none of its 2 images can be read in .*`images`"):
        predict_dataset(SquareFinder("class 3"), two_images)
    assert predict_dataset(SquareFinder("class 3"), two_images.select_images(np.zeros(2, dtype=bool))) == []


@pytest.mark.parametrize(
    ("settings", "count"), [({}, 4), ({"class_agnostic_nms": True}, 2), ({"mask_nms": 0.5}, 4)]
)
def test_evaluation_drops_repeated_instances_if_asked(two_images, monkeypatch, settings, count):
    monkeypatch.setattr("boxel.evaluation.run.subject_kind", lambda subject: "detector")
    model = SquareFinder("class 3", "class 7", class_agnostic=False)
    monkeypatch.setattr("boxel.evaluation.run._load", lambda *_: model)
    assert len(evaluate("run", two_images, boundary=False, **settings).results) == count


WITHOUT_TORCH = """
import json, sys
from pathlib import Path
from boxel.cli import main
from boxel.data.synthetic import write_scenes
from boxel.evaluation import to_results

folder = Path(sys.argv[1])
truth = write_scenes(folder, 1, height=64, width=96)
(folder / "results.json").write_text(json.dumps(to_results(truth)))
for subject in ("results.json", "masks.json"):
    assert main(["evaluate", str(folder / subject), str(folder / "masks.json")]) == 0
heavy = {"torch", "torchvision", "skimage", "matplotlib", "timm", "lightning", "supervision"} & set(sys.modules)
assert not heavy, heavy
"""


@pytest.mark.slow
def test_files_are_evaluated_without_torch(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_subject_decides_what_is_computed(two_images, make_result, rectangle, tmp_path):
    results = [make_result(rectangle(32, 48, 4, 4, 20, 20), 0.9, 1, 7)]
    (tmp_path / "results.json").write_text(json.dumps(results))
    of_file = evaluate(tmp_path / "results.json", two_images, regions=True)
    assert (
        of_file.kind == "results" and of_file.metrics == evaluate(results, two_images, regions=True).metrics
    )
    assert of_file.results == results and "regions" in of_file.metrics
    assert of_file.table().startswith("      AP") or "AP50" in of_file.table()
    of_masks = evaluate(two_images, two_images, categories=["class 3"], baselines=["box"])
    assert of_masks.kind == "dataset" and of_masks.metrics["masks"]["instances"] == 1
    assert of_masks.metrics["box"]["mask_iou"] == 1  # the masks are squares
    assert str(of_masks).splitlines()[3] == "1 box with a side of 16 pixels or more"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trimap": [3]}, "`trimap` does nothing here, since this is a results file"),
        ({"flip": True}, "`flip` does nothing here"),
        ({"boundry": False}, "no setting 'boundry'. Did you mean 'boundary'"),
        ({"categories": ["class 8"]}, "no category 'class 8'"),
        ({"baselines": ["boxes"]}, "baselines is .'boxes'.; give a list whose items are each box or grabcut"),
    ],
)
def test_settings_without_effect_are_refused(two_images, settings, message):
    with pytest.raises(BoxelError, match=message):
        evaluate([], two_images, **settings)


def test_results_are_written_before_they_are_evaluated(two_images, make_result, rectangle, tmp_path):
    wrong = [make_result(rectangle(32, 48, 4, 4, 20, 20), 0.9, "nowhere", 7)]
    with pytest.raises(BoxelError, match="none of the 1 results is of an image"):
        evaluate(wrong, two_images, results=str(tmp_path / "new" / "results.json"))
    assert json.loads((tmp_path / "new" / "results.json").read_text()) == wrong


def test_baselines_of_a_labeled_dataset_are_plain(tmp_path, make_truth, rectangle, caplog):
    """Where boxes overlap, each mask of `box` is its whole box; GrabCut runs in every box; no quality is asked for."""
    pixels = np.full((64, 96, 3), 60, dtype=np.uint8)
    pixels[4:60, 4:92] = (250, 40, 40)
    Image.fromarray(pixels).save(tmp_path / "0.png")
    large, small = rectangle(64, 96, 4, 4, 92, 60), rectangle(64, 96, 10, 10, 30, 30)
    truth = make_truth([(64, 96)], [{"mask": small}] * 30 + [{"mask": large}], root=tmp_path)
    metrics = evaluate(truth, truth, baselines=["box", "grabcut"]).metrics
    assert metrics["box"].items() <= metrics["masks"].items() and metrics["box"]["mask_iou"] == 1
    assert all("rectangles" in record.getMessage() for record in caplog.records)  # they are squares
    truth.boxes[-1] = (0, 0, 96, 62)
    assert label_with_baseline(truth.without_masks(), "grabcut").mask(30).sum() == large.sum()
    truth.iscrowd[0], truth.boxes[1] = True, np.nan
    assert label_with_baseline(truth, "box").has_mask.tolist() == [False, False, *[True] * 29]


def test_the_plain_protocol_counts_small_boxes_and_takes_masks_as_the_model_predicts_them(
    tmp_path, make_truth, rectangle, monkeypatch
):
    """Two boxes overlap, and one of 10 pixels is usually left out."""
    Image.new("RGB", (96, 64)).save(tmp_path / "0.png")
    masks = [rectangle(64, 96, *box) for box in [(0, 0, 60, 60), (20, 20, 50, 50), (80, 0, 90, 10)]]
    truth = make_truth([(64, 96)], [{"mask": mask} for mask in masks], root=tmp_path)
    monkeypatch.setattr("boxel.evaluation.run.subject_kind", lambda subject: "box_to_mask")
    merged = evaluate("rectangle", truth)
    assert merged.metrics["masks"]["instances"] == 2
    assert merged.metrics["masks"]["mask_iou"] == pytest.approx(
        (0.75 + 1) / 2
    )  # the larger one loses the overlap
    plain = evaluate("rectangle", truth, plain=True)
    assert (plain.metrics["masks"]["instances"], plain.metrics["masks"]["mask_iou"]) == (3, 1)
    assert str(plain).splitlines()[2] == "3 boxes of any size"


def test_the_plain_protocol_keeps_small_components_and_predicts_once(
    tmp_path, make_truth, rectangle, monkeypatch
):
    """The true mask has a column apart, of 1.7 % of its pixels; the teacher finds it too."""
    Image.new("RGB", (96, 64)).save(tmp_path / "0.png")
    mask = rectangle(64, 96, 10, 4, 70, 54)
    mask[:, 68] = False
    truth = make_truth([(64, 96)], [{"mask": mask}], root=tmp_path)
    calls = []

    def find(image, boxes, labels):
        calls.append(boxes.tolist())
        return [from_binary_mask(mask > 0, 0, 0)]

    find.name = "perfect"
    monkeypatch.setattr("boxel.labeling.api.make_teacher", lambda *_: find)
    monkeypatch.setattr("boxel.evaluation.run.subject_kind", lambda subject: "box_to_mask")
    assert evaluate("perfect", truth).metrics["masks"]["mask_iou"] == pytest.approx(58 / 59)
    calls.clear()
    assert evaluate("perfect", truth, plain=True).metrics["masks"]["mask_iou"] == 1
    assert calls == [truth.boxes.tolist()]


def test_saliency_is_that_of_the_whole_image(tmp_path, make_truth, rectangle, monkeypatch):
    """The object is the ellipse that the teacher takes for it, in two halves."""
    Image.new("RGB", (96, 64)).save(tmp_path / "0.png")
    y, x = np.mgrid[:64, :96] + 0.5
    ellipse = ((x / 48 - 1) ** 2 + (y / 32 - 1) ** 2) <= 1
    halves = [ellipse & (x < 48), ellipse & (x > 48)]
    truth = make_truth([(64, 96)], [{"mask": mask} for mask in halves], root=tmp_path)
    with pytest.raises(BoxelError, match="`saliency` does nothing here"):
        evaluate(truth, truth, saliency=True)
    monkeypatch.setattr("boxel.evaluation.run.subject_kind", lambda subject: "box_to_mask")
    metrics = evaluate("ellipse", truth, saliency=True).metrics["masks"]
    assert metrics["mae"] == pytest.approx(0, abs=1e-4) and metrics["max_f"] == pytest.approx(1)
    assert metrics["mask_iou"] < 0.9


def test_masks_that_are_none_do_not_stop_the_evaluation_of_a_dataset(make_truth, ellipse, caplog):
    random = np.random.default_rng(0)
    truth = make_truth([(60, 80)], [{"mask": ellipse(random, 60, 80)} for _ in range(4)])
    truth.boxes[:] += [-6, -6, 6, 6]
    pred = replace(truth, segmentations=truth.segmentations.copy(), file="pred.json")
    truth.segmentations[1], pred.segmentations[2] = b"[[1, 2, 3]]", b"[]"
    metrics = evaluate(pred, replace(truth, file="truth.json")).metrics["masks"]
    assert metrics["instances"] == 3 and metrics["mask_iou"] == pytest.approx(2 / 3)
    assert (
        "truth.json: 1 of 4 true masks are not used as masks, only their boxes: 1 unreadable" in caplog.text
    )
    assert "pred.json: 1 of 4 masks are not used as masks, only their boxes: 1 empty" in caplog.text


def test_images_that_a_dataset_lacks_are_announced(tmp_path, caplog):
    truth = write_scenes(tmp_path, 3, height=64, width=96)
    whole = evaluate(truth, truth).metrics["masks"]
    assert whole["mask_iou"] == 1 and not caplog.records
    evaluate(truth.select_images([1]), truth)
    lost = len(truth.ids) - len(truth.instances_in(1))
    assert (
        f"lacks 2 of the 3 images of {truth.file}: their {lost} boxes count as boxes without a mask"
        in caplog.text
    )
    caplog.clear()
    truth.paths[:] = ["a/1.png", "b/1.png", "2.png"]
    evaluate(replace(truth.select_images([0, 2]), paths=["A\\1.PNG", "2.png"]), truth)
    assert "lacks 1 of the 3 images" in caplog.text


def test_whatever_is_evaluated_is_compared_on_the_split_val(tmp_path, caplog):
    truth = write_scenes(tmp_path, 3, height=64, width=96)
    truth = replace(truth, splits=["train", "val", "train"])
    caplog.set_level("INFO")
    results = to_results(truth.select_images([1]))
    assert evaluate(results, truth, boundary=False).metrics["mask"]["AR100"] == 1
    assert evaluate(truth.select_images([1]), truth).metrics["masks"]["mask_iou"] == 1
    assert caplog.text.count("compared on its split val") == 2


def test_results_of_other_splits_are_named_as_such(tmp_path, caplog):
    truth = replace(example_scenes(3), splits=["train", "val", "val"])
    write(truth, tmp_path / "truth.json")
    with caplog.at_level("INFO"):
        evaluate(to_results(truth), tmp_path / "truth.json", images=truth.root, boundary=False)
    assert "compared on its split val: 2 images" in caplog.text
    assert "results are of no image of" in caplog.text and "truth.json (its split val)" in caplog.text
