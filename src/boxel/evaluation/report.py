"""The report on detections: their analysis, and the datasets whose drawings show right and wrong objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np

from boxel.data.annotations import Annotations, Category
from boxel.evaluation.analysis import Matches
from boxel.evaluation.error_types import ERRORS
from boxel.evaluation.results import get_boxes
from boxel.masks.boxes import xywh_to_xyxy
from boxel.viz.report import write_evaluation_report

_RIGHT, _WRONG = 1, 4  # the ids choose the colors, blue and red


def report_detections(matches: Matches, metrics: Mapping[str, Any], path: str, name: str) -> None:
    """Write the page on detections, given their metrics with `analysis`, None for what is undefined."""
    analysis = metrics["analysis"]
    kept = matches.select(matches.scores >= (analysis["threshold"] or 0.0))
    truth, detections = _mark_outcomes(kept)
    images = [truth.image_ids.index(row["image_id"]) for row in analysis["worst_images"]]
    pictures = truth.select_images(images), detections.select_images(images)
    write_evaluation_report(metrics, ERRORS, pictures, path, name)


def _mark_outcomes(kept: Matches) -> tuple[Annotations, Annotations]:
    """Return truth and detections as datasets whose categories state whether an object is right or wrong."""
    categories = Category(_RIGHT, "right"), Category(_WRONG, "wrong")
    truth = replace(kept.truth, labels=np.where(kept.found, 0, 1), categories=categories)
    results = [kept.results[k] for k in kept.result]
    codes = np.full(len(results), None, dtype=object)
    codes[:] = [msgspec.json.encode(r["segmentation"]) if r.get("segmentation") else None for r in results]
    columns: dict[str, Any] = dict.fromkeys(("quality", "source", "trusted", "areas", "extras"))
    detections = replace(
        truth,
        ids=list(range(len(results))),
        image_index=kept.image.astype(np.int32),
        labels=np.where(kept.correct, 0, 1),
        boxes=xywh_to_xyxy(get_boxes(results)),
        iscrowd=np.zeros(len(results), dtype=bool),
        segmentations=codes,
        **columns,
    )
    return truth.select_instances(kept.counted), detections
