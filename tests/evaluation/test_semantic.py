"""Metrics of label maps: confusion matrices, folders of label maps, and bands around true boundaries."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import distance_transform_edt
from skimage.metrics import contingency_table
from skimage.segmentation import find_boundaries

from boxel.data.annotations import Annotations, Category, values_to_labels
from boxel.data.formats.builder import Builder
from boxel.data.label_maps import pixel_classes
from boxel.data.synthetic import write_scenes
from boxel.evaluation.semantic import (
    band_confusions,
    boundary_distance,
    confusion,
    format_semantic,
    measure_label_maps,
    measure_segmenter,
    select_measurable,
    semantic_metrics,
    trimap_metrics,
)
from boxel.models.prediction import label_map_names
from boxel.models.settings import SemanticInferenceConfig
from boxel.utils.errors import BoxelError


def test_confusion_by_hand():
    truth = np.array([[0, 0, 0, 1], [1, 1, 255, 255]])
    found = np.array([[0, 0, 1, 1], [1, 2, 0, 2]])
    matrix = confusion(truth, found, 4)
    assert matrix.tolist() == [[2, 1, 0, 0], [0, 2, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    metrics = semantic_metrics(matrix, ["sky", "road", "car", "pole"])
    assert metrics["pixel_accuracy"] == pytest.approx(4 / 6)
    assert metrics["mean_class_accuracy"] == pytest.approx((2 / 3 + 2 / 3) / 2)  # no pixel is a car or a pole
    per_class = metrics["per_class"]
    assert [per_class[name] for name in ("sky", "road", "car")] == pytest.approx([2 / 3, 2 / 4, 0])
    assert np.isnan(per_class["pole"])  # neither there nor found
    assert metrics["mean_iou"] == pytest.approx((2 / 3 + 2 / 4 + 0) / 3)


def test_unlabeled_pixels_do_not_count_beside_255_classes():
    """A dataset has at most 255 classes, and what is predicted as none of them is the 256th."""
    matrix = confusion(np.array([254, 255, 255]), np.array([254, 0, 255]), 256)
    assert np.argwhere(matrix).tolist() == [[254, 254]]


def test_unlabeled_images_give_nan():
    metrics = semantic_metrics(confusion(np.full((2, 2), 255), np.zeros((2, 2), int), 3), ["a", "b", "c"])
    assert all(np.isnan(metrics[name]) for name in ("pixel_accuracy", "mean_class_accuracy", "mean_iou"))


@pytest.mark.parametrize("wrong", [(3, 0), (0, 3), (-1, 0), (0, -1)])
def test_labels_out_of_range_are_refused(wrong):
    true, found = wrong
    with pytest.raises(ValueError):
        confusion(np.array([[true]]), np.array([[found]]), 3)


@given(st.integers(0, 10**6), st.integers(1, 9))
def test_confusions_add_up_and_equal_scikit_images(seed, classes):
    random = np.random.default_rng(seed)
    truth, found = random.integers(0, classes, (2, 13, 17), dtype=np.uint8)
    parts = [confusion(truth[rows], found[rows], classes) for rows in (slice(0, 5), slice(5, None))]
    whole = confusion(truth, found, classes)
    np.testing.assert_array_equal(sum(parts), whole)
    peer = contingency_table(truth, found).toarray()
    np.testing.assert_array_equal(peer, whole[: peer.shape[0], : peer.shape[1]])
    assert whole.sum() == truth.size


# folders of label maps ------------------------------------------------------------------------------------------------


@pytest.fixture
def truth(tmp_path) -> Annotations:
    """Four images with random label maps of the values 5, 9 and 2, and void."""
    rng = np.random.default_rng(0)
    rows = Builder()
    for k in range(4):
        Image.fromarray(rng.choice([5, 9, 2, 77], (20, 30)).astype(np.uint8)).save(tmp_path / f"{k}_map.png")
        rows.add_image(k, f"{k}.jpg", 30, 20, f"{k}_map.png")
    data = rows.build(tmp_path, [Category(5, "a"), Category(9, "b"), Category(2, "c")], tmp_path)
    return replace(data, map_labels=values_to_labels({5: 0, 9: 1, 2: 2}))


@pytest.fixture
def found(tmp_path, truth):
    """A folder of maps that are right in most places."""
    rng = np.random.default_rng(1)
    folder = tmp_path / "found"
    folder.mkdir()
    for k in range(4):
        values = np.array(Image.open(tmp_path / f"{k}_map.png"))
        wrong = rng.random(values.shape) < 0.3
        values[wrong] = rng.choice([5, 9, 2, 111], wrong.sum())  # 111 is not a class
        Image.fromarray(values).save(folder / f"{k}.png")
    return folder


def test_a_folder_equals_sets_of_pixels(truth, found) -> None:
    metrics = measure_label_maps(truth, found)
    true, ours = (
        np.concatenate([np.array(Image.open(path)).ravel() for path in sorted(folder.glob("?" + end))])
        for folder, end in ((truth.root, "_map.png"), (found, ".png"))
    )
    known = true != 77
    pixels = [
        [set(np.flatnonzero(known & (m == value)).tolist()) for m in (true, ours)] for value in (5, 9, 2)
    ]
    expected = [len(a & b) / len(a | b) for a, b in pixels]
    assert list(metrics["per_class"].values()) == pytest.approx(expected)
    assert metrics["mean_iou"] == pytest.approx(np.mean(expected))
    assert metrics["pixel_accuracy"] == pytest.approx((true == ours)[known].mean())
    assert metrics["images"] == 4


@pytest.mark.parametrize("form", ["{}/{}.png", "{}_{}.png", "maps/{}/{}.PNG"])
def test_label_maps_of_images_with_the_same_name_are_told_apart(truth, found, form) -> None:
    expected = measure_label_maps(truth, found)
    truth.paths[:] = ["a/0.jpg", "b/0.jpg", "a/1.jpg", "b/1.jpg"]
    for k, path in enumerate(truth.paths):
        folder, stem = path.removesuffix(".jpg").split("/")
        new = found / "new" / form.format(folder, stem)
        new.parent.mkdir(parents=True, exist_ok=True)
        (found / f"{k}.png").rename(new)
    renamed = measure_label_maps(truth, found / "new")
    for row in [*renamed["worst_images"], *expected["worst_images"]]:
        del row["file_name"]
    assert renamed == expected


def test_images_with_boxes_only_are_skipped(tmp_path, caplog) -> None:
    """Not even beside an image in which there is nothing, all of which is background."""
    rows = Builder()
    for k in range(3):
        rows.add_image(k, f"{k}.jpg", 30, 20)
    rows.add(1, 0, 0, (2, 2, 9, 9), b"[[2,2,9,2,9,9]]")
    rows.add(2, 1, 0, (2, 2, 9, 9))
    data = rows.build(tmp_path, [Category(5, "a")], tmp_path / "set.json")
    caplog.set_level("INFO")
    assert select_measurable(data).tolist() == [0, 2]
    assert caplog.messages == ["1 of 3 images have boxes only and are skipped"]
    with pytest.raises(BoxelError, match="none of its 3 images has a label map or a mask to compare with"):
        select_measurable(data.without_masks())


def test_an_image_that_cannot_be_used_is_skipped(truth, found) -> None:
    (found / "1.png").unlink()
    Image.new("L", (5, 5)).save(found / "2.png")
    errors = []
    assert measure_label_maps(truth, found, errors=errors)["images"] == 2
    assert len(errors) == 2 and "1.png: cannot be read as a label map" in errors[0] and "5 x 5" in errors[1]
    for path in found.iterdir():
        path.unlink()
    with pytest.raises(BoxelError, match="none of its 4 images can be evaluated"):
        measure_label_maps(truth, found)


def test_the_table() -> None:
    metrics = {"images": 3, "pixel_accuracy": 0.5, "mean_class_accuracy": math.nan, "mean_iou": 0.25}
    row = {"share": 0.5, "iou": 0.25, "recall": 0.75, "precision": 1.0}
    worst = [{"file_name": "a.png", "image_id": 7, "mean_iou": 0.125, "pixel_accuracy": 0.5}]
    classes = {"a": row, "long name": dict.fromkeys(row, math.nan)}
    lines = format_semantic(metrics | {"classes": classes, "worst_images": worst}).splitlines()
    assert lines[:5] == [
        "by class  share    IoU  recall  precision",
        "a         0.500  0.250   0.750      1.000",
        "",
        "mean_iou: 0.250, the mean over classes of intersection over union",
        "pixel_accuracy: 0.500, the share of the pixels with the right class; large classes decide it",
    ]
    assert lines[-2:] == ["lowest mean IoU:", "  a.png (image 7): 0.125"]


# bands around boundaries ----------------------------------------------------------------------------------------------


def labels(text):
    """A map of one row for each word: a digit is a class, `v` void."""
    return np.array([[255 if c == "v" else int(c) for c in word] for word in text.split()], dtype=np.uint8)


def compute_trimap(found, truth, widths, names=("a", "b")):
    return trimap_metrics(band_confusions(labels(truth), labels(found), widths, len(names)), widths, names)


def test_trimap_by_hand():
    metrics = compute_trimap("00011100 00011100", "00001111 00001111", [1, 2, 4])
    assert metrics["width"] == [1, 2, 4]
    # Inside: 01 taken for 11, 0011 for 0111, and all of it.
    assert metrics["boundary"] == pytest.approx([(0 + 1 / 2) / 2, (1 / 2 + 2 / 3) / 2, (3 / 6 + 2 / 5) / 2])
    # Outside: 000111 taken for 000100, 0011 for 0000, and nothing.
    assert metrics["interior"][:2] == pytest.approx([(3 / 5 + 1 / 3) / 2, (2 / 4 + 0) / 2])
    assert np.isnan(metrics["interior"][2])


def test_boundary_distance_by_hand():
    np.testing.assert_array_equal(boundary_distance(labels("0001122")), [[2.5, 1.5, 0.5, 0.5, 0.5, 0.5, 1.5]])
    corner = boundary_distance(labels("1000 0000 0000"))
    assert corner[0].tolist() == [
        0.5,
        0.5,
        1.5,
        2.5,
    ]  # a pixel that meets another at its corner only is farther away
    assert corner[1, 1] == 1.5
    assert corner[2, 2] == pytest.approx(5**0.5 + 0.5)


def test_an_unlabeled_rim_is_a_boundary_and_does_not_count():
    matrices = band_confusions(labels("000vvvv111"), labels("0001111111"), [1], 2)
    assert matrices[0].tolist() == [[1, 0], [0, 1]]  # beside the rim
    assert matrices[1].tolist() == [[2, 0], [0, 2]]


def test_an_image_of_one_class_is_interior():
    metrics = compute_trimap("0010 0000", "0000 0000", [1, 10**6])
    assert np.isnan(metrics["boundary"]).all()
    assert metrics["interior"] == pytest.approx([(7 / 8 + 0) / 2] * 2)


@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 40), st.integers(1, 4))
def test_bands_equal_scipy_and_add_up(seed, height, width, scale):
    random = np.random.default_rng(seed)
    found, truth = random.choice([0, 1, 2], (2, height, width)).astype(np.uint8)
    truth[random.random(truth.shape) < 0.1] = 255
    truth = truth.repeat(scale, 0).repeat(scale, 1)[:height, :width]
    widths = [1, 2, 3, 100]
    parts = band_confusions(truth, found, widths, 3)
    whole = confusion(truth, found, 3)
    np.testing.assert_array_equal(parts.sum(0), whole)
    np.testing.assert_array_equal(band_confusions(truth, found, [], 3), whole[None])
    beside = find_boundaries(truth)
    if not beside.any():
        np.testing.assert_array_equal(parts[-1], whole)
        return
    away = distance_transform_edt(~beside) + 0.5
    for at, band in enumerate(widths):
        inside = away <= band
        np.testing.assert_array_equal(parts[: at + 1].sum(0), confusion(truth[inside], found[inside], 3))
    usual = semantic_metrics(whole, ["a", "b", "c"])["mean_iou"]
    metrics = trimap_metrics(parts, widths, ["a", "b", "c"])
    assert metrics["boundary"][-1] == pytest.approx(usual, nan_ok=True)  # the band is wider than the image


def test_the_model_runs_once_per_image(tmp_path):
    truth = write_scenes(tmp_path, 3, height=64, width=96)
    random = np.random.default_rng(0)
    shown = []

    def predict(photos, config):
        shown.extend(photos)
        return [SimpleNamespace(labels=random.integers(0, 3, photo.shape[:2])) for photo in photos]

    model = SimpleNamespace(categories=pixel_classes(truth), predict_batch=predict)
    metrics = measure_segmenter(truth, model, SemanticInferenceConfig(), trimap=[200, 3, 3])
    assert len(shown) == metrics["images"] == 3
    assert metrics["trimap"]["width"] == [3, 200]
    assert metrics["trimap"]["boundary"][1] == metrics["mean_iou"]
    assert 0 < metrics["trimap"]["interior"][0] < 1 and np.isnan(metrics["trimap"]["interior"][1])
    heads, near, all_over = (line.split() for line in format_semantic(metrics).splitlines()[-3:])
    assert heads == ["width", "boundary", "interior"] and near[0] == "3"
    assert all_over == ["200", f"{metrics['mean_iou']:.3f}", "-"]
    assert "trimap" not in measure_segmenter(truth, model, SemanticInferenceConfig())


@pytest.mark.parametrize("suffix", [".tif", ".tiff", ".TIFF"])
def test_label_maps_may_be_tiffs_in_part(truth, found, suffix) -> None:
    expected = measure_label_maps(truth, found)
    for k in (1, 3):
        Image.open(found / f"{k}.png").save((found / f"{k}.png").with_suffix(suffix), "TIFF")
        (found / f"{k}.png").unlink()
    assert measure_label_maps(truth, found) == expected


def test_label_maps_that_are_called_like_predicted_ones_find_their_images(truth, found) -> None:
    expected = measure_label_maps(truth, found)
    truth.paths[:] = ["x/1.jpg", "y/1.jpg", "2.png", "2.jpg"]
    names = label_map_names([found / "in" / path for path in truth.paths])
    for k, name in enumerate(names):
        (found / f"new/{name}.png").parent.mkdir(parents=True, exist_ok=True)
        (found / f"{k}.png").rename(found / f"new/{name}.png")
    renamed = measure_label_maps(truth, found / "new")
    for row in [*renamed["worst_images"], *expected["worst_images"]]:
        del row["file_name"]
    assert renamed == expected
