"""IoUs of detections with the instances of their class in their image, and COCO's matching by them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from pycocotools import mask as coco_mask

from boxel.data.annotations import Annotations
from boxel.data.checks.mask_shapes import iter_runs
from boxel.evaluation.results import (
    Result,
    coco_areas,
    code_areas,
    fill_box,
    fill_in_sizes,
    get_boxes,
    read_masks,
)
from boxel.masks.rle import Rle, draw_runs, encode_in_box

MAX_DETECTIONS = 100
"""Detections per image and class that COCO counts."""

MIN_IOU = 0.25
"""The lowest threshold of AP."""

ALL_AREAS = (0.0, 1e10)
"""All areas that COCO counts, in square pixels."""

_BOUNDARY_RATIO = 0.02  # width of a boundary, as a share of the image's diagonal
_CHUNK = 1 << 20  # pairs of boxes that are compared at once


@dataclass(frozen=True, eq=False)
class Overlaps:
    """D detections that count, N instances, and the E pairs of them of one class in one image with an IoU above 0.

    Detections are sorted by class, by the id of their image (as pycocotools breaks ties of scores), and best score
    first.

    Attributes:
        truth: The ground truth, with the sizes of its images if masks are compared.
        result: (D,) position among the results.
        label: (D,) index of the class.
        image: (D,) index of the image.
        rank: (D,) place in its class and image, 0 for the best score.
        scores: (D,) float64.
        areas: (D,) square pixels of what is compared.
        gt_areas: (N,) square pixels.
        crowd: (N,) bool, the instance is ignored, and any number of detections may match it.
        codes: The masks of the D detections, empty if boxes are compared.
        gt_codes: The masks of the N instances, the filled box if there is none; empty if boxes are compared.
        pairs: (E, 2) detection and instance.
        iou: (E,) float64 in (0, 1]; of a crowd, the share of the detection that is inside.
    """

    truth: Annotations
    result: NDArray[np.int64]
    label: NDArray[np.int64]
    image: NDArray[np.int64]
    rank: NDArray[np.int64]
    scores: NDArray[np.float64]
    areas: NDArray[np.float64]
    gt_areas: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    codes: Sequence[Rle]
    gt_codes: Sequence[Rle]
    pairs: NDArray[np.int64]
    iou: NDArray[np.float64]

    def match(
        self, thresholds: ArrayLike, areas: tuple[float, float] = ALL_AREAS
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]]:
        """Match as pycocotools does: best score first, each detection with the free instance that it overlaps most.

        Args:
            thresholds: T minimum IoUs.
            areas: Minimum and maximum; instances of other areas, and unmatched detections of others, are ignored.

        Returns:
            (T, D) instance that a detection matches, -1 for none; (T, D) bool, the detection is ignored; (N,) bool, the
            instance is.
        """
        limits = np.minimum(np.asarray(thresholds, dtype=np.float64), 1 - 1e-10)
        gt_ignored = self.crowd | (self.gt_areas < areas[0]) | (self.gt_areas > areas[1])
        order = self._by_rank[self.iou[self._by_rank] >= limits.min(initial=1)]
        # A detection takes its first pair that is free, and instances that are ignored come last.
        place = np.cumsum(np.diff(self.pairs[order, 0], prepend=-1) != 0)
        order = order[np.argsort(2 * place + gt_ignored[self.pairs[order, 1]], kind="stable")]
        (detection, instance), iou = self.pairs[order].T, self.iou[order]
        matched = np.full((len(limits), len(self.result)), -1)
        free = np.ones((len(limits), len(self.crowd)), dtype=bool)
        # Detections of one rank do not compete, so that they choose at once.
        rounds = np.append(np.flatnonzero(np.diff(self.rank[detection], prepend=-1)), len(order))
        for start, stop in pairwise(rounds.tolist()):
            own, gt = detection[start:stop], instance[start:stop]
            usable = (iou[start:stop] >= limits[:, None]) & (free[:, gt] | self.crowd[gt])
            firsts = np.flatnonzero(np.diff(own, prepend=-1))
            choice = np.minimum.reduceat(np.where(usable, np.arange(len(own)), len(own)), firsts, axis=1)
            at, which = np.nonzero(choice < len(own))
            chosen = gt[choice[at, which]]
            matched[at, own[firsts[which]]] = chosen
            free[at, chosen] = False
        other_area = (self.areas < areas[0]) | (self.areas > areas[1])
        ignored = np.where(matched >= 0, np.append(gt_ignored, False)[matched], other_area)
        return matched, ignored, gt_ignored

    @cached_property
    def _by_rank(self) -> NDArray[np.int64]:
        """(E,) the pairs in the order of the ranks of detections, of each the highest IoU first."""
        detection, instance = self.pairs.T
        return np.lexsort((-instance, -self.iou, detection, self.rank[detection]))

    def by_mask(
        self,
        truth: Annotations,
        results: Sequence[Result],
        masks: Sequence[Rle | None],
        areas: NDArray[np.float64],
    ) -> Overlaps:
        """Compare the masks of the same detections, of which all have one.

        Args:
            truth: The ground truth.
            results: The R detections.
            masks: What `read_masks` returns for the truth; an instance without one is a crowd that fills its box.
            areas: (R,) areas of the masks of the detections.

        Raises:
            BoxelError: The size of an image is unknown.
        """
        truth = fill_in_sizes(truth, results)
        crowd = truth.iscrowd | np.array([mask is None for mask in masks], dtype=bool)
        codes = [results[k]["segmentation"] for k in self.result.tolist()]
        gt_codes = [mask or _fill(truth, instance) for instance, mask in enumerate(masks)]
        kinds, gt_kinds = _join(truth, self.label, self.image), _join(truth, truth.labels, truth.image_index)
        own = areas[self.result]
        pairs, iou = _concatenate(_compare_masks(kinds, gt_kinds, codes, gt_codes, crowd, own))
        columns = self.result, self.label, self.image, self.rank, self.scores
        return Overlaps(truth, *columns, own, coco_areas(truth), crowd, codes, gt_codes, pairs, iou)

    def by_boundary(self, min_iou: float = MIN_IOU) -> Overlaps:
        """Return the pairs of masks above an IoU, with the smaller of mask IoU and boundary IoU; not so of crowds."""
        close = self.iou >= min_iou
        pairs, iou = self.pairs[close], self.iou[close]
        single = np.flatnonzero(~self.crowd[pairs[:, 1]])
        detections, instances = pairs[single].T.tolist()
        own = _find_boundaries([self.codes[k] for k in dict.fromkeys(detections)])
        gts = _find_boundaries([self.gt_codes[k] for k in dict.fromkeys(instances)])
        kinds = _join(self.truth, self.label, self.image)[detections].tolist()
        last, found, gt_found = -1, dict[int, _Boundary](), dict[int, _Boundary]()
        for k, kind, detection, instance in zip(single.tolist(), kinds, detections, instances, strict=True):
            if kind != last:  # so that no more are kept than those of a class in an image
                last, found, gt_found = kind, {}, {}
            if detection not in found:
                found[detection] = next(own)
            if instance not in gt_found:
                gt_found[instance] = next(gts)
            iou[k] = min(iou[k], _boundary_iou(found[detection], gt_found[instance]))
        return replace(self, pairs=pairs, iou=iou)


def find_overlaps(
    truth: Annotations,
    results: Sequence[Result],
    iou_type: Literal["bbox", "segm"] = "segm",
    max_detections: int | None = None,
) -> Overlaps:
    """Compare detections with the instances of their class in their image.

    Args:
        truth: The ground truth.
        results: Detections; those of categories that the ground truth lacks are left out.
        iou_type: What is compared; of masks, an instance without one is a crowd that fills its box.
        max_detections: Detections per image and class that count. None: `find_detection_limit`.

    Raises:
        BoxelError: Masks are compared, and the size of an image is unknown.

    Examples:
        >>> from boxel.data import example_scenes
        >>> from boxel.evaluation import to_results
        >>> truth = example_scenes()
        >>> find_overlaps(truth, to_results(truth)).iou.tolist()
        [1.0, 1.0, 1.0, 1.0, 1.0]
    """
    by_mask = iou_type == "segm"
    truth = fill_in_sizes(truth, results) if by_mask else truth
    columns = _sort_results(truth, results, max_detections or find_detection_limit(truth, results))
    own = [results[k] for k in columns[0].tolist()]
    boxes = get_boxes(own)
    areas = boxes[:, 2] * boxes[:, 3]
    # As in pycocotools, a box that comes from a mask alone has the area of the mask.
    masked = [k for k, result in enumerate(own) if result.get("bbox") is None]
    areas[masked] = code_areas([own[k]["segmentation"] for k in masked])
    kinds, gt_kinds = (_join(truth, *key) for key in (columns[1:3], (truth.labels, truth.image_index)))
    compared = _compare_boxes(kinds, gt_kinds, boxes, _to_xywh(truth.boxes), truth.iscrowd)
    overlaps = Overlaps(
        truth, *columns, areas, coco_areas(truth), truth.iscrowd, [], [], *_concatenate(compared)
    )
    if not by_mask:
        return overlaps
    mask_areas = code_areas([result["segmentation"] for result in results])
    return overlaps.by_mask(truth, results, read_masks(truth), mask_areas)


def _concatenate(
    compared: Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]],
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return all pairs and their IoUs."""
    pairs, ious = zip((np.zeros((0, 2), dtype=np.int64), np.zeros(0)), *compared, strict=True)
    return np.concatenate(pairs), np.concatenate(ious)


def find_detection_limit(truth: Annotations, results: Sequence[Result]) -> int:
    """Return how many detections per image and class count: COCO's 100, or all if an image has more instances.

    Examples:
        >>> from boxel.data import example_scenes
        >>> find_detection_limit(example_scenes(), [])
        100
    """
    kinds = _join(truth, truth.labels, truth.image_index)
    crowded = np.unique(kinds[~truth.iscrowd], return_counts=True)[1].max(initial=0) > MAX_DETECTIONS
    return max(MAX_DETECTIONS, len(results)) if crowded else MAX_DETECTIONS


def _join(truth: Annotations, labels: NDArray[np.integer], images: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return a number for each pair of a class and an image."""
    return labels.astype(np.int64) * len(truth) + images


def _sort_results(
    truth: Annotations, results: Sequence[Result], limit: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return `result`, `label`, `image`, `rank` and `scores` of `Overlaps`, for so many per image and class."""
    label_of = {category.id: label for label, category in enumerate(truth.categories)}
    index_of = {image_id: image for image, image_id in enumerate(truth.image_ids)}
    kept = [k for k, result in enumerate(results) if result["category_id"] in label_of]
    label = np.array([label_of[results[k]["category_id"]] for k in kept], dtype=np.int64)
    image = np.array([index_of[results[k]["image_id"]] for k in kept], dtype=np.int64)
    scores = np.array([results[k]["score"] for k in kept], dtype=np.float64)
    by_id = sorted(index_of.items(), key=lambda item: (isinstance(item[0], str), item[0]))
    place = np.zeros(len(truth), dtype=np.int64)
    place[[index for _, index in by_id]] = np.arange(len(by_id))
    order = np.lexsort((-scores, place[image], label))
    label, image, scores = label[order], image[order], scores[order]
    starts = np.flatnonzero(np.diff(_join(truth, label, image), prepend=-1))
    rank = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    counted = rank < limit
    columns = np.array(kept, dtype=np.int64)[order], label, image, rank, scores
    return tuple(column[counted] for column in columns)  # type: ignore[return-value]


def _to_xywh(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def _fill(truth: Annotations, instance: int) -> Rle:
    box = _to_xywh(truth.boxes[instance, None])[0].tolist()
    return fill_box(box, *truth.image_size(int(truth.image_index[instance]))[::-1])


def _compare_boxes(
    kinds: NDArray[np.int64],
    gt_kinds: NDArray[np.int64],
    boxes: NDArray[np.float64],
    gt_boxes: NDArray[np.float64],
    crowd: NDArray[np.bool_],
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Yield pairs of xywh boxes and their IoUs, computed as pycocotools does, many at once."""
    order = np.argsort(gt_kinds, kind="stable")
    starts = np.searchsorted(gt_kinds[order], kinds)
    counts = np.searchsorted(gt_kinds[order], kinds, side="right") - starts
    totals = np.cumsum(counts)
    cuts = np.searchsorted(totals, np.arange(_CHUNK, totals[-1] if len(totals) else 0, _CHUNK))
    for part in np.split(np.arange(len(kinds)), cuts):
        own = counts[part]
        detection = np.repeat(part, own)
        first = np.repeat(starts[part] - np.cumsum(own) + own, own)
        instance = order[first + np.arange(len(detection))]
        box, gt = boxes[detection].T, gt_boxes[instance].T
        width = np.fmin(box[0] + box[2], gt[0] + gt[2]) - np.fmax(box[0], gt[0])
        height = np.fmin(box[1] + box[3], gt[1] + gt[3]) - np.fmax(box[1], gt[1])
        shared, area = width * height, box[2] * box[3]
        with np.errstate(divide="ignore", invalid="ignore"):
            iou = shared / np.where(crowd[instance], area, area + gt[2] * gt[3] - shared)
        meets = (width > 0) & (height > 0) & (iou > 0)
        yield np.stack([detection, instance], axis=1)[meets], iou[meets]


def _compare_masks(
    kinds: NDArray[np.int64],
    gt_kinds: NDArray[np.int64],
    codes: Sequence[Rle],
    gt_codes: Sequence[Rle],
    crowd: NDArray[np.bool_],
    areas: NDArray[np.float64],
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Yield pairs of masks and their IoUs, class by class and image by image; the areas are those of the detections."""
    order = np.argsort(gt_kinds, kind="stable")
    bounds = np.append(np.flatnonzero(np.diff(kinds, prepend=-1)), len(kinds))
    own_kinds = kinds[bounds[:-1]]
    firsts, lasts = (
        np.searchsorted(gt_kinds[order], own_kinds, side=side).tolist() for side in ("left", "right")
    )
    instances, crowds = order.tolist(), crowd.tolist()
    alone = list[tuple[int, int]]()
    for (start, stop), first, last in zip(pairwise(bounds.tolist()), firsts, lasts, strict=True):
        if stop - start == last - first == 1:
            alone.append((start, instances[first]))
        elif first < last:
            gts = instances[first:last]
            iou = coco_mask.iou(codes[start:stop], [gt_codes[i] for i in gts], [crowds[i] for i in gts])
            row, column = np.nonzero(iou)
            yield np.stack([row + start, order[first + column]], axis=1), iou[row, column]
    # For a single pair, this takes half of the time that `iou` takes to prepare for many.
    shared = code_areas([coco_mask.merge([codes[own], gt_codes[gt]], intersect=True) for own, gt in alone])
    own, gt = np.array(alone, dtype=np.int64).reshape(-1, 2).T
    union = areas[own] + code_areas([gt_codes[k] for k in gt.tolist()]) - shared
    iou = shared / np.maximum(np.where(crowd[gt], areas[own], union), 1)
    yield np.stack([own, gt], axis=1)[iou > 0], iou[iou > 0]


# ---------------------------------------------------------------- boundaries


class _Boundary(NamedTuple):
    """The pixels of a boundary, (w, h) uint8 zeros and ones, in the tight box of the mask; its corner; its area."""

    pixels: NDArray[np.uint8]
    x: int
    y: int
    area: int


def _find_boundaries(codes: Sequence[Rle]) -> Iterator[_Boundary]:
    """Yield the boundary of each mask."""
    for code, runs in zip(codes, iter_runs([code["counts"] for code in codes]), strict=True):
        pixels, x, y = draw_runs(runs, code["size"][0])
        width = max(round(_BOUNDARY_RATIO * float(np.hypot(*code["size"]))), 1)
        inner = _erode(pixels, width)
        pixels[width : width + len(inner), width : width + inner.shape[1]] -= inner
        yield _Boundary(pixels, x, y, cv2.countNonZero(pixels) if pixels.size else 0)


def _erode(pixels: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """Return which pixels of a mask are farther than a width from its outside, without the rim of that width."""
    if min(pixels.shape) <= 2 * width:
        return pixels[:0, :0]
    inner = pixels.copy()
    flat = inner.ravel()
    for stride in (pixels.shape[1], 1):
        size = 1  # of the window behind each pixel that it is the minimum of
        while size <= 2 * width:
            step = min(size, 2 * width + 1 - size) * stride
            flat[:-step] &= flat[step:]
            size *= 2
    return inner[: -2 * width, : -2 * width]


def _boundary_iou(boundary: _Boundary, other: _Boundary) -> float:
    x0, y0 = max(boundary.x, other.x), max(boundary.y, other.y)
    parts = [one.pixels[x0 - one.x :, y0 - one.y :] for one in (boundary, other)]
    width, height = (min(sides) for sides in zip(*(part.shape for part in parts), strict=True))
    shared = int(np.count_nonzero(parts[0][:width, :height] & parts[1][:width, :height]))
    union = boundary.area + other.area - shared
    return shared / union if union else 0.0


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
    pixels, x, y, _ = next(_find_boundaries([rle]))
    return encode_in_box(pixels.T, x, y, *rle["size"])
