"""Masks of given boxes of single images: `boxel.BoxSegmenter`."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from boxel.data.annotations import Category
from boxel.data.sources import ImageLike, to_image
from boxel.labeling.api import TeacherLike, load_teachers
from boxel.labeling.config import LabelConfig, parse_label_config
from boxel.labeling.fusion import label_image
from boxel.labeling.quality import compute_cues
from boxel.masks.boxes import tight_boxes
from boxel.masks.rle import Rle, decode_all, encode_in_box
from boxel.utils.errors import UsageError, nearest
from boxel.viz.output import Drawable
from boxel.viz.overlays import overlay

if TYPE_CHECKING:
    from supervision import Detections

logger = logging.getLogger(__name__)

Labels: TypeAlias = Sequence[int] | Sequence[str]


@dataclass(frozen=True, eq=False)
class BoxMasks(Drawable):
    """Masks of the boxes of one image, in the order of the boxes.

    A box that gets no mask (it lies outside the image, has no area, or the teacher sees no object in it) has an empty
    mask, quality NaN, score 0, and stays as it was given.

    Indexing with an integer, a slice, a boolean mask or an array of indices returns the chosen masks.

    Attributes:
        boxes: (N, 4) float64 xyxy pixels, tight around the masks.
        rles: N compressed COCO run-length codes of the image's size.
        quality: (N,) float64 in [0, 1], estimated IoU of each mask with the ground truth; NaN if unknown.
        scores: (N,) float64 in [0, 1], confidence of the teachers.
        trusted: (N,) bool, False for an empty mask and for one whose tight box disagrees with its box (setting `drop`).
        labels: N labels of the boxes as they were given, or None.
        image: (H, W, 3) uint8 RGB.

    Examples:
        >>> segmenter = BoxSegmenter("ellipse")
        >>> result = segmenter(np.zeros((48, 64, 3), np.uint8), [[8, 8, 40, 40], [20, 10, 30, 30]])
        >>> result.masks.shape, result[1].boxes.tolist()
        ((2, 48, 64), [[20.0, 10.0, 30.0, 30.0]])
    """

    boxes: NDArray[np.float64]
    rles: list[Rle]
    quality: NDArray[np.float64]
    scores: NDArray[np.float64]
    trusted: NDArray[np.bool_]
    labels: list[int] | list[str] | None
    image: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.rles)

    def __getitem__(self, index: int | slice | Sequence[int] | NDArray[np.bool_ | np.integer]) -> BoxMasks:
        """Return the chosen masks; an integer gives one, still as :class:`BoxMasks`."""
        rows = np.atleast_1d(np.arange(len(self))[index])  # type: ignore[index]
        columns = {name: getattr(self, name)[rows] for name in ("boxes", "quality", "scores", "trusted")}
        labels = None if self.labels is None else [self.labels[row] for row in rows.tolist()]
        return replace(self, **columns, rles=[self.rles[row] for row in rows.tolist()], labels=labels)

    def __iter__(self) -> Iterator[BoxMasks]:
        return (self[row] for row in range(len(self)))

    def __repr__(self) -> str:
        height, width = self.image.shape[:2]
        known = self.quality[np.isfinite(self.quality)]
        quality = f", mean quality {known.mean():.2f}" if len(known) else ""
        return f"BoxMasks({len(self)} in {width} x {height} pixels{quality})"

    @property
    def masks(self) -> NDArray[np.bool_]:
        """Dense masks, (N, H, W) bool; decoded at each access."""
        return decode_all(self.rles, *self.image.shape[:2])

    def plot(self) -> NDArray[np.uint8]:
        """Draw masks, boxes and quality over the image.

        Returns:
            (H, W, 3) uint8 RGB.
        """
        shown = self[np.flatnonzero(np.isfinite(self.boxes).all(axis=1))]
        words = [str(label) for label in shown.labels or []]
        names = list(dict.fromkeys(words))
        labels = [names.index(word) for word in words] or None
        return overlay(self.image, shown.boxes, shown.rles, labels, names, shown.quality)

    def to_supervision(self) -> Detections:
        """Return supervision's `Detections`; the quality, and labels that are names, are in its data."""
        from supervision import Detections

        data: dict[str, NDArray[Any] | list[Any]] = {"quality": self.quality}
        class_id = None
        if self.labels and isinstance(self.labels[0], str):
            data["class_name"] = np.array(self.labels)
        elif self.labels is not None:
            class_id = np.array(self.labels, dtype=int)
        return Detections(
            xyxy=self.boxes, mask=self.masks, confidence=self.scores, class_id=class_id, data=data
        )


class BoxSegmenter:
    """Predict the masks of the objects in given boxes; the network is loaded once.

    The masks are those of `boxel label` with the same settings, bit for bit. Several threads may call it.

    Args:
        teacher: One or several teachers, as for `boxel.label`; the bundled BoxCaseg by default.
        device: Where networks run: ``auto`` (CUDA if available), ``cpu``, ``cuda``, ``mps``.
        categories: Names of the categories that labels refer to, for teachers that know classes (detectors and semantic
            segmenters).
        **settings: Settings of :class:`~boxel.labeling.config.LabelConfig`, e.g. ``drop=0.7``.

    Raises:
        BoxelError: A setting is unknown or invalid, or a teacher cannot be loaded.

    Examples:
        >>> segmenter = BoxSegmenter()
        >>> image = np.zeros((48, 64, 3), np.uint8)
        >>> image[10:30, 20:50] = 255
        >>> result = segmenter(image, [[20, 10, 50, 30]])
        >>> int(result.masks[0].sum()) > 400
        True
    """

    def __init__(
        self,
        teacher: TeacherLike | Sequence[TeacherLike] | None = None,
        device: str = "auto",
        categories: Sequence[str] = (),
        **settings: Any,
    ) -> None:
        self._config: LabelConfig = parse_label_config(device=device, **settings)
        self._names = list(categories)
        # Boxes without a label are of a category that has no name.
        known = [Category(number, name) for number, name in enumerate([*categories, ""], start=1)]
        self._teachers, self._calibration = load_teachers(teacher, self._config, known)

    @overload
    def __call__(self, image: ImageLike, boxes: ArrayLike, labels: Labels | None = None) -> BoxMasks: ...
    @overload
    def __call__(
        self,
        image: list[ImageLike] | tuple[ImageLike, ...],
        boxes: Sequence[ArrayLike],
        labels: Sequence[Labels] | None = None,
    ) -> list[BoxMasks]: ...
    def __call__(self, image: Any, boxes: Any, labels: Any = None) -> BoxMasks | list[BoxMasks]:
        """Predict the masks of the boxes of an image, or of each image of a list.

        Args:
            image: A path, a Pillow image or an array, gray, RGB or RGBA, of uint8 or of float in [0, 1]; or a list of
                these, which are processed in `workers` threads.
            boxes: (N, 4) xyxy pixels; for a list of images one such array per image.
            labels: N names or indices of categories; for a list of images one such list per image. If `categories` was
                not given, labels are only passed through.

        Returns:
            The masks; a list of them for a list of images.

        Raises:
            BoxelError: An image cannot be read, or boxes or labels have the wrong shape or type.
        """
        if not isinstance(image, (list, tuple)):
            return self._segment(image, boxes, labels)
        labels = [None] * len(image) if labels is None else labels
        if not isinstance(boxes, (Sequence, np.ndarray)):
            raise UsageError("boxes of a list of images are a list too; give one (N, 4) array per image.")
        if not len(image) == len(boxes) == len(labels):
            raise UsageError(
                f"{len(image)} images have {len(boxes)} arrays of boxes and {len(labels)} lists of labels; give one "
                "per image."
            )
        with ThreadPoolExecutor(self._config.workers) as pool:
            return list(pool.map(self._segment, image, boxes, labels))

    def _segment(self, image: ImageLike, boxes: ArrayLike, labels: Labels | None) -> BoxMasks:
        pixels = to_image(image)
        height, width = pixels.shape[:2]
        given = _check_boxes(boxes)
        indices = self._label_indices(labels, len(given))
        visible = given.clip(0, [width, height] * 2)
        finite = np.isfinite(given).all(axis=1)
        usable = np.flatnonzero(finite & (visible[:, 2:] > visible[:, :2]).all(axis=1))
        _warn_of_boxes(given, usable)
        labeled = label_image(pixels, given[usable], indices[usable], self._teachers, self._config)
        quality = np.full(len(given), np.nan)
        quality[usable] = self._calibration.estimate(compute_cues(labeled, self._calibration.reference))
        result = BoxMasks(
            boxes=given,
            rles=[encode_in_box(np.zeros((0, 0), dtype=bool), 0, 0, height, width) for _ in given],
            quality=quality,
            scores=np.zeros(len(given)),
            trusted=np.zeros(len(given), dtype=bool),
            labels=None if labels is None else list(labels),  # type: ignore[arg-type]
            image=pixels.copy() if pixels is image else pixels,  # the caller may reuse the array
        )
        for index, row in enumerate(usable.tolist()):
            mask, (left, top, *_) = labeled.masks[index], labeled.regions[index]
            if mask is None:
                continue
            result.rles[row] = encode_in_box(mask, left, top, height, width)
            result.boxes[row] = tight_boxes([mask])[0] + [left, top, left, top]
            result.trusted[row] = labeled.trusted[index]
            scores = [vote.soft_masks[index].score for vote in labeled.votes if vote.has_opinion(index)]
            result.scores[row] = np.mean(scores)
        return result

    def _label_indices(self, labels: Labels | None, count: int) -> NDArray[np.int32]:
        """Return the category index of each box."""
        known = self._names
        if labels is not None and len(labels) != count:
            raise UsageError(f"{count} boxes have {len(labels)} labels; give one label per box.")
        if labels is None or not known:
            return np.full(count, len(known), dtype=np.int32)
        for label in labels:
            if isinstance(label, str) and label not in known:
                raise UsageError(f"there is no category {label!r}.{nearest(label, known)}")
            if not isinstance(label, (str, Integral)):
                raise UsageError(f"label {label!r} is neither the name nor the index of a category.")
            if isinstance(label, Integral) and not 0 <= label < len(known):
                raise UsageError(f"label {label} is not an index of the {len(known)} categories.")
        return np.array([known.index(x) if isinstance(x, str) else x for x in labels], dtype=np.int32)


def _check_boxes(boxes: ArrayLike) -> NDArray[np.float64]:
    """Convert boxes to (N, 4) float64."""
    if isinstance(boxes, (str, Path, Mapping)):
        raise UsageError(
            f"boxes cannot be of type {type(boxes).__name__}; give an (N, 4) array of xyxy pixels."
        )
    try:
        array = np.array(boxes, dtype=np.float64)
    except (TypeError, ValueError):
        raise UsageError("boxes are not an array of numbers; give (N, 4) xyxy pixels.") from None
    if not array.size:
        return np.zeros((0, 4))
    if array.ndim != 2 or array.shape[1] != 4:
        hint = "; a single box is [[x0, y0, x1, y1]]" if array.shape == (4,) else ""
        raise UsageError(f"boxes have shape {array.shape}; give (N, 4) xyxy pixels{hint}.")
    return array


def _warn_of_boxes(boxes: NDArray[np.float64], usable: NDArray[np.int64]) -> None:
    """Warn of boxes that cannot be meant, and of the likely mistake."""
    wrong = np.setdiff1d(np.arange(len(boxes)), usable)
    known = boxes[np.isfinite(boxes).all(axis=1)]
    problems = []
    if len(wrong):
        rows = np.array2string(wrong, threshold=10)
        what = "boxes are inverted, empty, not finite or outside the image"
        problems.append(f"{len(wrong)} of {len(boxes)} {what} (rows {rows})")
    if len(known) and ((known >= 0) & (known <= 1.5)).all():
        problems.append("boxes look normalized, since all lie between 0 and 1.5; give pixels")
    elif (known[:, 2:] < known[:, :2]).any():
        problems.append("boxes look like x, y, width, height; give x0, y0, x1, y1")
    if problems:
        logger.warning("%s", "; ".join(problems))
