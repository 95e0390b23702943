"""Score thresholds of a model: their file, and the instances that they keep."""

from types import SimpleNamespace

import numpy as np
import pytest

from boxel.data.annotations import Category
from boxel.models.instances import Instances
from boxel.models.thresholds import (
    best_scores,
    describe_thresholds,
    keep_confident,
    min_scores,
    read_thresholds,
    settle_draw_score,
    write_thresholds,
)
from boxel.utils.errors import BoxelError, UsageError

CATEGORIES = (Category(5, "lamp"), Category(9, "sun"))
THRESHOLDS = {"all": 0.4, "by_class": {"sun": 0.6}}


def model(thresholds=THRESHOLDS):
    settings = {} if thresholds is None else {"score_thresholds": thresholds}
    return SimpleNamespace(categories=CATEGORIES, settings=settings)


def instances():
    scores = np.array([0.65, 0.6, 0.5, 0.45], dtype=np.float32)
    return Instances(
        np.zeros((4, 4), np.float32), scores, np.array([1, 1, 0, 1]), [{}] * 4, CATEGORIES, (4, 4)
    )


def test_each_class_has_its_own_threshold_or_that_of_all() -> None:
    assert best_scores(model()) == min_scores(model(), "best") == [0.4, 0.6]
    assert min_scores(model(), 0.1) == [0.1, 0.1]
    assert best_scores(model(None)) is None
    with pytest.raises(UsageError, match="`draw_score` is best, but the model has no score thresholds"):
        min_scores(model(None), "best", "draw_score")


def test_confident_instances_reach_the_threshold_of_their_class() -> None:
    assert settle_draw_score(model(), None) == "best" and settle_draw_score(model(None), None) == 0.3
    kept = keep_confident(instances(), model(), "best")
    assert kept.scores.tolist() == pytest.approx([0.65, 0.6, 0.5])
    assert len(keep_confident(instances(), model(), 0.55)) == 2


def test_the_file_is_read_back(tmp_path) -> None:
    assert read_thresholds(tmp_path) is None
    write_thresholds(THRESHOLDS, tmp_path)
    assert read_thresholds(tmp_path) == THRESHOLDS


@pytest.mark.parametrize("content", ["", "{}", '{"all": 2, "by_class": {}}', '{"all": 0.5, "by_class": [1]}'])
def test_a_damaged_file_is_named(tmp_path, content) -> None:
    (tmp_path / "score_thresholds.json").write_text(content)
    with pytest.raises(
        BoxelError, match=r"score_thresholds\.json: is damaged \(.*\); restore it .*, or remove it"
    ):
        read_thresholds(tmp_path)


def test_the_first_classes_are_described() -> None:
    assert describe_thresholds({"all": 0.4, "by_class": {}}) == "all classes 0.40"
    many = {"all": 0.4, "by_class": {"a": 0.1, "b": 0.2, "c": 0.3}}
    assert describe_thresholds(many, shown=2) == "a 0.10, b 0.20, ..., other classes 0.40"
