"""The score thresholds that a training chooses on its validation images, a file of the model folder."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, TypedDict

import msgspec
import numpy as np

from boxel.data.formats.builder import read_utf8
from boxel.utils.config import ClosedUnitInterval
from boxel.utils.errors import BoxelError, UsageError, one_line
from boxel.utils.files import write_text

if TYPE_CHECKING:
    from boxel.models.instances import Instances

logger = logging.getLogger(__name__)

SCORE_THRESHOLDS = "score_thresholds"
"""The name of the thresholds among the settings of a model, and of their file."""

ScoreThreshold: TypeAlias = ClosedUnitInterval | Literal["best"]
"""A minimum score, or `best` for those that the training has chosen, one per class."""

_Score = Annotated[float, msgspec.Meta(ge=0, le=1)]


class ScoreThresholds(TypedDict):
    """Minimum scores of detections worth using.

    Attributes:
        all: Over all classes, for those without one of their own.
        by_class: By the names of classes.
    """

    all: _Score
    by_class: dict[str, _Score]


def write_thresholds(thresholds: ScoreThresholds, folder: Path) -> None:
    """Write the score thresholds of a model to its folder."""
    text = msgspec.json.format(msgspec.json.encode(thresholds), indent=1)
    write_text(folder / f"{SCORE_THRESHOLDS}.json", text.decode())


def read_thresholds(folder: Path) -> ScoreThresholds | None:
    """Return the score thresholds in a model folder; None if there are none.

    Raises:
        BoxelError: The file is damaged.
    """
    file = folder / f"{SCORE_THRESHOLDS}.json"
    if not file.is_file():
        return None
    try:
        return msgspec.json.decode(read_utf8(file), type=ScoreThresholds)
    except (msgspec.MsgspecError, RecursionError) as error:
        reason = one_line(error, 200)
        raise BoxelError(f"{file}: is damaged ({reason}); restore it from a copy, or remove it.") from error


def best_scores(model: Any) -> list[float] | None:
    """Return the score threshold of each label that the training of a model has chosen; None if there are none."""
    thresholds = model.settings.get(SCORE_THRESHOLDS)
    if thresholds is None:
        return None
    return [thresholds["by_class"].get(category.name, thresholds["all"]) for category in model.categories]


def min_scores(
    model: Any, threshold: float | Literal["best"], setting: str = "score_threshold"
) -> list[float]:
    """Return the minimum score of each label: a number for all of them, or `best` for what the training has chosen.

    Raises:
        UsageError: It is `best`, and the model has no thresholds; ``setting`` is named.
    """
    if threshold != "best":
        return [threshold] * len(model.categories)
    scores = best_scores(model)
    if scores is None:
        raise UsageError(
            f"`{setting}` is best, but the model has no score thresholds, since its training had no validation data or "
            "found no object in it; give a number from 0 to 1."
        )
    return scores


def settle_draw_score(model: Any, score: float | Literal["best"] | None) -> float | Literal["best"]:
    """Return the minimum score of instances in drawings, by default what the training has chosen, else 0.3."""
    if score is None:
        score = 0.3 if best_scores(model) is None else "best"
    if score == "best":
        min_scores(model, score, "draw_score")  # raises if there are none
        logger.info("minimum scores in drawings: %s", describe_thresholds(model.settings[SCORE_THRESHOLDS]))
    return score


def keep_confident(instances: Instances, model: Any, threshold: float | Literal["best"]) -> Instances:
    """Return the instances of a model with at least a score, or `best` for what the training has chosen."""
    if threshold != "best":
        return instances[instances.scores >= threshold]
    return instances[instances.scores >= np.array(min_scores(model, threshold))[instances.labels]]


def describe_thresholds(thresholds: ScoreThresholds, shown: int = 10) -> str:
    """Return score thresholds as text, those of the first classes by name.

    Examples:
        >>> describe_thresholds({"all": 0.371, "by_class": {"cat": 0.25}})
        'cat 0.25, other classes 0.37'
    """
    named = [f"{name} {score:.2f}" for name, score in list(thresholds["by_class"].items())[:shown]]
    named += ["..."] * (len(thresholds["by_class"]) > shown)
    others = "other classes" if named else "all classes"
    return ", ".join([*named, f"{others} {thresholds['all']:.2f}"])
