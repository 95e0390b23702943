"""A segmenter as a teacher: odds of a box's class against what else its pixels may be."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from boxel.data.annotations import Category
from boxel.labeling.api import label_data
from boxel.labeling.teachers import segmenter
from boxel.labeling.teachers.segmenter import SegmenterTeacher
from boxel.masks.boxes import Region
from boxel.models import io

WHOLE = Region(0, 0, 40, 20)


def predict(monkeypatch, found, boxes, names, data=("cat", "dog")):
    """Soft masks of a teacher with classes background, cat and dog and the given (3, 20, 40) probabilities."""
    monkeypatch.setattr(
        segmenter, "predict_probabilities", lambda *_: torch.tensor(found, dtype=torch.float32)
    )
    classes = tuple(Category(k, name) for k, name in enumerate(("background", "cat", "dog")))
    model = SimpleNamespace(
        categories=classes, settings={}, network=SimpleNamespace(padding_color=torch.zeros(3, 1, 1))
    )
    teacher = SegmenterTeacher(model, "run", [Category(k, name) for k, name in enumerate(data)])
    labels = np.array([data.index(name) for name in names], dtype=np.int32)
    return teacher(np.zeros((20, 40, 3), np.uint8), np.array(boxes, dtype=np.float64), labels)


def evenly(*classes):
    return np.broadcast_to(np.array(classes)[:, None, None], (3, 20, 40))


def test_a_class_without_a_box_is_nowhere(monkeypatch):
    """The model predicts dog, but in the box of a cat it is the cat, by 0.3 to 0.2."""
    (soft,) = predict(monkeypatch, evenly(0.2, 0.3, 0.5), [(10, 0, 20, 20)], ["cat"])
    np.testing.assert_allclose(soft.logits, np.log(0.3 / 0.2), rtol=1e-5)
    assert soft.window == (8, 0, 22, 20)  # the box and a fifth of its sides
    assert soft.score == pytest.approx(0.6)


def test_a_class_is_an_alternative_where_it_has_a_box(monkeypatch):
    cat, dog = predict(monkeypatch, evenly(0.2, 0.3, 0.5), [(10, 0, 20, 20), (20, 0, 30, 20)], ["cat", "dog"])
    # The cat's box reaches to 22, the dog's from 18.
    expected = np.full((20, 14), np.log(0.3 / 0.2))
    expected[:, 10:] = np.log(0.3 / 0.7)
    np.testing.assert_allclose(cat.logits, expected, rtol=1e-5)
    np.testing.assert_allclose(dog.logits[:, :4], np.log(0.5 / 0.5), atol=1e-5)
    np.testing.assert_allclose(dog.logits[:, 4:], np.log(0.5 / 0.2), rtol=1e-5)


def test_classes_without_boxes_in_the_dataset_are_background(monkeypatch):
    """In a dataset of cats only, the dogs of the model may be anywhere."""
    found = np.array(evenly(0.1, 0.6, 0.3))
    found[:, :, 15:] = np.array([0.2, 0.3, 0.5])[:, None, None]
    (soft,) = predict(monkeypatch, found, [(10, 0, 20, 20)], ["cat"], data=("cat",))
    np.testing.assert_allclose(soft.logits[:, :7], np.log(0.6 / 0.4), rtol=1e-5)
    np.testing.assert_allclose(soft.logits[:, 7:], np.log(0.3 / 0.7), rtol=1e-5)
    assert soft.score == pytest.approx(0.6)


def test_each_box_has_an_object(monkeypatch):
    """A model sees background everywhere, but least in the two left columns of five."""
    found = np.array(evenly(0.9, 0.1, 0.0))
    found[:, :, :12] = np.array([0.6, 0.4, 0.0])[:, None, None]
    (soft,) = predict(monkeypatch, found, [(10, 0, 15, 20)], ["cat"])
    np.testing.assert_array_equal(soft.logits > 0, np.tile([1, 1, 1, 0, 0, 0, 0], (20, 1)) > 0)
    assert soft.score == pytest.approx(0.4)
    (same,) = predict(monkeypatch, evenly(0.9, 0.1, 0.0), [(10, 0, 15, 20)], ["cat"])
    assert (same.logits > 0).all()  # it can't tell its pixels apart


def test_no_opinion_on_a_class_it_does_not_know(monkeypatch):
    dog, bird = predict(
        monkeypatch,
        evenly(0.2, 0.3, 0.5),
        [(0, 0, 9, 9), (20, 0, 30, 9)],
        ["dog", "bird"],
        ("cat", "dog", "bird"),
    )
    assert np.isnan(bird.resample(WHOLE)).all() and bird.score == 0
    assert (dog.logits > 0).all()


def test_a_model_folder_labels_a_dataset(tmp_path, make_set):
    """A segmenter is a teacher by the path of its folder."""
    data = make_set(2)
    config = {"backbone": "tf_efficientnet_lite0", "weights": "none", "output_stride": 16}
    config |= {"classifier": "dilated", "kernel": 3, "dilation": 1, "hidden": 0}
    torch.manual_seed(0)
    model = io.build("boxsup", 3, config)
    torch.nn.init.zeros_(model.network.classifier.scores.weight)
    model.network.classifier.scores.bias.data = torch.tensor([0.0, 1.0, -1.0])  # discs everywhere, no corner
    record = {"method": "boxsup", "model": config, "views": {"long_side": 60}}
    io.save(model, tmp_path / "run", record, (Category(0, "background"), *data.categories))
    outcome = label_data(data, teacher=str(tmp_path / "run"), device="cpu")
    made = outcome.data
    np.testing.assert_array_equal(made.mask(0)[12:28, 22:38], 1)  # the disc's box, of radius 8
    assert made.mask(0).sum() == 256
