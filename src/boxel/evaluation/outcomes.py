"""What becomes of each detection: it finds an instance, or none, or is to be ignored."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from boxel.data.annotations import Annotations
from boxel.evaluation.coco import coco_header, coco_rows
from boxel.evaluation.results import Result


@dataclass(frozen=True)
class Outcome:
    """What became of the D detections of one class, best score first, at T thresholds of IoU.

    Attributes:
        label: the class, an index into the truth's categories.
        image: (D,) index of the image.
        true: (T, D) bool, it found an instance.
        false: (T, D) bool, it found none; neither, where it is to be ignored.
        present: (I,) number of instances in each image.
    """

    label: int
    image: NDArray[np.int64]
    true: NDArray[np.bool_]
    false: NDArray[np.bool_]
    present: NDArray[np.int64]


def outcomes_of(
    results: Sequence[Result],
    truth: Annotations,
    metric: Literal["segm", "bbox"] = "segm",
    class_agnostic: bool = False,
    thresholds: Sequence[float] | None = None,
    most: int = 100,
) -> list[Outcome]:
    """pycocotools' matches: each detection, best score first, finds the instance it overlaps most that none has found.

    Args:
        results: detections.
        truth: what is there; what is to be ignored is as in :func:`~boxel.evaluation.coco.coco_ap`.
        metric: IoU of masks or of boxes.
        class_agnostic: the results' categories are not looked at, and all are of the truth's first.
        thresholds: T least IoUs, rising; COCO's ten where None.
        most: detections of a class that an image may have.

    Returns:
        One for each class that has instances.
    """
    instances, detections = coco_rows(results, truth, metric, class_agnostic)
    images, classes = coco_header(truth)
    sides = []
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        for rows in (instances, detections):
            side = COCO()
            side.dataset = {"images": images, "categories": classes, "annotations": rows}
            side.createIndex()
            sides.append(side)
        evaluator = COCOeval(*sides, metric)
        if thresholds is not None:
            evaluator.params.iouThrs = np.array(thresholds)
        evaluator.params.maxDets = [most]
        evaluator.params.areaRng, evaluator.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluator.evaluate()
    outcomes = []
    for label in range(len(classes)):
        found = [
            e for e in evaluator.evalImgs[label * len(images) : (label + 1) * len(images)] if e is not None
        ]
        present = np.zeros(len(images), dtype=np.int64)
        for e in found:
            present[e["image_id"] - 1] = np.count_nonzero(e["gtIgnore"] == 0)
        if not present.any():
            continue
        image = np.concatenate([np.full(len(e["dtScores"]), e["image_id"] - 1) for e in found])
        order = np.argsort(-np.concatenate([e["dtScores"] for e in found]), kind="stable")
        matched = np.concatenate([e["dtMatches"] for e in found], axis=1)[:, order] > 0
        counted = ~np.concatenate([e["dtIgnore"] for e in found], axis=1)[:, order].astype(bool)
        outcomes.append(Outcome(label, image[order], matched & counted, ~matched & counted, present))
    return outcomes
