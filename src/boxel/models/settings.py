"""How models are run: sizes, test-time augmentation (TTA) and minimum scores, as settings that need no PyTorch."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from typing import Any

from boxel.crf.config import CRFConfig
from boxel.models.thresholds import SCORE_THRESHOLDS, ScoreThreshold, describe_thresholds, min_scores
from boxel.utils.config import ClosedUnitInterval, Config, HalfOpenUnitInterval, PositiveFloat, PositiveInt
from boxel.utils.errors import BoxelError, UsageError

logger = logging.getLogger(__name__)

MIN_TILE = 32
"""Minimum side of a tile in pixels."""


@dataclass
class InferenceConfig(Config):
    """Preprocessing and test-time augmentation of instance segmenters.

    Attributes:
        short_side: Pixels that the shorter side of an image is resized to; None keeps its size.
        max_size: Maximum of the longer side after resizing.
        flip: Add a pass over the horizontally flipped image.
        scales: Factors on the size, one pass each; their detections are merged.
        score_threshold: Minimum score of a detection, if above the model's own `score_threshold`; `best` for the one
            that the training has chosen for its class.
        class_agnostic_nms: Let instances of all classes compete for an object, so that it gets one class: of boxes that
            overlap by more than the model's `nms_threshold` the best remains, whatever its class.
        mask_nms: IoU of masks above which the lower-scoring of two instances of a class is dropped, or of any two with
            `class_agnostic_nms`; None keeps both.
        tile: Side in pixels of the overlapping squares that larger images are cut into, each of which is resized like
            an image of this size; None shrinks images of any size to that of the training.
    """

    short_side: PositiveInt | None = 800
    max_size: PositiveInt = 1333
    flip: bool = False
    scales: tuple[PositiveFloat, ...] = (1.0,)
    score_threshold: ScoreThreshold = 0.0
    class_agnostic_nms: bool = False
    mask_nms: ClosedUnitInterval | None = None
    tile: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_scales(self.scales)
        check_tile(self.tile)


@dataclass
class SemanticInferenceConfig(Config):
    """Preprocessing, test-time augmentation and refinement of semantic segmenters.

    Attributes:
        long_side: Pixels that the longer side of an image is resized to; None keeps its size.
        tile: Side in pixels of the overlapping squares that larger images are cut into, each of which is predicted like
            an image of this size; None for no tiles.
        overlap: Minimum overlap of neighboring tiles, as a share of a tile.
        flip: Add a pass over the horizontally flipped image.
        scales: Factors on the size, one pass each; the class probabilities of all passes are averaged.
        shifts: n x n passes over the image, shifted by fractions of a cell, are interleaved to a score map n times as
            dense; 1 for none.
        crf: A fully connected CRF over the mean of all passes, at the size of the image or tile; None for none.
    """

    long_side: PositiveInt | None = None
    tile: int | None = None
    overlap: HalfOpenUnitInterval = 1 / 3
    flip: bool = False
    scales: tuple[PositiveFloat, ...] = (1.0,)
    shifts: PositiveInt = 1
    crf: CRFConfig | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_scales(self.scales)
        check_tile(self.tile)


def apply_settings(model: Any, base: InferenceConfig, settings: Mapping[str, Any]) -> InferenceConfig:
    """Return the inference settings of an instance segmenter, changed by some that are given.

    A `short_side` alone scales the `max_size`.
    """
    given = dict(settings)
    check_settings(InferenceConfig, given)
    if given.get("short_side") and "max_size" not in given:
        given["max_size"] = round(base.max_size * given["short_side"] / (base.short_side or base.max_size))
    config = replace(base, **given)
    min_scores(model, config.score_threshold)  # raises if there are none
    if config.score_threshold == "best":
        logger.info("minimum scores: %s", describe_thresholds(model.settings[SCORE_THRESHOLDS]))
    return config


def resize_factor(size: Sequence[int], config: InferenceConfig) -> float:
    """Return the factor by which an image of a height and width is resized; with a `tile`, the factor of all tiles."""
    if config.short_side is None:
        return 1.0
    sides = size if config.tile is None else (config.tile, config.tile)
    return min(config.short_side / min(sides), config.max_size / max(sides))


_ALIASES = {
    "score_threshold": ("conf", "confidence", "threshold", "score", "min_score", "box_score_thresh"),
    "short_side": ("imgsz", "image_size", "size", "min_size"),
    "long_side": ("imgsz", "image_size", "size"),
    "flip": ("augment", "tta", "hflip"),
}
"""Names that other libraries have for a setting."""


def check_settings(kind: type, settings: Mapping[str, Any]) -> None:
    """Raise a :class:`UsageError` that names the nearest field of a dataclass of settings if one is unknown."""
    known = [field.name for field in fields(kind)]
    for name in settings:
        if name not in known:
            meant = [setting for setting in known if name in _ALIASES.get(setting, ())]
            meant += get_close_matches(name, known, n=1)
            hint = f"did you mean {meant[0]!r}?" if meant else f"known are {', '.join(known)}."
            raise UsageError(f"predict() got an unknown setting {name!r}; {hint}")


def check_scales(scales: Sequence[float]) -> None:
    """Raise a :class:`BoxelError` if there is no factor at all."""
    if not scales:
        raise BoxelError("scales is empty; give one factor or more, each above 0.")


def check_tile(tile: int | None) -> None:
    """Raise a :class:`BoxelError` for a tile that shows too little."""
    if tile is not None and tile < MIN_TILE:
        raise BoxelError(f"tile is {tile}; give a number from {MIN_TILE} up.")
