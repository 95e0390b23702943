"""What lies behind the AP of detections: the best score threshold, confusions, kinds of errors and the worst images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from boxel.data.annotations import Annotations
from boxel.evaluation.coco import match_detections, split_by_class
from boxel.evaluation.error_types import ERRORS, FOREGROUND_IOU, error_types
from boxel.evaluation.operating_point import best_threshold, calibrate_scores, precision_recall
from boxel.evaluation.overlaps import Overlaps, find_overlaps
from boxel.evaluation.results import Result, filter_categories, get_boxes, has_masks
from boxel.masks.boxes import box_iou, xywh_to_xyxy

_MAX_WORST = 24  # images


@dataclass(frozen=True)
class Matches:
    """The D detections that count, each with the instance that it matches at an IoU of 0.5; see `coco_ap`.

    Attributes:
        truth: The ground truth.
        results: All detections.
        iou_type: What is compared.
        counted: (N,) bool, whether an instance counts: it is not a crowd, and has a mask if masks are compared.
        result: (D,) position among the results.
        scores: (D,) float64.
        labels: (D,) index of the class.
        image: (D,) index of the image.
        instance: (D,) index of the instance, -1 for a wrong detection.
    """

    truth: Annotations
    results: Sequence[Result]
    iou_type: Literal["segm", "bbox"]
    counted: NDArray[np.bool_]
    result: NDArray[np.int64]
    scores: NDArray[np.float64]
    labels: NDArray[np.int64]
    image: NDArray[np.int64]
    instance: NDArray[np.int64]

    @property
    def correct(self) -> NDArray[np.bool_]:
        """(D,) bool: the detection matches an instance."""
        return self.instance >= 0

    @property
    def found(self) -> NDArray[np.bool_]:
        """(N,) bool: a detection matches the instance."""
        found = np.zeros(len(self.counted), dtype=bool)
        found[self.instance[self.correct]] = True
        return found

    @property
    def instances(self) -> NDArray[np.int64]:
        """(K,) number of instances of each class that count."""
        return np.bincount(self.truth.labels[self.counted], minlength=len(self.truth.categories))

    def select(self, keep: NDArray[np.bool_]) -> Matches:
        """Return some of the detections."""
        names = ("result", "scores", "labels", "image", "instance")
        return replace(self, **{name: getattr(self, name)[keep] for name in names})


def find_matches(truth: Annotations, results: Sequence[Result], overlaps: Overlaps | None = None) -> Matches:
    """Match detections with instances of their class, by masks if both sides have any, else by boxes.

    ``overlaps`` are those of what is compared, if they are known.
    """
    masked = has_masks(results) and bool((truth.has_mask & ~truth.iscrowd).any())
    iou_type: Literal["segm", "bbox"] = "segm" if masked else "bbox"
    columns: list[list[NDArray[Any]]] = [[np.zeros(0, dtype=np.int64)] for _ in range(5)]
    overlaps = find_overlaps(truth, results, iou_type) if overlaps is None else overlaps
    for match in split_by_class(overlaps, [FOREGROUND_IOU]):
        keep = match.true[0] | match.false[0]
        labels = np.full(len(keep), match.label)
        found = (match.result, match.scores, labels, match.image, match.instance[0])
        for column, values in zip(columns, found, strict=True):
            column.append(values[keep])
    counted = ~truth.iscrowd & (truth.has_mask if masked else True)
    return Matches(truth, results, iou_type, counted, *map(np.concatenate, columns))


def analyze_detections(truth: Annotations, results: Sequence[Result]) -> dict[str, Any]:
    """Analyze detections at an IoU of 0.5, as numbers in plain JSON.

    Args:
        truth: The ground truth.
        results: Detections in the COCO results format. Masks are compared if both sides have any, else boxes; what is
            ignored is as in :func:`coco_ap`.

    Returns:
        * `compared` (`mask` or `box`) and `iou`, the minimum IoU of a correct detection;
        * `threshold`, `f1`, `precision`, `recall`: :func:`best_threshold` over the detections of all classes;
        * `curve`: the mean of :func:`precision_recall` over the classes that have instances;
        * `calibration_error`, `calibration`: :func:`calibrate_scores`; NaN and empty if a score is not in [0, 1];
        * at `threshold`, `confusion`: `classes`, the K names, and `counts`, (K + 1, K + 1), whose rows are true classes
          and background, and whose columns are predicted classes and missed. Detections are matched within their class
          first, and those left with the instances left of any class;
        * at `threshold`, `errors`: `count` and `share` of each kind of error, see :func:`error_types`;
        * `per_class`, by name: `instances`, `AP50`, the best threshold of the class as above, its `curve`, and `errors`
          at the common `threshold`, counted at the class of the detection, or of the missed instance;
        * at `threshold`, `worst_images`: up to 24 images with errors, by F1 and then by missed instances: `image_id`,
          `file_name`, `f1`, `found`, and by class `missed` and `false`.

        NaN for what is undefined; shares are in [0, 1].

    Raises:
        BoxelError: Masks are compared, and the size of an image is unknown.

    Examples:
        >>> from boxel.data import example_scenes
        >>> from boxel.evaluation import to_results
        >>> truth = example_scenes()
        >>> analysis = analyze_detections(truth, to_results(truth)[1:])
        >>> analysis["recall"], analysis["errors"]["missed"]
        (0.8, {'count': 1, 'share': 1.0})
    """
    return summarize_matches(find_matches(truth, results))


def summarize_matches(matches: Matches) -> dict[str, Any]:
    """Compute the numbers of :func:`analyze_detections`."""
    truth, scores, correct = matches.truth, matches.scores, matches.correct
    instances = matches.instances
    overall = best_threshold(scores, correct, int(instances.sum()))
    kept = matches.select(scores >= overall.threshold)
    errors = list(_find_errors(kept))
    by_class = Counter(errors)
    per_class = {}
    for label, category in enumerate(truth.categories):
        own = matches.labels == label
        counts = scores[own], correct[own], int(instances[label])
        curve = precision_recall(*counts)
        per_class[category.name] = {
            "instances": counts[2],
            "AP50": float(curve.mean()),
            **best_threshold(*counts)._asdict(),
            "curve": curve.tolist(),
            "errors": {kind: by_class[kind, label] for kind in ERRORS},
        }
    curves = [row["curve"] for row in per_class.values() if row["instances"]]
    is_probability = bool(((scores >= 0) & (scores <= 1)).all())
    error, bins = calibrate_scores(scores, correct) if is_probability else (float("nan"), [])
    by_kind = Counter(kind for kind, _ in errors)
    return {
        "compared": "mask" if matches.iou_type == "segm" else "box",
        "iou": FOREGROUND_IOU,
        **overall._asdict(),
        "curve": np.mean(curves or [precision_recall([], [], 0)], axis=0).tolist(),
        "calibration_error": error,
        "calibration": bins,
        "confusion": {"classes": [c.name for c in truth.categories], "counts": _confuse(kept).tolist()},
        "errors": {
            kind: {"count": by_kind[kind], "share": by_kind[kind] / max(len(errors), 1)} for kind in ERRORS
        },
        "per_class": per_class,
        "worst_images": _find_worst_images(kept),
    }


def _confuse(kept: Matches) -> NDArray[np.int64]:
    """Count true classes and background by predicted classes and missed."""
    truth, correct = kept.truth, kept.correct
    size = len(truth.categories)
    confusion = np.diag(np.append(np.bincount(kept.labels[correct], minlength=size), 0))
    wrong, missed = kept.select(~correct), np.flatnonzero(kept.counted & ~kept.found)
    predicted, true = wrong.labels, truth.labels[missed]
    merged = filter_categories(
        truth.select_instances(missed), [kept.results[k] for k in wrong.result], class_agnostic=True
    )
    for match in match_detections(*merged, kept.iou_type, [FOREGROUND_IOU], max(len(predicted), 1)):
        detection, instance = match.result[match.true[0]], match.instance[0, match.true[0]]
        np.add.at(confusion, (true[instance], predicted[detection]), 1)
        predicted, true = np.delete(predicted, detection), np.delete(true, instance)
    confusion[size, :size] += np.bincount(predicted, minlength=size)
    confusion[:size, size] += np.bincount(true, minlength=size)
    return confusion


def _find_errors(kept: Matches) -> Iterator[tuple[str, int]]:
    """Yield the kind of each error, and the class of the wrong detection or of the missed instance."""
    truth, found = kept.truth, kept.found
    wrong = kept.select(~kept.correct)
    for image in range(len(truth)):
        own = np.flatnonzero(wrong.image == image)
        gt = truth.instances_in(image)
        gt = gt[kept.counted[gt]]
        labels, gt_labels = wrong.labels[own], truth.labels[gt]
        results = [kept.results[k] for k in wrong.result[own]]
        of_boxes = np.nan_to_num(box_iou(xywh_to_xyxy(get_boxes(results)), truth.boxes[gt]))
        overlaps: tuple[Any, ...] = (of_boxes, None)
        if kept.iou_type == "segm":
            codes = [r["segmentation"] for r in results], [truth.rle(int(i)) for i in gt]
            ious = np.reshape(coco_mask.iou(*codes, [0] * len(gt)), of_boxes.shape)
            overlaps = ious, of_boxes
        same = labels[:, None] == gt_labels
        kinds, missed = error_types(overlaps[0], same, found[gt], overlaps[1])
        yield from zip(kinds, labels.tolist(), strict=True)
        yield from (("missed", label) for label in gt_labels[missed].tolist())


def _find_worst_images(kept: Matches) -> list[dict[str, Any]]:
    """Describe the images with the lowest F1; of equal ones, those with the most missed instances come first."""
    truth, size = kept.truth, len(kept.truth)
    missing, wrong = np.flatnonzero(kept.counted & ~kept.found), kept.select(~kept.correct)
    found = np.bincount(kept.image[kept.correct], minlength=size)
    missed = np.bincount(truth.image_index[missing], minlength=size)
    false = np.bincount(wrong.image, minlength=size)
    f1 = 2 * found / np.maximum(2 * found + missed + false, 1)
    order = np.lexsort((-false, -missed, f1))

    def count(labels: NDArray[Any]) -> dict[str, int]:
        number = Counter(truth.categories[label].name for label in labels)
        return dict(sorted(number.items(), key=lambda item: -item[1]))

    return [
        {
            "image_id": truth.image_ids[i],
            "file_name": truth.paths[i],
            "f1": float(f1[i]),
            "found": int(found[i]),
            "missed": count(truth.labels[missing[truth.image_index[missing] == i]]),
            "false": count(wrong.labels[wrong.image == i]),
        }
        for i in order[(missed + false)[order] > 0][:_MAX_WORST].tolist()
    ]
