"""Crops around the boxes of instances: the training dataset of a box-to-mask model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import v2

from boxel.data.annotations import Annotations
from boxel.data.config import CropConfig
from boxel.data.dataset import SkippingDataset
from boxel.data.images import read_image
from boxel.data.samplers import SeededIndex
from boxel.masks.crops import crop, crop_spans, crop_window, draw_neighbors

SALIENT_SHARE = 0.9
"""Share of a salient image's width and height that a crop of it shows: 288 of 320 pixels (section 3.2.2)."""


class CropDataset(SkippingDataset[tuple[Tensor, dict[str, Any]]]):
    """Crops of the instances of two datasets: boxed images, then salient ones.

    A sample is ``(crop, target)``: `crop` (3, S, S) float RGB in [0, 1]; `target` with `rows` and `columns` (S,) bool,
    those of the crop inside the box, `neighbors` (S, S) float32, the boxes of the other objects
    (:func:`~boxel.masks.crops.draw_neighbors`), `mask` (S, S) float32 in [0, 1] (zeros if there is none), `has_mask`
    bool, whether the mask is trusted, and `image_id`. An instance whose image cannot be read is logged, and the next
    one takes its place.

    Args:
        boxed: Instances with boxes and, perhaps, masks, trusted or not; without crowds.
        salient: One instance with its mask per image; or None.
        config: Windows and augmentation.
        margin: Background around a box that the network sees when it predicts a mask, as a share of the box.
        fill: Color outside an image, RGB in 0..255.

    Examples:
        >>> from boxel.data.samples import sample_images
        >>> crop, target = CropDataset(sample_images(), None, CropConfig(side=64))[0, 1]
        >>> crop.shape, target["mask"].shape
        (torch.Size([3, 64, 64]), torch.Size([64, 64]))
    """

    def __init__(
        self,
        boxed: Annotations,
        salient: Annotations | None,
        config: CropConfig,
        margin: float = 0.0,
        fill: Sequence[int] = (124, 116, 104),
    ):
        super().__init__(boxed)
        self.parts = [boxed] if salient is None else [boxed, salient]
        self.has_mask = [part.has_mask for part in self.parts]
        self.config, self.margin, self.fill = config, margin, fill
        strength = config.color
        self.colors = v2.ColorJitter(strength, strength, strength) if strength else torch.nn.Identity()

    def __len__(self) -> int:
        """Total number of instances."""
        return sum(len(part.labels) for part in self.parts)

    def __getitem__(self, key: SeededIndex) -> tuple[Tensor, dict[str, Any]]:
        """Return the sample of an instance; the seed fixes its augmentation."""
        index, seed = key
        return self.first_readable(lambda at: self._sample(at, seed), index)

    def _sample(self, index: int, seed: int) -> tuple[Tensor, dict[str, Any]]:
        which = int(index >= len(self.data.labels))
        data, instance = self.parts[which], index - which * len(self.data.labels)
        config, rng = self.config, np.random.default_rng(seed)
        image_index = int(data.image_index[instance])
        image = read_image(data.image_path(image_index))
        size = image.shape[:2]
        box, has_mask = data.boxes[instance], bool(self.has_mask[which][instance])
        window = (
            _random_part(size, rng)
            if which and config.salient == "image"
            else _jitter_window(crop_window(box, self.margin), box, config, rng)
        )
        if config.clip:
            window = _clip_window(window, size)
        if has_mask and config.box_noise:
            box = box + rng.normal(0, config.box_noise, 4) * np.tile(box[2:] - box[:2], 2)

        pixels = crop(image, window, config.side, self.fill)
        rows, columns = crop_spans(box, window, config.side)
        others = data.boxes[data.instances_in(image_index)]
        neighbors = draw_neighbors(others[np.isfinite(others).all(axis=1)], box, window, config.side)
        drawn = data.mask(instance, size)
        mask = np.zeros((config.side, config.side), dtype=np.float32)
        if drawn is not None:
            mask = crop(drawn.astype(np.float32), window, config.side)
        if rng.random() < config.flip:
            pixels, mask, columns = pixels[:, ::-1], mask[:, ::-1], columns[::-1]
            neighbors = neighbors[:, ::-1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            colored = self.colors(torch.from_numpy(pixels.transpose(2, 0, 1).copy()))
        target = {
            "rows": torch.from_numpy(rows),
            "columns": torch.from_numpy(columns.copy()),
            "neighbors": torch.from_numpy(neighbors.copy()),
            "mask": torch.from_numpy(mask.copy()),
            "has_mask": has_mask,
            "image_id": data.image_ids[image_index],
        }
        return colored.float() / 255, target


def _jitter_window(
    window: NDArray[np.float64], box: NDArray[np.float64], config: CropConfig, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Shift and scale a window at random (section 3.2.2)."""
    extent = box[2:] - box[:2]
    center = (window[:2] + window[2:]) / 2 + rng.uniform(-config.shift, config.shift, 2) * extent
    half = (window[2:] - window[:2]) / 2 * rng.uniform(*config.scale, 2)
    return np.concatenate([center - half, center + half])


def _random_part(size: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a window of `SALIENT_SHARE` of the image's width and height, anywhere in it."""
    whole = np.array([size[1], size[0]])
    extent = whole * SALIENT_SHARE
    corner = rng.uniform(0, 1, 2) * (whole - extent)
    return np.concatenate([corner, corner + extent])


def _clip_window(window: NDArray[np.float64], size: tuple[int, ...]) -> NDArray[np.float64]:
    """Clip a window to the image, unless less than a pixel would be left."""
    height, width = size
    inside = window.clip(0, [width, height, width, height])
    return inside if (inside[2:] - inside[:2]).min() >= 1 else window
