"""Which detection is which instance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from boxel.data.annotations import Annotations
from boxel.evaluation.results import Result, by_image, result_boxes
from boxel.evaluation.sizes import with_sizes


@dataclass(frozen=True)
class Matches:
    """Pairs of a result and an instance, one to one.

    Attributes:
        results: (M,) int64, positions in the results.
        instances: (M,) int64, indices of instances of the truth.
        iou: (M,) float64, IoU of their boxes.
    """

    results: NDArray[np.int64]
    instances: NDArray[np.int64]
    iou: NDArray[np.float64]


def match_boxes(
    results: Sequence[Result], truth: Annotations, min_iou: float = 0.5, class_agnostic: bool = False
) -> Matches:
    """Match detections with instances by their boxes.

    In each image the detections choose in the order of their scores, each the free instance of its class
    whose box overlaps its own most. Crowds are never chosen.

    Args:
        results: detections.
        truth: what is there.
        min_iou: least IoU of the two boxes.
        class_agnostic: classes need not agree.
    """
    label = {category.id: k for k, category in enumerate(truth.categories)}
    boxes = result_boxes(results)
    pairs: list[tuple[int, int, float]] = []
    for image, positions in by_image(results, truth).items():
        instances = truth.instances_in(image)
        instances = instances[~truth.iscrowd[instances]]
        if not len(instances):
            continue
        mine, theirs = boxes[positions], truth.boxes[instances]
        theirs = np.concatenate([theirs[:, :2], theirs[:, 2:] - theirs[:, :2]], axis=1)
        iou = coco_mask.iou(mine, theirs, [0] * len(instances))
        if not class_agnostic:
            labels = np.array([label.get(results[p]["category_id"], -1) for p in positions])
            iou[labels[:, None] != truth.labels[instances]] = -1
        scores = np.array([results[p]["score"] for p in positions])
        for row in np.argsort(-scores, kind="stable"):
            best = int(iou[row].argmax())
            if iou[row, best] >= min_iou:
                pairs.append((positions[row], int(instances[best]), float(iou[row, best])))
                iou[:, best] = -1
    columns = np.array(pairs, dtype=np.float64).reshape(-1, 3).T
    return Matches(columns[0].astype(np.int64), columns[1].astype(np.int64), columns[2])


def mask_iou(
    results: Sequence[Result], truth: Annotations, min_iou: float = 0.5, class_agnostic: bool = False
) -> dict[str, float]:
    """Mean IoU of masks, over the detections whose box finds its instance.

    It tells how good the masks are apart from how good the detector is.

    Args:
        results: detections with masks.
        truth: instances without a mask are matched too, and then left out.
        min_iou: least IoU of the boxes of a match.
        class_agnostic: classes need not agree.

    Returns:
        `mask_iou`: the mean in [0, 1], NaN without a match; `matched`: over how many instances; `instances`:
        of how many that have a mask and are no crowd.

    Raises:
        BoxelError: an image's size can't be told (`with_sizes`).
    """
    truth = with_sizes(truth, results)
    masked = truth.has_mask & ~truth.iscrowd
    matches = match_boxes(results, truth, min_iou, class_agnostic)
    ious = [
        coco_mask.iou([results[position]["segmentation"]], [truth.rle(int(instance))], [0])[0, 0]
        for position, instance in zip(matches.results, matches.instances, strict=True)
        if masked[instance]
    ]
    return {
        "mask_iou": float(np.mean(ious)) if ious else float("nan"),
        "matched": len(ious),
        "instances": int(masked.sum()),
    }
