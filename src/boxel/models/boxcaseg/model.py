"""BoxCaseg: the mask of the object in a box, whatever its class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import log
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from boxel.data.annotations import Category
from boxel.data.sources import ImageLike, to_image
from boxel.layers.backbone import Backbone
from boxel.layers.decoder import Concatenate, TopDown, upsample
from boxel.layers.transfer import TransferredHead, segmentation_head
from boxel.losses.head_mixing import mix_heads
from boxel.masks.boxes import box_to_pixels
from boxel.masks.crops import extract_crops, resample
from boxel.models.boxcaseg.config import BoxCasegConfig
from boxel.models.boxcaseg.losses import box_losses, mask_loss
from boxel.models.inference import evaluation_mode
from boxel.models.instances import Instances
from boxel.utils.errors import UsageError

STRIDES = (4, 8, 16, 32)


class BoxCaseg(nn.Module):
    """Class-agnostic segmentation of the object in a box.

    The network sees a crop around a box, resized to a square. A weak head learns from boxes, a salient head from masks,
    and the weights of a transferred head are predicted from those of the weak head; the latter two are mixed.

    In training, ``model(crops, targets)`` returns a dict of raw losses, to be summed with :meth:`loss_weights`. In eval
    mode, ``model(images, boxes=boxes)`` returns masks and scores. :meth:`predict` takes files and arrays.

    Args:
        config: Settings.

    Attributes:
        categories: Its only category, `object`.
        settings: The configuration of the run that trained the model; empty before.

    Examples:
        >>> import torch
        >>> config = BoxCasegConfig(
        ...     backbone="resnet10t", weights="none", neck="top_down", neck_channels=8, side=64
        ... )
        >>> model = BoxCaseg(config).eval()
        >>> masks, scores = model([torch.rand(3, 70, 90)], boxes=[torch.tensor([[10.0, 20, 30, 60]])])
        >>> masks[0].shape
        torch.Size([1, 70, 90])

    References:
        Wang et al., Weakly-supervised Instance Segmentation via Class-agnostic Learning with Salient Images, CVPR 2021.
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
        self.categories: tuple[Category, ...] = (Category(0, "object"),)
        self.settings: dict[str, Any] = {}

    def forward(
        self,
        images: Sequence[Tensor],
        targets: Sequence[dict[str, Any]] | None = None,
        boxes: Sequence[Tensor] | None = None,
    ) -> Any:
        """Return losses in training, masks in eval mode.

        Args:
            images: In training B crops (3, S, S), in eval mode images (3, H, W) of any sizes; float RGB in [0, 1].
            targets: In training, one per crop: `rows` (S,) and `columns` (S,) bool, those in the box, `mask` (S, S)
                float in [0, 1], the true mask, a hint or empty, and `has_mask` bool, whether it is a true mask.
            boxes: In eval mode, the boxes of each image, (N, 4) xyxy pixels.

        Returns:
            In training a dict of scalar losses. In eval mode masks, (N, H, W) bool per image, and scores, (N,) in
            [0, 1] per image.
        """
        if self.training:
            if targets is None:
                raise ValueError("in training the model needs targets")
            return self.compute_losses(torch.stack(list(images)), targets)
        if boxes is None:
            raise ValueError("in eval mode the model needs boxes")
        results = [self._segment(image, own) for image, own in zip(images, boxes, strict=True)]
        return [masks for masks, _ in results], [scores for _, scores in results]

    def predict(self, image: ImageLike, boxes: ArrayLike) -> Instances:
        """Predict the mask of the object in each box; the model may be in any mode.

        Args:
            image: A file, a PIL image or an array (see :func:`~boxel.data.sources.to_image`).
            boxes: (N, 4) xyxy pixels.

        Returns:
            The instances in the order of the boxes, without a class: all have the category `object`.

        Raises:
            BoxelError: The image cannot be read.
            UsageError: The boxes do not have four columns.

        Examples:
            >>> import boxel, numpy as np
            >>> instances = boxel.load("boxcaseg").predict(np.zeros((48, 64, 3), np.uint8), [[8, 8, 40, 40]])
            >>> instances.masks.shape
            (1, 48, 64)
        """
        from boxel.models.boxcaseg.inference import box_masks

        corners = np.asarray(boxes, dtype=np.float64)
        corners = corners.reshape(-1, 4) if corners.size == 0 or corners.shape == (4,) else corners
        if corners.ndim != 2 or corners.shape[1] != 4:
            raise UsageError(f"`boxes` has shape {corners.shape}; give (N, 4), xyxy in pixels.")
        pixels = to_image(image)
        with evaluation_mode(self):
            rles, scores = box_masks(self, pixels, corners)
        height, width = pixels.shape[:2]
        labels = np.zeros(len(corners), dtype=np.int64)
        return Instances(
            corners.astype(np.float32), scores, labels, rles, self.categories[:1], (height, width), image
        )

    def head_logits(self, crops: Tensor, rows: Tensor, columns: Tensor) -> dict[str, Tensor]:
        """Return the logits of each head.

        Args:
            crops: (B, 3, S, S) float RGB in [0, 1], S a multiple of 32.
            rows: (B, S) bool, rows of the crop in the box.
            columns: (B, S) bool.

        Returns:
            (B, S / 4, S / 4) by the name of the head.
        """
        features = self._extract_features(crops, rows, columns)
        return {name: self._apply_head(name, features) for name in self.heads}

    def predict_logits(self, crops: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Return (B, S / 4, S / 4) logits of the object, above 0 for its pixels; see :meth:`head_logits`."""
        threshold = self.config.threshold
        return self._combine(self.head_logits(crops, rows, columns)) - log(threshold / (1 - threshold))

    def loss_weights(self, progress: float) -> dict[str, float]:
        """Return the weight of each loss by name, the same throughout the training.

        Args:
            progress: Share of the training that is done, in [0, 1].
        """
        config = self.config
        return {
            "mil": config.mil_weight,
            "smooth": config.smooth_weight,
            "projection": config.projection_weight,
            "affinity": config.affinity_weight,
            "hint": config.hint_weight,
            "pixel": config.pixel_weight,
        }

    def extract_crops(
        self, image: NDArray[np.uint8], boxes: NDArray[np.float64]
    ) -> tuple[Tensor, Tensor, Tensor, NDArray[np.float64]]:
        """Crop an image around boxes.

        Args:
            image: (H, W, 3) RGB.
            boxes: (N, 4) xyxy pixels.

        Returns:
            crops (N, 3, S, S) float in [0, 1], rows (N, S) and columns (N, S) bool, and the windows of the crops
            (N, 4), xyxy pixels of the image.
        """
        found = extract_crops(image, boxes, self.config.side, self.config.margin, self.padding_color)
        pixels, rows, columns = (
            torch.from_numpy(values).to(self.backbone.mean.device) for values in found[:3]
        )
        return pixels.permute(0, 3, 1, 2).float() / 255, rows, columns, found.windows

    @property
    def padding_color(self) -> tuple[int, int, int]:
        """The color outside an image: the mean of the backbone's training."""
        red, green, blue = (self.backbone.mean.flatten() * 255).round().int().tolist()
        return red, green, blue

    def _extract_features(self, crops: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Return (B, C, S / 4, S / 4) features of the heads; arguments as for :meth:`head_logits`."""
        if self.config.box_channel:
            inside = (rows[:, None, :, None] & columns[:, None, None, :]).to(crops.dtype)
            crops = torch.cat([crops, 2 * inside - 1], dim=1)
        return self.neck(self.backbone(crops.contiguous(memory_format=torch.channels_last)))

    def _apply_head(self, name: str, features: Tensor) -> Tensor:
        """Return (B, S / 4, S / 4) logits of a head."""
        source = (self.heads["weak"],) if name == "transferred" else ()
        return self.heads[name](features, *source)[:, 0]

    def compute_losses(self, crops: Tensor, targets: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Compute the raw losses of (B, 3, S, S) crops by name; targets as in :meth:`forward`."""
        config = self.config
        rows, columns, masks, has_mask = (
            torch.stack([torch.as_tensor(target[name], device=crops.device) for target in targets])
            for name in ("rows", "columns", "mask", "has_mask")
        )
        features = self._extract_features(crops, rows, columns)
        # Heads that learn from masks only see no other crops (Fig. 4), not even in the statistics of their norms.
        maps = {
            name: self._apply_head(name, features if name in ("weak", "shared") else features[has_mask])
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
                result = full["shared"][has_mask] if "shared" in full else self._combine(full)
                losses["pixel"] = has_mask.float().mean() * mask_loss(
                    result, masks[has_mask], config.dice_weight
                )
        return losses

    def _combine(self, maps: dict[str, Tensor]) -> Tensor:
        """Return the logits of the result: those of the only head, or the mix of Eq. 3."""
        salient, transferred = maps.get("salient"), maps.get("transferred")
        if salient is None and transferred is None:
            return next(iter(maps.values()))
        if salient is None or transferred is None:
            return salient if transferred is None else transferred  # type: ignore[return-value]
        return mix_heads(salient, transferred, self.config.alpha, self.config.mix)

    @torch.inference_mode()
    def _segment(self, image: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the masks of one image, each clipped to its box, and the mean certainty of their pixels."""
        height, width = image.shape[-2:]
        masks = torch.zeros((len(boxes), height, width), dtype=torch.bool)
        scores = torch.zeros(len(boxes))
        if len(boxes):
            pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
            corners = boxes.double().cpu().numpy()
            *crops, windows = self.extract_crops(pixels, corners)
            logits = self.predict_logits(*crops).float()
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
    """Threshold each map of logits inside its box, as a mask of the image's pixels.

    Args:
        logits: (N, s, s).
        windows: (N, 4) xyxy pixels of the image that the maps cover.
        boxes: (N, 4) xyxy pixels; pixels whose centers they contain are taken.
        height: Height of the image.
        width: Width of the image.

    Yields:
        (h, w) bool mask, possibly empty, and its left column and top row.
    """
    corners = box_to_pixels(boxes, height, width)
    for grid, window, (left, top, right, bottom) in zip(logits, windows, corners.tolist(), strict=True):
        area = (left, top, max(left, right), max(top, bottom))
        empty = area[0] == area[2] or area[1] == area[3]
        shape = (area[3] - top, area[2] - left)
        yield (np.zeros(shape, bool) if empty else resample(grid, window, area) > 0), left, top


def certainty(logits: Tensor) -> Tensor:
    """Return the mean distance of the probabilities from 0.5, times 2.

    Args:
        logits: (N, h, w).

    Returns:
        (N,) in [0, 1].
    """
    return (2 * logits.sigmoid() - 1).abs().flatten(1).mean(1)
