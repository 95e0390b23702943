"""Small detectors, BoxInst and Mask R-CNN, with what they are shown and taught."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from boxel.data.synthetic import SceneObject
from boxel.masks.rle import Rle, decode
from boxel.models.boxinst import BoxInst, BoxInstConfig
from boxel.models.detector import Detector
from boxel.models.mask_rcnn import MaskRCNN, MaskRCNNConfig


def as_fixture(function: Callable[..., Any]) -> Any:
    """A fixture that is this function: tests can't import it."""
    return pytest.fixture(scope="session")(lambda: function)


@pytest.fixture(scope="module", params=[BoxInst, MaskRCNN])
def detector(request: pytest.FixtureRequest) -> type[Detector]:
    """Each in turn; a file about one of them has a fixture of this name that gives this one."""
    return request.param


@pytest.fixture(scope="module")
def build(detector: type[Detector], tiny_boxinst: dict[str, Any]) -> Callable[..., Detector]:
    """A function of the number of classes and of options: a small network: tests are about what is round it."""
    small = {
        BoxInst: BoxInstConfig(**tiny_boxinst, backbone_norm="gn"),
        MaskRCNN: MaskRCNNConfig(
            backbone="tf_efficientnet_lite0",
            weights="none",
            backbone_norm="gn",
            neck_channels=16,
            level_scale=0.5,
            proposals=50,
            box_samples=32,
            box_channels=32,
            mask_convs=1,
            mask_channels=16,
        ),
    }

    def build(num_classes: int = 3, **options: Any) -> Detector:
        torch.manual_seed(0)
        return detector(num_classes, replace(small[detector], **options))

    return build


@pytest.fixture(scope="module")
def shared(build: Callable[..., Detector]) -> Detector:
    """A model to look at."""
    return build()


@pytest.fixture
def small(shared: Detector) -> Detector:
    """A model whose options, methods and weights a test may change."""
    return deepcopy(shared)


@as_fixture
def picture(height: int = 64, width: int = 64, seed: int = 0) -> Tensor:
    """(3, H, W) noise."""
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))


@as_fixture
def target(boxes: Any, **columns: Any) -> dict[str, Any]:
    """Boxes of three classes in turn, and what else is given."""
    boxes = torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return {"boxes": boxes, "labels": torch.arange(len(boxes)) % 3, "image_id": 0} | columns


@as_fixture
def filled(boxes: Any, height: int = 64, width: int = 64) -> Tensor:
    """(N, H, W) uint8: masks of whole-pixel boxes."""
    masks = torch.zeros(len(boxes), height, width, dtype=torch.uint8)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[y0:y1, x0:x1] = 1
    return masks


@pytest.fixture(scope="session")
def step(picture: Callable[..., Tensor]) -> Callable[..., dict[str, Tensor]]:
    """A function of a model, targets and the size of the images: the losses of noise with these targets."""

    def step(
        model: Detector, targets: list[dict[str, Any]], size: tuple[int, int] = (64, 64)
    ) -> dict[str, Tensor]:
        torch.manual_seed(1)  # which anchors, proposals and boxes are drawn
        return model([picture(*size, seed=i) for i in range(len(targets))], targets)

    return step


@as_fixture
def learn(
    model: Detector, images: list[Tensor], targets: list[dict[str, Any]], steps: int
) -> list[dict[str, float]]:
    """Train on these images alone; the losses of each step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.002)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.002, steps, pct_start=0.1)
    history = []
    for n in range(steps):
        losses, weights = model(images, targets), model.loss_weights(n / steps)
        optimizer.zero_grad()
        sum(weights[name] * loss for name, loss in losses.items()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        schedule.step()
        history.append({name: loss.item() for name, loss in losses.items()})
    return history


@as_fixture
def best_ious(labels: Any, scores: Any, masks: list[Rle], instances: Sequence[SceneObject]) -> np.ndarray:
    """For each true instance, the IoU of its mask with the best finding of its class."""
    found = [
        (label, decode(rle) > 0)
        for label, score, rle in zip(labels, scores, masks, strict=True)
        if score > 0.3
    ]
    return np.array(
        [
            max(((m & i.mask).sum() / (m | i.mask).sum() for own, m in found if own == i.label), default=0.0)
            for i in instances
        ]
    )
