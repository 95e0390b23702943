"""What was compared, image by image: behind the metrics of an evaluation, for pictures and for comparisons."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from boxel.data.annotations import Annotations, Category
from boxel.data.label_maps import build_class_lookup, make_label_map
from boxel.evaluation.analysis import Matches
from boxel.evaluation.bootstrap import sample_ap
from boxel.evaluation.boxes import ComparedMasks
from boxel.evaluation.coco import match_detections
from boxel.evaluation.operating_point import best_threshold
from boxel.evaluation.results import get_boxes
from boxel.evaluation.semantic import MapScores, mean_ious
from boxel.masks.boxes import xywh_to_xyxy
from boxel.viz.drawing import draw_thumbnail, shrink
from boxel.viz.overlays import overlay_labels

_RIGHT, _WRONG = 1, 4  # the ids choose the colors, blue and red


class Scores(Protocol):
    """A subject compared with the truth, image by image."""

    @property
    def truth(self) -> Annotations:
        """The ground truth."""

    def image_scores(self) -> NDArray[np.float64]:
        """Return how good each image of the truth is, (I,) in [0, 1]; NaN if nothing is known."""

    def sample(self, draws: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Return (S,) values of each metric of samples of images, (S, I) how often each image is drawn."""

    def draw(self, image: int, pixels: NDArray[np.uint8], side: int) -> dict[str, NDArray[np.uint8]]:
        """Draw `truth` and `prediction` on a copy of an image whose longer side has about ``side`` pixels."""


@dataclass(frozen=True)
class DetectionScores:
    """Detections compared with the truth."""

    matches: Matches

    @property
    def truth(self) -> Annotations:
        """The ground truth."""
        return self.matches.truth

    @cached_property
    def kept(self) -> Matches:
        """The detections of at least the score with the best F1."""
        matches = self.matches
        best = best_threshold(matches.scores, matches.correct, int(matches.instances.sum()))
        return matches.select(matches.scores >= np.nan_to_num(best.threshold))

    def image_scores(self) -> NDArray[np.float64]:
        """Return the F1 of each image at the score with the best F1 over all."""
        kept, size = self.kept, len(self.truth)
        found = np.bincount(kept.image[kept.correct], minlength=size)
        detections = np.bincount(kept.image, minlength=size)
        instances = np.bincount(self.truth.image_index[kept.counted], minlength=size)
        with np.errstate(invalid="ignore"):
            return 2 * found / (detections + instances)

    def sample(self, draws: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Return mask AP, if masks are compared, and box AP, each over ten IoUs and at 0.5."""
        sampled: dict[str, NDArray[np.float64]] = {}
        for kind in ("segm", "bbox") if self.matches.iou_type == "segm" else ("bbox",):
            found = match_detections(self.truth, self.matches.results, kind)  # type: ignore[arg-type]
            at50 = [replace(match, true=match.true[:1], false=match.false[:1]) for match in found]
            name = "mask_AP" if kind == "segm" else "box_AP"
            sampled |= {name: sample_ap(found, draws), f"{name}50": sample_ap(at50, draws)}
        return sampled

    @cached_property
    def _outcomes(self) -> tuple[Annotations, Annotations]:
        """Truth and detections as datasets whose categories state whether an object is right or wrong."""
        kept = self.kept
        categories = Category(_RIGHT, "right"), Category(_WRONG, "wrong")
        truth = replace(kept.truth, labels=np.where(kept.found, 0, 1), categories=categories)
        results = [kept.results[k] for k in kept.result]
        codes = np.full(len(results), None, dtype=object)
        codes[:] = [
            msgspec.json.encode(r["segmentation"]) if r.get("segmentation") else None for r in results
        ]
        columns: dict[str, Any] = dict.fromkeys(("quality", "source", "trusted", "areas", "extras"))
        detections = replace(
            truth,
            ids=list(range(len(results))),
            image_index=kept.image.astype(np.int32),
            labels=np.where(kept.correct, 0, 1),
            boxes=xywh_to_xyxy(get_boxes(results)),
            iscrowd=np.zeros(len(results), dtype=bool),
            segmentations=codes,
            **columns,
        )
        return truth.select_instances(kept.counted), detections

    def draw(self, image: int, pixels: NDArray[np.uint8], side: int) -> dict[str, NDArray[np.uint8]]:
        """Draw found objects and correct detections in blue, missed objects and false detections in red."""
        sides = zip(("truth", "prediction"), self._outcomes, strict=True)
        return {name: draw_thumbnail(data, image, pixels, side) for name, data in sides}


@dataclass(frozen=True)
class MaskScores:
    """Masks of given boxes compared with the truth."""

    truth: Annotations
    pred: Annotations
    compared: ComparedMasks

    def image_scores(self) -> NDArray[np.float64]:
        """Return the mean IoU of the masks of each image."""
        ious, _, instances = self.compared
        image, size = self.truth.image_index[instances], len(self.truth)
        with np.errstate(invalid="ignore"):
            return np.bincount(image, weights=ious, minlength=size) / np.bincount(image, minlength=size)

    def sample(self, draws: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Return the metrics of `mask_iou_metrics`."""
        ious, _, instances = self.compared
        weights, labels = draws[:, self.truth.image_index[instances]], self.truth.labels[instances]
        total = weights.sum(axis=1)
        with np.errstate(invalid="ignore"):
            sampled = {
                name: weights @ values / total
                for name, values in (("mask_iou", ious), ("IoU@50", ious > 0.5), ("IoU@75", ious > 0.75))
            }
            by_class = np.stack(
                [
                    weights[:, labels == k] @ ious[labels == k] / weights[:, labels == k].sum(axis=1)
                    for k in np.unique(labels)
                ]
            )
        known = np.isfinite(by_class)
        sampled["mask_iou_by_class"] = np.where(known, by_class, 0).sum(axis=0) / np.maximum(
            known.sum(axis=0), 1
        )
        return sampled

    def draw(self, image: int, pixels: NDArray[np.uint8], side: int) -> dict[str, NDArray[np.uint8]]:
        """Draw the masks in the colors of their classes."""
        _, index, instances = self.compared
        own = self.truth.image_index[instances] == image
        truth = self.truth.select_instances(instances[own])
        codes = [self.pred.segmentations[i] if i >= 0 else None for i in index[own].tolist()]
        prediction = replace(truth.without_masks(), segmentations=np.array(codes, dtype=object))
        sides = {"truth": truth, "prediction": prediction}
        return {name: draw_thumbnail(data, image, pixels, side) for name, data in sides.items()}


@dataclass(frozen=True)
class PixelScores:
    """Label maps compared with the truth."""

    maps: MapScores

    @property
    def truth(self) -> Annotations:
        """The ground truth."""
        return self.maps.truth

    def image_scores(self) -> NDArray[np.float64]:
        """Return the mean IoU of each image."""
        return self.maps.image_scores()

    def sample(self, draws: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Return mean IoU and pixel accuracy."""
        counts = self.maps.counts
        sums = (draws[:, self.maps.images] @ counts.reshape(len(counts), -1)).reshape(-1, *counts.shape[1:])
        hits, true = sums[:, 0], sums[:, 1]
        with np.errstate(invalid="ignore"):
            return {"mean_iou": mean_ious(sums), "pixel_accuracy": hits.sum(axis=1) / true.sum(axis=1)}

    def draw(self, image: int, pixels: NDArray[np.uint8], side: int) -> dict[str, NDArray[np.uint8]]:
        """Draw the classes of the pixels, above a legend."""
        maps = self.maps
        table = build_class_lookup(self.truth, maps.classes)
        labels = {
            "truth": table[make_label_map(self.truth, image, pixels.shape[:2])],
            "prediction": maps.predict(image),
        }
        scale = min(1.0, side / max(pixels.shape[:2]))
        small = shrink(pixels, scale)
        return {
            name: overlay_labels(small, shrink(one.astype(np.uint8), scale, nearest=True), maps.names)
            for name, one in labels.items()
        }
