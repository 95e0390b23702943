"""COCO's average precision and recall of boxes, masks and mask boundaries."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from boxel.data.annotations import Annotations
from boxel.evaluation.results import Result, restrict, result_boxes
from boxel.evaluation.sizes import with_sizes
from boxel.masks.rle import Rle

IouType = Literal["bbox", "segm", "boundary"]


def coco_ap(
    results: Sequence[Result],
    truth: Annotations,
    iou_type: IouType = "segm",
    class_agnostic: bool = False,
    categories: Sequence[str] | None = None,
) -> dict[str, Any]:
    """COCO's twelve figures, the average precision at IoU 0.25 and 0.70 that VOC's tables have, and that of each class.

    The numbers are pycocotools' own (to 1e-6, which the tests hold); the counting is done by
    faster-coco-eval.

    * "boundary" is Boundary AP (Cheng et al., "Boundary IoU", CVPR 2021): the IoU of two masks is the smaller
      of mask IoU and boundary IoU, and a boundary is what of the mask lies within 2 % of the image diagonal
      (rounded, at least 1 pixel, in the chessboard distance) of the outside.
    * An image without instances counts: what is detected there is false.
    * For masks, an instance that has only a box is ignored as a crowd is: it can't be missed, and a detection
      of its class that lies in the box and matches nothing else isn't counted as false.
    * Sizes: an instance is small, medium or large by the area its file gives, else by that of its mask, else
      of its box; a detection by the area of what is compared. (A box made from a mask alone has the mask's
      area, as in pycocotools.)

    Args:
        results: detections, masks as compressed codes.
        truth: what is there.
        iou_type: what is compared.
        class_agnostic: all classes are one.
        categories: names of the only classes looked at (AP on unseen classes), see `restrict`; None for all.

    Returns:
        `AP` (mean over IoU 0.50:0.05:0.95 and classes), `AP25`, `AP50`, `AP70`, `AP75`, `APs`, `APm`, `APl` (area below
        32^2, between, above 96^2 pixels), `AR1`, `AR10`, `AR100` (1, 10, 100 detections an image and class), `ARs`,
        `ARm`, `ARl`: in [0, 1], or NaN where there is nothing to find; `per_class`: AP by the class's name.

    Raises:
        BoxelError: a category is unknown, or masks are compared and an image's size can't be told (`with_sizes`).
    """
    results, truth = restrict(results, truth, categories, class_agnostic)
    names = [category.name for category in truth.categories]
    instances, detections = coco_rows(results, truth, iou_type, class_agnostic)
    if all(row["iscrowd"] for row in instances):
        return {**dict.fromkeys(_FIGURES, np.nan), "per_class": dict.fromkeys(names, np.nan)}
    images, classes = coco_header(truth)
    header = {"images": images, "categories": classes}
    evaluator = COCOeval_faster(
        COCO({**header, "annotations": instances}),
        COCO({**header, "annotations": detections}),
        iou_type,
        print_function=logging.getLogger(__name__).debug,
    )
    evaluator.params.iouThrs = _THRESHOLDS
    evaluator.evaluate()
    evaluator.accumulate()
    precision, recall = evaluator.eval["precision"], evaluator.eval["recall"]
    return {
        **{name: _mean({"AP": precision, "AR": recall}[name[:2]], *cut) for name, cut in _FIGURES.items()},
        "per_class": {name: _mean(precision[:, :, [k]]) for k, name in enumerate(names)},
    }


def coco_header(truth: Annotations) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """COCO's `images` and `categories` of a truth, both numbered from 1 (see `_numbers`)."""
    images = [
        {"id": number, "width": int(truth.widths[i]), "height": int(truth.heights[i])}
        for i, number in enumerate(_numbers(truth).tolist())
    ]
    return images, [{"id": k + 1, "name": category.name} for k, category in enumerate(truth.categories)]


def coco_rows(
    results: Sequence[Result], truth: Annotations, iou_type: IouType, class_agnostic: bool = False
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """COCO's `annotations` of truth and results, numbered as in `coco_header`.

    Args:
        results: detections; those of categories the truth doesn't have are left out.
        truth: what is there.
        iou_type: rows for masks and boundaries have masks, those for boxes don't need to.
        class_agnostic: the results' categories are not looked at, and all are of the truth's first.

    Returns:
        The rows of the truth and those of the results.
    """
    # Boxes need no size, but the area of a run-length code is counted in one.
    truth = with_sizes(truth, results, required=iou_type != "bbox")
    return _instances(truth, iou_type), _detections(results, truth, iou_type, class_agnostic)


def _numbers(truth: Annotations) -> NDArray[np.int64]:
    """(I,) numbers of the images from 1, in the order of their ids: so pycocotools breaks ties of scores."""
    order = sorted(range(len(truth)), key=lambda i: (isinstance(truth.image_ids[i], str), truth.image_ids[i]))
    numbers = np.empty(len(truth), dtype=np.int64)
    numbers[order] = np.arange(1, len(truth) + 1)
    return numbers


def _instances(truth: Annotations, iou_type: IouType) -> list[dict[str, Any]]:
    masked, numbers = truth.has_mask, _numbers(truth)
    rows = []
    for i, (x0, y0, x1, y1) in enumerate(truth.boxes.tolist()):
        box = [x0, y0, x1 - x0, y1 - y0]
        row = {
            "id": i + 1,
            "image_id": int(numbers[truth.image_index[i]]),
            "category_id": int(truth.labels[i]) + 1,
            "iscrowd": int(truth.iscrowd[i]),
            "bbox": box,
            "area": truth.area(i),
        }
        if iou_type != "bbox":
            row["segmentation"] = truth.rle(i) if masked[i] else _filled(truth, i)
            row["iscrowd"] = int(truth.iscrowd[i] or not masked[i])
        rows.append(row)
    return rows


def _detections(
    results: Sequence[Result], truth: Annotations, iou_type: IouType, class_agnostic: bool
) -> list[dict[str, Any]]:
    image = dict(zip(truth.image_ids, _numbers(truth).tolist(), strict=True))
    label = {category.id: k + 1 for k, category in enumerate(truth.categories)}
    kept = [r for r in results if class_agnostic or r["category_id"] in label]
    rows: list[dict[str, Any]] = []
    for result, box in zip(kept, result_boxes(kept).tolist(), strict=True):
        row = {
            "id": len(rows) + 1,
            "image_id": image[result["image_id"]],
            "category_id": 1 if class_agnostic else label[result["category_id"]],
            "iscrowd": 0,
            "score": float(result["score"]),
            "bbox": box,
        }
        if iou_type != "bbox":
            row["segmentation"] = result["segmentation"]
        from_mask = iou_type != "bbox" or result.get("bbox") is None
        row["area"] = int(coco_mask.area(result["segmentation"])) if from_mask else box[2] * box[3]
        rows.append(row)
    return rows


def _filled(truth: Annotations, instance: int) -> Rle:
    image = truth.image_index[instance]
    x0, y0, x1, y1 = truth.boxes[instance]
    box = np.array([[x0, y0, x1 - x0, y1 - y0]])
    return coco_mask.frPyObjects(box, int(truth.heights[image]), int(truth.widths[image]))[0]


_THRESHOLDS = np.array([25, *range(50, 100, 5)]) / 100
_COCO = slice(1, None)  # COCO's own ten

# What each figure is the mean of: thresholds, area range (all, small, medium, large), detections (1, 10,
# 100).
_FIGURES: dict[str, tuple[slice, int, int]] = {
    "AP": (_COCO, 0, 2),
    "AP25": (slice(0, 1), 0, 2),
    "AP50": (slice(1, 2), 0, 2),
    "AP70": (slice(5, 6), 0, 2),
    "AP75": (slice(6, 7), 0, 2),
    "APs": (_COCO, 1, 2),
    "APm": (_COCO, 2, 2),
    "APl": (_COCO, 3, 2),
    "AR1": (_COCO, 0, 0),
    "AR10": (_COCO, 0, 1),
    "AR100": (_COCO, 0, 2),
    "ARs": (_COCO, 1, 2),
    "ARm": (_COCO, 2, 2),
    "ARl": (_COCO, 3, 2),
}


def _mean(
    values: NDArray[np.float64], thresholds: slice = _COCO, area: int = 0, detections: int = 2
) -> float:
    """Mean over what is defined, not -1, of precisions (T, R, K, A, M) or recalls (T, K, A, M)."""
    values = values[thresholds, ..., area, detections]
    values = values[values > -1]
    return float(values.mean()) if values.size else float("nan")
