"""Semantic inference on images of any size: test-time augmentation (TTA), tiles, and a CRF on top."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from boxel.crf import CRFConfig, mean_field
from boxel.models.inference import resize, to_tensor
from boxel.models.label_map import LabelMap
from boxel.models.settings import SemanticInferenceConfig, check_settings
from boxel.utils.errors import BoxelError

if TYPE_CHECKING:
    from boxel.models.semantic.model import Segmenter
    from boxel.models.semantic.network import FullyConvolutional


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
    """Predict the class of each pixel of an (H, W, 3) RGB image, or of a tile if the settings have a `tile`.

    They are those of the training if None.
    """
    pixels = to_tensor(image, next(model.parameters()).device)
    config = config or semantic_inference_config(model)
    scores, labels = predict_probabilities(model.network, pixels, config).max(0)
    return LabelMap(labels.to(torch.uint8).cpu().numpy(), scores.cpu().numpy(), tuple(model.categories))


@torch.inference_mode()
def predict_probabilities(
    network: FullyConvolutional, image: Tensor, config: SemanticInferenceConfig
) -> Tensor:
    """Return the (K, H, W) class probabilities of a (3, H, W) uint8 RGB image on the device of the network.

    They are the mean over all passes, refined by a CRF if there is one. With a `tile`, the image is one.
    """
    size = image.shape[-2:]
    longest = config.tile or max(size)
    total, passes = torch.zeros((), device=image.device), 0
    for scale in config.scales:
        resized = resize(image, scale * (config.long_side / longest if config.long_side else 1))
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
        return cells_to_pixels(network(image[None]), image.shape[-2:], stride)[0]
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
            row.append(network(shifted[None])[0])
        rows.append(torch.stack(row, dim=-1).flatten(-2))
    scores = torch.stack(rows, dim=-2).flatten(-3, -2)
    return cells_to_pixels(scores[None], image.shape[-2:], stride // count)[0]


def cells_to_pixels(scores: Tensor, size: Sequence[int], cell: int) -> Tensor:
    """Enlarge (B, K, h, w) scores of cells to the pixels of images of a height and width, without the padding."""
    height, width = scores.shape[-2] * cell, scores.shape[-1] * cell
    dense = F.interpolate(scores, (height, width), mode="bilinear")
    return dense[..., : size[0], : size[1]]
