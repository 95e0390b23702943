"""Compare runs, results or labeled datasets on the same images."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boxel.data import Annotations
from boxel.evaluation.bootstrap import draw_images, paired_difference
from boxel.evaluation.config import EvaluateConfig
from boxel.evaluation.report import draw_image
from boxel.evaluation.run import Evaluation, evaluate, subject_kind
from boxel.evaluation.scores import Scores
from boxel.evaluation.summary import without_nan
from boxel.evaluation.tables import format_cell, format_table
from boxel.utils.errors import BoxelError, UsageError
from boxel.utils.printable import count_noun
from boxel.viz.names import describe_measure
from boxel.viz.report.compare_page import write_comparison_report
from boxel.viz.report.render import format_signed
from boxel.viz.report.training import TrainingRecord, read_training

logger = logging.getLogger(__name__)

_KINDS = {"detector": "detections", "results": "detections", "box_to_mask": "masks", "dataset": "masks"}
_SAMPLES = 1000
_MAX_IMAGES = 24


@dataclass(frozen=True)
class Comparison:
    """The result of :func:`compare`.

    Attributes:
        names: What was compared, in order; the first is the one that the others are compared with.
        kind: `detections`, `masks` or `pixels`.
        images: Number of images that all were compared on.
        metrics: Plain JSON: by measure, for each of the compared its `run`, `value`, and, of all but the first,
            `difference` to the first with the ends of its 95 % interval, `low` and `high`.
        notes: What makes the comparison less than fair.
        errors: A message per image that could not be used.
    """

    names: list[str]
    kind: str
    images: int
    metrics: dict[str, list[dict[str, Any]]]
    notes: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def table(self) -> str:
        """Format the metrics as text."""
        rows = []
        for key, found in self.metrics.items():
            for row in found:
                known = row.get("difference") is not None
                words = [format_signed(row[name]) if known else "" for name in ("difference", "low", "high")]
                rows.append([describe_measure(key).name, row["run"], format_cell(row["value"]), *words])
        about = (
            f"{count_noun(self.images, 'image')}. difference: to {self.names[0]}; low and high: its 95 % interval over "
            f"{_SAMPLES} samples\nof the images. A difference whose interval contains 0 may be chance."
        )
        heads = ["", "", "value", "difference", "low", "high"]
        return "\n".join([format_table([heads, *rows]), "", about, *self.notes])

    __str__ = table


def compare(
    subjects: Sequence[str | Path],
    truth: str | Path | Annotations,
    *,
    images: str | Path | None = None,
    class_list: str | Path | None = None,
    report: str | os.PathLike[str] | None = None,
    config: EvaluateConfig | None = None,
    **settings: object,
) -> Comparison:
    """Evaluate several models, results or labeled datasets against the same truth, and compare them.

    Args:
        subjects: Two or more of what :func:`evaluate` takes, all of which find objects, predict masks of given boxes,
            or give pixels classes. The others are compared with the first.
        truth: The annotations to compare with.
        images: Folder of the images if they are not beside ``truth``.
        class_list: Classes of label maps.
        report: HTML page to write: metrics, curves, the images that differ most, and the settings that differ.
        config: The settings of each evaluation.
        **settings: Fields of :class:`EvaluateConfig` that override ``config``.

    Returns:
        The metrics with differences and their intervals.

    Raises:
        UsageError: There are fewer than two subjects, or they are of different kinds.
        BoxelError: One of them cannot be evaluated.

    Examples:
        >>> import json
        >>> from boxel.data import example_scenes
        >>> from boxel.evaluation import to_results
        >>> truth = example_scenes(4)
        >>> for name, results in (("a", to_results(truth)), ("b", to_results(truth)[1:])):
        ...     _ = (truth.root / f"{name}.json").write_text(json.dumps(results))
        >>> found = compare([truth.root / "a.json", truth.root / "b.json"], truth)
        >>> found.metrics["mask_AP"][1]["difference"] < 0
        True
    """
    if len(subjects) < 2:
        raise UsageError("a comparison needs two runs or more; name another one.")
    names = _name(subjects)
    found: list[Evaluation] = []
    given: dict[str, Any] = {"images": images, "class_list": class_list, "config": config, **settings}
    for subject in subjects:
        own = dict(given)
        if subject_kind(subject) in ("detector", "results"):
            own.setdefault("boundary", False)  # which would take longest, and is not compared
        found.append(evaluate(subject, truth, **own))
        kinds = [_KINDS.get(one.kind, "pixels") for one in found]
        if kinds[0] != kinds[-1]:
            raise UsageError(
                f"{subject} gives {kinds[-1]} and {subjects[0]} {kinds[0]}, which have no metric in common; compare "
                "subjects of one kind."
            )
    if kinds[0] == "detections":
        found = _without_classes_if_any(found, truth, given)
    scores = [one.scores for one in found if one.scores is not None]
    by_image = np.stack([one.image_scores() for one in scores])
    runs = [read_training(subject) if Path(subject).is_dir() else None for subject in subjects]
    count, metrics = _compare_metrics(names, scores)
    errors = list(dict.fromkeys(error for one in found for error in one.errors))
    notes = _check_fairness(names, runs, scores[0].truth, len(errors))
    comparison = Comparison(names, kinds[0], count, metrics, notes, errors)
    for note in notes:
        logger.warning("%s", note)
    if report is not None:
        cards = _draw_differences(names, scores, by_image)
        per_class = _compare_classes(found)
        source = scores[0].truth.file or "the ground truth"
        write_comparison_report(vars(comparison), cards, per_class, runs, _SAMPLES, report, source)
    return comparison


def _without_classes_if_any(
    found: list[Evaluation], truth: str | Path | Annotations, given: Mapping[str, Any]
) -> list[Evaluation]:
    """Return the evaluations, all without classes if one of the subjects knows none."""
    scores = [one.scores for one in found if one.scores is not None]
    without = [one.truth.categories == one.truth.class_agnostic().categories for one in scores]
    if all(without) or not any(without):
        return found
    logger.warning("not all subjects know classes, so that all are compared without")
    config = given.get("config") or EvaluateConfig()
    again = {
        "images": given.get("images"),
        "categories": given.get("categories", config.categories),
        "class_agnostic": True,
        "boundary": False,
    }

    def repeat(one: Evaluation) -> Evaluation:
        return replace(evaluate(one.results or [], truth, **again), kind=one.kind, errors=one.errors)

    return [one if alone else repeat(one) for one, alone in zip(found, without, strict=True)]


def _name(subjects: Sequence[str | Path]) -> list[str]:
    """Return the shortest ends of the paths that tell them apart."""
    parts = [Path(subject).resolve().parts for subject in subjects]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(one[-count:]) for one in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{Path(subject).name} ({k})" for k, subject in enumerate(subjects, 1)]


def _compare_metrics(
    names: Sequence[str], scores: Sequence[Scores]
) -> tuple[int, dict[str, list[dict[str, Any]]]]:
    """Return the number of images, and each metric of each subject with its difference to that of the first."""
    lengths = {len(one.truth) for one in scores}
    if len(lengths) > 1:
        raise BoxelError("the runs were not compared on the same images; evaluate them one by one.")
    draws = draw_images(lengths.pop(), _SAMPLES)
    sampled = [one.sample(draws) for one in scores]
    shared = [key for key in sampled[0] if all(key in one for one in sampled)]
    metrics = {
        key: [
            {"run": name, "value": float(one[key][0])}
            | (paired_difference(one[key], sampled[0][key]) if k else {})
            for k, (name, one) in enumerate(zip(names, sampled, strict=True))
        ]
        for key in shared
    }
    return len(draws[0]), without_nan(metrics)


def _check_fairness(
    names: Sequence[str], runs: Sequence[TrainingRecord | None], truth: Annotations, errors: int
) -> list[str]:
    """State what makes a comparison less than fair."""
    notes = []
    if errors:
        notes.append(
            f"{count_noun(errors, 'image')} could not be used by all, which may count as missed for some."
        )
    for name, run in zip(names, runs, strict=True):
        paths = [] if run is None else [run.data.get(f"input: {key}", "") for key in ("data", "masks")]
        if truth.file and any(path and Path(path).resolve() == Path(truth.file).resolve() for path in paths):
            notes.append(
                f"{name} was trained on {truth.file}, so it may know these images; compare on images that none of the "
                "runs has learned from."
            )
    return notes


def _compare_classes(found: Sequence[Evaluation]) -> tuple[str, dict[str, list[float | None]]]:
    """Return what is compared by class, and by class its values."""

    def collect(one: Evaluation) -> tuple[str, Mapping[str, Any]]:
        if _KINDS.get(one.kind) == "detections":
            kind = "mask" if all("mask" in other.metrics for other in found) else "box"
            return f"{kind} AP", one.metrics[kind]["per_class"]
        if _KINDS.get(one.kind) == "masks":
            rows = one.metrics["masks"]["per_class"]
            return "mask IoU", {name: row["mask_iou"] for name, row in rows.items()}
        return "IoU", one.metrics["per_class"]

    tables = [collect(one) for one in found]
    names = dict.fromkeys(name for _, rows in tables for name in rows)
    values = {name: [rows.get(name) for _, rows in tables] for name in names}
    return tables[0][0], {name: row for name, row in values.items() if any(v is not None for v in row)}


def _draw_differences(
    names: Sequence[str], scores: Sequence[Scores], by_image: NDArray[np.float64]
) -> list[dict[str, Any]]:
    """Draw the images whose scores differ most, the truth and then each prediction."""
    spread = by_image.max(axis=0) - by_image.min(axis=0)  # NaN if one is unknown
    order = [int(k) for k in np.argsort(-spread, kind="stable") if spread[k] > 0][:_MAX_IMAGES]
    truth, cards = scores[0].truth, []
    for image in order:
        drawn = draw_image(scores, image)
        pictures: dict[str, str] | str
        if isinstance(drawn, str):
            pictures = drawn
        else:
            shown = zip(names, by_image[:, image], drawn, strict=True)
            predicted = {f"{name}: {score:.3f}": one["prediction"] for name, score, one in shown}
            pictures = {"truth": drawn[0]["truth"]} | predicted
        card = {"file_name": truth.paths[image], "image_id": truth.image_ids[image], "pictures": pictures}
        cards.append(card)
    return cards
