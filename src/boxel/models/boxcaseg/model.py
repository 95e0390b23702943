"""BoxCaseg: the mask of the object in a box, whatever its class."""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from boxel.data.annotations import Category
from boxel.data.sources import ImageLike
from boxel.layers.backbone import Backbone
from boxel.layers.decoder import Concatenate, FineLevel, TopDown, upsample
from boxel.layers.norm import synchronize_heads
from boxel.layers.transfer import TransferredHead, segmentation_head
from boxel.losses.head_mixing import mix_heads
from boxel.masks.crops import extract_crops
from boxel.masks.rle import decode_all
from boxel.models.box_masks import box_masks, predict_boxes
from boxel.models.boxcaseg.config import BoxCasegConfig
from boxel.models.boxcaseg.inference import CropSegmenter
from boxel.models.boxcaseg.losses import box_losses, mask_loss
from boxel.models.detector import Target, check_targets
from boxel.models.inference import evaluation_mode
from boxel.models.instances import Instances


class BoxCaseg(CropSegmenter, nn.Module):
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
        >>> model = BoxCaseg(BoxCasegConfig(backbone="resnet10t", weights="none", side=64)).eval()
        >>> masks, scores = model([torch.rand(3, 70, 90)], boxes=[torch.tensor([[10.0, 20, 30, 60]])])
        >>> masks[0].shape
        torch.Size([1, 70, 90])

    References:
        Wang et al., Weakly-supervised Instance Segmentation via Class-agnostic Learning with Salient Images, CVPR 2021.
    """

    kind: ClassVar[str] = "box_to_mask"

    def __init__(self, config: BoxCasegConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or BoxCasegConfig()
        self.backbone = Backbone(
            config.backbone,
            config.weights,
            config.backbone_norm,
            frozen_stages=0,
            strides=(2, 4, 8, 16, 32) if config.fine_channels else (4, 8, 16, 32),
            extra_channels=config.box_channel + config.neighbor_channel,
        )
        channels = self.backbone.channels
        finest = channels.pop(0) if config.fine_channels else 0
        concat = config.neck == "concat"
        self.neck = Concatenate(channels) if concat else TopDown(channels, config.neck_channels)
        self.fine = FineLevel(finest, self.neck.channels, config.fine_channels) if finest else None
        self.heads = nn.ModuleDict()
        for name in config.heads:
            head = TransferredHead if name == "transferred" else segmentation_head
            self.heads[name] = head(self.neck.channels)
        if config.backbone_norm == "sync_bn":
            synchronize_heads(self)
        self.categories: tuple[Category, ...] = (Category(0, "object"),)
        self.settings: dict[str, Any] = {}

    def forward(
        self,
        images: Sequence[Tensor],
        targets: list[Target] | None = None,
        boxes: Sequence[Tensor] | None = None,
    ) -> Any:
        """Return losses in training, masks in eval mode.

        Args:
            images: In training B crops (3, S, S), in eval mode images (3, H, W) of any sizes; float RGB in [0, 1].
            targets: In training, one per crop: `rows` (S,) and `columns` (S,) bool, those in the box; `neighbors`
                (S, S) float, the other boxes; `mask` (S, S) float in [0, 1], the true mask, a hint or empty; and
                `has_mask` bool, whether it is a true mask.
            boxes: In eval mode, the boxes of each image, (N, 4) xyxy pixels.

        Returns:
            In training a dict of scalar losses. In eval mode masks, (N, H, W) bool per image, and scores, (N,) in
            [0, 1] per image.
        """
        if self.training:
            return self.compute_losses(torch.stack(list(images)), check_targets(targets))
        if boxes is None:
            raise ValueError("in eval mode the model needs boxes")
        masks, scores = [], []
        for image, own in zip(images, boxes, strict=True):
            pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
            rles, certainty = box_masks(self, pixels, own.double().cpu().numpy())
            masks.append(torch.from_numpy(decode_all(rles, *pixels.shape[:2])).to(image.device))
            scores.append(torch.from_numpy(certainty).to(image.device))
        return masks, scores

    def predict(self, image: ImageLike, boxes: ArrayLike, **settings: object) -> Instances:
        """Predict the mask of the object in each box; the model may be in any mode.

        Args:
            image: A file, a PIL image or an array (see :func:`~boxel.data.sources.to_image`).
            boxes: (N, 4) xyxy pixels.
            **settings: None; other models have some.

        Returns:
            The instances in the order of the boxes, without a class: all have the category `object`.

        Raises:
            BoxelError: The image cannot be read.
            UsageError: The boxes do not have four columns, or there is a setting.

        Examples:
            >>> import boxel, numpy as np
            >>> instances = boxel.load("boxcaseg").predict(np.zeros((48, 64, 3), np.uint8), [[8, 8, 40, 40]])
            >>> instances.masks.shape
            (1, 48, 64)
        """
        with evaluation_mode(self):
            return predict_boxes(self, image, boxes, settings)

    def head_logits(
        self, crops: Tensor, rows: Tensor, columns: Tensor, neighbors: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return the logits of each head, (B, S / 4, S / 4), or (B, S / 2, S / 2) with `fine_channels`.

        Args:
            crops: (B, 3, S, S) float RGB in [0, 1], S a multiple of 32.
            rows: (B, S) bool, rows of the crop in the box.
            columns: (B, S) bool.
            neighbors: (B, S, S) float, see :func:`~boxel.masks.crops.draw_neighbors`; no object has any if None.
        """
        features, fine = self._extract_features(crops, rows, columns, neighbors)
        return {name: self._apply_head(name, features, fine) for name in self.heads}

    def predict_logits(
        self, crops: Tensor, rows: Tensor, columns: Tensor, neighbors: Tensor | None = None
    ) -> Tensor:
        """Return the logits of the object, above 0 for its pixels; see :meth:`head_logits`."""
        threshold = self.config.threshold or 0.5
        logits = self._combine(self.head_logits(crops, rows, columns, neighbors))
        return logits - log(threshold / (1 - threshold))

    def loss_weights(self, progress: float) -> dict[str, float]:
        """Return the weight of each loss by name, the same throughout the training."""
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
        self, image: NDArray[np.uint8], boxes: NDArray[np.float64], others: NDArray[np.float64] | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, NDArray[np.float64]]:
        """Crop an image around boxes.

        Args:
            image: (H, W, 3) RGB.
            boxes: (N, 4) xyxy pixels.
            others: (M, 4) boxes of all objects of the image; those of `boxes` if None.

        Returns:
            crops (N, 3, S, S) float in [0, 1], rows (N, S) and columns (N, S) bool, neighbors (N, S, S) float, and the
            windows of the crops (N, 4), xyxy pixels of the image.
        """
        config = self.config
        found = extract_crops(image, boxes, config.side, config.margin, self.padding_color, others)
        pixels, rows, columns, neighbors = (
            torch.from_numpy(values).to(self.backbone.mean.device)
            for values in (found.pixels, found.rows, found.columns, found.neighbors)
        )
        return pixels.permute(0, 3, 1, 2).float() / 255, rows, columns, neighbors, found.windows

    @property
    def padding_color(self) -> tuple[int, int, int]:
        """The color outside an image: the mean of the backbone's training."""
        red, green, blue = (self.backbone.mean.flatten() * 255).round().int().tolist()
        return red, green, blue

    def _extract_features(
        self, crops: Tensor, rows: Tensor, columns: Tensor, neighbors: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return (B, C, S / 4, S / 4) features of the heads, and those of stride 2 for the fine level, if there is one.

        Arguments as for :meth:`head_logits`.
        """
        if self.config.box_channel:
            inside = (rows[:, None, :, None] & columns[:, None, None, :]).to(crops.dtype)
            crops = torch.cat([crops, 2 * inside - 1], dim=1)
        if self.config.neighbor_channel:
            others = (
                torch.zeros_like(crops[:, :1]) if neighbors is None else neighbors[:, None].to(crops.dtype)
            )
            crops = torch.cat([crops, others], dim=1)
        maps = self.backbone(crops.contiguous(memory_format=torch.channels_last))
        fine = maps.pop(0) if self.fine is not None else None
        return self.neck(maps), fine

    def _apply_head(self, name: str, features: Tensor, fine: Tensor | None = None) -> Tensor:
        """Return the logits of a head, corrected by the fine level if there is one."""
        source = (self.heads["weak"],) if name == "transferred" else ()
        logits = self.heads[name](features, *source)[:, 0]
        return logits if self.fine is None else self.fine(logits, features, fine)

    def compute_losses(self, crops: Tensor, targets: list[Target]) -> dict[str, Tensor]:
        """Compute the raw losses of (B, 3, S, S) crops by name; targets as in :meth:`forward`."""
        config = self.config
        names = ["rows", "columns", "mask", "has_mask"] + ["neighbors"] * config.neighbor_channel
        rows, columns, masks, has_mask, *others = (
            torch.stack([torch.as_tensor(target[name], device=crops.device) for target in targets])
            for name in names
        )
        features, fine = self._extract_features(crops, rows, columns, *others)
        # Heads that learn from masks only see no other crops (Fig. 4), not even in the statistics of their norms.
        maps = {
            name: self._apply_head(name, features if name in ("weak", "shared") else features[has_mask], fine)
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
        if "salient" in maps and "transferred" in maps:
            return mix_heads(maps["salient"], maps["transferred"], self.config.alpha, self.config.mix)
        return next(maps[name] for name in ("salient", "transferred", *maps) if name in maps)
