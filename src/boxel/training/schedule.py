"""Learning rate and length of a run, scaled to its batch size."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from boxel.training.config import OptimConfig, ScheduleConfig, TrainConfig


@dataclass(frozen=True)
class Plan:
    """What a run comes to with its real batch.

    Attributes:
        steps: optimizer steps in all.
        warmup: of them, steps of linear rise.
        lr: highest learning rate.
        steps_per_epoch: optimizer steps in one pass over the images.
    """

    steps: int
    warmup: int
    lr: float
    steps_per_epoch: float


def plan(config: TrainConfig, num_images: int, processes: int = 1) -> Plan:
    """Scale learning rate (in proportion) and steps (in inverse proportion) to the real batch.

    The real batch is ``batch_size * accumulate * processes`` images a step.

    Args:
        config: the run's.
        num_images: of an epoch.
        processes: that share a step.
    """
    batch = config.batch_size * config.accumulate * processes
    factor = batch / config.optim.reference_batch if config.optim.reference_batch else 1.0
    steps_per_epoch = max(num_images / batch, 1.0)
    steps = round(config.steps / factor) if config.steps else round(config.epochs * steps_per_epoch)
    steps = max(steps, 1)
    # A short run must not spend itself on warming up.
    warmup = min(round(config.schedule.warmup / factor), steps // 4)
    return Plan(steps, warmup, config.optim.lr * factor, steps_per_epoch)


def lr_factor(step: int, steps: int, warmup: int, config: ScheduleConfig) -> float:
    """Share of the highest learning rate at a step.

    Args:
        step: optimizer steps done.
        steps: of the whole run.
        warmup: of these, steps of linear rise.
        config: kind of the course.

    Returns:
        In [0, 1].
    """
    progress = min(step / steps, 1.0)
    if config.kind == "step":
        factor = 0.1 ** sum(progress >= drop for drop in config.drops)
    else:
        fallen = max(progress - config.hold, 0) / (1 - config.hold)
        cosine, poly = (1 + math.cos(math.pi * fallen)) / 2, (1 - fallen) ** config.power
        factor = cosine if config.kind == "cosine" else poly
    return factor * min((step + 1) / warmup, 1.0) if warmup else factor


def build_optimizer(model: nn.Module, config: OptimConfig, lr: float) -> Optimizer:
    """SGD or AdamW with no weight decay on norms and biases, and a learning rate of its own for the backbone.

    Args:
        model: its parameters that learn; the backbone's have a part `backbone` in their name.
        config: kind and strength.
        lr: highest learning rate of the new layers.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            kind = ("backbone" in name.split("."), parameter.ndim > 1)
            groups.setdefault(kind, []).append(parameter)
    rows = [
        {
            "params": parameters,
            "lr": lr * (config.backbone_lr if pretrained else 1.0),
            "weight_decay": config.weight_decay if decays else 0.0,
        }
        for (pretrained, decays), parameters in groups.items()
    ]
    if config.name == "adamw":
        return AdamW(rows, lr=lr)
    return SGD(rows, lr=lr, momentum=config.momentum)


def build_scheduler(optimizer: Optimizer, course: Plan, config: ScheduleConfig) -> LambdaLR:
    """The schedule as torch steps it, once an optimizer step."""
    return LambdaLR(optimizer, lambda step: lr_factor(step, course.steps, course.warmup, config))
