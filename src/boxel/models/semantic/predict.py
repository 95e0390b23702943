"""Class probabilities of photos of any size: several looks at each, and tiles of large ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, inf
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as nnF
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from boxel.crf import CRFConfig, mean_field
from boxel.data.annotations import Category
from boxel.data.label_maps import values_of
from boxel.models.predict import Photo, pixels_of
from boxel.utils.errors import BoxelError, check_range, nearest


@dataclass(frozen=True)
class LabelMap:
    """The class of each pixel of one photo.

    Attributes:
        labels: (H, W) uint8, index into `classes`.
        scores: (H, W) float32 in [0, 1], the probability of that class.
        classes: the data set's.
    """

    labels: NDArray[np.uint8]
    scores: NDArray[np.float32]
    classes: tuple[Category, ...]

    @property
    def values(self) -> NDArray[np.uint16]:
        """(H, W) original ids of the classes, as the data set's own label maps have them."""
        return values_of(self.classes)[self.labels]

    def mask(self, name: str) -> NDArray[np.bool_]:
        """(H, W) mask of a class, by its name.

        Raises:
            BoxelError: there is no such class.
        """
        names = [category.name for category in self.classes]
        if name not in names:
            raise BoxelError(f"there is no class {name!r} among those of the model.{nearest(name, names)}")
        return self.labels == names.index(name)

    def save(self, path: str | Path) -> None:
        """Write the original ids of the classes as a PNG, of 16 bits where 8 don't do.

        Raises:
            BoxelError: they can't be values of pixels.
        """
        values = self.values
        Image.fromarray(values if values.max(initial=0) > 255 else values.astype(np.uint8)).save(path)


@dataclass
class LookConfig:
    """How photos are shown to a segmenter.

    Attributes:
        long_side: the photo's longer side is brought to this many pixels; None shows it as it is.
        tile: photos with a longer side are looked at in overlapping squares of this side; None looks at them whole.
        overlap: of neighboring tiles, at least, as a share of a tile.
        flip: look at the mirrored photo too.
        scales: factors on the size; several are looked at.
        shifts: n by n looks, each shifted by a fraction of a cell, interleave to scores that are n times as dense;
            1 for none.
        crf: a fully connected CRF over the mean of all looks, at the photo's own size; None for none.
    """

    long_side: int | None = None
    tile: int | None = None
    overlap: float = 1 / 3
    flip: bool = False
    scales: tuple[float, ...] = (1.0,)
    shifts: int = 1
    crf: CRFConfig | None = None

    def __post_init__(self) -> None:
        check_range(self, 0, 0.9, "overlap")
        check_range(self, 1, 4, "shifts")
        if self.long_side is not None:
            check_range(self, 1, inf, "long_side")
        if self.tile is not None:
            check_range(self, 32, inf, "tile")
        if not self.scales or min(self.scales) <= 0:
            raise BoxelError(f"scales is {self.scales}; give one factor or more, each above 0.")


@torch.inference_mode()
def probabilities(network: Any, photo: Tensor, config: LookConfig) -> Tensor:
    """Mean class probabilities over all looks at a photo (multi-view testing), and what a CRF makes of them.

    Args:
        network: a :class:`~boxel.models.semantic.network.FullyConvolutional` in eval mode.
        photo: (3, H, W) uint8 RGB, on the network's device.
        config: how it is shown.

    Returns:
        (K, H, W) float32.
    """
    height, width = photo.shape[-2:]
    views = [
        (scale, mirrored)
        for scale in config.scales
        for mirrored in ((False, True) if config.flip else (False,))
    ]
    total = torch.zeros((), device=photo.device)
    for scale, mirrored in views:
        factor = scale * (config.long_side / max(height, width) if config.long_side else 1)
        size = [max(round(height * factor), 1), max(round(width * factor), 1)]
        shown = F.resize(photo, size, antialias=True).float() / 255
        scores = _interleaved(network, shown.flip(-1) if mirrored else shown, config)
        scores = scores.flip(-1) if mirrored else scores
        total = total + nnF.interpolate(scores[None], (height, width), mode="bilinear")[0].softmax(0)
    mean = total / len(views)
    return mean if config.crf is None else refined(photo, mean, config.crf)


def refined(photo: Tensor, mean: Tensor, crf: CRFConfig) -> Tensor:
    """(K, H, W) marginals of a CRF of a photo, (3, H, W) uint8, whose unary terms are (K, H, W) probabilities."""
    return mean_field(photo[None].float() / 255, mean[None], crf)[0]


def _interleaved(network: Any, image: Tensor, config: LookConfig) -> Tensor:
    """(K, h, w) scores of an image's cells, or of `shifts` times as many a side (shift and interleave).

    A look shifted by a fraction of a cell scores the points between the cells of the others. The shifts lie around 0,
    so that the scores stay where they belong.
    """
    count, stride = config.shifts, network.stride
    if count == 1:
        return _to_image(_tiled(network, image, config), image, stride)
    if stride % (2 * count):
        raise BoxelError(
            f"shifts is {count}; with cells of {stride} pixels give one of 1, 2 and {stride // 2}."
        )
    fill, first = network.fill, stride // (2 * count) - stride // 2
    offsets = [first + k * stride // count for k in range(count)]
    rows = []
    for y in offsets:
        looks = []
        for x in offsets:
            padded = nnF.pad((image - fill)[None], (-x, x, -y, y))[0] + fill
            looks.append(_tiled(network, padded, config))
        rows.append(torch.stack(looks, dim=-1).flatten(-2))
    return _to_image(torch.stack(rows, dim=-2).flatten(-3, -2), image, stride // count)


def _to_image(scores: Tensor, image: Tensor, cell: int) -> Tensor:
    """Scores of cells as scores of the image's pixels, without those of the padding."""
    height, width = scores.shape[-2] * cell, scores.shape[-1] * cell
    dense = nnF.interpolate(scores[None], (height, width), mode="bilinear")[0]
    return dense[:, : image.shape[-2], : image.shape[-1]]


def _tiled(network: Any, image: Tensor, config: LookConfig) -> Tensor:
    """(K, h, w) scores of an image's cells, the mean over the tiles that a cell is in."""
    stride = network.stride
    tile = max(image.shape[-2:]) if config.tile is None else config.tile
    if tile >= max(image.shape[-2:]):
        return network(image[None])[0]
    tops, lefts = (_starts(length, tile, config.overlap, stride) for length in image.shape[-2:])
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


def _starts(length: int, tile: int, overlap: float, stride: int) -> list[int]:
    """Where tiles begin: evenly, on whole cells, the last one ending with the image or past it."""
    if length <= tile:
        return [0]
    count = ceil((length - tile) / (tile * (1 - overlap))) + 1
    return sorted({ceil(start / stride) * stride for start in np.linspace(0, length - tile, count)})


def predict_maps(
    model: Any, photos: Photo | Sequence[Photo], config: LookConfig | None = None
) -> Iterator[LabelMap]:
    """The classes of photos, one after another; bad ones raise where their turn comes.

    Args:
        model: a :class:`~boxel.models.semantic.model.Segmenter` in eval mode.
        photos: a file, a PIL image, an (H, W, 3) uint8 RGB array, or several of these.
        config: how they are shown; as in the model's own training where None.

    Yields:
        A :class:`LabelMap` of each photo.

    Raises:
        BoxelError: a file can't be read as an image.
    """
    several = cast(Sequence[Photo], photos if isinstance(photos, (list, tuple)) else [photos])
    config = config or own_looks(model)
    device = next(model.parameters()).device
    for photo in several:
        pixels = torch.from_numpy(pixels_of(photo)).to(device).permute(2, 0, 1)
        scores, labels = probabilities(model.network, pixels, config).max(0)
        yield LabelMap(labels.to(torch.uint8).cpu().numpy(), scores.cpu().numpy(), tuple(model.categories))


def own_looks(model: Any, crf: bool | CRFConfig | None = None, **changes: Any) -> LookConfig:
    """How a model's photos are shown: at the size it was trained at.

    Args:
        model: with the `settings` of its run.
        crf: True for a CRF as `boxel tune-crf` has set it for the run, else with its defaults.
        **changes: other fields that are to be otherwise.
    """
    if isinstance(crf, bool):
        crf = CRFConfig(**model.settings.get("crf", {})) if crf else None
    return LookConfig(**{"long_side": model.settings.get("views", {}).get("long_side"), "crf": crf} | changes)
