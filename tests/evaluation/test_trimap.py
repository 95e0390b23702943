"""Mean IoU inside and outside bands around true boundaries."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt
from skimage.segmentation import find_boundaries

from boxel.data.label_maps import pixel_classes
from boxel.data.synthetic import write_scenes
from boxel.evaluation.semantic import (
    band_confusions,
    boundary_distance,
    confusion,
    format_semantic,
    measure_segmenter,
    semantic_metrics,
    trimap_metrics,
)
from boxel.models.semantic.inference import SemanticInferenceConfig


def labels(text):
    """A map of one row for each word: a digit is a class, `v` void."""
    return np.array([[255 if c == "v" else int(c) for c in word] for word in text.split()], dtype=np.uint8)


def figures_of(found, truth, widths, names=("a", "b")):
    return trimap_metrics(band_confusions(labels(truth), labels(found), widths, len(names)), widths, names)


def test_by_hand():
    figures = figures_of("00011100 00011100", "00001111 00001111", [1, 2, 4])
    assert figures["width"] == [1, 2, 4]
    # Inside: 01 taken for 11, 0011 for 0111, and all of it.
    assert figures["boundary"] == pytest.approx([(0 + 1 / 2) / 2, (1 / 2 + 2 / 3) / 2, (3 / 6 + 2 / 5) / 2])
    # Outside: 000111 taken for 000100, 0011 for 0000, and nothing.
    assert figures["interior"][:2] == pytest.approx([(3 / 5 + 1 / 3) / 2, (2 / 4 + 0) / 2])
    assert np.isnan(figures["interior"][2])


def test_distance_of_drawn_maps():
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


def test_a_rim_of_void_is_a_boundary_that_does_not_count_itself():
    matrices = band_confusions(labels("000vvvv111"), labels("0001111111"), [1], 2)
    assert matrices[0].tolist() == [[1, 0], [0, 1]]  # beside the rim
    assert matrices[1].tolist() == [[2, 0], [0, 2]]


def test_an_image_of_one_class_is_interior():
    figures = figures_of("0010 0000", "0000 0000", [1, 10**6])
    assert np.isnan(figures["boundary"]).all()
    assert figures["interior"] == pytest.approx([(7 / 8 + 0) / 2] * 2)


@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 40), st.integers(1, 4))
def test_parts_agree_with_peers_and_add_up(seed, height, width, scale):
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
    figures = trimap_metrics(parts, widths, ["a", "b", "c"])
    assert figures["boundary"][-1] == pytest.approx(usual, nan_ok=True)  # the band is wider than the image


def test_a_set_is_looked_at_once(tmp_path, monkeypatch):
    truth = write_scenes(tmp_path, 3, height=64, width=96)
    random = np.random.default_rng(0)
    shown = []

    def predict(model, photo, looks):
        shown.append(photo)
        return SimpleNamespace(labels=random.integers(0, len(model.categories), photo.shape[:2]))

    monkeypatch.setattr("boxel.models.semantic.inference.predict_label_map", predict)
    model = SimpleNamespace(categories=pixel_classes(truth))
    figures = measure_segmenter(truth, model, SemanticInferenceConfig(), trimap=[200, 3, 3])
    assert len(shown) == figures["images"] == 3
    assert figures["trimap"]["width"] == [3, 200]
    assert figures["trimap"]["boundary"][1] == figures["mean_iou"]
    assert 0 < figures["trimap"]["interior"][0] < 1 and np.isnan(figures["trimap"]["interior"][1])
    heads, near, all_over = (line.split() for line in format_semantic(figures).splitlines()[-3:])
    assert heads == ["width", "boundary", "interior"] and near[0] == "3"
    assert all_over == ["200", f"{100 * figures['mean_iou']:.1f}", "-"]
    assert "trimap" not in measure_segmenter(truth, model, SemanticInferenceConfig())
