"""What can be said of masks without true ones: do they fit their boxes, and are they more than boxes?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pycocotools import mask as coco_mask

from boxel.data.annotations import Annotations
from boxel.evaluation.matching import match_boxes
from boxel.evaluation.results import Result, result_boxes


def box_agreement(
    results: Sequence[Result], truth: Annotations, min_iou: float = 0.5, class_agnostic: bool = False
) -> dict[str, float]:
    """IoU of each mask's tight box with the true box of the instance found.

    BoxInst's projection term asks for an IoU of 1 (Tian et al., CVPR 2021, Section 3.2), so this measures
    masks by boxes alone. It can't tell a good mask from a filled box: read it with `mean_fill`.

    Args:
        results: detections with masks.
        truth: its boxes are all that is needed.
        min_iou: least IoU of the *predicted* box with the true one, for a match.
        class_agnostic: classes need not agree.

    Returns:
        `mean` in [0, 1]; `share50` and `share75`: the share of matches with an IoU of at least 0.5 and 0.75
        (all NaN without a match); `matched`: number of matches; `instances`: how many there were to find.
    """
    matches = match_boxes(results, truth, min_iou, class_agnostic)
    ious = np.empty(len(matches.results))
    for i, (position, instance) in enumerate(zip(matches.results, matches.instances, strict=True)):
        tight = coco_mask.toBbox(results[position]["segmentation"])
        x0, y0, x1, y1 = truth.boxes[instance]
        ious[i] = coco_mask.iou(tight[None], np.array([[x0, y0, x1 - x0, y1 - y0]]), [0])[0, 0]
    mean, share50, share75 = (
        (ious.mean(), (ious >= 0.5).mean(), (ious >= 0.75).mean()) if len(ious) else (np.nan,) * 3
    )
    return {
        "mean": float(mean),
        "share50": float(share50),
        "share75": float(share75),
        "matched": len(ious),
        "instances": int((~truth.iscrowd).sum()),
    }


def mean_fill(results: Sequence[Result]) -> float:
    """Mean share of a predicted box that its mask's area makes up; NaN without results.

    Objects of COCO fill some 0.55 of their box. A mean near 1 says that the masks came out as boxes.
    """
    boxes = result_boxes(results)
    box_areas = boxes[:, 2] * boxes[:, 3]
    mask_areas = np.array([float(coco_mask.area(result["segmentation"])) for result in results])
    real = box_areas > 0
    # Of a box that cuts through pixels, its mask has the whole ones.
    fill = (mask_areas[real] / box_areas[real]).clip(max=1)
    return float(fill.mean()) if real.any() else float("nan")
