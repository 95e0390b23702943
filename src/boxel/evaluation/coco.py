"""COCO's average precision and recall of boxes, masks and mask boundaries, and the matches behind them."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from boxel.data.annotations import Annotations
from boxel.evaluation.results import Comparison, Result, get_boxes, group_by_image
from boxel.masks.rle import Rle, decode, encode
from boxel.utils.errors import BoxelError

IouType: TypeAlias = Literal["bbox", "segm", "boundary"]

_BOUNDARY_RATIO = 0.02
"""Width of a boundary, as a share of the image's diagonal."""


def coco_ap(
    truth: Annotations,
    results: Sequence[Result],
    iou_type: IouType = "segm",
    class_agnostic: bool = False,
    categories: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Compute COCO's twelve metrics, AP at IoU 0.25 and 0.70 (as in Pascal VOC's tables), and AP per class.

    The numbers equal those of pycocotools (to 1e-6); faster-coco-eval does the matching.

    * Boundary AP compares the smaller of mask IoU and boundary IoU. The boundary of a mask is the part within 2 % of
      the image diagonal (rounded, at least 1 pixel, in chessboard distance) of its outside.
    * Detections in an image without instances are false positives.
    * For masks, an instance that has only a box is ignored like a crowd: it cannot be missed, and a detection of its
      class inside the box that matches nothing else is not a false positive.
    * An instance is small, medium or large by the area in its file, else by that of its mask, else of its box; a
      detection by the area of what is compared.

    Args:
        truth: The ground truth.
        results: Detections in the COCO results format, masks as compressed codes.
        iou_type: What is compared.
        class_agnostic: Merge all classes.
        categories: Names of the categories to evaluate (AP on unseen classes). None: all.

    Returns:
        `AP` (mean over IoU 0.50:0.05:0.95 and classes), `AP25`, `AP50`, `AP70`, `AP75`, `APs`, `APm`, `APl` (area below
        32^2, between, above 96^2 pixels), `AR1`, `AR10`, `AR100` (1, 10, 100 detections per image and class), `ARs`,
        `ARm`, `ARl`: in [0, 1], or NaN if there are no instances; `per_class`: AP by class name.

    Raises:
        BoxelError: A category is unknown, or masks are compared and the size of an image is unknown.

    Examples:
        >>> import tempfile
        >>> from boxel.data.synthetic import write_scenes
        >>> from boxel.evaluation import to_results
        >>> truth = write_scenes(tempfile.mkdtemp(), 1, height=64, width=96)
        >>> coco_ap(truth, to_results(truth))["AP50"]
        1.0

    References:
        Lin et al., Microsoft COCO, ECCV 2014; Cheng et al., Boundary IoU, CVPR 2021.
    """
    return average_precision(Comparison.of(truth, results, class_agnostic, categories), iou_type)


def average_precision(comparison: Comparison, iou_type: IouType = "segm") -> dict[str, Any]:
    """Compute the metrics of :func:`coco_ap` for a prepared comparison."""
    names = [category.name for category in comparison.truth.categories]
    instances, detections = make_coco_rows(comparison, iou_type)
    if all(row["iscrowd"] for row in instances):
        return {**dict.fromkeys(_METRICS, np.nan), "per_class": dict.fromkeys(names, np.nan)}
    from faster_coco_eval import COCO

    header = make_coco_header(comparison.sized)
    evaluator = _make_evaluator(
        COCO({**header, "annotations": instances}), COCO({**header, "annotations": detections}), iou_type
    )
    evaluator.params.iouThrs = _THRESHOLDS
    evaluator.evaluate()
    evaluator.accumulate()
    values = {"AP": evaluator.eval["precision"], "AR": evaluator.eval["recall"]}
    return {
        **{name: _mean(values[name[:2]], *cut) for name, cut in _METRICS.items()},
        "per_class": {name: _mean(values["AP"][:, :, [k]]) for k, name in enumerate(names)},
    }


def _make_evaluator(truth: Any, detections: Any, iou_type: IouType) -> Any:
    """Make an evaluator; boundaries are already in the rows, where it would compute them on whole images."""
    from faster_coco_eval import COCOeval_faster

    class Evaluator(COCOeval_faster):
        def _prepare(self) -> None:
            self.params.compute_boundary = False
            super()._prepare()
            self.params.compute_boundary = iou_type == "boundary"

    return Evaluator(truth, detections, iou_type, print_function=logging.getLogger(__name__).debug)


def make_coco_header(truth: Annotations) -> dict[str, Any]:
    """Make COCO's `images` and `categories`, both numbered from 1."""
    images = [
        {"id": number, "width": int(truth.widths[i]), "height": int(truth.heights[i])}
        for i, number in enumerate(_number_images(truth).tolist())
    ]
    classes = [{"id": k + 1, "name": category.name} for k, category in enumerate(truth.categories)]
    return {"images": images, "categories": classes}


def make_coco_rows(
    comparison: Comparison, iou_type: IouType
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Make COCO's `annotations` of the ground truth and of the results, numbered as in `make_coco_header`.

    Args:
        comparison: Ground truth and results; results of categories that the ground truth lacks are left out.
        iou_type: Rows have masks unless boxes are compared, and also `boundary` if boundaries are.

    Raises:
        BoxelError: Masks are compared and the size of an image is unknown.
    """
    if iou_type != "bbox":
        comparison.require_sizes()
    rows = _make_truth_rows(comparison, iou_type), _make_result_rows(comparison, iou_type)
    if iou_type == "boundary":
        for row in (*rows[0], *rows[1]):
            row["boundary"] = _encode_boundary(row["segmentation"])
    return rows


def _number_images(truth: Annotations) -> NDArray[np.int64]:
    """Number the images from 1 in the order of their ids, which is how pycocotools breaks ties of scores: (I,)."""
    order = sorted(range(len(truth)), key=lambda i: (isinstance(truth.image_ids[i], str), truth.image_ids[i]))
    numbers = np.empty(len(truth), dtype=np.int64)
    numbers[order] = np.arange(1, len(truth) + 1)
    return numbers


def _make_truth_rows(comparison: Comparison, iou_type: IouType) -> list[dict[str, Any]]:
    truth, numbers = comparison.sized, _number_images(comparison.sized)
    rows: list[dict[str, Any]] = []
    for i, (x0, y0, x1, y1) in enumerate(truth.boxes.tolist()):
        box = [x0, y0, x1 - x0, y1 - y0]
        row = {
            "id": i + 1,
            "image_id": int(numbers[truth.image_index[i]]),
            "category_id": int(truth.labels[i]) + 1,
            "iscrowd": int(truth.iscrowd[i]),
            "bbox": box,
            "area": _area(truth, i),
        }
        if iou_type != "bbox":
            image, mask = truth.image_index[i], comparison.masks[i]
            size = int(truth.heights[image]), int(truth.widths[image])
            row["segmentation"] = coco_mask.frPyObjects(np.array([box]), *size)[0] if mask is None else mask
            row["iscrowd"] = int(truth.iscrowd[i] or mask is None)
        rows.append(row)
    return rows


def _area(truth: Annotations, instance: int) -> float:
    """Return the area of an instance as COCO counts it; that of the box if its mask cannot be read."""
    try:
        return truth.area(instance)
    except (BoxelError, ValueError):  # reported where masks are read
        return float(np.prod(truth.boxes[instance, 2:] - truth.boxes[instance, :2]))


def _make_result_rows(comparison: Comparison, iou_type: IouType) -> list[dict[str, Any]]:
    truth, class_agnostic = comparison.sized, comparison.class_agnostic
    image = dict(zip(truth.image_ids, _number_images(truth).tolist(), strict=True))
    label = {category.id: k + 1 for k, category in enumerate(truth.categories)}
    kept = [r for r in comparison.results if class_agnostic or r["category_id"] in label]
    rows: list[dict[str, Any]] = []
    for result, box in zip(kept, get_boxes(kept).tolist(), strict=True):
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
        # As in pycocotools, a box that comes from a mask alone has the area of the mask.
        from_mask = iou_type != "bbox" or result.get("bbox") is None
        row["area"] = int(coco_mask.area(result["segmentation"])) if from_mask else box[2] * box[3]
        rows.append(row)
    return rows


def _encode_boundary(rle: Rle) -> Rle:
    """Encode the boundary of a mask; outside its box there is nothing to erode."""
    import cv2

    mask = decode(rle)
    x, y, w, h = coco_mask.toBbox(rle).astype(int).tolist()
    if w and h:
        width = max(round(_BOUNDARY_RATIO * float(np.hypot(*mask.shape))), 1)
        inside = np.ascontiguousarray(mask[y : y + h, x : x + w])
        core = cv2.erode(
            inside, np.ones((3, 3), np.uint8), iterations=width, borderType=cv2.BORDER_CONSTANT, borderValue=0
        )
        mask[y : y + h, x : x + w] = inside - core
    return encode(mask)


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
    """The D detections of one class, best score first, matched at T thresholds of IoU.

    Attributes:
        label: The class, an index into the categories of the ground truth.
        image: (D,) index of the image.
        true: (T, D) bool, the detection matches an instance.
        false: (T, D) bool, it matches none. A detection that is neither is ignored.
        present: (I,) number of instances per image.
    """

    label: int
    image: NDArray[np.int64]
    true: NDArray[np.bool_]
    false: NDArray[np.bool_]
    present: NDArray[np.int64]


def match_detections(
    comparison: Comparison,
    metric: Literal["segm", "bbox"] = "segm",
    thresholds: Sequence[float] | None = None,
    max_detections: int = 100,
) -> list[ClassMatches]:
    """Match detections as pycocotools does: best score first, each with the free instance that it overlaps most.

    Args:
        comparison: Ground truth and results; what is ignored is as in :func:`coco_ap`.
        metric: IoU of masks or of boxes.
        thresholds: T minimum IoUs, ascending. None: COCO's ten.
        max_detections: Maximum detections per image and class.

    Returns:
        The matches of each class that has instances.
    """
    header = make_coco_header(comparison.sized)
    images = len(header["images"])
    evaluations = _evaluate_images(comparison, header, metric, thresholds, max_detections)
    matches = []
    for label in range(len(header["categories"])):
        found = [e for e in evaluations[label * images : (label + 1) * images] if e is not None]
        present = np.zeros(images, dtype=np.int64)
        for e in found:
            present[e["image_id"] - 1] = np.count_nonzero(e["gtIgnore"] == 0)
        if not present.any():
            continue
        image = np.concatenate([np.full(len(e["dtScores"]), e["image_id"] - 1) for e in found])
        order = np.argsort(-np.concatenate([e["dtScores"] for e in found]), kind="stable")
        matched = np.concatenate([e["dtMatches"] for e in found], axis=1)[:, order] > 0
        counted = ~np.concatenate([e["dtIgnore"] for e in found], axis=1)[:, order].astype(bool)
        matches.append(ClassMatches(label, image[order], matched & counted, ~matched & counted, present))
    return matches


def _evaluate_images(
    comparison: Comparison,
    header: dict[str, Any],
    metric: Literal["segm", "bbox"],
    thresholds: Sequence[float] | None,
    max_detections: int,
) -> list[dict[str, Any] | None]:
    """Run pycocotools, and return its evaluation of each class and image."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    sides = []
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        for rows in make_coco_rows(comparison, metric):
            side = COCO()
            side.dataset = {**header, "annotations": rows}
            side.createIndex()
            sides.append(side)
        evaluator = COCOeval(*sides, metric)
        if thresholds is not None:
            evaluator.params.iouThrs = np.array(thresholds)
        evaluator.params.maxDets = [max_detections]
        evaluator.params.areaRng, evaluator.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluator.evaluate()
    return evaluator.evalImgs


@dataclass(frozen=True)
class BoxMatches:
    """Pairs of a result and an instance, one to one.

    Attributes:
        results: (M,) int64, positions in the results.
        instances: (M,) int64, indices of instances of the ground truth.
        iou: (M,) float64, IoU of their boxes.
    """

    results: NDArray[np.int64]
    instances: NDArray[np.int64]
    iou: NDArray[np.float64]


def match_boxes(
    truth: Annotations, results: Sequence[Result], min_iou: float = 0.5, class_agnostic: bool = False
) -> BoxMatches:
    """Match detections with instances by their boxes.

    In each image, in the order of scores, each detection takes the free instance of its class whose box overlaps its
    own most. Crowds are never matched.

    Args:
        truth: The ground truth.
        results: Detections.
        min_iou: Minimum IoU of the two boxes.
        class_agnostic: Classes need not agree.

    Examples:
        >>> import tempfile
        >>> from boxel.data.synthetic import write_scenes
        >>> from boxel.evaluation import to_results
        >>> truth = write_scenes(tempfile.mkdtemp(), 1, height=64, width=96)
        >>> match_boxes(truth, to_results(truth)[::-1]).instances.tolist()
        [4, 3, 2, 1, 0]
    """
    label = {category.id: k for k, category in enumerate(truth.categories)}
    boxes = get_boxes(results)
    pairs: list[tuple[int, int, float]] = []
    for image, positions in group_by_image(truth, results).items():
        instances = truth.instances_in(image)
        instances = instances[~truth.iscrowd[instances]]
        if not len(instances):
            continue
        gt_boxes = truth.boxes[instances]
        gt_boxes = np.concatenate([gt_boxes[:, :2], gt_boxes[:, 2:] - gt_boxes[:, :2]], axis=1)
        iou = coco_mask.iou(boxes[positions], gt_boxes, [0] * len(instances))
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
    return BoxMatches(columns[0].astype(np.int64), columns[1].astype(np.int64), columns[2])


def mask_iou(
    truth: Annotations, results: Sequence[Result], min_iou: float = 0.5, class_agnostic: bool = False
) -> dict[str, float]:
    """Average the mask IoU over the detections whose boxes match an instance.

    It measures the masks independently of the detector.

    Args:
        truth: The ground truth. Instances without a mask are matched too, and left out afterwards.
        results: Detections with masks.
        min_iou: Minimum IoU of matched boxes.
        class_agnostic: Classes need not agree.

    Returns:
        `mask_iou`: The mean in [0, 1], NaN without a match; `matched`: the number of matched instances that have a
        mask; `instances`: the number of instances that have a mask and are not crowds.

    Raises:
        BoxelError: The size of an image is unknown.

    Examples:
        >>> import tempfile
        >>> from boxel.data.synthetic import write_scenes
        >>> from boxel.evaluation import to_results
        >>> truth = write_scenes(tempfile.mkdtemp(), 1, height=64, width=96)
        >>> mask_iou(truth, to_results(truth)[:3])
        {'mask_iou': 1.0, 'matched': 3, 'instances': 5}
    """
    return mean_mask_iou(Comparison(truth, results, class_agnostic), min_iou)


def mean_mask_iou(comparison: Comparison, min_iou: float = 0.5) -> dict[str, float]:
    """Compute :func:`mask_iou` for a prepared comparison."""
    comparison.require_sizes()
    masks, results = comparison.masks, comparison.results
    matches = match_boxes(comparison.truth, results, min_iou, comparison.class_agnostic)
    ious = [
        coco_mask.iou([results[position]["segmentation"]], [masks[instance]], [0])[0, 0]
        for position, instance in zip(matches.results, matches.instances, strict=True)
        if masks[instance] is not None
    ]
    return {
        "mask_iou": float(np.mean(ious)) if ious else float("nan"),
        "matched": len(ious),
        "instances": sum(
            mask is not None and not crowd
            for mask, crowd in zip(masks, comparison.truth.iscrowd.tolist(), strict=True)
        ),
    }
