"""A trained model as a teacher: which of its instances labels which box."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from boxel.data.annotations import Category
from boxel.labeling.api import label_data
from boxel.labeling.teachers import make_teacher
from boxel.labeling.teachers.detector import DetectorTeacher, digest_model
from boxel.masks.boxes import Region
from boxel.models import io
from boxel.models.detector import full_image_detections
from boxel.utils.errors import BoxelError

PHOTO = np.zeros((64, 96, 3), dtype=np.uint8)
KNOWN = (Category(1, "cat"), Category(2, "dog"))


class Finder(nn.Module):
    """A "model" with fixed detections (box, label, score) in pixels, each filling its box."""

    def __init__(self, found, categories=KNOWN):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.categories, self.found = categories, found
        self.settings = {"augment": {"short_sides": [64], "max_size": 96}}
        self.config = SimpleNamespace(nms_threshold=0.6, max_detections=100)

    def detect(self, images):
        boxes, labels, scores = (
            (list(column) for column in zip(*self.found, strict=True)) if self.found else ([],) * 3
        )
        return [
            full_image_detections(
                boxes=torch.tensor(boxes).float().reshape(-1, 4),
                scores=torch.tensor(scores).float(),
                labels=torch.tensor(labels).long(),
                mask_logits=torch.full((len(boxes), 16, 24), 8.0),
                stride=4,
            )
            for _ in images
        ]


def labeled(found, boxes, names, categories=KNOWN, photo=PHOTO):
    """Score and tight box of each predicted mask; None without an opinion."""
    known = list(dict.fromkeys(names))
    teacher = DetectorTeacher(
        Finder(found, categories), "finder", [Category(i, n) for i, n in enumerate(known)]
    )
    labels = np.array([known.index(name) for name in names], dtype=np.int32)
    said = []
    for soft in teacher(photo, np.array(boxes, dtype=np.float64), labels):
        logits = soft.resample(Region(0, 0, 96, 64))
        if np.isnan(logits).all():
            assert soft.score == 0
            said.append(None)
        else:
            rows, columns = np.nonzero(logits > 0)
            assert len(rows) == np.ptp(rows + 1) * 0 + (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
            said.append(
                (round(soft.score, 3), [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            )
    return said


def test_each_box_gets_the_detection_that_overlaps_it_most():
    found = [((8, 8, 40, 40), 0, 0.9), ((10, 8, 42, 40), 0, 0.5), ((60, 8, 90, 40), 0, 0.3)]
    boxes = [(11, 8, 43, 40), (8, 8, 40, 39)]
    assert labeled(found, boxes, ["cat", "cat"]) == [(0.5, [10, 8, 42, 40]), (0.9, [8, 8, 40, 40])]


def test_each_detection_serves_one_box_best_pairs_first():
    """One detection and two boxes of IoU 0.8 and 1 with it: the second gets it."""
    found = [((0, 0, 40, 40), 0, 0.9)]
    boxes = [(0, 0, 40, 32), (0, 0, 40, 40)]
    assert labeled(found, boxes, ["cat", "cat"]) == [None, (0.9, [0, 0, 40, 40])]


def test_remaining_boxes_get_remaining_detections():
    """Detection A overlaps both boxes best (1 and 0.9); the second box gets B (0.8)."""
    found = [((0, 0, 40, 40), 0, 0.9), ((0, 0, 40, 28.8), 0, 0.6)]
    boxes = [(0, 0, 40, 40), (0, 0, 40, 36)]
    assert [s and s[0] for s in labeled(found, boxes, ["cat", "cat"])] == [0.9, 0.6]


def test_no_opinion_below_the_minimum_iou_or_without_detections():
    found = [((0, 0, 40, 40), 0, 0.9)]
    assert labeled(found, [(0, 0, 40, 21)], ["cat"]) == [(0.9, [0, 0, 40, 40])]
    assert labeled(found, [(0, 0, 40, 19)], ["cat"]) == [None]
    assert labeled([], [(0, 0, 40, 40)], ["cat"]) == [None]


def test_a_known_category_matches_only_its_own_detections():
    found = [((8, 8, 40, 40), 0, 0.9), ((8, 8, 40, 30), 1, 0.4)]
    boxes = [(8, 8, 40, 40)]
    assert labeled(found, boxes, ["cat"])[0][0] == 0.9
    assert labeled(found, boxes, ["dog"])[0][0] == 0.4
    # "horse" is none of the model's, so any instance may be it.
    assert labeled(found, boxes, ["horse"])[0][0] == 0.9
    assert labeled(found, boxes, ["dog"], (Category(1, "object"), Category(2, "other")))[0][0] == 0.9


def test_an_empty_mask_is_no_opinion():
    found = [((8, 8, 40, 40), 0, 0.9)]
    finder = Finder(found)
    finder.detect = lambda images: [
        d._replace(mask_logits=-d.mask_logits) for d in Finder(found).detect(images)
    ]
    (soft,) = DetectorTeacher(finder, "finder", KNOWN)(
        PHOTO, np.array([[8.0, 8, 40, 40]]), np.zeros(1, np.int32)
    )
    assert np.isnan(soft.logits).all() and soft.score == 0


def test_the_digest_depends_on_weights_and_settings():
    model = Finder([])
    before = digest_model(model, model.settings)
    assert digest_model(Finder([((0, 0, 8, 8), 0, 0.5)]), model.settings) == before
    assert digest_model(model, {"augment": {}}) != before
    model.weight.data += 1e-6
    assert digest_model(model, model.settings) != before


@pytest.fixture
def run(tmp_path, tiny_boxinst):
    """A model folder of an untrained network without a score threshold."""
    config = tiny_boxinst | {"score_threshold": 0.0}
    torch.manual_seed(0)
    record = {"method": "boxinst", "model": config, "augment": {"short_sides": [64], "max_size": 96}}
    io.save(io.build("boxinst", 2, config), tmp_path / "run", record, KNOWN)
    return tmp_path / "run"


@pytest.mark.slow
def test_a_model_folder_labels_a_dataset(run, make_set):
    data = make_set(2)
    teacher = make_teacher(str(run), data.categories, "cpu")
    assert teacher.name == run.as_posix() and len(teacher.identity.split()[0]) == 16
    outcome = label_data(data, teacher=str(run), device="cpu")
    made = outcome.data.has_segmentation
    assert outcome.failures == [] and made.sum() + len(outcome.unmasked) == len(data.labels)
    assert {source for source in outcome.data.source[made]} <= {run.as_posix()}


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(BoxelError, match="is not a model folder"):
        make_teacher(str(tmp_path), KNOWN)
