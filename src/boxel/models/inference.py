"""Run an instance segmenter on images of any size, with test-time augmentation (TTA)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.ops import batched_nms
from torchvision.transforms.v2 import functional as F

from boxel.masks.paste import paste_windows
from boxel.masks.rle import Rle
from boxel.masks.suppression import mask_nms
from boxel.models.instances import Instances
from boxel.models.settings import InferenceConfig, apply_settings, resize_factor
from boxel.models.thresholds import min_scores
from boxel.utils.errors import BoxelError

if TYPE_CHECKING:
    from boxel.models.detector import Detections, Detector
    from boxel.models.onnx import OnnxDetector

InstanceModel: TypeAlias = "Detector | OnnxDetector"


def inference_config(model: InstanceModel, **settings: Any) -> InferenceConfig:
    """Return the inference settings of an instance segmenter: those of its training, changed by some that are given.

    A `short_side` alone scales the training's `max_size`.
    """
    if not hasattr(model, "detect"):
        raise BoxelError(
            f"the model ({type(model).__name__}) predicts no instances; choose one that does, e.g. `boxinst`."
        )
    return apply_settings(model, inference_config_from_training(model.settings), settings)


def inference_config_from_training(settings: Mapping[str, Any]) -> InferenceConfig:
    """Return the inference settings that resize images as in a run with these settings, as plain data.

    They have an :class:`~boxel.data.config.AugmentConfig` under `augment`, or a
    :class:`~boxel.data.config.ScaleCropConfig` under `views`. What is missing has the default.
    """
    if "views" in settings:
        long_side = settings["views"]["long_side"]
        return InferenceConfig(long_side, long_side or InferenceConfig.max_size)
    augment = settings.get("augment", {})
    short_side = max(augment.get("short_sides", [InferenceConfig.short_side]))
    return InferenceConfig(short_side, augment.get("max_size", InferenceConfig.max_size))


@torch.inference_mode()
def predict_batch(
    model: InstanceModel,
    images: Sequence[NDArray[np.uint8]],
    config: InferenceConfig | None = None,
    classes: Sequence[Tensor] | None = None,
) -> list[Instances]:
    """Predict the instances of a batch of images.

    Args:
        model: In eval mode.
        images: (H, W, 3) RGB each, of any sizes.
        config: Preprocessing and test-time augmentation; that of the training if None. With a `tile`, the images are
            tiles.
        classes: Of :class:`~boxel.models.FCRNInstances`, (K + 1, H, W) scores of the classes of each image's pixels
            instead of the predicted ones.

    Returns:
        One :class:`Instances` per image.

    Examples:
        >>> from boxel.models import build
        >>> model = build("boxinst", 5, {"backbone": "resnet10t", "weights": "none"}).eval()
        >>> len(predict_batch(model, [np.zeros((64, 96, 3), np.uint8)], InferenceConfig(short_side=64)))
        1
    """
    config = config or inference_config(model)
    passes: list[list[Detections]] = [[] for _ in images]
    tensors = [to_tensor(image, next(model.parameters()).device) for image in images]
    for scale in config.scales:
        resized = [resize(image, scale * resize_factor(image.shape[-2:], config)) for image in tensors]
        for flipped in (False, True) if config.flip else (False,):
            inputs = [image.flip(-1) if flipped else image for image in resized]
            known = [] if classes is None else [[one.flip(-1) if flipped else one for one in classes]]
            for index, detections in enumerate(model.detect(inputs, *known)):
                size = inputs[index].shape[-2:]
                passes[index].append(_to_image(detections, size, images[index].shape[:2], flipped))
    return [
        _merge(model, parts, image.shape[:2], config) for parts, image in zip(passes, images, strict=True)
    ]


@contextmanager
def open_pool(model: nn.Module, workers: int | None = None) -> Iterator[tuple[Executor, int]]:
    """Yield what runs batches of a model side by side, and how many at once, which share PyTorch's threads."""
    threads, device = torch.get_num_threads(), next(model.parameters()).device.type
    workers = workers or {"cpu": min(threads, 4), "cuda": 2}.get(device, 1)
    torch.set_num_threads(max(threads // workers, 1))
    try:
        # The initializer lets each thread adopt the number.
        with ThreadPoolExecutor(workers, initializer=torch.get_num_threads) as pool:
            yield pool, workers
    finally:
        torch.set_num_threads(threads)


def to_tensor(image: NDArray[np.uint8], device: torch.device) -> Tensor:
    """Convert (H, W, 3) pixels to (3, H, W) uint8 on a device."""
    return torch.from_numpy(np.require(image, requirements=("C", "W"))).to(device).permute(2, 0, 1)


def resize(image: Tensor, factor: float) -> Tensor:
    """Resize (3, H, W) uint8 by a factor, to float in [0, 1]."""
    size = [max(round(side * factor), 1) for side in image.shape[-2:]]
    return F.resize(image, size, antialias=True).float() / 255


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put a model in eval mode, and back in the mode it was in."""
    # To look takes a tenth of the time of setting each module.
    if not any(part.training for part in model.modules()):
        yield
        return
    training = model.training
    try:
        model.eval()
        yield
    finally:
        model.train(training)


def _to_image(detections: Detections, size: Sequence[int], image: Sequence[int], flipped: bool) -> Detections:
    """Map detections of one pass, whose input has (height, width) ``size``, to the pixels of the image."""
    x, y = image[1] / size[1], image[0] / size[0]
    scale = detections.boxes.new_tensor([x, y, x, y])

    def mapped(boxes: Tensor) -> Tensor:
        x0, y0, x1, y1 = boxes.unbind(1)
        return scale * (torch.stack([size[1] - x1, y0, size[1] - x0, y1], dim=1) if flipped else boxes)

    return detections._replace(
        boxes=mapped(detections.boxes),
        windows=mapped(detections.windows),
        bounds=mapped(detections.bounds),
        mask_logits=detections.mask_logits.flip(-1) if flipped else detections.mask_logits,
    )


def _merge(
    model: InstanceModel, passes: list[Detections], size: tuple[int, ...], config: InferenceConfig
) -> Instances:
    """Merge the detections of all passes by NMS and paste the masks of those that remain."""
    boxes = torch.cat([part.boxes for part in passes])
    scores = torch.cat([part.scores for part in passes])
    labels = torch.cat([part.labels for part in passes])
    pass_index = torch.cat([torch.full_like(part.labels, i) for i, part in enumerate(passes)])
    row = torch.cat([torch.arange(len(part.labels), device=labels.device) for part in passes])
    rivals = torch.zeros_like(labels) if config.class_agnostic_nms else labels
    if len(passes) > 1 or config.class_agnostic_nms:
        keep = batched_nms(boxes, scores, rivals, model.config.nms_threshold)[: model.config.max_detections]
    else:
        keep = torch.arange(len(scores), device=scores.device)
    limits = scores.new_tensor(min_scores(model, config.score_threshold))
    keep = keep[scores[keep] >= limits[labels[keep]]]

    height, width = size
    rles: dict[int, Rle] = {}
    for index, part in enumerate(passes):
        positions = (pass_index[keep] == index).nonzero().squeeze(1)
        own = row[keep[positions]]
        pasted = paste_windows(part.mask_logits[own], part.bounds[own], part.windows[own], (height, width))
        rles |= zip(positions.tolist(), pasted, strict=True)
    instances = Instances(
        boxes=boxes[keep].cpu().numpy(),
        scores=scores[keep].float().cpu().numpy(),
        labels=labels[keep].cpu().numpy(),
        rles=[rles[position] for position in range(len(keep))],
        categories=tuple(model.categories),
        image_size=(height, width),
    )
    if config.mask_nms is None:
        return instances
    return instances[mask_nms(instances.rles, instances.scores, rivals[keep].cpu().numpy(), config.mask_nms)]
