"""Length and learning rate of a run, scaled to its batch size."""

from __future__ import annotations

import math
from dataclasses import dataclass

from timm.optim import param_groups_weight_decay
from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from boxel.training.config import OptimConfig, ScheduleConfig, TrainConfig


@dataclass(frozen=True)
class Plan:
    """Length and learning rate of a run at its effective batch size; all lengths are optimizer steps."""

    steps: int
    warmup: int  # steps of linear increase among them
    lr: float  # the maximum
    steps_per_epoch: float
    validation_interval: int


def make_plan(
    config: TrainConfig, num_samples: int, processes: int = 1, batches_per_epoch: int | None = None
) -> Plan:
    """Scale the learning rate (in proportion) and the steps (inversely) to the effective batch size.

    The effective batch size is ``batch_size * accumulate * processes`` samples per step; `num_samples` are those of an
    epoch. Without `batches_per_epoch`, per process, the samples are divided by the batch size.

    Examples:
        >>> make_plan(TrainConfig(epochs=12, batch_size=16), num_samples=1600).steps
        1200
    """
    batch = config.batch_size * config.accumulate * processes
    factor = batch / config.optim.reference_batch if config.optim.reference_batch else 1.0
    steps_per_epoch = max(num_samples / batch, 1.0)
    steps = round(config.steps / factor) if config.steps else round(config.epochs * steps_per_epoch)
    steps = max(steps, 1)
    # A short run must not spend itself on warming up.
    warmup = min(round(config.schedule.warmup / factor), steps // 4)
    epoch = batches_per_epoch or steps_per_epoch * config.accumulate
    validations = max(round(steps * config.accumulate / (epoch * config.validate_every)), 1)
    return Plan(steps, warmup, config.optim.lr * factor, steps_per_epoch, math.ceil(steps / validations))


def lr_factor(step: int, steps: int, warmup: int, config: ScheduleConfig) -> float:
    """Return the share of the maximum learning rate, in [0, 1], after `step` of `steps` optimizer steps.

    Examples:
        >>> lr_factor(5, 10, warmup=0, config=ScheduleConfig(kind="cosine"))
        0.5
    """
    progress = min(step / steps, 1.0)
    if config.kind == "step":
        factor = 0.1 ** sum(progress >= drop for drop in config.drops)
    else:
        done = max(progress - config.hold, 0) / (1 - config.hold)
        factor = (1 + math.cos(math.pi * done)) / 2 if config.kind == "cosine" else (1 - done) ** config.power
    return factor * min((step + 1) / warmup, 1.0) if warmup else factor


def build_optimizer(model: nn.Module, config: OptimConfig, lr: float) -> Optimizer:
    """Build SGD or AdamW, with no weight decay on norms and biases and learning rates of the backbone and of biases.

    The names of the backbone's parameters have a part `backbone`; `lr` is the maximum of the other weights.
    """
    factors = {
        id(p): (config.backbone_lr if "backbone" in name.split(".") else 1.0)
        * (config.bias_lr if name.split(".")[-1] == "bias" else 1.0)
        for name, p in model.named_parameters()
    }
    groups = []
    for group in param_groups_weight_decay(model, config.weight_decay):
        for factor in sorted({factors[id(p)] for p in group["params"]}, reverse=True):
            parameters = [p for p in group["params"] if factors[id(p)] == factor]
            groups.append({**group, "params": parameters, "lr": lr * factor})
    if config.name == "adamw":
        return AdamW(groups, lr=lr)
    return SGD(groups, lr=lr, momentum=config.momentum)


def build_scheduler(optimizer: Optimizer, plan: Plan, config: ScheduleConfig) -> LambdaLR:
    """Build the schedule, to be stepped once per optimizer step.

    The factor has a closed form, so that it is exact at any step that a run resumes from; torch's `SequentialLR` would
    start to fall after the warm-up instead of during it.
    """
    return LambdaLR(optimizer, lambda step: lr_factor(step, plan.steps, plan.warmup, config))
