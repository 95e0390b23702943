"""Name the likely cause of detections that do not fit the ground truth: another order of numbers, scale, or numbering.

Each cause is a hypothesis on how the boxes or the classes were written. It is named if the boxes fit the ground truth
much better under it than as they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from operator import itemgetter
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from boxel.data.annotations import Annotations
from boxel.evaluation.results import Result, get_boxes, group_by_image
from boxel.masks.boxes import box_iou, paired_box_iou, tight_boxes, xywh_to_xyxy
from boxel.masks.rle import decode

_MAX_IMAGES, _MAX_PER_IMAGE = 300, 50
"""How many images, spread over the dataset, and how many of the best detections of each are looked at."""

_MIN_MIXED, _MAX_MIXED = 3, 12
"""Minimum number of boxes of images whose ids are compared, and how many of the best boxes are looked at."""

_MIN_BOXES = 4
"""Minimum number of true boxes and of detections; fewer may fit turned images because they are symmetric."""

_MIN_GAIN = 0.1
"""Minimum gain of the mean of the best IoUs by a hypothesis."""

_MIN_LEAD = 0.05
"""Minimum lead of that mean over what a bad detector explains as well, and over the boxes of another image."""

_FORMS: dict[str, tuple[Callable[[NDArray[np.float64]], NDArray[np.float64]], str]] = {
    "x, y, width, height": (xywh_to_xyxy, ""),
    "x0, y0, x1, y1": (lambda boxes: boxes, "subtract the corner from the last two"),
    "center x, center y, width, height": (
        lambda boxes: xywh_to_xyxy(boxes) - np.tile(boxes[:, 2:] / 2, 2),
        "subtract half of the size from the center",
    ),
    "y0, x0, y1, x1": (
        lambda boxes: boxes[:, [1, 0, 3, 2]],
        "swap the axes and subtract the corner from the last two",
    ),
    "y, x, height, width": (lambda boxes: xywh_to_xyxy(boxes[:, [1, 0, 3, 2]]), "swap the axes"),
}
"""Orders in which programs write boxes: what turns them into xyxy, and what makes them those of COCO results."""

_Boxes: TypeAlias = Sequence[NDArray[np.float64]]
"""For each image the (D, 4) xyxy boxes of its detections in pixels, as they are under a hypothesis."""


@dataclass(frozen=True)
class _Image:
    """The true boxes of an image and its best detections as they are written.

    Attributes:
        size: Width and height; 0 if unknown.
        gt_boxes: (G, 4) xyxy.
        gt_ids: (G,) category ids.
        boxes: (D, 4) as written, which should be xywh.
        category_ids: D category ids as written.
    """

    size: tuple[int, int]
    gt_boxes: NDArray[np.float64]
    gt_ids: NDArray[np.int64]
    boxes: NDArray[np.float64]
    category_ids: list[Any]


def find_causes(truth: Annotations, results: Sequence[Result], class_agnostic: bool = False) -> list[str]:
    """Return sentences on what is likely wrong with detections as a whole; none if they fit the ground truth.

    The results are under the image ids of the ground truth.

    Examples:
        >>> from boxel.data import example_scenes
        >>> from boxel.evaluation import to_results
        >>> truth = example_scenes()
        >>> results = to_results(truth.without_masks())
        >>> find_causes(truth, results)
        []
        >>> for result in results:
        ...     x, y, w, h = result["bbox"]
        ...     result["bbox"] = [x, y, x + w, y + h]
        >>> find_causes(truth, results)[0][:40]
        'the boxes fit the ground truth as x0, y0'
    """
    if not results or not (truth.has_box & ~truth.iscrowd).any():
        return []
    images = _sample(truth, results)
    boxes = _as_xywh(images)
    ious = _best_ious(images, boxes)
    hits = int((ious >= 0.5).sum())
    cause, boxes = _find_geometry(images, boxes, ious) or ("", boxes)
    if not cause and hits <= 0.3 * len(ious):
        other_images = _explain_images(truth, results, float(ious.sum() / max(len(ious), 1)))
        if other_images:
            return [other_images]
    if not cause and hits <= 0.05 * len(ious):
        overlap = (
            f"only {hits} of {len(ious)} compared true boxes overlap" if hits else "no true box overlaps"
        )
        cause = (
            f"{overlap} a box of the results by an IoU of 0.5; check that results and ground truth are of the same "
            "images and in pixels of the original files"
        )
    classes = "" if class_agnostic else _explain_classes(truth, images, boxes)
    return [sentence for sentence in (cause, _explain_masks(results), classes) if sentence]


def explain_categories(truth: Annotations, results: Sequence[Result]) -> str:
    """Return the sentence on the classes alone; empty if they fit, or if the boxes do not."""
    images = _sample(truth, results)
    return _explain_classes(truth, images, _as_xywh(images))


def mean_best_iou(truth: Annotations, results: Sequence[Result], images: Sequence[int | None]) -> float:
    """Return how well detections fit the images with these indices: the mean of the best IoUs of true boxes.

    Those without an image (None) count as 0.
    """
    own = [
        {**r, "image_id": truth.image_ids[i]} for r, i in zip(results, images, strict=True) if i is not None
    ]
    sample = _sample(truth, own)
    ious = _best_ious(sample, _as_xywh(sample))
    return float(ious.mean()) * len(own) / len(results) if len(ious) else 0.0


def _sample(truth: Annotations, results: Sequence[Result]) -> list[_Image]:
    """Return some images with their best detections, evenly spread over those with both boxes and detections."""
    groups = group_by_image(truth, results)
    usable = truth.has_box & ~truth.iscrowd
    counts = np.bincount(truth.image_index[usable], minlength=len(truth))
    shared = [image for image in groups if counts[image]]
    ids = np.array([category.id for category in truth.categories], dtype=np.int64)
    images = []
    for image in shared[:: len(shared) // _MAX_IMAGES + 1]:
        own = truth.instances_in(image)
        own = own[usable[own]]
        found = _take_best([results[k] for k in groups[image]], min(2 * len(own) + 3, _MAX_PER_IMAGE))
        size = int(truth.widths[image]), int(truth.heights[image])
        categories = [result["category_id"] for result in found]
        images.append(_Image(size, truth.boxes[own], ids[truth.labels[own]], get_boxes(found), categories))
    return images


def _take_best(results: Sequence[Result], count: int) -> list[Result]:
    return sorted(results, key=lambda result: -result["score"])[:count]


def _as_xywh(images: Sequence[_Image]) -> _Boxes:
    return [xywh_to_xyxy(image.boxes) for image in images]


def _best_ious(images: Sequence[_Image], boxes: _Boxes) -> NDArray[np.float64]:
    """Return for each true box the IoU with the detection that overlaps it most."""
    ious = [box_iou(image.gt_boxes, own).max(axis=1) for image, own in zip(images, boxes, strict=True)]
    return np.concatenate([np.zeros(0), *ious])


# ---------------------------------------------------------------- boxes


def _find_geometry(
    images: list[_Image], written: _Boxes, ious: NDArray[np.float64]
) -> tuple[str, _Boxes] | None:
    """Return the hypothesis on the boxes that fits much better than xywh pixels, if there is one."""
    base = float(ious.mean()) if len(ious) else 1.0
    if base > 0.95:
        return None
    best, best_mean = None, base
    for sentence, boxes in _geometries(images):
        mean = float(_best_ious(images, boxes).mean())
        if mean > best_mean + 1e-6:
            best, best_mean = (sentence, boxes), mean
    # A few boxes fit something by chance.
    count = min(len(ious), sum(map(len, written)))
    if best is None or best_mean < max(0.3 if count >= 10 else 0.6, base + _MIN_GAIN):
        return None
    # Images with the boxes of another one, and what a bad detector explains.
    others = [images[step:] + images[:step] for step in range(1, min(len(images), 5))]
    rivals = (
        [float(np.concatenate([_best_ious(other, best[1]) for other in others]).mean())] if others else []
    )
    rivals += [float(_best_ious(images, boxes).mean()) for boxes in _resized(images, written, best[1])]
    return best if best_mean >= max(rivals, default=0.0) + _MIN_LEAD else None


def _resized(images: Sequence[_Image], written: _Boxes, boxes: _Boxes) -> Iterator[_Boxes]:
    """Yield what a detector of loose, tight or shifted boxes explains: all are resized alike about a point of theirs.

    The factor of each side, and the shift of all centers, are the medians of those of a hypothesis.
    """
    old, new = np.concatenate(written), np.concatenate(boxes)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = (new[:, 2:] - new[:, :2]) / (old[:, 2:] - old[:, :2])
    usable = (np.isfinite(ratios) & (ratios > 0)).all(axis=1)
    if not usable.any():
        return
    factor = np.median(ratios[usable], axis=0)
    shift = np.median((new[:, :2] + new[:, 2:] - old[:, :2] - old[:, 2:])[usable] / 2, axis=0)
    anchors = [(np.array(anchor), np.zeros(2)) for anchor in product((0, 0.5, 1), repeat=2)]
    for anchor, offset in [(np.full(2, 0.5), shift), *anchors]:
        corners = [i.boxes[:, :2] + offset + anchor * i.boxes[:, 2:] * (1 - factor) for i in images]
        yield [
            np.concatenate([corner, corner + image.boxes[:, 2:] * factor], axis=1)
            for image, corner in zip(images, corners, strict=True)
        ]


def _geometries(images: Sequence[_Image]) -> Iterator[tuple[str, _Boxes]]:
    """Yield hypotheses on how boxes were written: a sentence, and the boxes."""
    fit, wanted = "the boxes fit the ground truth as", "COCO results have x, y, width, height, so"
    are_shares = all(image.boxes.max(initial=0) <= 2 for image in images)
    for name, (form, remedy) in _FORMS.items():
        boxes = [form(image.boxes) for image in images]
        if remedy:
            yield f"{fit} {name}; {wanted} {remedy}", boxes
        if are_shares:
            yield (
                f"{fit} shares of the image ({name}); {wanted} multiply them by its width and height",
                [own * np.array(image.size * 2) for own, image in zip(boxes, images, strict=True)],
            )
    if are_shares:
        return
    for name in ("x, y, width, height", "x0, y0, x1, y1"):
        form, remedy = _FORMS[name]
        as_form, remedy = (f", as {name},", f", and {remedy}") if remedy else ("", "")
        plain = [form(image.boxes) for image in images]
        for sentence, scaled in _scales(images, plain):
            if not np.allclose(np.concatenate(scaled), np.concatenate(plain), rtol=0.1):
                yield f"the boxes{as_form} fit images {sentence} to the original files{remedy}", scaled
    if min(sum(len(one.gt_boxes) for one in images), sum(len(one.boxes) for one in images)) < _MIN_BOXES:
        return
    for degrees in (90, 180, 270):
        sentence = f"turned by {degrees} degrees; turn images as their EXIF states before predicting"
        yield f"the boxes fit images {sentence}", [_turn(image, degrees) for image in images]


def _turn(image: _Image, degrees: int) -> NDArray[np.float64]:
    """Return the boxes of an image that is turned clockwise by some degrees until it is upright."""
    x0, y0, x1, y1 = xywh_to_xyxy(image.boxes).T
    width, height = image.size
    turned = {
        90: (width - y1, x0, width - y0, x1),
        180: (width - x1, height - y1, width - x0, height - y0),
        270: (y0, height - x1, y1, height - x0),
    }
    return np.stack(turned[degrees], axis=1)


def _scales(images: Sequence[_Image], boxes: _Boxes) -> Iterator[tuple[str, _Boxes]]:
    """Yield the sizes of resized images that pairs of true and detected boxes agree on."""
    pairs = np.concatenate([np.zeros((0, 6)), *map(_scaled_pairs, images, boxes)])
    sx, sy, width, height, x, y = pairs.T
    even = np.abs(sx / sy - 1) < 0.1
    at_origin = (np.abs(x) < 0.1) & (np.abs(y) < 0.1)
    sizes = np.array([image.size * 2 for image in images], dtype=float)  # (I, 4)

    def rescale(factors: NDArray[np.float64], padding: NDArray[np.float64] | None = None) -> _Boxes:
        moved = [own * factor for own, factor in zip(boxes, factors, strict=True)]
        return moved if padding is None else [own - pad for own, pad in zip(moved, padding, strict=True)]

    for side, which in (("longer", np.max), ("shorter", np.min)):
        if size := _mode((which([width, height], axis=0) / sx)[even & at_origin]):
            factors = which(sizes, axis=1) / size
            yield f"whose {side} side is about {size:.0f} pixels; scale them", rescale(factors)
    w, h = _mode((width / sx)[at_origin]), _mode((height / sy)[at_origin])
    if w and h:
        yield f"resized to about {w:.0f} x {h:.0f} pixels; scale them", rescale(sizes / (w, h, w, h))
    if factor := _mode(1 / sx[even & at_origin]):
        sentence = f"resized by a factor of about {factor:.3g}; scale them"
        yield sentence, rescale(np.full(len(images), 1 / factor))
    if size := _mode((np.maximum(width, height) / sx)[even]):  # not at the origin: padded to a square
        longer = sizes.max(axis=1, keepdims=True)
        yield (
            f"padded to a square and resized to about {size:.0f} x {size:.0f} pixels; subtract the padding, and scale "
            "them",
            rescale(longer / size, (longer - sizes) / 2),
        )


def _scaled_pairs(image: _Image, boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (P, 6) pairs of a true and a detected box: the two scales, the image's size, and what is left of x and y.

    The last two are shares of the true box, and 0 if the scales map one box onto the other.
    """
    gt, own = image.gt_boxes[:, None], boxes[None]
    if not min(image.size):
        return np.zeros((0, 6))
    gt_sides = gt[..., 2:] - gt[..., :2]
    with np.errstate(divide="ignore", invalid="ignore"):
        scales = gt_sides / (own[..., 2:] - own[..., :2])
        rest = (own[..., :2] * scales - gt[..., :2]) / gt_sides
    usable = (np.isfinite(scales) & (scales > 0.01)).all(axis=2)
    sizes = np.broadcast_to(np.array(image.size, dtype=float), scales.shape)
    return np.concatenate([scales, sizes, rest], axis=2)[usable]


def _mode(values: NDArray[np.float64]) -> float:
    """Return the median of the fullest of the bins of 3 %; 0 without values."""
    values = values[np.isfinite(values) & (values > 0)]
    if not len(values):
        return 0.0
    bins = np.round(np.log(values) / 0.03)
    numbers, counts = np.unique(bins, return_counts=True)
    return float(np.median(values[np.abs(bins - numbers[counts.argmax()]) <= 1]))


# ---------------------------------------------------------------- masks


def _explain_masks(results: Sequence[Result]) -> str:
    """Return the sentence on codes that run along rows, by which masks do not fit their own boxes; empty if they do."""
    own = [r for r in results if r.get("bbox") is not None and r.get("segmentation") is not None]
    own = [r for r in own[:: len(own) // _MAX_PER_IMAGE + 1] if coco_mask.area(r["segmentation"])]
    if not own:
        return ""
    masks = [decode(result["segmentation"]) for result in own]
    along_rows = [mask.ravel(order="F").reshape(mask.shape) for mask in masks]
    boxes = xywh_to_xyxy(get_boxes(own))
    fit, fit_rows = (
        float(np.median(paired_box_iou(tight_boxes(read), boxes))) for read in (masks, along_rows)
    )
    if fit_rows >= max(0.7, fit + 0.3):
        return "the run-length codes of the masks run along the rows; write them down the columns, as pycocotools does"
    return ""


# ---------------------------------------------------------------- images and classes


def _explain_images(truth: Annotations, results: Sequence[Result], base: float) -> str:
    """Return the sentence on image ids that count from another number; empty if that does not fit."""
    if any(r.get("file_name") for r in results) or not all(isinstance(i, int) for i in truth.image_ids):
        return ""
    index = {image_id: i for i, image_id in enumerate(truth.image_ids)}
    for shift, other in ((1, "more"), (-1, "less")):
        images = [index.get(result["image_id"] + shift) for result in results]
        if mean_best_iou(truth, results, images) >= max(0.6, base + 0.3):
            return f"the boxes fit the images whose id is one {other}; add {shift} to each image_id"
    return _explain_mixed_images(truth, results, base)


def _explain_mixed_images(truth: Annotations, results: Sequence[Result], base: float) -> str:
    """Return the sentence on image ids that stand for other images; empty if few images fit others much better.

    Only images with several boxes are compared, since one box fits another by chance in a large dataset.
    """
    usable = truth.has_box & ~truth.iscrowd
    counts = np.bincount(truth.image_index[usable], minlength=len(truth))
    many = np.flatnonzero(counts >= _MIN_MIXED)[:_MAX_IMAGES]
    own = [truth.boxes[rows[usable[rows]]] for rows in map(truth.instances_in, many)]
    groups = {
        image: some for image, some in group_by_image(truth, results).items() if len(some) >= _MIN_MIXED
    }
    fits = []
    for image, positions in list(groups.items())[:_MAX_IMAGES]:
        boxes = xywh_to_xyxy(get_boxes(_take_best([results[k] for k in positions], _MAX_MIXED)))
        means = [float(box_iou(gt, boxes).max(axis=1).mean()) for gt in own]
        *_, second, first = [0.0, 0.0, *sorted(means)]
        if first >= max(0.7, second + _MIN_GAIN):  # or images are alike
            fits.append((truth.image_ids[image], truth.image_ids[many[int(np.argmax(means))]]))
    moved = [(found, fit) for found, fit in fits if found != fit]
    if len(moved) < max(2, 0.5 * len(fits), min(len(groups), _MAX_IMAGES) / 3) or base > 0.4:
        return ""
    found, fit = moved[0]
    return (
        f"the boxes of image {found} fit image {fit} of the ground truth, and so with {len(moved)} of the {len(fits)} "
        "images compared; the image ids are mixed up: write those of the ground truth, or file names"
    )


def _explain_classes(truth: Annotations, images: Sequence[_Image], boxes: _Boxes) -> str:
    """Return the sentence on class ids that do not fit boxes that do; empty if they fit."""
    pairs = [pair for image, own in zip(images, boxes, strict=True) for pair in _paired_classes(image, own)]
    if len(pairs) < 0.25 * sum(len(image.gt_boxes) for image in images) or not pairs:
        return ""
    same = sum(given == true for given, true in pairs) / len(pairs)
    order = sorted(category.id for category in truth.categories)
    mappings: dict[str, dict[int, int]] = {
        "the class ids are one too high; subtract 1 from each category_id": {k + 1: k for k in order},
        "the class ids are one too low, as if they counted from 0; add 1 to each category_id": {
            k - 1: k for k in order
        },
    } | {
        f"the class ids count the categories from {first} in the order of their ids; map each category_id to "
        f"the id of that category": dict(enumerate(order, start=first))
        for first in (0, 1)
    }
    for sentence, mapping in mappings.items():
        explained = {given for given, true in pairs if mapping.get(given) == true}
        share = sum(mapping.get(given) == true for given, true in pairs) / len(pairs)
        # One class for all is that of a detector of one class, unless the ground truth lacks it.
        several = len(explained) > 1 or not explained & set(order)
        if several and share >= max(0.6, same + 0.3):
            return f"the boxes agree and {sentence}"
    return _explain_other_classes(truth, pairs, same)


def _explain_other_classes(truth: Annotations, pairs: Sequence[tuple[Any, int]], same: float) -> str:
    """Return the sentence on classes that stand for others in no simple order; empty if few do."""
    names = {category.id: f"{category.id} ({category.name})" for category in truth.categories}
    counts: dict[Any, Counter[int]] = {}
    for given, true in pairs:
        counts.setdefault(given, Counter())[true] += 1
    # A class of the ground truth that is given once may be a mistake.
    repeated = {given: found for given, found in counts.items() if found.total() > 1 or given not in names}
    best = {given: max(found.items(), key=itemgetter(1)) for given, found in repeated.items()}
    total = sum(found.total() for found in repeated.values())
    agree = sum(count for _, count in best.values())
    if same > 0.2 or len(best) < 2 or agree < max(3, 0.8 * total) or total < 0.5 * len(pairs):
        return ""
    given, (true, count) = max(best.items(), key=lambda item: item[1][1] * (item[0] != item[1][0]))
    return (
        f"the boxes agree and the classes do not, e.g. {names.get(given, given)} instead of {names[true]} for "
        f"{count} of {len(pairs)} boxes; map the category ids"
    )


def _paired_classes(image: _Image, boxes: NDArray[np.float64]) -> Iterator[tuple[Any, int]]:
    """Yield the class of the detection that overlaps a true box most, and the true one, if their IoU is 0.5 or more."""
    ious = box_iou(image.gt_boxes, boxes)
    for row, best in enumerate(ious.argmax(axis=1).tolist()):
        if ious[row, best] >= 0.5:
            yield image.category_ids[best], int(image.gt_ids[row])
