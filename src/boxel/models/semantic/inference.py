"""Semantic inference on images of any size: test-time augmentation (TTA), tiles, and a CRF on top."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from boxel.crf import CRFConfig, mean_field
from boxel.data.annotations import Category
from boxel.data.label_maps import label_map_values
from boxel.data.sources import ImageLike, to_image
from boxel.models.inference import check_scales, check_settings, resize, to_tensor
from boxel.utils.config import Config, HalfOpenUnitInterval, PositiveFloat, PositiveInt
from boxel.utils.errors import BoxelError, nearest
from boxel.utils.files import atomic_path
from boxel.viz.output import Drawable
from boxel.viz.overlays import overlay_labels

if TYPE_CHECKING:
    from boxel.models.semantic.model import Segmenter
    from boxel.models.semantic.network import FullyConvolutional


@dataclass(frozen=True, repr=False, eq=False)
class LabelMap(Drawable):
    """The class of each pixel of one image.

    Attributes:
        labels: (H, W) uint8, index into `classes`.
        scores: (H, W) float32 in [0, 1], the probability of that class.
        classes: Classes of the model.
        source: The image itself, or the file it is read from again for drawing; None if unknown.

    Examples:
        >>> import numpy as np
        >>> from boxel.data.annotations import Category
        >>> classes = (Category(0, "background"), Category(7, "cat"))
        >>> labels = np.array([[0, 1, 1]], dtype=np.uint8)
        >>> label_map = LabelMap(labels, np.ones((1, 3), dtype=np.float32), classes)
        >>> label_map.mask("cat").tolist()
        [[False, True, True]]
        >>> label_map.values.tolist()
        [[0, 7, 7]]
    """

    labels: NDArray[np.uint8]
    scores: NDArray[np.float32]
    classes: tuple[Category, ...]
    source: ImageLike | None = None

    def __repr__(self) -> str:
        """Return a summary on one line."""
        height, width = self.labels.shape
        names = [self.classes[label].name for label in np.unique(self.labels).tolist()]
        return f"LabelMap({width} x {height} pixels of {', '.join(names)})"

    @property
    def values(self) -> NDArray[np.uint16]:
        """(H, W) original ids of the classes, as in the label maps of the dataset."""
        return label_map_values(self.classes)[self.labels]

    def mask(self, name: str) -> NDArray[np.bool_]:
        """Return the (H, W) mask of a class.

        Raises:
            BoxelError: There is no class of this name.
        """
        names = [category.name for category in self.classes]
        if name not in names:
            raise BoxelError(f"the model has no class {name!r}.{nearest(name, names)}")
        return self.labels == names.index(name)

    def plot(self, image: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Draw the classes over their image, with a legend below.

        Args:
            image: (H, W, 3) uint8 RGB; `source` if None.

        Returns:
            (H + legend, W, 3) uint8 RGB.

        Raises:
            BoxelError: `source` is unknown or cannot be read.
        """
        if image is None:
            if self.source is None:
                raise BoxelError("this label map does not know its image; give it as `image`.")
            image = to_image(self.source)
        return overlay_labels(image, self.labels, [category.name for category in self.classes])

    def save(self, path: str | Path) -> None:
        """Write the original ids of the classes as a PNG, with 16 bits if an id exceeds 255.

        Raises:
            BoxelError: The ids cannot be pixel values.
        """
        values = self.values
        with atomic_path(path) as file:
            Image.fromarray(values if values.max(initial=0) > 255 else values.astype(np.uint8)).save(file)


@dataclass
class SemanticInferenceConfig(Config):
    """Preprocessing, test-time augmentation and refinement of semantic segmenters.

    Attributes:
        long_side: Pixels that the longer side of an image is resized to; None keeps its size.
        tile: Side of the overlapping tiles that larger images are cut into, in pixels; None for no tiles.
        overlap: Minimum overlap of neighboring tiles, as a share of a tile.
        flip: Add a pass over the horizontally flipped image.
        scales: Factors on the size, one pass each; the class probabilities of all passes are averaged.
        shifts: n x n passes over the image, shifted by fractions of a cell, are interleaved to a score map n times as
            dense; 1 for none.
        crf: A fully connected CRF over the mean of all passes, at the size of the image; None for none.
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
        if self.tile is not None and self.tile < 32:
            raise BoxelError(f"tile is {self.tile}; give a number from 32 up.")


def semantic_inference_config(
    model: Segmenter, *, crf: bool | CRFConfig | None = None, **settings: Any
) -> SemanticInferenceConfig:
    """Return the inference settings of a model: the size of its training, changed by settings that are given.

    With `crf` True it is the CRF that `boxel tune-crf` has found for the run, else the default one.
    """
    check_settings(SemanticInferenceConfig, settings)
    if isinstance(crf, bool):
        crf = CRFConfig(**model.settings.get("crf", {})) if crf else None
    long_side = model.settings.get("views", {}).get("long_side")
    return SemanticInferenceConfig(**{"long_side": long_side, "crf": crf} | settings)


@torch.inference_mode()
def predict_label_map(
    model: Segmenter, image: NDArray[np.uint8], config: SemanticInferenceConfig | None = None
) -> LabelMap:
    """Predict the class of each pixel of an (H, W, 3) RGB image; the settings are those of the training if None."""
    pixels = to_tensor(image, next(model.parameters()).device)
    config = config or semantic_inference_config(model)
    scores, labels = predict_probabilities(model.network, pixels, config).max(0)
    return LabelMap(labels.to(torch.uint8).cpu().numpy(), scores.cpu().numpy(), tuple(model.categories))


@torch.inference_mode()
def predict_probabilities(
    network: FullyConvolutional, image: Tensor, config: SemanticInferenceConfig
) -> Tensor:
    """Return the (K, H, W) class probabilities of a (3, H, W) uint8 RGB image on the device of the network.

    They are the mean over all passes, refined by a CRF if there is one.
    """
    size = image.shape[-2:]
    total, passes = torch.zeros((), device=image.device), 0
    for scale in config.scales:
        resized = resize(image, scale * (config.long_side / max(size) if config.long_side else 1))
        for flipped in (False, True) if config.flip else (False,):
            scores = _interleaved(network, resized.flip(-1) if flipped else resized, config)
            scores = scores.flip(-1) if flipped else scores
            total = total + F.interpolate(scores[None], size, mode="bilinear")[0].softmax(0)
            passes += 1
    mean = total / passes
    return mean if config.crf is None else refine_with_crf(image, mean, config.crf)


def refine_with_crf(image: Tensor, probabilities: Tensor, crf: CRFConfig) -> Tensor:
    """Return the (K, H, W) marginals of a CRF for (3, H, W) uint8 RGB and the (K, H, W) probabilities of classes."""
    return mean_field(image[None].float() / 255, probabilities[None], crf)[0]


def _interleaved(network: FullyConvolutional, image: Tensor, config: SemanticInferenceConfig) -> Tensor:
    """Return the (K, H, W) scores of an image's pixels, from `shifts` times as many cells per side as the network has.

    A pass shifted by a fraction of a cell scores the points between the cells of the others. The shifts lie around 0,
    so that the scores stay where they belong.
    """
    count, stride = config.shifts, network.stride
    if count == 1:
        return cells_to_pixels(_tiled(network, image, config)[None], image.shape[-2:], stride)[0]
    if stride % (2 * count):
        raise BoxelError(
            f"shifts is {count}; with cells of {stride} pixels give one of 1, 2 and {stride // 2}."
        )
    color, first = network.padding_color, stride // (2 * count) - stride // 2
    offsets = [first + k * stride // count for k in range(count)]
    rows = []
    for y in offsets:
        row = []
        for x in offsets:
            shifted = F.pad((image - color)[None], (-x, x, -y, y))[0] + color
            row.append(_tiled(network, shifted, config))
        rows.append(torch.stack(row, dim=-1).flatten(-2))
    scores = torch.stack(rows, dim=-2).flatten(-3, -2)
    return cells_to_pixels(scores[None], image.shape[-2:], stride // count)[0]


def cells_to_pixels(scores: Tensor, size: Sequence[int], cell: int) -> Tensor:
    """Enlarge (B, K, h, w) scores of cells to the pixels of images of a height and width, without the padding."""
    height, width = scores.shape[-2] * cell, scores.shape[-1] * cell
    dense = F.interpolate(scores, (height, width), mode="bilinear")
    return dense[..., : size[0], : size[1]]


def _tiled(network: FullyConvolutional, image: Tensor, config: SemanticInferenceConfig) -> Tensor:
    """Return the (K, h, w) scores of an image's cells, each the mean over the tiles that it is in."""
    stride = network.stride
    tile = max(image.shape[-2:]) if config.tile is None else config.tile
    if tile >= max(image.shape[-2:]):
        return network(image[None])[0]
    tops, lefts = (_tile_starts(length, tile, config.overlap, stride) for length in image.shape[-2:])
    height, width = (ceil(length / stride) for length in image.shape[-2:])
    total, count = None, image.new_zeros(height, width)
    for top in tops:
        for left in lefts:
            scores = network(image[None, :, top : top + tile, left : left + tile])[0]
            total = scores.new_zeros(len(scores), height, width) if total is None else total
            down, right = (slice(at // stride, at // stride + ceil(tile / stride)) for at in (top, left))
            total[:, down, right] += scores
            count[down, right] += 1
    return cast(Tensor, total) / count


def _tile_starts(length: int, tile: int, overlap: float, stride: int) -> list[int]:
    """Return evenly spaced starts of tiles, on whole cells, the last tile ending with the image or past it."""
    if length <= tile:
        return [0]
    count = ceil((length - tile) / (tile * (1 - overlap))) + 1
    return sorted({ceil(start / stride) * stride for start in np.linspace(0, length - tile, count)})
