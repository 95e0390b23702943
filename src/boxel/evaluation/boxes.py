"""Box-to-mask quality: masks against true masks of the same instances, masks against boxes, and quality estimates."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pycocotools import mask as coco_mask

from boxel.data.annotations import Annotations
from boxel.data.image_names import find_stem, fold_name, split_path
from boxel.data.pairing import pair_images
from boxel.evaluation.breakdown import explain, format_breakdown
from boxel.evaluation.coco import match_boxes
from boxel.evaluation.results import Result, code_areas, get_boxes, to_results
from boxel.evaluation.tables import format_table
from boxel.masks.boxes import paired_box_iou, tight_boxes, xywh_to_xyxy
from boxel.utils.errors import BoxelError
from boxel.utils.printable import count_noun

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

ComparedMasks: TypeAlias = tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]
"""(M,) IoUs, and (M,) indices in the compared dataset and in the ground truth."""

MIN_SIDE = 16.0
"""Minimum shorter side, in pixels, of the boxes whose masks are evaluated."""

MIN_RANKED = 20
"""Minimum number of masks with a quality for metrics of the quality."""

BOX_LIKE = 0.95
"""Masks that fill more than this share of their boxes on average are boxes rather than masks."""


def mask_iou_metrics(ious: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """Summarize the IoUs of masks that were predicted from boxes.

    Args:
        ious: (N,) IoU of each mask with the true one.
        labels: (N,) class of each.

    Returns:
        `mask_iou`: the mean over instances; `IoU@50` and `IoU@75`: the share above 0.5 and 0.75; `mask_iou_by_class`:
        the paper's mIoU*, the mean over classes of the mean over instances. Empty without instances.

    Examples:
        >>> metrics = mask_iou_metrics([0.9, 0.6, 0.8], [7, 3, 3])
        >>> [round(metrics[name], 3) for name in ("mask_iou", "IoU@75", "mask_iou_by_class")]
        [0.767, 0.667, 0.8]

    References:
        Wang et al. (BoxCaseg), CVPR 2021, Section 4.
    """
    values, classes = np.asarray(ious, dtype=np.float64), np.asarray(labels)
    if not len(values):
        return {}
    _, index = np.unique(classes, return_inverse=True)
    class_means = np.bincount(index, weights=values) / np.bincount(index)
    return {
        "mask_iou": float(values.mean()),
        "IoU@50": float((values > 0.5).mean()),
        "IoU@75": float((values > 0.75).mean()),
        "mask_iou_by_class": float(class_means.mean()),
    }


def measure_masks(truth: Annotations, pred: Annotations, min_side: float = MIN_SIDE) -> dict[str, float]:
    """Compare a labeled dataset with the true masks of the same instances.

    Args:
        truth: True masks.
        pred: Masks of the same instances, by their ids, or by image name, class and box if ids differ; an instance
            without one counts as an IoU of 0.
        min_side: Minimum shorter side, in pixels, of the boxes that count.

    Returns:
        The metrics of :func:`mask_iou_metrics`, `instances`, their number, and `min_side`; if at least 20 masks have a
        quality, also those of :func:`quality_metrics`.

    Raises:
        BoxelError: The two have no instance in common.

    Examples:
        >>> from boxel.data import example_scenes
        >>> truth = example_scenes()
        >>> measure_masks(truth, truth)["mask_iou"]
        1.0
    """
    return summarize_masks(truth, pred, instance_ious(truth, pred, min_side), min_side)


def summarize_masks(
    truth: Annotations, pred: Annotations, compared: ComparedMasks, min_side: float = MIN_SIDE
) -> dict[str, float]:
    """Compute the metrics of :func:`measure_masks` from what :func:`instance_ious` returns."""
    ious, pred_index, gt_index = compared
    metrics = mask_iou_metrics(ious, truth.labels[gt_index])
    metrics |= {"instances": float(len(ious)), "min_side": min_side}
    known = (pred_index >= 0) & np.isfinite(pred.quality[pred_index])
    if known.sum() >= MIN_RANKED:
        metrics |= quality_metrics(ious[known], pred.quality[pred_index[known]])
    return metrics


def instance_ious(truth: Annotations, pred: Annotations, min_side: float = MIN_SIDE) -> ComparedMasks:
    """Compute the IoU of each mask with the true one.

    Args:
        truth: As for :func:`measure_masks`.
        pred: As for :func:`measure_masks`.
        min_side: As for :func:`measure_masks`.

    Returns:
        IoUs (M,), indices (M,) of the instances in ``pred``, -1 if there is none, and in ``truth``. Crowds and
        instances without a true mask are left out.

    Raises:
        BoxelError: The two have no instance in common.

    Examples:
        >>> from boxel.data import example_scenes
        >>> truth = example_scenes()
        >>> instance_ious(truth, truth.without_masks().select_instances([0, 1, 2]))[0].tolist()
        [0.0, 0.0, 0.0]
    """
    sides = (truth.boxes[:, 2:] - truth.boxes[:, :2]).min(axis=1, initial=np.inf)
    gt_index = np.flatnonzero(truth.has_mask & ~truth.iscrowd & (sides >= min_side))
    pred_index = _match_instances(truth, pred)[gt_index]
    if len(gt_index) and (pred_index < 0).all():
        raise BoxelError(
            f"{pred.file}: no instance is also in {truth.file}, neither by its id nor by image name, class and box; "
            "compare a labeled dataset with the true masks of the same dataset."
        )
    ious = np.zeros(len(gt_index))
    for row, (own, other) in enumerate(zip(pred_index.tolist(), gt_index.tolist(), strict=True)):
        gt_mask = truth.rle(other)
        assert gt_mask is not None  # has_mask
        try:
            mask = pred.rle(own, tuple(gt_mask["size"])) if own >= 0 else None
        except BoxelError as error:
            logger.warning("%s It counts as an IoU of 0.", error)
            continue
        if mask is not None:
            ious[row] = coco_mask.iou([mask], [gt_mask], [0])[0, 0]
    return ious, pred_index, gt_index


def _match_instances(truth: Annotations, pred: Annotations) -> NDArray[np.int64]:
    """Find the instances of one dataset in another: (N,) indices in ``pred``, -1 if there is none.

    Image and annotation ids decide if they agree. If not, as ids may that two readers made up, instances of the same
    class in images of the same name are matched by their boxes.
    """
    position = {(pred.image_ids[image], pred.ids[i]): i for i, image in enumerate(pred.image_index.tolist())}
    keys = ((truth.image_ids[image], truth.ids[i]) for i, image in enumerate(truth.image_index.tolist()))
    index = np.array([position.get(key, -1) for key in keys], dtype=np.int64)
    pairs = pair_images(pred, truth)
    if _ids_agree(truth, pred, index, pairs):
        return index
    index[:] = -1
    images = ["" if image is None else truth.image_ids[image] for image in pairs]
    category_of = {category.name: category.id for category in truth.categories}
    categories = tuple(replace(c, id=category_of.get(c.name, -1)) for c in pred.categories)
    in_both = np.array([image is not None for image in pairs], dtype=bool)
    own = np.flatnonzero(in_both[pred.image_index] & pred.has_box & ~pred.iscrowd)
    renamed = replace(pred.without_masks(), image_ids=images, categories=categories).select_instances(own)
    for row, instance in match_boxes(truth, to_results(renamed)):
        index[instance] = own[row]
    logger.info(
        "%s is compared with %s by image name, class and box, since their ids differ: %d of %d instances are matched",
        *(pred.file, truth.file, (index >= 0).sum(), (~truth.iscrowd).sum()),
    )
    return index


def _ids_agree(
    truth: Annotations, pred: Annotations, index: NDArray[np.int64], pairs: Sequence[int | None]
) -> bool:
    """Return whether instances of the same ids have the same image names, and at least half of them similar boxes."""
    found = np.flatnonzero(index >= 0)
    images = zip(truth.image_index[found].tolist(), pred.image_index[index[found]].tolist(), strict=True)
    same = (  # the names of several images may be the same
        _stem(truth.paths[a]) == _stem(pred.paths[b]) if pairs[b] is None else pairs[b] == a
        for a, b in set(images)
    )
    boxed = found[truth.has_box[found] & pred.has_box[index[found]]]
    overlap = paired_box_iou(truth.boxes[boxed], pred.boxes[index[boxed]]) > 0
    return len(found) > 0 and all(same) and 2 * int(overlap.sum()) >= len(boxed)


def _stem(path: str) -> str:
    return find_stem(fold_name("".join(split_path(path)[-1:])))


def quality_metrics(ious: ArrayLike, quality: ArrayLike) -> dict[str, float]:
    """Measure how well an estimate of mask quality predicts the true IoU.

    Args:
        ious: (N,) true IoUs.
        quality: (N,) estimates in [0, 1].

    Returns:
        `spearman`: rank correlation; `calibration_error`: mean distance of estimate and truth over ten bins of equal
        count; `gain`: to keep the best 60 % of the masks by true IoU raises their mean IoU, and this is the share of
        that rise that keeping the best 60 % by quality gives.

    Examples:
        >>> metrics = quality_metrics([0.1, 0.5, 0.6, 0.8, 0.9], [0.2, 0.4, 0.6, 0.9, 0.8])
        >>> round(metrics["spearman"], 2), round(metrics["gain"], 2)
        (0.9, 1.0)
    """
    estimate, truth = np.asarray(quality, dtype=np.float64), np.asarray(ious, dtype=np.float64)
    order = np.argsort(-estimate, kind="stable")
    count = round(0.6 * len(truth))
    best, oracle = truth[order[:count]].mean(), np.sort(truth)[::-1][:count].mean()
    bins = [part for part in np.array_split(order, 10) if len(part)]
    with np.errstate(divide="ignore", invalid="ignore"):  # NaN if one side is constant
        correlation = np.corrcoef(_rank(estimate), _rank(truth))[0, 1]
    return {
        "spearman": float(correlation),
        "calibration_error": float(np.mean([abs((estimate - truth)[part].mean()) for part in bins])),
        "gain": float((best - truth.mean()) / max(oracle - truth.mean(), 1e-9)),
    }


def _rank(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rank values in ascending order; equal ones share their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def format_masks(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """Format metrics of :func:`measure_masks` as a table, one row per set of masks, above their breakdown."""
    others = ("instances", "min_side", "per_class", "per_size", "worst")
    columns = list(dict.fromkeys(name for row in metrics.values() for name in row if name not in others))
    rows = [[name, *map(row.get, columns)] for name, row in metrics.items()]
    first = next(iter(metrics.values()))
    size = f"with a side of {first['min_side']:g} pixels or more" if first["min_side"] else "of any size"
    lines = [format_table([["", *columns], *rows])]
    lines.append(f"{count_noun(int(first['instances']), 'box', 'boxes')} {size}")
    if "worst" in first:
        lines += [*format_breakdown(first), "", *explain(columns)]
    return "\n".join(lines)


# ---------------------------------------------------------------- masks against boxes


def box_agreement(truth: Annotations, results: Sequence[Result]) -> dict[str, float]:
    """Compare the tight box of each mask with the true box of the instance that its detection matches.

    BoxInst's projection term asks for an IoU of 1, so this evaluates masks by boxes alone. It cannot tell a good mask
    from a filled box: read it together with `mean_fill`.

    Args:
        truth: The ground truth; boxes suffice.
        results: Detections with masks, matched by their boxes as in :func:`~boxel.evaluation.coco.match_boxes`.

    Returns:
        `mean` in [0, 1]; `share50` and `share75`: the share of matches with an IoU of at least 0.5 and 0.75 (all NaN
        without a match); `matched`: number of matches; `instances`: number of instances that are not crowds.

    Examples:
        >>> from boxel.data import example_scenes
        >>> from boxel.evaluation import to_results
        >>> truth = example_scenes()
        >>> box_agreement(truth, to_results(truth))["mean"]
        1.0

    References:
        Tian et al. (BoxInst), CVPR 2021, Section 3.2.
    """
    positions, instances = np.array(match_boxes(truth, results), dtype=np.int64).reshape(-1, 2).T
    tight = np.array([coco_mask.toBbox(results[position]["segmentation"]) for position in positions])
    ious = paired_box_iou(xywh_to_xyxy(tight.reshape(-1, 4)), truth.boxes[instances])
    parts = {"mean": ious, "share50": ious >= 0.5, "share75": ious >= 0.75}
    means = {name: float(values.mean()) if len(ious) else math.nan for name, values in parts.items()}
    return means | {"matched": len(ious), "instances": int((~truth.iscrowd).sum())}


def mean_fill(results: Sequence[Result], areas: NDArray[np.float64] | None = None) -> float:
    """Return the mean share of a predicted box that its mask fills; NaN without results.

    Objects of COCO fill about 0.55 of their boxes. A mean near 1 means that the masks are filled boxes.

    Args:
        results: R detections with masks.
        areas: (R,) areas of the masks, if they are known.

    Examples:
        >>> from boxel.masks.rle import encode
        >>> mask = encode(np.eye(4))
        >>> mean_fill([{"image_id": 1, "score": 1.0, "bbox": [0, 0, 4, 4], "segmentation": mask}])
        0.25
    """
    boxes = get_boxes(results)
    box_areas = boxes[:, 2] * boxes[:, 3]
    mask_areas = code_areas([result["segmentation"] for result in results]) if areas is None else areas
    positive = box_areas > 0
    # A mask may reach beyond its box, and holds pixels whole that the box cuts through.
    fill = (mask_areas[positive] / box_areas[positive]).clip(max=1)
    return float(fill.mean()) if len(fill) else math.nan


# ---------------------------------------------------------------- validation of a training


def compare_masks(
    target: Mapping[str, Tensor], masks: Tensor
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compare masks of an image's boxes with a target of :class:`~boxel.data.dataset.InstanceDataset`.

    Args:
        target: `boxes`, and `masks` and `has_mask` if there are true ones.
        masks: (N, H, W) bool, one per box.

    Returns:
        (N,) IoU with the true mask, NaN if there is none, and (N,) IoU of the tight box with the box.

    Examples:
        >>> import torch
        >>> masks = torch.ones(1, 4, 4, dtype=torch.bool)
        >>> target = {"boxes": torch.tensor([[0.0, 0, 4, 8]]), "masks": masks, "has_mask": torch.tensor([True])}
        >>> [part.tolist() for part in compare_masks(target, masks)]
        [[1.0], [0.5]]
    """
    pred_masks, boxes = masks.numpy(force=True), target["boxes"].numpy(force=True)
    ious = np.full(len(pred_masks), np.nan)
    if "masks" in target:
        gt_masks, known = target["masks"].numpy(force=True) > 0, target["has_mask"].numpy(force=True)
        both, either = (pred_masks & gt_masks).sum((1, 2)), (pred_masks | gt_masks).sum((1, 2))
        ious[known] = (both / either.clip(min=1))[known]
    return ious, paired_box_iou(tight_boxes(pred_masks), boxes)


def summarize_validation(parts: Sequence[tuple[Any, Any, Any]]) -> dict[str, float]:
    """Summarize the IoUs, box agreements and labels, (N,) each, of images that :func:`compare_masks` has compared.

    It returns the metrics of :func:`mask_iou_metrics` if there are true masks, and the mean `box_agreement`.

    Examples:
        >>> summarize_validation([([np.nan], [0.5], [0]), ([0.8], [1.0], [0])])["box_agreement"]
        0.75
    """
    ious, agreement, labels = (np.concatenate([np.zeros(0), *(part[i] for part in parts)]) for i in range(3))
    known = np.isfinite(ious)
    metrics = mask_iou_metrics(ious[known], labels[known])
    return metrics | ({"box_agreement": float(agreement.mean())} if len(agreement) else {})
