"""Run an instance segmenter on photos of any size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.ops import batched_nms
from torchvision.transforms.v2 import functional as F

from boxel.data.annotations import Category
from boxel.data.images import read_image
from boxel.masks.paste import paste_windows
from boxel.masks.rle import Rle, decode
from boxel.utils.errors import BoxelError, check_range

Photo = str | Path | Image.Image | NDArray[np.uint8]


@dataclass(frozen=True)
class Instances:
    """The instances found in one photo, best first.

    Attributes:
        boxes: (N, 4) float32 xyxy pixels of the photo.
        scores: (N,) float32 in [0, 1].
        labels: (N,) int64, index into `categories`.
        masks: N compressed run-length codes of the photo's size.
        categories: the data set's.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    masks: list[Rle]
    categories: tuple[Category, ...]

    def __len__(self) -> int:
        """Number of instances."""
        return len(self.scores)

    @property
    def names(self) -> list[str]:
        """Category name of each instance."""
        return [self.categories[label].name for label in self.labels]

    def mask(self, index: int) -> NDArray[np.uint8]:
        """(H, W) mask of one instance, zeros and ones."""
        return decode(self.masks[index])

    def as_coco(self, image_id: int | str) -> list[dict[str, Any]]:
        """Entries of a COCO results file.

        Args:
            image_id: the photo's.

        Returns:
            A dict an instance: boxes xywh in pixels to 2 digits, scores to 5.
        """
        return [
            {
                "image_id": image_id,
                "category_id": self.categories[label].id,
                "bbox": [round(float(v), 2) for v in (box[0], box[1], box[2] - box[0], box[3] - box[1])],
                "score": round(float(score), 5),
                "segmentation": rle,
            }
            for box, score, label, rle in zip(self.boxes, self.scores, self.labels, self.masks, strict=True)
        ]


@dataclass
class PredictConfig:
    """How photos are shown to the model.

    Attributes:
        short_side: the photo's shorter side is brought to this many pixels; None shows it as it is.
        max_size: the longest side allowed.
        flip: look at the mirrored photo too.
        scales: factors on `short_side`; several are looked at and their findings merged.
        score: lowest score given out.
    """

    short_side: int | None = 800
    max_size: int = 1333
    flip: bool = False
    scales: tuple[float, ...] = (1.0,)
    score: float = 0.0

    def __post_init__(self) -> None:
        check_range(self, 1, inf, "max_size", *(["short_side"] if self.short_side is not None else []))
        check_range(self, 0, 1, "score")
        if not self.scales or min(self.scales) <= 0:
            raise BoxelError(f"scales is {self.scales}; give one factor or more, each above 0.")


class _View(NamedTuple):
    """Findings of one look at a photo, boxes and the windows of masks in the photo's pixels."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    mask_logits: Tensor
    windows: Tensor


@torch.inference_mode()
def predict_batch(model: Any, photos: Sequence[NDArray[np.uint8]], config: PredictConfig) -> list[Instances]:
    """Instances of a batch of photos in memory.

    Args:
        model: a model in eval mode with `detect` and `categories`. What it detects has `boxes`, `scores`,
            `labels`, `mask_logits` (N, h, w) and `windows` (N, 4), the pixels that these cover.
        photos: (H, W, 3) RGB each, of any sizes.
        config: how they are shown.

    Returns:
        :class:`Instances`, a photo each.
    """
    views: list[list[_View]] = [[] for _ in photos]
    device = next(model.parameters()).device
    tensors = [torch.from_numpy(photo).to(device).permute(2, 0, 1) for photo in photos]
    for scale in config.scales:
        resized = [_resize(image, config, scale) for image in tensors]
        for mirrored in (False, True) if config.flip else (False,):
            shown = [image.flip(-1) if mirrored else image for image in resized]
            for index, found in enumerate(model.detect(shown)):
                views[index].append(_to_photo(found, shown[index], photos[index], mirrored))
    return [_merge(model, looks, photo, config) for looks, photo in zip(views, photos, strict=True)]


def predict(
    model: Any, photos: Photo | Sequence[Photo], config: PredictConfig | None = None, batch_size: int = 1
) -> Iterator[Instances]:
    """Instances of photos, one after another; bad ones raise where their turn comes.

    Args:
        model: a model in eval mode.
        photos: a file, a PIL image, an (H, W, 3) RGB array, or several of these.
        config: how they are shown; the model's own training size where None.
        batch_size: photos looked at together.

    Yields:
        :class:`Instances` of each photo.

    Raises:
        BoxelError: a file can't be read as an image.
    """
    several = cast(Sequence[Photo], photos if isinstance(photos, (list, tuple)) else [photos])
    config = config or own_config(model)
    for at in range(0, len(several), batch_size):
        batch = [pixels_of(photo) for photo in several[at : at + batch_size]]
        yield from predict_batch(model, batch, config)


def predict_photos(
    model: Any, photos: Photo | Sequence[Photo], **options: Any
) -> Instances | list[Instances]:
    """Instances of photos of any size, by a model in any mode.

    Args:
        model: stays in the mode it is in.
        photos: a file, a PIL image, an (H, W, 3) uint8 RGB array, or a list of these.
        **options: fields of :class:`PredictConfig`, as ``flip=True``; the others are those of the training.

    Returns:
        :class:`Instances` of the photo, or a list of them.

    Raises:
        BoxelError: a file can't be read as an image.
    """
    config = replace(own_config(model), **options)
    training = model.training
    try:
        found = list(predict(model.eval(), photos, config))
    finally:
        model.train(training)
    return found if isinstance(photos, (list, tuple)) else found[0]


def own_config(model: Any) -> PredictConfig:
    """The size a model was trained at.

    Args:
        model: with the `settings` of its run.

    Raises:
        BoxelError: it finds no instances.
    """
    if not hasattr(model, "detect"):
        raise BoxelError(
            f"a {type(model).__name__} finds no instances; name a model that does, as a run of boxinst."
        )
    return trained_size(model.settings)


def trained_size(settings: Mapping[str, Any]) -> PredictConfig:
    """How photos are shown that should look as in training.

    Args:
        settings: of the run, with the fields of an :class:`~boxel.data.transforms.AugmentConfig` under `augment`, or a
            :class:`~boxel.data.semantic.ViewConfig` under `views`; what is missing has the default here.
    """
    if "views" in settings:
        longest = settings["views"]["long_side"]
        return PredictConfig(short_side=None) if longest is None else PredictConfig(longest, longest)
    augment = settings.get("augment", {})
    side = max(augment.get("short_sides", [PredictConfig.short_side]))
    # Large-scale jitter, at a factor of 1, fits the whole image into a square.
    longest = side if augment.get("scale_jitter") else augment.get("max_size", PredictConfig.max_size)
    return PredictConfig(short_side=side, max_size=longest)


def pixels_of(photo: Photo) -> NDArray[np.uint8]:
    """(H, W, 3) RGB pixels of a photo."""
    if isinstance(photo, (str, Path)):
        return read_image(photo)
    # torch takes no array that is read-only or runs backwards, as OpenCV's BGR turned round does.
    return np.array(photo.convert("RGB") if isinstance(photo, Image.Image) else photo, order="C")


def _resize(image: Tensor, config: PredictConfig, scale: float) -> Tensor:
    height, width = image.shape[-2:]
    factor = scale
    if config.short_side is not None:
        factor *= min(config.short_side / min(height, width), config.max_size / max(height, width))
    size = [max(round(height * factor), 1), max(round(width * factor), 1)]
    return F.resize(image, size, antialias=True).float() / 255


def _to_photo(found: Any, shown: Tensor, photo: NDArray[np.uint8], mirrored: bool) -> _View:
    boxes, windows, logits = found.boxes, found.windows, found.mask_logits
    height, width = shown.shape[-2:]
    if mirrored:
        boxes, windows, logits = _mirror(boxes, width), _mirror(windows, width), logits.flip(-1)
    x, y = photo.shape[1] / width, photo.shape[0] / height
    scale = boxes.new_tensor([x, y, x, y])
    return _View(boxes * scale, found.scores, found.labels, logits, windows * scale)


def _mirror(boxes: Tensor, width: int) -> Tensor:
    return torch.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], dim=1)


def _merge(model: Any, views: list[_View], photo: NDArray[np.uint8], config: PredictConfig) -> Instances:
    boxes = torch.cat([view.boxes for view in views])
    scores = torch.cat([view.scores for view in views])
    labels = torch.cat([view.labels for view in views])
    origin = torch.cat([torch.full_like(view.labels, i) for i, view in enumerate(views)])
    row = torch.cat([torch.arange(len(view.labels), device=labels.device) for view in views])
    if len(views) > 1:
        keep = batched_nms(boxes, scores, labels, model.config.nms_threshold)[: model.config.max_detections]
    else:
        keep = torch.arange(len(scores), device=scores.device)
    keep = keep[scores[keep] >= config.score]

    masks: list[Rle | None] = [None] * len(keep)
    for index, view in enumerate(views):
        here = (origin[keep] == index).nonzero().squeeze(1)
        chosen = keep[here]
        own = row[chosen]
        pasted = paste_windows(view.mask_logits[own], boxes[chosen], view.windows[own], photo.shape[:2])
        for place, rle in zip(here.tolist(), pasted, strict=True):
            masks[place] = rle
    return Instances(
        boxes=boxes[keep].cpu().numpy(),
        scores=scores[keep].float().cpu().numpy(),
        labels=labels[keep].cpu().numpy(),
        masks=masks,  # type: ignore[arg-type]
        categories=model.categories,
    )
