"""Name the likely cause of detections that do not fit the ground truth: another order of numbers, scale, or numbering.

Each cause is a hypothesis on how the boxes or the classes were written. It is named if the boxes fit the ground truth
much better under it than as they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from boxel.data.annotations import Annotations
from boxel.evaluation.results import Result, get_boxes
from boxel.masks.boxes import box_iou, paired_box_iou, tight_boxes
from boxel.masks.rle import Rle, decode

_MAX_IMAGES, _MAX_PER_IMAGE = 300, 50
"""How many images, spread over the dataset, and how many of the best detections of each are looked at."""

_MIN_MIXED, _MAX_MIXED = 3, 12
"""Minimum number of boxes of images whose ids are compared, and how many of the best boxes are looked at."""

_MIN_GAIN = 0.1
"""Minimum gain of the mean of the best IoUs by a hypothesis."""

_MIN_LEAD = 0.05
"""Minimum lead of that mean over what a bad detector explains as well, and over the boxes of another image."""


@dataclass(frozen=True)
class _Image:
    """The true boxes of an image, xyxy, and its best detections as they are written.

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


_Transform = Callable[[_Image], NDArray[np.float64]]
"""Turns boxes as they are written into xyxy pixels under a hypothesis."""


def find_causes(truth: Annotations, results: Sequence[Result], class_agnostic: bool = False) -> list[str]:
    """Return sentences on what is likely wrong with detections as a whole; none if they fit the ground truth.

    Args:
        truth: The ground truth.
        results: Detections under its image ids.
        class_agnostic: Ignore categories.

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
    ious = _best_ious(images, _as_xywh)
    hits = int((ious >= 0.5).sum())
    cause, transform = _find_geometry(images, ious) or (None, _as_xywh)
    if cause is None and hits <= 0.3 * len(ious):
        other_images = _explain_images(truth, results, float(ious.sum() / max(len(ious), 1)))
        if other_images:
            return [other_images]
    if cause is None and hits <= 0.05 * len(ious):
        overlap = (
            f"only {hits} of {len(ious)} compared true boxes overlap" if hits else "no true box overlaps"
        )
        cause = (
            f"{overlap} a box of the results by an IoU of 0.5; check that results and ground truth are of the same "
            "images and in pixels of the original files"
        )
    sentences = [text for text in (cause, _explain_masks(results)) if text]
    if not class_agnostic and (classes := _explain_classes(truth, images, transform)):
        sentences.append(classes)
    return sentences


def explain_categories(truth: Annotations, results: Sequence[Result]) -> str:
    """Return the sentence on the classes alone; empty if they fit, or if the boxes do not."""
    return _explain_classes(truth, _sample(truth, results), _as_xywh)


def mean_best_iou(truth: Annotations, results: Sequence[Result], images: Sequence[int | None]) -> float:
    """Return how well detections fit the images with these indices: the mean of the best IoUs of true boxes.

    Those without an image (None) count as 0.
    """
    own = [
        {**r, "image_id": truth.image_ids[i]} for r, i in zip(results, images, strict=True) if i is not None
    ]
    ious = _best_ious(_sample(truth, own), _as_xywh)
    return float(ious.mean()) * len(own) / len(results) if len(ious) else 0.0


def _sample(truth: Annotations, results: Sequence[Result]) -> list[_Image]:
    """Return some images with their best detections, evenly spread over those with both boxes and detections."""
    index = {image_id: i for i, image_id in enumerate(truth.image_ids)}
    groups: dict[int, list[int]] = {}
    for position, result in enumerate(results):
        groups.setdefault(index[result["image_id"]], []).append(position)
    usable = truth.has_box & ~truth.iscrowd
    shared = [image for image in sorted(groups) if usable[truth.instances_in(image)].any()]
    ids = np.array([category.id for category in truth.categories], dtype=np.int64)
    images = []
    for image in shared[:: len(shared) // _MAX_IMAGES + 1]:
        own = truth.instances_in(image)
        own = own[usable[own]]
        best = sorted(groups[image], key=lambda position: -results[position]["score"])
        best = best[: min(2 * len(own) + 3, _MAX_PER_IMAGE)]
        found = [results[position] for position in best]
        images.append(
            _Image(
                (int(truth.widths[image]), int(truth.heights[image])),
                *(truth.boxes[own], ids[truth.labels[own]]),
                *(get_boxes(found), [result["category_id"] for result in found]),
            )
        )
    return images


def _as_xywh(image: _Image) -> NDArray[np.float64]:
    return _to_corners(image.boxes)


def _to_corners(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def _from_center(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    half = boxes[:, 2:] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)


def _best_ious(images: Sequence[_Image], transform: _Transform) -> NDArray[np.float64]:
    """Return for each true box the IoU with the detection that overlaps it most."""
    return np.concatenate([np.zeros(0), *(_ious(image, transform).max(axis=1) for image in images)])


def _mean_with_others(images: Sequence[_Image], transform: _Transform) -> float:
    """Return the mean of the best IoUs if images have the true boxes of another one; 0 for a single image."""
    boxes = [transform(image) for image in images]
    ious = [
        _iou_matrix(images[(k + step) % len(images)].gt_boxes, own).max(axis=1)
        for step in range(1, min(len(images), 5))
        for k, own in enumerate(boxes)
    ]
    return float(np.concatenate(ious).mean()) if ious else 0.0


def _ious(image: _Image, transform: _Transform) -> NDArray[np.float64]:
    return _iou_matrix(image.gt_boxes, transform(image))


def _iou_matrix(gt_boxes: NDArray[np.float64], boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (G, D) IoUs of xyxy boxes, those that end before they begin being empty."""
    valid = np.all(boxes[:, 2:] > boxes[:, :2], axis=1)
    return np.where(valid, box_iou(gt_boxes, np.where(valid[:, None], boxes, 0)), 0)


# ---------------------------------------------------------------- boxes


def _find_geometry(images: Sequence[_Image], ious: NDArray[np.float64]) -> tuple[str, _Transform] | None:
    """Return the hypothesis on the boxes that fits much better than xywh pixels, if there is one."""
    base = float(ious.mean()) if len(ious) else 1.0
    if base > 0.95:
        return None
    best, best_mean = None, base
    for sentence, transform in _geometries(images):
        mean = float(_best_ious(images, transform).mean())
        if mean > best_mean + 1e-6:
            best, best_mean = (sentence, transform), mean
    # A few boxes fit something by chance.
    count = min(len(ious), sum(len(image.boxes) for image in images))
    if best is None or best_mean < max(0.3 if count >= 10 else 0.6, base + _MIN_GAIN):
        return None
    rivals = [_mean_with_others(images, best[1])]
    rivals += [float(_best_ious(images, rival).mean()) for rival in _resized(images, best[1])]
    return best if best_mean >= max(rivals) + _MIN_LEAD else None


def _resized(images: Sequence[_Image], transform: _Transform) -> Iterator[_Transform]:
    """Yield what a detector of loose, tight or shifted boxes explains: all are resized alike about a point of theirs.

    The factor of each side, and the shift of all centers, are the medians of those of a hypothesis.
    """
    written = np.concatenate([_as_xywh(image) for image in images])
    fitted = np.concatenate([transform(image) for image in images])
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = (fitted[:, 2:] - fitted[:, :2]) / (written[:, 2:] - written[:, :2])
    usable = np.isfinite(ratios).all(axis=1) & (ratios > 0).all(axis=1)
    if not usable.any():
        return
    factor = np.median(ratios[usable], axis=0)
    shift = np.median((fitted[:, :2] + fitted[:, 2:] - written[:, :2] - written[:, 2:])[usable] / 2, axis=0)

    def resize(image: _Image, anchor: NDArray[np.float64] | None) -> NDArray[np.float64]:
        sides = image.boxes[:, 2:]
        if anchor is None:
            corner = image.boxes[:, :2] + shift + sides * (1 - factor) / 2
        else:
            corner = image.boxes[:, :2] + anchor * sides * (1 - factor)
        return np.concatenate([corner, corner + sides * factor], axis=1)

    yield partial(resize, anchor=None)
    for x, y in product((0, 0.5, 1), repeat=2):
        yield partial(resize, anchor=np.array([x, y]))


def _geometries(images: Sequence[_Image]) -> Iterator[tuple[str, _Transform]]:
    """Yield hypotheses on how boxes were written: a sentence, and what turns them into xyxy pixels."""
    fit = "the boxes fit the ground truth as"
    wanted = "COCO results have x, y, width, height, so"
    yield f"{fit} x0, y0, x1, y1; {wanted} subtract the corner from the last two", lambda image: image.boxes
    yield (
        f"{fit} center x, center y, width, height; {wanted} subtract half of the size from the center",
        lambda image: _from_center(image.boxes),
    )
    yield (
        f"{fit} y0, x0, y1, x1; {wanted} swap the axes and subtract the corner from the last two",
        lambda image: image.boxes[:, [1, 0, 3, 2]],
    )
    if all(image.boxes.max(initial=0) <= 2 for image in images):
        forms: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
            "x, y, width, height": _to_corners,
            "center x, center y, width, height": _from_center,
            "x0, y0, x1, y1": lambda boxes: boxes,
        }
        for name, form in forms.items():
            yield (
                f"{fit} shares of the image ({name}); {wanted} multiply them by its width and height",
                lambda image, form=form: form(image.boxes) * np.array(image.size * 2),  # type: ignore[misc]
            )
    else:
        yield from _scales(images)
        for degrees in (90, 180, 270):
            yield (
                f"the boxes fit images turned by {degrees} degrees; turn images as their EXIF states before predicting",
                lambda image, degrees=degrees: _turn(image, degrees),  # type: ignore[misc]
            )


def _turn(image: _Image, degrees: int) -> NDArray[np.float64]:
    """Return the boxes of an image that is turned clockwise by some degrees until it is upright."""
    x0, y0, x1, y1 = _as_xywh(image).T
    width, height = image.size
    turned = {
        90: (width - y1, x0, width - y0, x1),
        180: (width - x1, height - y1, width - x0, height - y0),
        270: (y0, height - x1, y1, height - x0),
    }
    return np.stack(turned[degrees], axis=1)


def _scales(images: Sequence[_Image]) -> Iterator[tuple[str, _Transform]]:
    """Yield the sizes of resized images that pairs of true and detected boxes agree on."""
    pairs = np.concatenate([np.zeros((0, 6)), *map(_scaled_pairs, images)])
    sx, sy, width, height, x, y = pairs.T
    even = np.abs(sx / sy - 1) < 0.1 if len(pairs) else np.zeros(0, dtype=bool)
    at_origin = (np.abs(x) < 0.1) & (np.abs(y) < 0.1)
    remedy = "scale them to the original files"
    for side, length in (("longer", np.maximum(width, height)), ("shorter", np.minimum(width, height))):
        if size := _mode((length / sx)[even & at_origin]):
            which = max if side == "longer" else min
            yield (
                f"the boxes fit images whose {side} side is about {size:.0f} pixels; {remedy}",
                lambda image, size=size, which=which: _as_xywh(image) * (which(image.size) / size),  # type: ignore[misc]
            )
    w, h = _mode((width / sx)[at_origin]), _mode((height / sy)[at_origin])
    if w and h:
        yield (
            f"the boxes fit images resized to about {w:.0f} x {h:.0f} pixels; {remedy}",
            lambda image, w=w, h=h: _as_xywh(image) * (np.array(image.size * 2) / (w, h, w, h)),  # type: ignore[misc]
        )
    if factor := _mode(1 / sx[even & at_origin]):
        yield (
            f"the boxes fit images resized by a factor of about {factor:.3g}; {remedy}",
            lambda image, factor=factor: _as_xywh(image) / factor,  # type: ignore[misc]
        )
    if size := _mode((np.maximum(width, height) / sx)[even]):  # not at the origin: padded to a square
        yield (
            f"the boxes fit images padded to a square and resized to about {size:.0f} x {size:.0f} pixels; subtract "
            f"the padding, and {remedy}",
            lambda image, size=size: _without_padding(image, size),  # type: ignore[misc]
        )


def _without_padding(image: _Image, size: float) -> NDArray[np.float64]:
    sides = np.array(image.size * 2, dtype=float)
    scale = sides.max() / size
    return _as_xywh(image) * scale - (sides.max() - sides) / 2


def _scaled_pairs(image: _Image) -> NDArray[np.float64]:
    """Return (P, 6) pairs of a true and a detected box: the two scales, the image's size, and what is left of x and y.

    The last two are shares of the true box, and 0 if the scales map one box onto the other.
    """
    gt, boxes = image.gt_boxes[:, None], image.boxes[None]
    if not min(image.size):
        return np.zeros((0, 6))
    with np.errstate(divide="ignore", invalid="ignore"):
        scales = (gt[..., 2:] - gt[..., :2]) / boxes[..., 2:]
        rest = (boxes[..., :2] * scales - gt[..., :2]) / (gt[..., 2:] - gt[..., :2])
    usable = np.isfinite(scales).all(axis=2) & (scales > 0.01).all(axis=2)
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
    boxes = _to_corners(get_boxes(own))
    medians = []
    for masks in (
        (decode(r["segmentation"]) for r in own),
        (_read_along_rows(r["segmentation"]) for r in own),
    ):
        medians.append(float(np.median(paired_box_iou(tight_boxes(list(masks)), boxes))))
    if medians[1] >= 0.7 and medians[1] >= medians[0] + 0.3:
        return "the run-length codes of the masks run along the rows; write them down the columns, as pycocotools does"
    return ""


def _read_along_rows(code: Rle) -> NDArray[np.uint8]:
    return decode(code).ravel(order="F").reshape(code["size"])


# ---------------------------------------------------------------- images and classes


def _explain_images(truth: Annotations, results: Sequence[Result], base: float) -> str | None:
    """Return the sentence on image ids that count from another number; None if that does not fit."""
    if any(r.get("file_name") for r in results) or not all(isinstance(i, int) for i in truth.image_ids):
        return None
    index = {image_id: i for i, image_id in enumerate(truth.image_ids)}
    for shift in (1, -1):
        images = [index.get(result["image_id"] + shift) for result in results]
        if mean_best_iou(truth, results, images) >= max(0.6, base + 0.3):
            return (
                f"the boxes fit the images whose id is one {'more' if shift > 0 else 'less'}; add {shift} to each "
                "image_id"
            )
    return _explain_mixed_images(truth, results, base)


def _explain_mixed_images(truth: Annotations, results: Sequence[Result], base: float) -> str | None:
    """Return the sentence on image ids that stand for other images; None if few images fit others much better.

    Only images with several boxes are compared, since one box fits another by chance in a large dataset.
    """
    groups: dict[Any, list[NDArray[np.float64]]] = {}
    best = sorted(results, key=lambda result: -result["score"])
    for result, box in zip(best, _to_corners(get_boxes(best)), strict=True):
        if len(groups.setdefault(result["image_id"], [])) < _MAX_MIXED:
            groups[result["image_id"]].append(box)
    usable = truth.has_box & ~truth.iscrowd
    counts = np.bincount(truth.image_index[usable], minlength=len(truth))
    many = np.flatnonzero(counts >= _MIN_MIXED)[:_MAX_IMAGES]
    own = [truth.boxes[rows[usable[rows]]] for rows in map(truth.instances_in, many)]
    fits = []
    for image_id, boxes in list(groups.items())[:_MAX_IMAGES]:
        if len(boxes) < _MIN_MIXED:
            continue
        means = [float(box_iou(gt, np.array(boxes)).max(axis=1).mean()) for gt in own]
        *_, second, first = [0.0, 0.0, *sorted(means)]
        if first >= max(0.7, second + _MIN_GAIN):  # or images are alike
            fits.append((image_id, truth.image_ids[many[int(np.argmax(means))]]))
    moved = [(found, fit) for found, fit in fits if found != fit]
    if len(moved) < 2 or len(moved) < 0.5 * len(fits) or base > 0.4:
        return None
    found, fit = moved[0]
    return (
        f"the boxes of image {found} fit image {fit} of the ground truth, and so with {len(moved)} of the {len(fits)} "
        "images compared; the image ids are mixed up: write those of the ground truth, or file names"
    )


def _explain_classes(truth: Annotations, images: Sequence[_Image], transform: _Transform) -> str:
    """Return the sentence on class ids that do not fit boxes that do; empty if they fit."""
    pairs = [pair for image in images for pair in _paired_classes(image, transform)]
    if len(pairs) < 0.25 * sum(len(image.gt_boxes) for image in images) or not pairs:
        return ""
    same = sum(given == true for given, true in pairs) / len(pairs)
    order = sorted(category.id for category in truth.categories)
    contiguous = {first: dict(enumerate(order, start=first)) for first in (0, 1)}
    mappings: dict[str, Callable[[Any], Any]] = {
        "the class ids are one too high; subtract 1 from each category_id": lambda k: k - 1,
        "the class ids are one too low, as if they counted from 0; add 1 to each category_id": lambda k: (
            k + 1
        ),
    } | {
        f"the class ids count the categories from {first} in the order of their ids; map each category_id to "
        f"the id of that category": table.get
        for first, table in contiguous.items()
    }
    for sentence, mapping in mappings.items():
        numbers = [(given, true) for given, true in pairs if isinstance(given, int)]
        explained = [given for given, true in numbers if mapping(given) == true]
        share = len(explained) / len(pairs)
        # One class for all is that of a detector of one class, unless the ground truth lacks it.
        several = len(set(explained)) > 1 or not set(explained) & set(order)
        if several and share >= 0.6 and share >= same + 0.3:
            return f"the boxes agree and {sentence}"
    counts: dict[Any, Counter[int]] = {}
    for given, true in pairs:
        counts.setdefault(given, Counter())[true] += 1
    # A class of the ground truth that is given once may be a mistake.
    repeated = {given: found for given, found in counts.items() if found.total() > 1 or given not in order}
    best = {given: max(found.items(), key=lambda item: item[1]) for given, found in repeated.items()}
    total = sum(found.total() for found in repeated.values())
    agree = sum(count for _, count in best.values())
    if same <= 0.2 and len(best) > 1 and agree >= max(3, 0.8 * total) and total >= 0.5 * len(pairs):
        names = {category.id: f"{category.id} ({category.name})" for category in truth.categories}
        given, (true, count) = max(best.items(), key=lambda item: item[1][1] * (item[0] != item[1][0]))
        return (
            f"the boxes agree and the classes do not, e.g. {names.get(given, given)} instead of {names[true]} for "
            f"{count} of {len(pairs)} boxes; map the category ids"
        )
    return ""


def _paired_classes(image: _Image, transform: _Transform) -> Iterator[tuple[Any, int]]:
    """Yield the class of the detection that overlaps a true box most, and the true one, if their IoU is 0.5 or more."""
    ious = _ious(image, transform)
    for row, best in enumerate(ious.argmax(axis=1).tolist()):
        if ious[row, best] >= 0.5:
            yield image.category_ids[best], int(image.gt_ids[row])
