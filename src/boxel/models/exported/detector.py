"""Exported BoxInst and Mask R-CNN."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mode
from typing import Annotated, Any, NamedTuple, overload

import msgspec
import numpy as np
from numpy.typing import NDArray

from boxel.data.annotations import Category
from boxel.data.sources import ImageLike
from boxel.masks.grids import paste_grids
from boxel.masks.suppression import box_nms, mask_nms
from boxel.models.exported.file import ExportedFile, ExportedModel, run_by_size
from boxel.models.exported.resizing import resize_image
from boxel.models.instances import Instances
from boxel.models.settings import InferenceConfig, apply_settings, resize_factor
from boxel.models.thresholds import SCORE_THRESHOLDS, min_scores
from boxel.models.tiles import predict_images
from boxel.utils.errors import BoxelError

_Positive = Annotated[int, msgspec.Meta(ge=1)]
_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]

OUTPUTS = ("boxes", "scores", "labels", "mask_logits", "image_index")


class MaskGrid(NamedTuple):
    """How grids of mask logits lie over a whole image."""

    stride: int  # pixels per cell
    margin: float | None  # share of a box's sides by which its mask may reach beyond each; None for no limit


class DetectedArrays(NamedTuple):
    """Detections in one image, best first, before their masks are pasted."""

    boxes: NDArray[np.float32]  # (N, 4) xyxy pixels
    scores: NDArray[np.float32]  # (N,) in [0, 1]
    labels: NDArray[np.int64]  # (N,)
    mask_logits: NDArray[np.float32]  # (N, h, w), each over the window of its instance
    windows: NDArray[np.float32]  # (N, 4) xyxy pixels that these cells cover from edge to edge
    bounds: NDArray[np.float32]  # (N, 4) xyxy pixels outside which the masks are empty


def split_detections(
    outputs: Sequence[NDArray[Any]], count: int, grid: MaskGrid | None
) -> list[DetectedArrays]:
    """Split the outputs of a file by the images of its batch; without a grid, the masks cover their boxes."""
    *values, image_index = outputs
    images = ([value[image_index == index] for value in values] for index in range(count))
    return [_locate_masks(boxes, scores, labels, logits, grid) for boxes, scores, labels, logits in images]


def _locate_masks(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    labels: NDArray[np.int64],
    mask_logits: NDArray[np.float32],
    grid: MaskGrid | None,
) -> DetectedArrays:
    if grid is None:  # RoIAlign takes the index of a pixel for its center
        return DetectedArrays(boxes, scores, labels, mask_logits, boxes + np.float32(0.5), boxes)
    height, width = mask_logits.shape[-2:]
    whole = np.array([0, 0, grid.stride * width, grid.stride * height], dtype=np.float32)
    windows = np.tile(whole, (len(boxes), 1))
    if grid.margin is None:
        return DetectedArrays(boxes, scores, labels, mask_logits, windows, windows)
    extent = np.float32(grid.margin) * (boxes[:, 2:] - boxes[:, :2])
    bounds = np.concatenate([boxes[:, :2] - extent, boxes[:, 2:] + extent], axis=1)
    return DetectedArrays(boxes, scores, labels, mask_logits, windows, bounds)


class ExportedDetector(ExportedModel):
    """An exported model that detects instances, used like a :class:`~boxel.models.detector.Detector`."""

    kind = "detector"

    def __init__(self, file: ExportedFile) -> None:
        super().__init__(file)
        file.check_names(("images",), OUTPUTS)
        self.categories = file.state("categories", tuple[Category, ...])
        short_side = file.state("short_side", _Positive | None)
        self._base = InferenceConfig(short_side, file.state("max_size", _Positive))
        self._grid = None
        if file.method == "boxinst":
            self._grid = MaskGrid(
                file.state("mask_stride", _Positive), file.state("mask_margin", float | None)
            )
        thresholds = file.state(SCORE_THRESHOLDS, list[_Share] | None)
        if thresholds is not None:
            if len(thresholds) != len(self.categories):
                raise BoxelError(
                    f"{file.path}: it has {len(self.categories)} categories and {len(thresholds)} score thresholds; "
                    "export the run again."
                )
            names = [category.name for category in self.categories]
            every = mode(thresholds) if thresholds else 0.0
            own = {name: score for name, score in zip(names, thresholds, strict=True) if score != every}
            self.settings[SCORE_THRESHOLDS] = {"all": every, "by_class": own}

    def configure(self, **settings: Any) -> InferenceConfig:
        """Return the inference settings of the file, changed by some that are given.

        Raises:
            UsageError: A setting is unknown, out of range, or not one that an exported file can follow.
        """
        config = apply_settings(self, self._base, settings)
        followed = ("short_side", "max_size", "score_threshold", "class_agnostic_nms", "mask_nms", "tile")
        self.refuse(settings, InferenceConfig(), followed)
        return config

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[DetectedArrays]:
        """Return the detections in (H, W, 3) RGB images, in pixels of these; images of one size run as a batch."""

        def run(batch: NDArray[np.float32]) -> list[DetectedArrays]:
            return split_detections(self.file.run({"images": batch}), len(batch), self._grid)

        return run_by_size(images, run)

    def predict_batch(
        self, images: Sequence[NDArray[np.uint8]], config: InferenceConfig | None = None
    ) -> list[Instances]:
        """Predict the instances of (H, W, 3) RGB images of any sizes; the settings are those of the file if None."""
        config = config or self.configure()
        resized = [resize_image(image, resize_factor(image.shape[:2], config)) for image in images]
        return [
            self._finish(found, inputs.shape[:2], image.shape[:2], config)
            for found, inputs, image in zip(self.detect(resized), resized, images, strict=True)
        ]

    @overload
    def predict(self, images: ImageLike, **settings: Any) -> Instances: ...
    @overload
    def predict(self, images: Sequence[ImageLike], **settings: Any) -> list[Instances]: ...
    def predict(
        self, images: ImageLike | Sequence[ImageLike], **settings: Any
    ) -> Instances | list[Instances]:
        """Predict the instances of images of any size.

        Args:
            images: A file, a PIL image, an array, or a list of these (see :func:`~boxel.data.sources.to_image`).
            **settings: `short_side`, `max_size`, `score_threshold`, `class_agnostic_nms`, `mask_nms` and `tile` of
                :class:`~boxel.models.settings.InferenceConfig`.

        Returns:
            The instances of the image, or a list of them.

        Raises:
            BoxelError: A file cannot be read as an image, or a setting is unknown, out of range or cannot be followed.
        """
        return predict_images(self, images, self.configure(**settings))

    def _finish(
        self, found: DetectedArrays, inputs: Sequence[int], size: tuple[int, int], config: InferenceConfig
    ) -> Instances:
        """Return the instances of an image of a height and width, from the detections in one of the size `inputs`."""
        scale = np.tile(np.divide(size[::-1], inputs[::-1], dtype=np.float32), 2)
        boxes, scores, labels = scale * found.boxes, found.scores, found.labels
        rivals = np.zeros_like(labels) if config.class_agnostic_nms else labels
        keep = np.arange(len(scores))
        if config.class_agnostic_nms:
            keep = box_nms(boxes, scores, rivals, self.file.state("nms_threshold", _Share))
        limits = np.array(min_scores(self, config.score_threshold), dtype=np.float32)
        keep = keep[scores[keep] >= limits[labels[keep]]]
        windows, bounds = scale * found.windows[keep], scale * found.bounds[keep]
        instances = Instances(
            boxes=boxes[keep],
            scores=scores[keep],
            labels=labels[keep],
            rles=paste_grids(found.mask_logits[keep], bounds, windows, size),
            categories=self.categories,
            image_size=size,
        )
        if config.mask_nms is None:
            return instances
        return instances[mask_nms(instances.rles, instances.scores, rivals[keep], config.mask_nms)]
