"""Predict on a large image in tiles, whatever runs the model; needs no PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from boxel.data.sources import ImageLike
from boxel.data.windows import ImageWindows
from boxel.masks.boxes import Region
from boxel.masks.tiles import OVERLAP, TileMasks, cut_tiles, merge_tiles, tile_core
from boxel.models.instances import Instances, map_windows
from boxel.models.label_map import LabelMap

PredictBatch: TypeAlias = Callable[[Sequence[NDArray[np.uint8]], Any], Sequence[Any]]
"""Predicts on a batch of images with settings; if these have a `tile`, the images are tiles."""


def predict_in_tiles(image: ImageWindows, predict: PredictBatch, config: Any, batch_size: int = 1) -> Any:
    """Predict on an image, in tiles if it is larger than the `tile` of the settings.

    Args:
        image: Whole, or read in parts.
        predict: `predict_batch` of a model.
        config: The :class:`~boxel.models.settings.InferenceConfig` or `SemanticInferenceConfig`.
        batch_size: Tiles per batch.

    Returns:
        `Instances`, merged by :func:`~boxel.masks.tiles.merge_tiles`; or a `LabelMap`, with each pixel from the tile in
        which it lies deepest.
    """
    tiles = cut_tiles(*image.shape, config.tile or max(image.shape), getattr(config, "overlap", OVERLAP))
    if len(tiles) == 1:
        return predict([image.read(tiles[0])], replace(config, tile=None))[0]
    batches = (tiles[start : start + batch_size] for start in range(0, len(tiles), batch_size))
    found = (one for batch in batches for one in predict([image.read(tile) for tile in batch], config))
    if hasattr(config, "overlap"):
        return _join_label_maps(tiles, found, image.shape)
    parts = list(found)
    masks = [TileMasks(one.boxes, one.scores, one.labels, one.rles) for one in parts]
    merged = merge_tiles(tiles, masks, *image.shape, config.class_agnostic_nms)
    return Instances(*merged, parts[0].categories, image.shape)


def predict_images(model: Any, images: ImageLike | Sequence[ImageLike], config: Any) -> Any:
    """Return what a model predicts of an image, or a list of it for a list or tuple of images, by the settings."""
    return map_windows(
        images, lambda image: predict_in_tiles(image, model.predict_batch, config), config.tile is not None
    )


def _join_label_maps(tiles: Sequence[Region], found: Iterable[LabelMap], size: tuple[int, int]) -> LabelMap:
    labels, scores = np.empty(size, dtype=np.uint8), np.empty(size, dtype=np.float32)
    for tile, part in zip(tiles, found, strict=True):
        core = tile_core(tile, tiles)
        inside = Region(*(side - corner for side, corner in zip(core, tile[:2] * 2, strict=True))).slices
        labels[core.slices], scores[core.slices] = part.labels[inside], part.scores[inside]
    return LabelMap(labels, scores, part.classes)
