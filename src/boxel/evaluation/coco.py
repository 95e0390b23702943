"""COCO's average precision and recall of boxes, masks and mask boundaries, and the matches behind them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypedDict, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from boxel.data.annotations import Annotations
from boxel.evaluation.overlaps import ALL_AREAS, MIN_IOU, Overlaps, find_overlaps
from boxel.evaluation.results import Result

IouType: TypeAlias = Literal["bbox", "segm", "boundary"]

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

    The numbers equal those of pycocotools (to 1e-12).

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
    overlaps = find_overlaps(truth, results, "bbox" if iou_type == "bbox" else "segm")
    return summarize_overlaps(overlaps.by_boundary() if iou_type == "boundary" else overlaps)


_THRESHOLDS = np.array([MIN_IOU, *np.linspace(0.5, 0.95, 10)])
_RECALLS = np.linspace(0, 1, 101)
_COCO = slice(1, None)  # COCO's own ten thresholds

_AREAS = {"": ALL_AREAS, "s": (0.0, 32.0**2), "m": (32.0**2, 96.0**2), "l": (96.0**2, 1e10)}
"""Minimum and maximum square pixels by the ending of a metric."""

_PRECISIONS = {
    "AP": ("", _COCO),
    "AP25": ("", slice(0, 1)),
    "AP50": ("", slice(1, 2)),
    "AP70": ("", slice(5, 6)),
    "AP75": ("", slice(6, 7)),
    "APs": ("s", _COCO),
    "APm": ("m", _COCO),
    "APl": ("l", _COCO),
}
"""The part of precision that each metric is the mean of: area and thresholds."""

_FEW = (1, 10)  # detections per image and class of AR1 and AR10


def summarize_overlaps(overlaps: Overlaps) -> CocoMetrics:
    """Compute the metrics of :func:`coco_ap` from the IoUs of detections and instances."""
    names = [category.name for category in overlaps.truth.categories]
    precision, recall = {}, {}
    for area, limits in _AREAS.items():
        matched, ignored, gt_ignored = overlaps.match(_THRESHOLDS, limits)
        true, false = (matched >= 0) & ~ignored, (matched < 0) & ~ignored
        present = np.bincount(overlaps.truth.labels[~gt_ignored], minlength=len(names))
        precision[area], recall[f"AR{area or 100}"] = _accumulate(overlaps, true, false, present)
        for count in _FEW if not area else ():
            few = overlaps.rank < count
            recall[f"AR{count}"] = _accumulate(overlaps, true & few, false & few, present)[1]
    means = {name: _mean(precision[area][part]) for name, (area, part) in _PRECISIONS.items()}
    means |= {f"AR{key}": _mean(recall[f"AR{key}"][_COCO]) for key in (*_FEW, 100, "s", "m", "l")}
    per_class = {name: _mean(precision[""][_COCO, :, k]) for k, name in enumerate(names)}
    return cast(CocoMetrics, {**means, "per_class": per_class})


def _accumulate(
    overlaps: Overlaps, true: NDArray[np.bool_], false: NDArray[np.bool_], present: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute precisions and recalls.

    Args:
        overlaps: Of D detections.
        true: (T, D), the detection matches an instance.
        false: (T, D), it matches none.
        present: (K,) number of instances of each class.

    Returns:
        (T, 101, K) precision interpolated at COCO's recalls, and (T, K) highest recall; NaN without instances.
    """
    precisions = np.full((len(true), len(_RECALLS), len(present)), np.nan)
    recalls = np.full((len(true), len(present)), np.nan)
    bounds = np.searchsorted(overlaps.label, np.arange(len(present) + 1))
    for k in np.flatnonzero(present).tolist():
        own = slice(bounds[k], bounds[k + 1])
        order = np.argsort(-overlaps.scores[own], kind="stable")
        hits, misses = (np.cumsum(part[:, own][:, order], axis=1) for part in (true, false))
        recall = np.pad(hits / present[k], ((0, 0), (1, 0)))
        precision = np.maximum.accumulate((hits / np.maximum(hits + misses, 1))[:, ::-1], axis=1)[:, ::-1]
        precision = np.pad(precision, ((0, 0), (0, 1)))  # beyond the last detection
        recalls[:, k] = recall[:, -1]
        for t in range(len(true)):
            precisions[t, :, k] = precision[t, np.searchsorted(recall[t, 1:], _RECALLS)]
    return precisions, recalls


def _mean(values: NDArray[np.float64]) -> float:
    """Average all that are defined; NaN if none is."""
    values = values[~np.isnan(values)]
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
    overlaps = find_overlaps(truth, results, metric, max_detections)
    return list(split_by_class(overlaps, _THRESHOLDS[_COCO] if thresholds is None else thresholds))


def split_by_class(overlaps: Overlaps, thresholds: ArrayLike) -> Iterator[ClassMatches]:
    """Yield the matches of each class that has instances or detections; see :func:`match_detections`."""
    matched, ignored, gt_ignored = overlaps.match(thresholds)
    truth = overlaps.truth
    for label in range(len(truth.categories)):
        own, instances = np.flatnonzero(overlaps.label == label), truth.labels == label
        if not len(own) and not instances.any():
            continue
        own = own[np.argsort(-overlaps.scores[own], kind="stable")]
        found, counted = matched[:, own], ~ignored[:, own]
        true = (found >= 0) & counted
        yield ClassMatches(
            *(label, overlaps.image[own], overlaps.result[own], overlaps.scores[own]),
            instance=np.where(true, found, -1),
            true=true,
            false=(found < 0) & counted,
            present=np.bincount(truth.image_index[instances & ~gt_ignored], minlength=len(truth)),
        )


def match_boxes(truth: Annotations, results: Sequence[Result]) -> list[tuple[int, int]]:
    """Match detections with instances whose boxes overlap theirs by an IoU of at least 0.5.

    In each image, in the order of scores, each detection takes the free instance of its class whose box overlaps its
    own most. Crowds are never matched. As many detections count as in :func:`coco_ap`.

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
    overlaps = find_overlaps(truth, results, "bbox")
    order = np.lexsort((overlaps.result, -overlaps.scores, overlaps.image))
    matched = _match_boxes(overlaps)
    order = order[matched[order] >= 0]
    return list(zip(overlaps.result[order].tolist(), matched[order].tolist(), strict=True))


def _match_boxes(overlaps: Overlaps) -> NDArray[np.int64]:
    """Return the (D,) instance that each detection matches by its box, -1 for none."""
    matched, ignored, _ = overlaps.match([_MIN_BOX_IOU])
    return np.where(ignored, -1, matched)[0]


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
    overlaps = find_overlaps(truth, results)
    return average_found(matched_ious(find_overlaps(truth, results, "bbox"), overlaps)[1])


def average_found(ious: NDArray[np.float64]) -> dict[str, float]:
    """Return what :func:`mask_iou` does, from the IoUs of :func:`matched_ious`."""
    found = ious[np.isfinite(ious)]
    mean = float(found.mean()) if len(found) else float("nan")
    return {"mask_iou": mean, "matched": len(found), "instances": len(ious)}


def matched_ious(by_box: Overlaps, by_mask: Overlaps) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the (M,) instances with a mask that are not crowds, and the IoU of the detection of each.

    Detections are matched by their boxes, as in :func:`match_boxes`; an instance without one has an IoU of NaN. Both
    overlaps are of the same detections.
    """
    matched = _match_boxes(by_box)
    ious = np.full(len(by_box.crowd), np.nan)
    ious[matched[matched >= 0]] = 0.0
    detection, instance = by_mask.pairs.T
    pair = matched[detection] == instance
    ious[instance[pair]] = by_mask.iou[pair]
    instances = np.flatnonzero(~by_mask.crowd)
    return instances, ious[instances]
