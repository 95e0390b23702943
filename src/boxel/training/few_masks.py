"""Adapt BoxCaseg to a few true masks, unless masks that are left out get worse."""

from __future__ import annotations

import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.optim.swa_utils import AveragedModel

from boxel.data import Annotations
from boxel.data.config import CropConfig
from boxel.data.crops import CropDataset
from boxel.data.dataset import collate
from boxel.labeling.calibration import collect_cues
from boxel.labeling.config import LabelConfig
from boxel.labeling.teachers.boxcaseg import BoxCasegTeacher
from boxel.models.boxcaseg import BoxCaseg
from boxel.utils.progress import progress

MIN_MASKS = 5
"""Minimum number of masks to learn from."""

MAX_LOSS = 0.1
"""Maximum loss of IoU on masks that are left out, divided by the root of their number; otherwise the model stays as it
is. As much may be chance, since the gain of a mask spreads by up to about 0.1."""

SHARES = (0.5, 1.0)
"""How much of the way from the weights at the start to the learned ones an adapted model may go.

Half of the way keeps more of what the model knew, which helps on images unlike those of the few masks (Wortsman et al.,
Robust fine-tuning of zero-shot models, CVPR 2022)."""

_PARTS = 2
_BATCH = 8
_RATE = 3e-4
_BACKBONE_RATE = 0.3  # relative to that of the other layers
_WARMUP = 10  # steps
_AVERAGE = 0.95  # share of the averaged weights that stays in a step


_Predicted: TypeAlias = tuple[NDArray[np.float64], NDArray[np.float64]]
"""(M, C) cues of masks and their (M,) IoU with the true ones."""


@dataclass(frozen=True)
class Adaptation:
    """A model that has learned from a few masks, and what that brings on masks that are left out.

    Attributes:
        model: The adapted model in eval mode; the one to start from if that is better.
        steps: Number of steps that it has learned; 0 if it is the one to start from.
        share: How far it went towards the learned weights, one of `SHARES`; 0 if it is the one to start from.
        before: Mean IoU of the masks of the model to start from with the true ones.
        after: The same of models that have learned as long from the other masks, even if they are worse.
        cues: (M, C) cues of those masks, of the model to start from if it is kept.
        ious: (M,) their IoU.
    """

    model: BoxCaseg
    steps: int
    share: float
    before: float
    after: float
    cues: NDArray[np.float64]
    ious: NDArray[np.float64]


def learn_masks(model: BoxCaseg, data: Annotations, minutes: float, seed: int = 0) -> Adaptation:
    """Adapt a model to the masks of a dataset.

    How far its weights go is decided by cross-validation: models that learn from half of the masks predict the others.

    Args:
        model: The model to start from.
        data: The dataset; all its masks are taken for true.
        minutes: Approximate duration.
        seed: Seed of the halves and of the augmentation.
    """
    chosen = np.flatnonzero(data.has_mask & data.has_box & ~data.iscrowd)
    steps = count_steps(model, data, chosen, minutes, 30 + 4 * len(chosen))
    found: dict[float, list[_Predicted]] = {share: [] for share in (0.0, *SHARES)}
    for part in split_instances(data, chosen, seed):
        left_out = data.keep_masks(part)
        *_, tuned = tune(model, data, np.setdiff1d(chosen, part), steps, seed)
        for share, pairs in found.items():
            pairs.append(_predict(blend(model, tuned, share), left_out))
    ious = {share: np.concatenate([ious for _, ious in pairs]) for share, pairs in found.items()}
    usable = max(map(len, ious.values()))  # a mask that a model does not predict counts as 0
    means = {share: float(values.sum() / max(usable, 1)) for share, values in ious.items()}
    best = max(SHARES, key=means.__getitem__)
    is_worse = means[best] < means[0] - MAX_LOSS / max(usable, 1) ** 0.5
    kept = 0.0 if is_worse else best
    if kept:
        *_, tuned = tune(model, data, chosen, steps, seed)
        model = blend(model, tuned, kept)
    cues = np.concatenate([cues for cues, _ in found[kept]])
    return Adaptation(model.eval(), steps if kept else 0, kept, means[0], means[best], cues, ious[kept])


def blend(start: BoxCaseg, learned: BoxCaseg, share: float) -> BoxCaseg:
    """Return a model whose weights lie between those of two: those of the first for a share of 0."""
    blended, weights = deepcopy(learned), start.state_dict()
    blended.load_state_dict(
        {
            name: weights[name].lerp(value, share) if value.is_floating_point() else value
            for name, value in learned.state_dict().items()
        }
    )
    return blended


def tune(
    model: BoxCaseg, data: Annotations, chosen: NDArray[np.int64], steps: int, seed: int
) -> Iterator[BoxCaseg]:
    """Train a copy of a model on the masks of the chosen instances; yield it with averaged weights after each step.

    The statistics of its norms stay: a few images have poor ones.
    """
    model = deepcopy(model).train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    average = AveragedModel(
        model, avg_fn=lambda mean, value, n: mean.lerp(value, 1 - min(_AVERAGE, n / (n + 9)))
    )
    groups: list[dict[str, Any]] = [
        {"params": [*model.backbone.parameters()], "lr": _RATE * _BACKBONE_RATE},
        {"params": [p for name, p in model.named_parameters() if not name.startswith("backbone.")]},
    ]
    optimizer = torch.optim.AdamW(groups, lr=_RATE, weight_decay=0.02)
    warmup = torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=_WARMUP)
    weights = model.loss_weights(1.0)
    with progress(steps, "steps") as advance:
        for crops, targets in islice(_batches(model, data, chosen, seed), steps):
            losses = model(crops, targets)
            optimizer.zero_grad()
            torch.stack([weights[name] * loss for name, loss in losses.items()]).sum().backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            warmup.step()
            average.update_parameters(model)
            advance(1)
            yield cast(BoxCaseg, average.module)


def _batches(model: BoxCaseg, data: Annotations, chosen: NDArray[np.int64], seed: int) -> Iterator[tuple]:
    """Yield batches of crops of the chosen instances, each as often as the others, without end."""
    config = CropConfig(
        side=model.config.side, shift=0.05, scale=(0.9, 1.1), clip=False, color=0.3, box_noise=0.03
    )
    dataset = CropDataset(data, None, config, model.config.margin, model.padding_color)
    device, rng = model.backbone.mean.device, np.random.default_rng(seed)
    queue: list[int] = []
    while True:
        while len(queue) < _BATCH:
            queue += rng.permutation(chosen).tolist()
        batch, queue = queue[:_BATCH], queue[_BATCH:]
        crops, targets = collate([dataset[index, int(rng.integers(1 << 31))] for index in batch])
        yield [crop.to(device) for crop in crops], targets


def count_steps(
    model: BoxCaseg, data: Annotations, chosen: NDArray[np.int64], minutes: float, wanted: int
) -> int:
    """Return how many steps the models of all parts can make in some minutes on this machine, at most `wanted`."""
    seconds = [time.perf_counter()]
    for _ in tune(model, data, chosen, 3, 0):
        seconds.append(time.perf_counter())
    return max(1, min(wanted, int(60 * minutes / (_PARTS + 1) / np.diff(seconds).min())))


def split_instances(data: Annotations, chosen: NDArray[np.int64], seed: int) -> list[NDArray[np.int64]]:
    """Split the chosen instances into parts, by their images if there are enough."""
    rng = np.random.default_rng(seed)
    images = rng.permutation(np.unique(data.image_index[chosen]))
    if len(images) >= _PARTS:
        return [chosen[np.isin(data.image_index[chosen], images[k::_PARTS])] for k in range(_PARTS)]
    shuffled = rng.permutation(chosen)
    return [np.sort(shuffled[k::_PARTS]) for k in range(_PARTS)]


def _predict(model: BoxCaseg, data: Annotations) -> _Predicted:
    """Return the cues and the IoU of the model's masks of the instances that have a mask."""
    return collect_cues(data, [adapted_teacher(model)], LabelConfig(), min_side=1.0)


def adapted_teacher(model: BoxCaseg) -> BoxCasegTeacher:
    """Make a teacher of a model, which is then in eval mode."""
    return BoxCasegTeacher(model.eval().soft_masks, "adapted", threshold=model.config.threshold)
