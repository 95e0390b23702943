"""BoxCaseg: the mask of the object in a box, whatever its class (Wang et al., CVPR 2021)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import log
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from boxel.layers.backbone import Backbone
from boxel.layers.decoder import Concatenate, TopDown, upsample
from boxel.layers.transfer import TransferredHead, segmentation_head
from boxel.losses.head_mixing import mix_heads
from boxel.masks.boxes import box_to_pixels
from boxel.masks.crops import extract_crops, resample
from boxel.models.boxcaseg.config import BoxCasegConfig
from boxel.models.boxcaseg.criterion import box_losses, mask_loss

STRIDES = (4, 8, 16, 32)


class BoxCaseg(nn.Module):
    """Class-agnostic segmentation of the object in a box.

    The network sees a crop about a box, resized to a square. A weak head learns from lines across boxes, a salient one
    from masks, and a transferred one has weights made from the weak head's; the latter two are mixed to the result.

    In training ``model(crops, targets)`` gives raw losses, to be summed with :meth:`loss_weights`. In evaluation
    ``model(images, boxes)`` gives masks and scores.

    Args:
        config: settings.

    References:
        Wang et al., "Weakly-supervised Instance Segmentation via Class-agnostic Learning with Salient Images", 2021.
    """

    def __init__(self, config: BoxCasegConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or BoxCasegConfig()
        self.backbone = Backbone(
            config.backbone,
            config.weights,
            config.backbone_norm,
            frozen_stages=0,
            strides=STRIDES,
            extra_channels=int(config.box_channel),
        )
        channels = self.backbone.channels
        self.neck = (
            Concatenate(channels) if config.neck == "concat" else TopDown(channels, config.neck_channels)
        )
        self.heads = nn.ModuleDict(
            {
                name: TransferredHead(self.neck.channels)
                if name == "transferred"
                else segmentation_head(self.neck.channels)
                for name in config.heads
            }
        )

    def forward(self, images: Sequence[Tensor], asked: Sequence[Any]) -> Any:
        """Losses in training, masks in evaluation.

        Args:
            images: in training B crops (3, S, S); in evaluation any images (3, H, W); float, RGB in [0, 1].
            asked: in training a target a crop: `rows` (S,) and `columns` (S,) bool, those in the box, `mask` (S, S)
                float in [0, 1], the true mask, a hint or nothing, and `has_mask` bool, whether it is a true one. In
                evaluation the boxes of each image, (N, 4) xyxy pixels.

        Returns:
            In training a dict of scalar losses. In evaluation masks, (N, H, W) bool an image, and scores, (N,) in
            [0, 1] an image.
        """
        if self.training:
            return self._losses(images, asked)
        found = [self._masks(image, boxes) for image, boxes in zip(images, asked, strict=True)]
        return [masks for masks, _ in found], [scores for _, scores in found]

    def maps(self, crops: Tensor, rows: Tensor, columns: Tensor) -> dict[str, Tensor]:
        """Each head's logits.

        Args:
            crops: (B, 3, S, S) float, RGB in [0, 1], S a multiple of 32.
            rows: (B, S) bool, rows of the crop in the box.
            columns: (B, S) bool.

        Returns:
            By the name of the head (B, S / 4, S / 4).
        """
        features = self._features(crops, rows, columns)
        return {name: self._logits(name, features) for name in self.heads}

    def segment(self, crops: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Logits of the object, (B, S / 4, S / 4), above 0 where a pixel is taken; arguments as for :meth:`maps`."""
        threshold = self.config.threshold
        return self._result(self.maps(crops, rows, columns)) - log(threshold / (1 - threshold))

    def loss_weights(self, progress: float) -> dict[str, float]:
        """Weight of each loss, the same at all times.

        Args:
            progress: share of the training that is done, in [0, 1].
        """
        config = self.config
        names = ("mil", "smooth", "projection", "affinity", "hint", "pixel")
        return {name: getattr(config, f"{name}_weight") for name in names}

    def crops_of(
        self, image: NDArray[np.uint8], boxes: NDArray[np.float64]
    ) -> tuple[Tensor, Tensor, Tensor, NDArray[np.float64]]:
        """What the network is shown of an image.

        Args:
            image: (H, W, 3) RGB.
            boxes: (N, 4) xyxy pixels.

        Returns:
            crops (N, 3, S, S) float in [0, 1], rows (N, S) and columns (N, S) bool, and the crops' windows (N, 4), xyxy
            pixels of the image.
        """
        found = extract_crops(image, boxes, self.config.side, self.config.margin, self.padding_color)
        pixels, rows, columns = (
            torch.from_numpy(values).to(self.backbone.mean.device) for values in found[:3]
        )
        return pixels.permute(0, 3, 1, 2).float() / 255, rows, columns, found.windows

    @property
    def padding_color(self) -> tuple[int, int, int]:
        """The color that stands for what is outside an image: the mean of the backbone's training."""
        red, green, blue = (self.backbone.mean.flatten() * 255).round().int().tolist()
        return red, green, blue

    def _features(self, crops: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """What the heads see, (B, C, S / 4, S / 4); arguments as for :meth:`maps`."""
        if self.config.box_channel:
            inside = (rows[:, None, :, None] & columns[:, None, None, :]).to(crops.dtype)
            crops = torch.cat([crops, 2 * inside - 1], dim=1)
        return self.neck(self.backbone(crops.contiguous(memory_format=torch.channels_last)))

    def _logits(self, name: str, features: Tensor) -> Tensor:
        """(B, S / 4, S / 4) logits of the named head."""
        source = (self.heads["weak"],) if name == "transferred" else ()
        return self.heads[name](features, *source)[:, 0]

    def _losses(self, images: Sequence[Tensor], targets: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        config = self.config
        crops = torch.stack(list(images))
        rows, columns, masks, has_mask = (
            torch.stack([torch.as_tensor(target[name], device=crops.device) for target in targets])
            for name in ("rows", "columns", "mask", "has_mask")
        )
        features = self._features(crops, rows, columns)
        # Heads that learn from masks alone see no other crops (Fig. 4), in their norms' statistics neither.
        maps = {
            name: self._logits(name, features if name in ("weak", "shared") else features[has_mask])
            for name in self.heads
        }
        with torch.autocast(crops.device.type, enabled=False):
            full = {
                name: upsample(logits.float()[:, None], crops.shape[-2:])[:, 0]
                for name, logits in maps.items()
            }
            losses: dict[str, Tensor] = {}
            of_boxes = full.get("weak", full.get("shared"))
            if of_boxes is not None:
                losses |= box_losses(of_boxes, rows, columns, masks, has_mask, crops, config)
            if set(full) != {"weak"}:
                result = full["shared"][has_mask] if "shared" in full else self._result(full)
                losses["pixel"] = has_mask.float().mean() * mask_loss(
                    result, masks[has_mask], config.dice_weight
                )
        return losses

    def _result(self, maps: dict[str, Tensor]) -> Tensor:
        """The map that counts: the shared or the weak head's where it is alone, else Eq. 3's mix."""
        salient, transferred = maps.get("salient"), maps.get("transferred")
        if salient is None and transferred is None:
            return next(iter(maps.values()))
        if salient is None or transferred is None:
            return salient if transferred is None else transferred  # type: ignore[return-value]
        return mix_heads(salient, transferred, self.config.alpha, self.config.mix)

    @torch.inference_mode()
    def _masks(self, image: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Masks of one image, each cut to its box, and the mean certainty of their pixels."""
        height, width = image.shape[-2:]
        masks = torch.zeros((len(boxes), height, width), dtype=torch.bool)
        scores = torch.zeros(len(boxes))
        if len(boxes):
            pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
            corners = boxes.double().cpu().numpy()
            *shown, windows = self.crops_of(pixels, corners)
            logits = self.segment(*shown).float()
            scores = certainty(logits)
            cut = cut_masks(logits.cpu().numpy(), windows, corners, height, width)
            for mask, (found, left, top) in zip(masks, cut, strict=True):
                mask[top : top + found.shape[0], left : left + found.shape[1]] = torch.from_numpy(found)
        return masks.to(image.device), scores.to(image.device)


def cut_masks(
    logits: NDArray[np.float32],
    windows: NDArray[np.float64],
    boxes: NDArray[np.float64],
    height: int,
    width: int,
) -> Iterator[tuple[NDArray[np.bool_], int, int]]:
    """The part of each map of logits that lies in its box, as a mask of the image's pixels.

    Args:
        logits: (N, s, s).
        windows: (N, 4) what the maps cover, xyxy pixels of the image.
        boxes: (N, 4) xyxy pixels; the pixels whose middles they hold are taken.
        height: of the image.
        width: of the image.

    Yields:
        (h, w) bool mask, perhaps empty, and its left column and upper row.
    """
    corners = box_to_pixels(boxes, height, width)
    for grid, window, (left, top, right, bottom) in zip(logits, windows, corners.tolist(), strict=True):
        area = (left, top, max(left, right), max(top, bottom))
        empty = area[0] == area[2] or area[1] == area[3]
        shape = (area[3] - top, area[2] - left)
        yield (np.zeros(shape, bool) if empty else resample(grid, window, area) > 0), left, top


def certainty(logits: Tensor) -> Tensor:
    """How far from undecided a map's pixels are, on average.

    Args:
        logits: (N, h, w).

    Returns:
        (N,) in [0, 1].
    """
    return (2 * logits.sigmoid() - 1).abs().flatten(1).mean(1)
