"""COCO's average precision and recall of boxes, masks and mask boundaries, and the matches behind them."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypedDict, cast

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from boxel.data.annotations import Annotations
from boxel.evaluation.results import (
    Result,
    coco_area,
    fill_box,
    fill_in_sizes,
    get_boxes,
    group_by_image,
    read_masks,
)
from boxel.masks.boxes import box_iou, xywh_to_xyxy
from boxel.masks.rle import Rle, decode_in_box, encode_in_box

IouType: TypeAlias = Literal["bbox", "segm", "boundary"]

MAX_DETECTIONS = 100
"""Detections per image and class that COCO counts."""

_BOUNDARY_RATIO = 0.02  # width of a boundary, as a share of the image's diagonal
_MIN_BOX_IOU = 0.5  # of the boxes of a match


class CocoMetrics(TypedDict):
    """The metrics of :func:`coco_ap`."""

    AP: float
    AP25: float
    AP50: float
    AP70: float
    AP75: float
    APs: float
    APm: float
    APl: float
    AR1: float
    AR10: float
    AR100: float
    ARs: float
    ARm: float
    ARl: float
    per_class: dict[str, float]


def coco_ap(truth: Annotations, results: Sequence[Result], iou_type: IouType = "segm") -> CocoMetrics:
    """Compute COCO's twelve metrics, AP at IoU 0.25 and 0.70 (as in Pascal VOC's tables), and AP per class.

    The numbers equal those of pycocotools (to 1e-6); faster-coco-eval does the matching.

    * Boundary AP compares the smaller of mask IoU and boundary IoU. The boundary of a mask is the part within 2 % of
      the image diagonal (rounded, at least 1 pixel, in chessboard distance) of its outside.
    * Detections in an image without instances are false positives.
    * For masks, an instance that has only a box is ignored like a crowd: it cannot be missed, and a detection of its
      class inside the box that matches nothing else is not a false positive.
    * At most 100 detections per image and class count. If an image has more than 100 instances of a class, all
      detections do.
    * An instance is small, medium or large by the area in its file, else by that of its mask, else of its box; a
      detection by the area of what is compared.

    Args:
        truth: The ground truth.
        results: Detections in the COCO results format, masks as compressed codes.
        iou_type: What is compared.

    Returns:
        `AP` (mean over IoU 0.50:0.05:0.95 and classes), `AP25`, `AP50`, `AP70`, `AP75`, `APs`, `APm`, `APl` (area below
        32^2, between, above 96^2 pixels), `AR1`, `AR10`, `AR100` (1, 10, 100 detections per image and class), `ARs`,
        `ARm`, `ARl`: in [0, 1], or NaN if there are no instances; `per_class`: AP by class name.

    Raises:
        BoxelError: Masks are compared, and the size of an image is unknown.

    Examples:
        >>> from boxel.data import example_scenes
        >>> from boxel.evaluation import to_results
        >>> truth = example_scenes()
        >>> coco_ap(truth, to_results(truth))["AP50"]
        1.0

    References:
        Lin et al., Microsoft COCO, ECCV 2014; Cheng et al., Boundary IoU, CVPR 2021.
    """
    names = [category.name for category in truth.categories]
    gt, dt = _to_coco(truth, results, iou_type)
    if all(row["iscrowd"] for row in gt["annotations"]):
        undefined = dict.fromkeys(_METRICS, np.nan) | {"per_class": dict.fromkeys(names, np.nan)}
        return cast(CocoMetrics, undefined)
    evaluator = _make_evaluator(gt, dt, iou_type)
    evaluator.params.iouThrs = _THRESHOLDS
    evaluator.params.maxDets = [1, 10, find_detection_limit(truth, results)]
    evaluator.evaluate()
    evaluator.accumulate()
    values = {"AP": evaluator.eval["precision"], "AR": evaluator.eval["recall"]}
    means = {name: _mean(values[name[:2]], *cut) for name, cut in _METRICS.items()}
    per_class = {name: _mean(values["AP"][:, :, [k]]) for k, name in enumerate(names)}
    return cast(CocoMetrics, {**means, "per_class": per_class})


def find_detection_limit(truth: Annotations, results: Sequence[Result]) -> int:
    """Return how many detections per image and class count: COCO's 100, or all if an image has more instances.

    Examples:
        >>> from boxel.data import example_scenes
        >>> find_detection_limit(example_scenes(), [])
        100
    """
    kinds = truth.image_index * max(len(truth.categories), 1) + truth.labels
    crowded = np.bincount(kinds[~truth.iscrowd], minlength=1).max() > MAX_DETECTIONS
    return max(MAX_DETECTIONS, len(results)) if crowded else MAX_DETECTIONS


def _make_evaluator(gt: dict[str, Any], dt: dict[str, Any], iou_type: IouType) -> Any:
    """Make an evaluator that takes boundaries from the rows; to find them on whole images takes it thrice the time."""
    from faster_coco_eval import COCO, COCOeval_faster

    class Evaluator(COCOeval_faster):
        def _prepare(self) -> None:
            self.params.compute_boundary = False
            super()._prepare()
            self.params.compute_boundary = iou_type == "boundary"

    return Evaluator(COCO(gt), COCO(dt), iou_type, print_function=logging.getLogger(__name__).debug)


def _to_coco(
    truth: Annotations, results: Sequence[Result], iou_type: IouType
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Make COCO's datasets of the ground truth and of the results, all ids numbered from 1.

    Results of categories that the ground truth lacks are left out. Rows have masks unless boxes are compared, and also
    `boundary` if boundaries are.
    """
    if iou_type != "bbox":
        truth = fill_in_sizes(truth, results)
    # Images are numbered in the order of their ids, which is how pycocotools breaks ties of scores.
    order = sorted(range(len(truth)), key=lambda i: (isinstance(truth.image_ids[i], str), truth.image_ids[i]))
    number_of = {image: number for number, image in enumerate(order, start=1)}
    images = [
        {"id": number, "width": int(truth.widths[i]), "height": int(truth.heights[i])}
        for i, number in number_of.items()
    ]
    categories = [{"id": k + 1, "name": category.name} for k, category in enumerate(truth.categories)]
    gt, dt = _truth_rows(truth, number_of, iou_type), _result_rows(truth, results, number_of, iou_type)
    if iou_type == "boundary":
        for row in (*gt, *dt):
            row["boundary"] = encode_boundary(row["segmentation"])
    header = {"images": images, "categories": categories}
    return {**header, "annotations": gt}, {**header, "annotations": dt}


def _truth_rows(truth: Annotations, number_of: Mapping[int, int], iou_type: IouType) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    masks = [None] * len(truth.labels) if iou_type == "bbox" else read_masks(truth)
    for i, mask in enumerate(masks):
        image, (x0, y0, x1, y1) = int(truth.image_index[i]), truth.boxes[i].tolist()
        box = [x0, y0, x1 - x0, y1 - y0]
        row = {
            "id": i + 1,
            "image_id": number_of[image],
            "category_id": int(truth.labels[i]) + 1,
            "iscrowd": int(truth.iscrowd[i]),
            "bbox": box,
            "area": coco_area(truth, i),
        }
        if iou_type != "bbox":
            row["iscrowd"] = int(truth.iscrowd[i] or mask is None)
            row["segmentation"] = mask or fill_box(box, *truth.image_size(image)[::-1])
        rows.append(row)
    return rows


def _result_rows(
    truth: Annotations, results: Sequence[Result], number_of: Mapping[int, int], iou_type: IouType
) -> list[dict[str, Any]]:
    image = {image_id: number_of[i] for i, image_id in enumerate(truth.image_ids)}
    label = {category.id: k + 1 for k, category in enumerate(truth.categories)}
    kept = [result for result in results if result["category_id"] in label]
    rows: list[dict[str, Any]] = []
    for result, box in zip(kept, get_boxes(kept).tolist(), strict=True):
        row = {
            "id": len(rows) + 1,
            "image_id": image[result["image_id"]],
            "category_id": label[result["category_id"]],
            "iscrowd": 0,
            "score": float(result["score"]),
            "bbox": box,
        }
        if iou_type != "bbox":
            row["segmentation"] = result["segmentation"]
        # As in pycocotools, a box that comes from a mask alone has the area of the mask.
        from_mask = iou_type != "bbox" or result.get("bbox") is None
        row["area"] = int(coco_mask.area(result["segmentation"])) if from_mask else box[2] * box[3]
        rows.append(row)
    return rows


def encode_boundary(rle: Rle) -> Rle:
    """Encode the boundary of a mask: its pixels within 2 % of the image's diagonal of the outline.

    Examples:
        >>> from boxel.masks.rle import encode
        >>> encode_boundary(encode(np.ones((40, 30), np.uint8)))["size"]
        [40, 30]

    References:
        Cheng, Girshick, Dollár, Berg, Kirillov, "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation",
        2021, https://arxiv.org/abs/2103.16562, Section 4.
    """
    import cv2

    inside, x, y = decode_in_box(rle)
    if inside.size:
        width = max(round(_BOUNDARY_RATIO * float(np.hypot(*rle["size"]))), 1)
        square, border = np.ones((3, 3), np.uint8), cv2.BORDER_CONSTANT
        inside -= cv2.erode(inside, square, iterations=width, borderType=border, borderValue=0)  # type: ignore[arg-type]
    return encode_in_box(inside, x, y, *rle["size"])


_THRESHOLDS = np.array([25, *range(50, 100, 5)]) / 100
_COCO = slice(1, None)  # COCO's own ten

# The part of precision or recall that each metric is the mean of: thresholds, area range (all, small, medium, large),
# detections per image (1, 10, 100).
_METRICS: dict[str, tuple[slice, int, int]] = {
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
    """Average precisions (T, R, K, A, M) or recalls (T, K, A, M) over all that are defined, i.e. not -1."""
    values = values[thresholds, ..., area, detections]
    values = values[values > -1]
    return float(values.mean()) if values.size else float("nan")


# ---------------------------------------------------------------- matches


@dataclass(frozen=True)
class ClassMatches:
    """The D detections of one class, best score first, matched at T thresholds of IoU."""

    label: int  # the class, an index into the categories of the ground truth
    image: NDArray[np.int64]  # (D,) index of the image
    result: NDArray[np.int64]  # (D,) position among the results
    scores: NDArray[np.float64]  # (D,), descending
    instance: NDArray[np.int64]  # (T, D) index of the instance that it matches, -1 if there is none
    true: NDArray[np.bool_]  # (T, D), the detection matches an instance
    false: NDArray[np.bool_]  # (T, D), it matches none; a detection that is neither is ignored
    present: NDArray[np.int64]  # (I,) number of instances per image


def match_detections(
    truth: Annotations,
    results: Sequence[Result],
    metric: Literal["segm", "bbox"] = "segm",
    thresholds: Sequence[float] | None = None,
    max_detections: int | None = None,
) -> list[ClassMatches]:
    """Match detections as pycocotools does: best score first, each with the free instance that it overlaps most.

    What is ignored is as in :func:`coco_ap`. The T thresholds are minimum IoUs, ascending; None for COCO's ten. At most
    `max_detections` per image and class count, by default those of :func:`coco_ap`. Classes with neither instances nor
    detections are left out.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    sides = COCO(), COCO()
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        for side, dataset in zip(sides, _to_coco(truth, results, metric), strict=True):
            side.dataset = dataset
            side.createIndex()
        evaluator = COCOeval(*sides, metric)
        if thresholds is not None:
            evaluator.params.iouThrs = np.array(thresholds)
        evaluator.params.maxDets = [max_detections or find_detection_limit(truth, results)]
        evaluator.params.areaRng, evaluator.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluator.evaluate()
    images, matches = len(truth), []
    known = {category.id for category in truth.categories}
    kept = np.array([k for k, result in enumerate(results) if result["category_id"] in known], dtype=np.int64)
    for label in range(len(truth.categories)):
        found = [e for e in evaluator.evalImgs[label * images : (label + 1) * images] if e is not None]
        present = np.zeros(images, dtype=np.int64)
        for e in found:
            present[e["image_id"] - 1] = np.count_nonzero(e["gtIgnore"] == 0)
        if not found:
            continue
        image = np.concatenate([np.full(len(e["dtScores"]), e["image_id"] - 1) for e in found])
        scores = np.concatenate([e["dtScores"] for e in found])
        order = np.argsort(-scores, kind="stable")
        result = kept[np.concatenate([e["dtIds"] for e in found]).astype(np.int64)[order] - 1]
        gt_id = np.concatenate([e["dtMatches"] for e in found], axis=1)[:, order].astype(np.int64)
        counted = ~np.concatenate([e["dtIgnore"] for e in found], axis=1)[:, order].astype(bool)
        true, false = (gt_id > 0) & counted, (gt_id == 0) & counted
        instance = np.where(true, gt_id - 1, -1)
        matches.append(
            ClassMatches(label, image[order], result, scores[order], instance, true, false, present)
        )
    return matches


def match_boxes(truth: Annotations, results: Sequence[Result]) -> list[tuple[int, int]]:
    """Match detections with instances whose boxes overlap theirs by an IoU of at least 0.5.

    In each image, in the order of scores, each detection takes the free instance of its class whose box overlaps its
    own most. Crowds are never matched.

    Args:
        truth: The ground truth.
        results: Detections.

    Returns:
        Pairs of the position of a result and the index of its instance.

    Examples:
        >>> from boxel.data import example_scenes
        >>> from boxel.evaluation import to_results
        >>> truth = example_scenes()
        >>> match_boxes(truth, to_results(truth)[:2])
        [(0, 0), (1, 1)]
    """
    label = {category.id: k for k, category in enumerate(truth.categories)}
    boxes, usable = xywh_to_xyxy(get_boxes(results)), truth.has_box & ~truth.iscrowd
    pairs: list[tuple[int, int]] = []
    for image, positions in group_by_image(truth, results).items():
        instances = truth.instances_in(image)
        instances = instances[usable[instances]]
        if not len(instances):
            continue
        iou = box_iou(boxes[positions], truth.boxes[instances])
        labels = np.array([label.get(results[p]["category_id"], -1) for p in positions])
        iou[labels[:, None] != truth.labels[instances]] = -1
        scores = np.array([results[p]["score"] for p in positions])
        for row in np.argsort(-scores, kind="stable"):
            best = int(iou[row].argmax())
            if iou[row, best] >= _MIN_BOX_IOU:
                pairs.append((positions[row], int(instances[best])))
                iou[:, best] = -1
    return pairs


def mask_iou(truth: Annotations, results: Sequence[Result]) -> dict[str, float]:
    """Average the mask IoU over the detections whose boxes match an instance.

    It measures the masks independently of the detector.

    Args:
        truth: The ground truth. Instances without a mask are matched too, and left out afterwards.
        results: Detections with masks.

    Returns:
        `mask_iou`: The mean in [0, 1], NaN without a match; `matched`: the number of matched instances that have a
        mask; `instances`: the number of instances that have a mask and are not crowds.

    Raises:
        BoxelError: The size of an image is unknown.

    Examples:
        >>> from boxel.data import example_scenes
        >>> from boxel.evaluation import to_results
        >>> truth = example_scenes()
        >>> mask_iou(truth, to_results(truth)[:3])
        {'mask_iou': 1.0, 'matched': 3, 'instances': 5}
    """
    _, ious = matched_ious(truth, results)
    found = ious[np.isfinite(ious)]
    mean = float(found.mean()) if len(found) else float("nan")
    return {"mask_iou": mean, "matched": len(found), "instances": len(ious)}


def matched_ious(
    truth: Annotations, results: Sequence[Result]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the (M,) instances with a mask that are not crowds, and the IoU of the detection of each.

    Detections are matched by their boxes, as in :func:`match_boxes`; an instance without one has an IoU of NaN.
    """
    masks = read_masks(fill_in_sizes(truth, results))
    ious = np.full(len(masks), np.nan)
    for position, instance in match_boxes(truth, results):
        if masks[instance] is not None:
            ious[instance] = coco_mask.iou([results[position]["segmentation"]], [masks[instance]], [0])[0, 0]
    has_mask = np.array([mask is not None for mask in masks], dtype=bool)
    instances = np.flatnonzero(has_mask & ~truth.iscrowd)
    return instances, ious[instances]
